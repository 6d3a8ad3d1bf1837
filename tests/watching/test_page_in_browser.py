"""The page in headless Chromium: filters, keys, narrow screens, many rollouts, and nothing of a completion run as code."""

import shutil
import time

import pytest
from pages import pictures, record, write_log, write_page, write_run
from test_page import HOSTILE

from videor1_trl.watching.store import frame_name


BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER),
        reason="no Chromium with its driver here: `make chromium` installs Debian's (apt-get install chromium chromium-driver)",
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"
    for flag in [*flags.split(), "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_window_size(1300, 1000)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser):
    """Opens a page; at the end nothing may stand in the console."""

    def opens(path, fragment=""):
        browser.get("about:blank")
        browser.get(f"{path.as_uri()}{fragment}")
        return browser

    browser.set_window_size(1300, 1000)
    browser.get_log("browser")
    yield opens
    assert browser.get_log("browser") == []


def cards(driver):
    return [each.get_attribute("aria-label") for each in driver.find_elements("css selector", "article")]


def count(driver):
    return driver.find_element("id", "count").text


def chosen(driver, wanted, **fields):
    """Sets filters as a reader does, and waits for what the page says then."""
    driver.find_element("css selector", "button[type=reset]").click()
    time.sleep(0.2)
    for name, value in fields.items():
        field = driver.find_element("name", name.rstrip("_"))
        if field.get_attribute("type") == "checkbox":
            field.click()
        else:
            field.send_keys(value)
    time.sleep(0.2)  # it waits a moment for more
    deadline = time.monotonic() + 10
    while not count(driver).startswith(wanted) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count(driver).startswith(wanted), count(driver)
    return cards(driver)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four groups, each with one thing of its own, and an evaluation."""
    shown = pictures(4)
    names = [frame_name(each, 0) for each in shown]
    records = [
        record(step=1, completion="<think>It goes to the left</think>first.", frames=names, frame_seconds=[0.0, 0.5, 1.0, 1.5], bonus=0.3, reward=1.3),
        record(
            step=1, kind="contrast", completion="<think>It goes up, to its right</think>first.", frames=names[::-1], accuracy=0.0,
            frame_seconds=[0.0, 0.5, 1.0, 1.5],
        ),
        record(step=2, completion="and so on and so", cut_off=True, answered=False, answer="", reward=0.0, accuracy=0.0,
               group_accuracy=0.0, group_taught=False),
        record(step=3, completion="needle", problem_type="numerical", group_contrast_accuracy=1.0, reward=0.5),
        record(step=4, error="none.mp4: no such file", reward=None, accuracy=None, group_accuracy=None, completion=""),
        record(step=4, mode="eval", group_contrast_accuracy=None),
    ]  # fmt: skip
    folder = write_run(tmp_path_factory.mktemp("run"), records, shown)
    write_log(folder, [{"step": step, "reward": 1.0, "temporal/accuracy": 0.5} for step in range(1, 5)])
    return write_page(folder)


def test_each_filter_leaves_what_it_says(opened, run):
    driver = opened(run)
    all_of_them = [
        "Step 1, group 1",
        "Step 2, group 1",
        "Step 3, group 1",
        "Step 4, group 1",
        "Evaluation at step 4, group 1",
    ]
    assert cards(driver) == all_of_them and count(driver).startswith("5 groups with 6 rollouts that fit")
    assert chosen(driver, "2 groups", from_="2", to="3") == all_of_them[1:3]
    assert chosen(driver, "1 group", source="evaluation") == all_of_them[4:]
    assert chosen(driver, "1 group", type="numerical") == all_of_them[2:3]
    assert chosen(driver, "1 group with 1 rollout", kind="contrast") == all_of_them[:1]
    assert chosen(driver, "1 group", least="1.2") == all_of_them[:1]
    assert chosen(driver, "2 groups", most="0.4") == all_of_them[:2]
    assert chosen(driver, "1 group", order="yes") == all_of_them[:1]
    assert chosen(driver, "1 group", cut="yes") == all_of_them[1:2]
    assert chosen(driver, "1 group", unanswered="yes") == all_of_them[1:2]
    assert chosen(driver, "1 group", bonus="yes") == all_of_them[:1]
    assert chosen(driver, "1 group", flat="yes") == all_of_them[1:2]
    assert chosen(driver, "1 group", skipped="yes") == all_of_them[3:4]
    assert chosen(driver, "1 group", text="NEEDLE") == all_of_them[2:3]
    assert chosen(driver, "Nothing fits", text="nowhere") == []
    assert chosen(driver, "5 groups", sort="latest") == all_of_them[::-1]


def test_ordered_and_contrast_stand_side_by_side_with_their_frames_and_the_words_that_differ_marked(opened, run):
    driver = opened(run)
    first = driver.find_element("css selector", "article")
    ordered, contrast = first.find_elements("css selector", ".rollout")
    assert abs(ordered.rect["y"] - contrast.rect["y"]) < 2 and contrast.rect["x"] > ordered.rect["x"] + 300
    assert [each.text for each in ordered.find_elements("css selector", "mark")] == ["the left"]
    assert [each.text for each in contrast.find_elements("css selector", "mark")] == ["up,", "its right"]
    sides = first.find_elements("css selector", ".side")
    captions = [[each.text for each in side.find_elements("css selector", "li")] for side in sides]
    assert captions == [
        ["1 · 0 s", "2 · 0.5 s", "3 · 1 s", "4 · 1.5 s"],
        ["4 · 1.5 s", "3 · 1 s", "2 · 0.5 s", "1 · 0 s"],
    ]
    sizes = driver.execute_async_script(
        "const done = arguments[0], images = [...document.querySelectorAll('article img')];"
        "Promise.all(images.map((each) => each.decode().then(() => each.naturalWidth))).then(done)"
    )
    assert sizes == [32] * 8
    assert "bonus +0.3" in ordered.text and "reward 1.3" in ordered.text and "advantage +0.5" in ordered.text


def test_what_a_model_writes_is_text(opened, tmp_path):
    fields = dict.fromkeys(("prompt", "gold", "completion", "answer", "problem_type", "problem_id", "error"), HOSTILE)
    driver = opened(write_page(write_run(tmp_path / "run", [record(**fields, rewards={HOSTILE: 1.0})])))
    assert driver.execute_script("return window.hacked") is None
    assert driver.find_elements("css selector", "article img, article script") == []
    shown = driver.find_element("css selector", ".completion").get_property("textContent")
    assert shown.startswith("</script><script>window.hacked = 1</script><img src=x")


def test_keys_move_between_groups_and_every_control_has_a_name(opened, run):
    driver = opened(run)
    body = driver.find_element("tag name", "body")

    def focused():
        return driver.switch_to.active_element.get_attribute("aria-label")

    body.send_keys("j")
    assert focused() == "Step 1, group 1"
    driver.switch_to.active_element.send_keys("j")
    assert focused() == "Step 2, group 1"
    driver.switch_to.active_element.send_keys("k")
    assert focused() == "Step 1, group 1"
    driver.switch_to.active_element.send_keys("/")
    assert driver.switch_to.active_element.get_attribute("name") == "text"
    driver.switch_to.active_element.send_keys("jk")  # in a field they are letters
    assert driver.switch_to.active_element.get_attribute("value") == "jk"
    for control in driver.find_elements("css selector", "input, select, button"):
        if control.is_displayed():
            assert control.accessible_name.strip(), control.get_attribute("outerHTML")
    assert all(image.get_attribute("alt") for image in driver.find_elements("css selector", "img"))


@pytest.mark.parametrize("width", [360, 1300])
def test_nothing_is_wider_than_the_screen(opened, run, width):
    driver = opened(run)
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        assert driver.execute_script("return innerWidth") == width
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        ordered, contrast = driver.find_elements("css selector", "article:first-of-type .rollout")
        assert (contrast.rect["y"] > ordered.rect["y"]) == (width == 360)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_filters_stand_in_the_address(opened, run):
    driver = opened(run, "#type=numerical&marks=false")
    assert cards(driver) == ["Step 3, group 1"]
    assert not driver.find_element("name", "marks").is_selected()
    chosen(driver, "1 group", cut="yes")
    assert driver.execute_script("return location.hash") == "#cut=true"


def test_many_rollouts_are_drawn_as_they_are_needed(opened, tmp_path):
    """5,040 rollouts: a few groups are drawn at once, more behind the last one that is looked at, all of them searched."""
    shown = [pictures(8, seed) for seed in range(30)]
    names = [[frame_name(each, 0) for each in video] for video in shown]
    records = [
        record(step=step, group=group, place=place, kind=kind, completion=f"word{step} " * 60, frames=names[step % 30])
        for step in range(1, 106)
        for group in range(4)
        for kind, places in (("ordered", range(8)), ("contrast", range(1, 8, 2)))
        for place in places
    ]
    folder = write_run(tmp_path / "run", records, [each for video in shown for each in video])
    driver = opened(write_page(folder, most=10_000))
    assert count(driver).startswith("420 groups with 5,040 rollouts")
    assert 8 <= len(cards(driver)) <= 40
    before, deadline = len(cards(driver)), time.monotonic() + 10
    driver.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    while len(cards(driver)) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(cards(driver)) > before
    assert chosen(driver, "4 groups with 48 rollouts", text="word97 ")[0] == "Step 97, group 1"
