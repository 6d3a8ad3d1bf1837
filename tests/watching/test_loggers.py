"""Rollouts in the real loggers, read back from what these write; none is asked to go to a network."""

import importlib.util
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import Scripted, row, trainer
from pages import pictures, record
from PIL import Image
from test_page import HOSTILE

from videor1_trl.scripts import preflight
from videor1_trl.watching.loggers import MAX_CHARS, MAX_GROUPS, as_markdown, contact_sheet, show, table
from videor1_trl.watching.store import frame_name, read_rollouts


@pytest.fixture
def trained(models, media, tmp_path, monkeypatch):
    """A run of one step: accuracies 1, 0, 1, 0 and contrast 0, 0; it reports to one logger."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))

    def run(name, **settings):
        rows = [row("which way?", video=media["videos"][0])]
        accuracy = Scripted([1, 0, 1, 0], [0, 0])
        tgrpo = trainer(
            models(), rows, tmp_path / "run", accuracy, report_to=name, log_rollouts_steps=1, run_name="mine", **settings
        )  # fmt: skip
        tgrpo.train()
        return tgrpo

    yield run
    if importlib.util.find_spec("wandb"):
        import wandb

        wandb.teardown()  # which keeps the first folder that it was told


def test_tensorboard_has_a_sheet_and_the_text_of_each_group(trained, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained("tensorboard")
    events = event_accumulator.EventAccumulator(str(tmp_path / "events"), {"images": 0, "tensors": 0}).Reload()
    assert events.Tags()["images"] == ["rollouts/group_0"]
    [image] = events.Images("rollouts/group_0")
    assert (image.step, image.width) == (
        1,
        8 * (28 + 4) + 4,
    )  # the eight frames of `media`, 28 pixels wide as the model sees them
    [text] = events.Tensors("rollouts/group_0/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    lines = list(read_rollouts(tmp_path / "run"))
    assert "accuracy 0.5 ordered, 0 contrast; it taught something." in shown and "    [video] which way?" in shown
    assert (
        r"**ordered 1**: scripted 1, temporal\_reward 0.3, reward 1.3, bonus 0.3, advantage 0.866, cut off, no answer"
        in shown
    )
    assert len(re.findall(r"^\*\*(ordered|contrast) \d", shown, re.MULTILINE)) == len(lines) == 6


def test_wandb_has_a_table_with_the_sheet_and_every_rollout(trained, tmp_path):
    wandb = pytest.importorskip("wandb")
    trained("wandb")
    wandb.finish()
    [file] = tmp_path.glob("wandb/offline-run-*/files/media/table/rollouts*.table.json")
    found = json.loads(file.read_text())
    rows = [dict(zip(found["columns"], each, strict=True)) for each in found["data"]]
    assert [(each["kind"], each["place"], each["scripted"]) for each in rows] == [
        ("ordered", 0, 1), ("ordered", 1, 0), ("contrast", 1, 0), ("ordered", 2, 1), ("ordered", 3, 0), ("contrast", 3, 0)
    ]  # fmt: skip
    assert [each["completion"] for each in rows] == [line["completion"] for line in read_rollouts(tmp_path / "run")]
    assert rows[0]["bonus"] == 0.3 and rows[0]["taught"] is True and rows[0]["gold"] == "A"
    assert rows[1]["frames"] is None and rows[0]["frames"] == "Image"  # which W&B stores in an artifact of its own
    [image] = (file.parents[1] / "images").glob("rollouts_frames*.png")
    assert Image.open(image).width == 8 * (28 + 4) + 4


def test_trackio_has_the_same_table_in_which_nothing_is_markup(trained, tmp_path):
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    trained("trackio", project=f"p{abs(hash(str(tmp_path)))}")
    [project] = [each for each in SQLiteStorage.get_projects() if each.startswith("p")]
    [logged] = [each["rollouts"] for each in SQLiteStorage.get_logs(project, "mine") if "rollouts" in each]
    rows = logged["_value"]
    assert len(rows) == 6 and rows[0]["frames"]["_type"] == "trackio.image" and rows[0]["bonus"] == 0.3
    assert rows[0]["prompt"] == r"\[video\] which way?"


def test_no_frame_is_sent_where_none_may_be(trained, tmp_path):
    wandb = pytest.importorskip("wandb")
    trained("wandb", log_frames=False)
    wandb.finish()
    [file] = tmp_path.glob("wandb/offline-run-*/files/media/table/rollouts*.table.json")
    found = json.loads(file.read_text())
    assert {each[found["columns"].index("frames")] for each in found["data"]} == {None}
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.jpg"))


def test_a_sheet_has_the_frames_in_order_above_those_of_the_contrast():
    """Nine frames of 32 x 18: two lines each, 16 pixels for the heading, 4 between: 2 * (16 + 2 * 22) + 4 high."""
    shown = pictures(9)
    names = [frame_name(each, 0) for each in shown]
    group = [record(frames=names), record(kind="contrast", frames=names[::-1])]
    sheet = np.asarray(contact_sheet(group, dict(zip(names, shown, strict=True))))
    assert sheet.shape == (124, 8 * 36 + 4, 3)
    first, last = (np.asarray(Image.open(io.BytesIO(each)))[9, 16] for each in (shown[0], shown[-1]))
    assert np.array_equal(sheet[16 + 9, 4 + 16], first) and np.array_equal(sheet[60 + 16 + 9, 4 + 16], last)
    assert contact_sheet([record()], {}) is None


def test_texts_are_bounded_and_in_markdown_nothing_of_them_is_markup():
    long = record(completion="x" * (MAX_CHARS + 1), prompt="y" * (MAX_CHARS + 1))
    _, [cells] = table([[long]], [None])
    assert max(len(each) for each in cells if isinstance(each, str)) == MAX_CHARS
    hostile = record(completion=HOSTILE + "\n```\n# heading", prompt=HOSTILE, gold=HOSTILE)
    for line in as_markdown([hostile]).splitlines():
        assert line.startswith(("    ", "**", "Right:")) or not line, line


@pytest.mark.parametrize("is_main, number", [(True, MAX_GROUPS), (False, 0)])
def test_only_the_main_process_shows_and_at_most_eight_groups(is_main, number):
    callbacks = pytest.importorskip("transformers.integrations")
    shown = []
    writer = SimpleNamespace(add_text=lambda tag, text, step: shown.append((tag, step)))
    handler = SimpleNamespace(callbacks=[callbacks.TensorBoardCallback(writer)])
    rank = SimpleNamespace(is_world_process_zero=lambda: is_main, callback_handler=handler)
    show(rank, [record(group=group, step=7) for group in range(12)], {})
    assert shown == [(f"rollouts/group_{group}", 7) for group in range(number)]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_logger_that_is_not_installed_is_said_in_one_line_before_weights_are_loaded(
    models, media, tmp_path, monkeypatch, name
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda each, *rest: None if each.lower().startswith(name) else find_spec(each, *rest)
    )  # fmt: skip
    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", None)
    message = rf"^report_to \({name}\): {name} is not installed\. pip install {name} \(the extra videor1_trl\[{name}\]\), or leave it out\.$"
    with pytest.raises(ImportError, match=message):
        trainer(models(), [row(video=media["videos"][0])], tmp_path, report_to=name)

    class Arguments:
        report_to = [name]

    with pytest.raises(SystemExit, match=rf"{name} is not installed\. pip install {name}"):
        preflight.check_loggers(Arguments())
