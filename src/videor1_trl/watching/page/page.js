"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  let frames = null; // parsed when the first one is shown
  const form = document.getElementById("filters");
  const list = document.getElementById("groups");
  const more = document.getElementById("more");
  const BATCH = 8;
  const LONGEST = 1500; // words of a completion whose differences are looked for
  const watch = new IntersectionObserver((entries) => { if (entries.some((each) => each.isIntersecting)) draw(); }, { rootMargin: "600px" });
  let shown = [];
  let drawn = 0;

  // What comes from model or data becomes text nodes and attributes only, never markup
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat()) {
      if (child !== null && child !== undefined) element.append(child);
    }
    return element;
  }
  const chip = (text, kind, title) => make("span", { class: "chip" + (kind ? " " + kind : ""), title }, text);
  const figure = (value) => (value === null || value === undefined ? "–" : String(Math.round(value * 1000) / 1000));
  const signed = (value) => (value > 0 ? "+" : "") + figure(value);
  const label = (name) => name.replace(/_reward$/, "").replace(/_/g, " ");

  // --- which groups and rollouts fit

  function filters() {
    const fields = form.elements;
    const number = (name) => (fields[name].value === "" ? null : Number(fields[name].value));
    const chosen = (name) => (fields[name] ? fields[name].value : "");
    const found = { from: number("from"), to: number("to"), least: number("least"), most: number("most") };
    for (const name of ["source", "type", "kind", "sort"]) found[name] = chosen(name);
    for (const name of ["order", "cut", "unanswered", "bonus", "flat", "skipped", "marks"]) found[name] = fields[name].checked;
    found.text = fields.text.value.trim().toLowerCase();
    return found;
  }
  function groupFits(group, by) {
    return (
      (by.from === null || (group.step !== null && group.step >= by.from)) &&
      (by.to === null || (group.step !== null && group.step <= by.to)) &&
      (!by.source || group.source === by.source) &&
      (!by.type || group.type === by.type) &&
      (!by.order || group.orderMattered) &&
      (!by.flat || group.taught === false) &&
      (!by.skipped || group.error !== "" || group.rollouts.some((each) => each.error))
    );
  }
  function rolloutFits(rollout, by, asked) {
    const value = rollout.reward !== null ? rollout.reward : rollout.accuracy;
    return (
      (!by.kind || rollout.kind === by.kind) &&
      (by.least === null || (value !== null && value >= by.least)) &&
      (by.most === null || (value !== null && value <= by.most)) &&
      (!by.cut || rollout.cutOff) &&
      (!by.unanswered || !rollout.answered) &&
      (!by.bonus || rollout.bonus > 0) &&
      (!by.text || asked || rollout.completion.toLowerCase().includes(by.text))
    );
  }
  function fits(group, by) {
    const asked = by.text !== "" && (group.prompt + "\n" + group.gold + "\n" + group.name).toLowerCase().includes(by.text);
    return groupFits(group, by) ? group.rollouts.filter((each) => rolloutFits(each, by, asked)) : [];
  }
  const gap = (group) => (group.accuracy === null || group.contrastAccuracy === null ? -2 : group.accuracy - group.contrastAccuracy);

  function update() {
    const by = filters();
    shown = data.groups.map((group) => ({ group, fitting: new Set(fits(group, by)) })).filter((each) => each.fitting.size);
    if (by.sort === "gap") shown.sort((one, other) => gap(other.group) - gap(one.group));
    if (by.sort === "latest") shown.reverse();
    const rollouts = shown.reduce((sum, each) => sum + each.fitting.size, 0);
    const count = (number, what) => number.toLocaleString("en") + " " + what + (number === 1 ? "" : "s");
    document.getElementById("count").textContent = shown.length
      ? count(shown.length, "group") + " with " + count(rollouts, "rollout") + " that fit" + (rollouts === 1 ? "s" : "") + " (pale: others of the same group)"
      : "Nothing fits. “Show all” takes every filter back.";
    list.replaceChildren();
    drawn = 0;
    draw(by);
  }
  function draw(by = filters()) {
    for (const each of shown.slice(drawn, drawn + BATCH)) list.append(card(each.group, each.fitting, by));
    drawn = Math.min(drawn + BATCH, shown.length);
    more.hidden = drawn >= shown.length;
    watch.unobserve(more); // so that it is asked again where the end is still near
    if (!more.hidden) watch.observe(more);
  }

  // --- a group

  function card(group, fitting, by) {
    const place = (group.step === null ? group.source : (group.source === "train" ? "Step " : "Evaluation at step ") + group.step) + ", " + group.name;
    const badges = [
      group.type ? chip(group.type) : null,
      group.accuracy === null ? null : chip("accuracy " + figure(group.accuracy) + (group.contrastAccuracy === null ? "" : " ordered, " + figure(group.contrastAccuracy) + " contrast"), null, "mean of the group"),
      group.orderMattered ? chip("order mattered", "good") : null,
      group.taught === false ? chip("taught nothing", "warn", "all rollouts are worth the same: no gradient") : null,
    ];
    const ordered = group.rollouts.filter((each) => each.kind === "ordered");
    const contrast = group.rollouts.filter((each) => each.kind === "contrast");
    const article = make("article", { tabindex: "-1", "aria-label": place }, make("h3", {}, make("span", {}, place), badges));
    if (group.prompt) article.append(make("p", { class: "question", tabindex: "0", role: "group", "aria-label": "question" }, group.prompt));
    if (group.gold) article.append(make("p", { class: "gold" }, "right: ", make("b", {}, group.gold)));
    if (group.error) article.append(make("p", { class: "gold" }, chip("skipped", "bad"), " " + group.error));
    const sides = make("div", { class: "sides" });
    const both = contrast.length > 0;
    sides.append(side("ordered frames", "ordered", group.frames, group.frames.map((_, index) => index), group.seconds));
    const names = [...new Set(contrast.map((each) => each.contrast))].map(label);
    const strips = group.controls.map((each) => side(label(each.name), "contrast", each.frames, each.order, group.seconds));
    if (both && strips.length) {
      sides.append(make("div", {}, strips));
    } else if (both) {
      sides.append(side("contrast: " + names.join(", "), "contrast", group.contrastFrames, group.contrastOrder, group.seconds));
    } else {
      sides.style.gridTemplateColumns = "minmax(0, 1fr)";
    }
    for (const [one, others] of pairs(ordered, contrast)) {
      const beside = one && others.length ? others[0] : null;
      sides.append(one ? rollout(one, beside, fitting, by, ordered.length) : make("div", { class: "empty" }));
      if (!both) continue;
      const cell = make("div", { class: others.length ? "" : "empty" }, others.length ? others.map((each) => rollout(each, one, fitting, by, contrast.length, names.length > 1)) : null);
      sides.append(cell);
    }
    article.append(sides);
    return article;
  }
  // A contrast rollout stands beside the ordered one of its place; several controls of one question stand together
  function pairs(ordered, contrast) {
    const places = new Map();
    const at = (place) => places.get(place) || places.set(place, [null, []]).get(place);
    for (const each of ordered) at(each.place)[0] = each;
    for (const each of contrast) at(each.place)[1].push(each);
    const found = [...places.keys()].sort((one, other) => one - other).map((place) => places.get(place));
    return found.filter((each) => each[1].length).concat(found.filter((each) => !each[1].length));
  }
  function side(title, kind, pictures, order, seconds) {
    const element = make("div", { class: "side " + kind }, make("h4", {}, title));
    if (!pictures.length) return element;
    const items = pictures.map((picture, index) => {
      const original = order[index];
      const second = original !== null && seconds[original] !== null && seconds[original] !== undefined ? figure(seconds[original]) + " s" : "";
      const name = original === null ? "changed" : "frame " + (original + 1);
      const image = picture === null ? make("span", { class: "gone" }, "gone") : make("img", { src: source(picture), alt: name + (second ? " at " + second : ""), loading: "lazy", decoding: "async" });
      return make("li", {}, image, original === null ? "" : original + 1 + (second ? " · " + second : ""));
    });
    element.append(make("ol", { class: "frames", "aria-label": title }, items));
    return element;
  }
  function source(index) {
    if (frames === null) frames = JSON.parse(document.getElementById("frames").textContent);
    return "data:image/jpeg;base64," + frames[index];
  }
  function rollout(each, beside, fitting, by, number, several = false) {
    const verdict = each.accuracy === null ? "" : each.accuracy > 0.5 ? " right" : " wrong";
    const name = (each.kind === "ordered" ? "ordered" : several ? label(each.contrast) : "contrast") + (number > 1 && !several ? " " + (each.place + 1) : "");
    const chips = [
      each.accuracy === null ? null : chip((each.accuracy > 0.5 ? "✓ " : "✗ ") + "accuracy " + figure(each.accuracy), each.accuracy > 0.5 ? "good" : "bad"),
      each.answered ? (each.answer && each.answer.length < 30 ? chip("answer " + each.answer) : null) : chip("no answer", "bad"),
      each.cutOff ? chip("cut off", "bad", "it did not end by itself") : null,
      each.kept ? chip("kept", "good") : null,
      ...Object.entries(each.rewards).filter(([key, value], index, all) => !(index === 0 && value === each.accuracy) && !(index === all.length - 1 && value === each.bonus)).map(([key, value]) => chip(label(key) + " " + figure(value))),
      each.reward === null ? null : chip("reward " + figure(each.reward)),
      each.bonus > 0 ? chip("bonus " + signed(each.bonus), "good") : null,
      each.advantage === null ? null : chip("advantage " + signed(each.advantage)),
      each.tokens === null ? null : chip(each.tokens + " tokens"),
    ];
    const text = make("p", { class: "completion", tabindex: "0", role: "group", "aria-label": "completion" });
    text.append(...(by.marks && beside ? marked(each.completion, beside.completion) : [each.completion]));
    const kind = each.kind === "contrast" ? " of-contrast" : "";
    return make("div", { class: "rollout" + verdict + kind + (fitting.has(each) ? "" : " unfit") }, make("h5", {}, make("span", { class: "name" }, name), chips), each.error ? make("p", {}, each.error) : null, text);
  }

  // --- words that the other one has not, by their longest common subsequence

  const split = (text) => text.match(/\s+|<\/?\w+>|[^\s<]+|</g) || []; // tags apart from the words beside them
  const isSpace = (part) => /^\s/.test(part);
  function marked(text, other) {
    const parts = split(text);
    const words = parts.filter((part) => !isSpace(part));
    const theirs = split(other).filter((part) => !isSpace(part));
    if (words.length > LONGEST || theirs.length > LONGEST) return [text];
    const common = inCommon(words, theirs);
    const found = [];
    let place = 0; // of the next word
    let differed = false; // the word before
    for (const part of parts) {
      // space between two words that differ is marked with them
      const differs = isSpace(part) ? differed && place < common.length && !common[place] : !common[place];
      if (!isSpace(part)) { differed = !common[place]; place++; }
      const last = found[found.length - 1];
      if (last && last.differs === differs) last.text += part;
      else found.push({ text: part, differs });
    }
    return found.map((each) => (each.differs ? make("mark", {}, each.text) : each.text));
  }
  function inCommon(one, other) {
    const width = other.length + 1;
    const lengths = new Uint16Array((one.length + 1) * width);
    for (let i = one.length - 1; i >= 0; i--) {
      for (let j = other.length - 1; j >= 0; j--) {
        lengths[i * width + j] = one[i] === other[j] ? lengths[(i + 1) * width + j + 1] + 1 : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
      }
    }
    const found = new Array(one.length).fill(false);
    for (let i = 0, j = 0; i < one.length && j < other.length; ) {
      if (one[i] === other[j]) { found[i] = true; i++; j++; }
      else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i++;
      else j++;
    }
    return found;
  }

  // --- what the reader does

  function remember() {
    const found = new URLSearchParams();
    for (const field of form.elements) {
      if (!field.name) continue;
      const value = field.type === "checkbox" ? (field.checked === field.defaultChecked ? "" : String(field.checked)) : field.value;
      if (value) found.set(field.name, value);
    }
    history.replaceState(null, "", found.size ? "#" + found : location.pathname + location.search);
  }
  function recall() {
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      const field = form.elements[name];
      if (!field) continue;
      if (field.type === "checkbox") field.checked = value === "true";
      else field.value = value;
    }
  }
  let waiting = 0;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => { remember(); update(); }, 120); });
  form.addEventListener("reset", () => setTimeout(() => { remember(); update(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { const place = drawn; draw(); list.children[place]?.focus(); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox") return;
    if (event.key === "/") { event.preventDefault(); form.elements.text.focus(); return; }
    if (event.key !== "j" && event.key !== "k") return;
    const now = [...list.children].indexOf(document.activeElement?.closest("article"));
    const next = event.key === "j" ? now + 1 : Math.max(0, now - 1);
    if (next >= drawn && drawn < shown.length) draw();
    const card = list.children[next];
    if (card) { card.focus({ preventScroll: true }); card.scrollIntoView({ block: "start" }); }
  });
  recall();
  update();
})();
