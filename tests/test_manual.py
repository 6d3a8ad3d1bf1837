"""README and manual: their Python runs, their commands are taken, and what they name is there."""

import ast
import doctest
import importlib
import importlib.util
import inspect
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from trl import GRPOConfig, SFTConfig

import videor1_trl
from videor1_trl import TGRPOConfig, VideoSFTConfig, temporal_reward
from videor1_trl.cold_start.rationales import CotRules
from videor1_trl.generation.requests import GenerationSettings
from videor1_trl.objectives.groups import temporal_metrics
from videor1_trl.scripts.cli import COMMANDS


ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "videor1_trl").rglob("*.py"))
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
README = PAGES["README.md"]
MODELS = ("Qwen/Qwen2.5-VL-3B-Instruct", "Video-R1/Video-R1-7B")
SMALL = "bf16=False, use_cpu=True, report_to='none', max_steps=1, video_max_pixels=1568, "


def tool(name):
    """One of the modules that the manual is built with."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "tools" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python_blocks():
    """(Python, what it prints or `None`) of each block: a block of text right behind it is its output."""
    for page, text in PAGES.items():
        for number, found in enumerate(re.finditer(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", text, re.DOTALL)):
            marks = [pytest.mark.slow] if any(model in found[1] for model in MODELS) else []
            yield pytest.param(page, found[1], found[2], id=f"{page}-{number}", marks=marks)


def small(code, model):
    """The block with the model's name and the settings that a 7 B recipe needs on a CPU in seconds."""
    for name in MODELS:
        code = code.replace(name, model)
    for count, setting in (
        (8, "max_completion_length=6, per_device_train_batch_size=8"),
        (4, "dataloader_num_workers=0"),
    ):
        code = code.replace(f"per_device_train_batch_size={count}", SMALL + setting)
    code = code.replace("GenerationSettings()", "GenerationSettings(max_new_tokens=4, video_max_pixels=1568)")
    assert SMALL in code or "max_new_tokens=4" in code or "check_model(" in code
    return code


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """The folder that the blocks run in: records with two videos in `data`, and the first of these as `clip.mp4`."""
    (tmp_path / "data").mkdir()
    records = [
        {
            "problem_id": index,
            "problem": "Which way?",
            "data_type": "video",
            "problem_type": "multiple choice",
            "options": ["A. left", "B. right"],
            "solution": "<answer>A</answer>",
            "path": f"./{index}.mp4",
        }
        for index in range(2)
    ]
    for index in range(2):
        tiny.write_mp4(tmp_path / "data" / f"{index}.mp4", tiny.colour_frames(index))
    tiny.write_mp4(tmp_path / "clip.mp4", tiny.colour_frames(0))
    (tmp_path / "data" / "train.json").write_text(json.dumps(records))
    rationales = [{**record, "process": "<think>To the left.</think>"} for record in records]
    (tmp_path / "data" / "cot.json").write_text(json.dumps(rationales))
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "rollouts.jsonl").write_text(
        '{"step": 1, "answered": true}\n{"step": 1, "answered": false}\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page, code, printed", python_blocks())
def test_python_of_the_manual_runs(page, code, printed, models, user_folder, capsys):
    names: dict = {}
    with_model = any(name in code for name in MODELS)
    exec(compile(small(code, models().path) if with_model else code, page, "exec"), names)
    if "trainer" in names:
        assert names["trainer"].state.global_step == 1
    elif printed is not None:
        assert capsys.readouterr().out == printed
    elif "print(" in code:
        assert capsys.readouterr().out.strip()


# --- commands


def commands():
    """(page, module of scripts, arguments) of every command that runs a script of this package."""
    for page, text in PAGES.items():
        lines = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
        for line in lines.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["videor1"]:
                yield page, words[1], words[2:]
            for place, word in enumerate(words):
                if found := re.fullmatch(r"examples/(\w+)\.py|videor1_trl\.scripts\.(\w+)", word):
                    yield page, found[1] or found[2], words[place + 1 :]


@pytest.mark.parametrize("page, script, arguments", commands(), ids=lambda each: str(each)[:40])
def test_commands_of_the_manual_are_ones_that_the_scripts_take(page, script, arguments, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    name = COMMANDS[script].module if script in COMMANDS else script
    module = importlib.import_module(f"videor1_trl.scripts.{name}")
    if name in ("plan", "cache_media"):
        module, arguments = importlib.import_module("videor1_trl.scripts.plan").choose_training(arguments)
    if "train" in module.__name__:
        arguments = [*arguments, "--bf16", "False", "--use_cpu", "True", "--output_dir", str(tmp_path)]
    module.make_parser().parse_args_and_config(arguments)


def test_the_manual_runs_every_example_and_the_readme_every_command():
    shown = {script for _, script, _ in commands()}
    assert shown >= {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert {script for page, script, _ in commands() if page == "README.md"} >= set(COMMANDS)


# --- what is named


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_file_that_is_not_there(page):
    links = re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", PAGES[page])
    for file, anchor in links:
        target = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert target.exists(), file
        if anchor:
            assert anchor in anchors(target.read_text()), f"{file}#{anchor}"
    named = re.findall(r"`((?:tests|src/videor1_trl|docs|examples)/[\w./]+)`", PAGES[page])
    assert not [name for name in named if not (ROOT / name).exists()]


def anchors(text):
    """What the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_the_readme_is_short_and_links_every_page_of_the_manual():
    assert len(README.splitlines()) < 200
    pages = {page for page in PAGES if page.startswith("docs/") and not page.startswith("docs/api/")}
    assert pages and not {page for page in pages if f"]({page})" not in README}


def test_every_page_is_in_the_navigation_once():
    text = (ROOT / "mkdocs.yml").read_text()
    navigation = re.findall(r"[\w/]+\.md$", text.split("\nnav:")[1].split("\ntheme:")[0], re.MULTILINE)
    assert sorted(f"docs/{page}" for page in navigation) == sorted(page for page in PAGES if page.startswith("docs/"))


@pytest.mark.parametrize(
    "settings, parent",
    [(TGRPOConfig, GRPOConfig), (VideoSFTConfig, SFTConfig), (GenerationSettings, object), (CotRules, object)],
)
def test_the_configuration_page_names_every_field(settings, parent):
    page = tool("tables").on_page_markdown(PAGES["docs/configuration.md"])
    assert "<!--" not in page
    section = page.split(f"## {settings.__name__}\n")[1].split("\n## ")[0]
    shared = page.split("## Media and adapters\n")[1].split("\n## ")[0] if parent is not object else ""
    inherited = getattr(parent, "__dataclass_fields__", {})
    for name, field in settings.__dataclass_fields__.items():
        if name not in inherited or name in inspect.get_annotations(settings):
            [row] = re.findall(rf"^\| `{name}` \|.*\|$", section + shared, re.MULTILINE)
            assert f"| `{field.default!r}` |" in row


def test_the_metrics_page_names_every_metric():
    source = "".join(path.read_text() for path in SOURCES)
    found = set(re.findall(r'"((?:temporal|video)/\w+)"', source))
    assert found >= {"temporal/accuracy", "temporal/effect", "video/skipped_rows"}
    assert not {name for name in found if f"`{name}`" not in PAGES["docs/metrics.md"]}


def test_the_api_reference_has_every_folder_and_every_public_name():
    folders = {path.parent.name for path in (ROOT / "src" / "videor1_trl").glob("*/__init__.py")}
    for folder in folders:
        assert f"::: videor1_trl.{folder}\n" in PAGES[f"docs/api/{folder}.md"]
    found = tool("tables")
    top = found.on_page_markdown(PAGES["docs/api/top.md"])
    assert top.startswith("# Trainer") and top.index("::: videor1_trl.trainer\n") < top.index("::: videor1_trl.checks")
    assert set(found.public_names()) == set(videor1_trl.__all__)
    for name, path in found.public_names().items():
        module, _, attribute = path.rpartition(".")
        assert getattr(importlib.import_module(module), attribute) is getattr(videor1_trl, name)
    assert all(f"[`{name}`][" in found.names_table() for name in videor1_trl.__all__)


def test_a_settings_class_that_is_none_is_refused():
    with pytest.raises(ValueError, match=re.escape("settings class (Nothing) must be one of TGRPOConfig, ")):
        tool("tables").on_page_markdown("<!-- fields: Nothing -->")


@pytest.mark.parametrize("name", ["tables", "docstrings"])
def test_examples_of_the_manuals_tools_hold(name):
    pytest.importorskip("griffe")
    tried = doctest.testmod(tool(name))
    assert tried.attempted and not tried.failed


def test_sections_and_references_of_docstrings_become_markdown():
    """Those of two functions of the package, one with every kind of section; and a section of headings."""
    pytest.importorskip("griffe")
    as_markdown = tool("docstrings").as_markdown
    found = as_markdown(inspect.getdoc(temporal_reward), lambda name: None)
    assert "**Args**\n\n- **`accuracies`** (`list[float | None]` of length G): accuracy in" in found
    assert "**Raises**\n\n- `ValueError`: no contrast rollout" in found
    assert found.endswith("```pycon\n>>> temporal_reward([1.0, 0.0], [0.0, 0.0])\n[0.3, 0.0]\n```")
    found = as_markdown(inspect.getdoc(TGRPOConfig), lambda name: f"there.{name}")
    assert (
        "\n\n*Parameters that control the temporal reward*\n\n- **`num_contrast_generations`** (`int`, *optional*):"
        in found
    )
    assert "[`TGRPOTrainer`][there.TGRPOTrainer]" in found


# --- single claims


def test_the_effects_of_the_worked_example_are_those_that_the_trainer_logs():
    """Of each case and setting in the table of `docs/tgrpo.md`; the advantages there are printed by the block that runs."""
    rows = re.findall(
        r"^\| (all .*?|one .*?) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGES["docs/tgrpo.md"], re.MULTILINE
    )
    accuracies, contrast = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, torch.nan, torch.nan])
    bonuses = torch.tensor(temporal_reward(accuracies.tolist(), [0.0, 0.0]))
    assert len(rows) == 2
    for formats, (_, *shown) in zip(([1.0] * 4, [1.0, 0.0, 1.0, 1.0]), rows, strict=True):
        rewards = torch.stack([accuracies, torch.tensor(formats)], dim=1)
        for place, (scale, in_reward) in enumerate((("group", True), ("group", False), ("none", True))):
            found = temporal_metrics(
                rewards,
                torch.ones(2),
                accuracies,
                contrast,
                bonuses,
                size=4,
                scale_rewards=scale,
                in_reward=in_reward,
            )
            assert f"{found['temporal/effect']:.3f}" == shown[place]


def pins(name):
    return dict(line.split("==") for line in (ROOT / name).read_text().splitlines() if "==" in line)


def test_manual_and_constraints_name_the_same_versions():
    section = PAGES["docs/limits.md"].split("## Versions")[1]
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", section, re.MULTILINE)
    assert len(rows) == 8
    for name, pinned, _, oldest in rows:
        assert pins("constraints.txt")[name] == pinned
        assert name == "datasets" or pins("constraints-oldest.txt")[name] == oldest


def test_the_hook_of_pre_commit_and_the_citation_are_of_this_version():
    [hooks] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert hooks["rev"] == f"v{pins('constraints.txt')['ruff']}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"] == videor1_trl.__version__
    assert citation["license"] == project["license"]


def divergence_reward():
    [code] = [code for _, code, _ in (each.values for each in python_blocks()) if "def divergence_reward" in code]
    names: dict = {}
    exec(code.split("trainer = ")[0], names)
    return names["divergence_reward"]


@pytest.mark.parametrize(
    "contrast, share",
    [
        (["A", "A"], 0.0),
        (["A.", "(a) left"], 0.0),  # written differently
        (["B", "A"], 0.5),
        ([None, "B"], 1.0),  # one did not answer
        ([None, ""], 0.0),
    ],
)
def test_the_manuals_divergence_reward_compares_what_is_answered(contrast, share):
    def completion(answer):
        return [{"content": "none" if answer is None else f"<think>?</think><answer>{answer}</answer>"}]

    found = divergence_reward()(
        [1.0, 0.0],
        [0.0] * len(contrast),
        completions=[completion("A"), completion("B")],
        contrast_completions=[completion(each) for each in contrast],
        problem_type="multiple choice",
        options=["A. left", "B. right"],
    )
    assert found == [pytest.approx(0.3 * share), 0.0]


def test_the_manuals_record_and_wording_are_read(tmp_path):
    page = PAGES["docs/data.md"]
    record = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])
    (tmp_path / "r.json").write_text(json.dumps([record]))
    (tmp_path / "w.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    [row] = videor1_trl.load_video_r1(tmp_path / "r.json", prompt_template=tmp_path / "w.yaml").to_list()
    assert row["video"] == str(tmp_path / "clips/ball.mp4") and row["process"] == record["process"]
    assert "Options:\nA. to the left" in row["prompt"][0]["content"]
    assert row["prompt"][0]["content"].endswith("Give the letter of one option.")
    assert set(record) <= set(row)


def test_the_map_of_the_readme_has_every_folder_and_module():
    section = README.split("## The map")[1].split("\n## ")[0]
    package = ROOT / "src" / "videor1_trl"
    names = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    names |= {path.name for path in package.glob("*.py") if path.stem != "__init__"}
    assert set(re.findall(r"`([\w.]+/?)`", section.split("|---|---|")[1])) >= names


def test_every_module_says_in_its_first_line_what_it_is_for():
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text())), path
