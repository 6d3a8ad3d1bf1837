"""What a run records of its rollouts: figures by hand, frames, which steps and groups, after a kill, for `datasets`."""

import io
from collections import Counter

import datasets
import pytest
from helpers import Scripted, config, rollouts, row, trainer
from PIL import Image

from videor1_trl.watching.records import FIELDS
from videor1_trl.watching.store import read_rollouts


def recorded(folder, **wanted):
    """The records with these fields."""
    return [line for line in read_rollouts(folder) if all(line[name] == value for name, value in wanted.items())]


def form(completions, **kwargs):
    return [None, 1.0, 0.0, 0.0]


def test_a_record_holds_what_happened_to_a_rollout(models, media, tmp_path):
    """Accuracies 1, 0, 1, 0 and contrast 1, 0: p = p~ = 0.5 pass, bonus 0.3 for the right ones; form None, 1, 0, 0."""
    question = row("which way?", video=media["videos"][0], problem_id=7, data_source="toy")
    tgrpo = trainer(
        models(), [question], tmp_path, [Scripted([1, 0, 1, 0], [1, 0]), form], log_rollouts_steps=1
    )  # fmt: skip
    advantages = list(rollouts(tgrpo) and tgrpo._logs["advantages"])
    found = recorded(tmp_path)
    assert [list(line) for line in found] == [list(FIELDS)] * 6
    assert [(line["kind"], line["place"]) for line in found] == [
        ("ordered", 0), ("ordered", 1), ("contrast", 1), ("ordered", 2), ("ordered", 3), ("contrast", 3)
    ]  # fmt: skip
    ordered, contrast = recorded(tmp_path, kind="ordered"), recorded(tmp_path, kind="contrast")
    assert [line["accuracy"] for line in ordered] == [1, 0, 1, 0] and [line["accuracy"] for line in contrast] == [1, 0]
    assert ordered[0]["rewards"] == {"scripted": 1.0, "form": None, "temporal_reward": 0.3}
    assert contrast[0]["rewards"] == {"scripted": 1.0, "form": None, "temporal_reward": None}
    assert [line["bonus"] for line in ordered] == [0.3, 0, 0.3, 0]
    assert [line["reward"] for line in ordered] == [1.3, 1.0, 1.3, 0.0] and contrast[0]["reward"] is None
    assert [line["advantage"] for line in ordered] == pytest.approx(advantages, abs=1e-6)
    assert {(line["group_accuracy"], line["group_contrast_accuracy"], line["group_taught"]) for line in found} == {
        (0.5, 0.5, True)
    }
    texts = [completion[0]["content"] for completion in tgrpo._logs["completion"]]
    assert [line["completion"] for line in ordered] == texts
    assert {line["contrast"] for line in ordered} == {""} and {line["contrast"] for line in contrast} == {
        "shuffle_frames"
    }
    first = found[0]
    assert (first["step"], first["mode"], first["problem_id"], first["data_source"]) == (1, "train", "7", "toy")
    assert (first["prompt"], first["gold"], first["problem_type"]) == ("[video] which way?", "A", "multiple choice")
    assert first["num_tokens"] == 6 and first["cut_off"] and not first["answered"]  # random weights never end


def test_frames_are_what_both_kinds_saw_and_are_kept_once(models, media, tmp_path):
    rows = [row("a?", video=media["videos"][0]), row("b?", video=media["videos"][0]), row("c?", image=media["image"])]
    tgrpo = trainer(
        models(), rows, tmp_path, per_device_train_batch_size=12, log_rollouts_steps=1, log_frame_side=24
    )  # fmt: skip
    rollouts(tgrpo)
    first, second = (recorded(tmp_path, group=group, kind="ordered")[0] for group in (0, 1))
    contrast = recorded(tmp_path, group=0, kind="contrast")[0]
    assert first["frames"] == second["frames"] and len(set(first["frames"])) == len(first["frames"]) == 8
    assert sorted(contrast["frames"]) == sorted(first["frames"]) and contrast["frames"] != first["frames"]
    assert first["frame_seconds"][:2] == [0.0, 0.5] and first["frame_seconds"] == contrast["frame_seconds"]
    [image] = recorded(tmp_path, group=2, kind="ordered")[0]["frames"]
    assert len(list((tmp_path / "rollout_frames").rglob("*.jpg"))) == 8 + 1
    for name in (*first["frames"], image):
        picture = Image.open(io.BytesIO((tmp_path / name).read_bytes()))
        assert picture.format == "JPEG" and max(picture.size) == 24
    assert recorded(tmp_path, group=2, kind="contrast") == []


def test_no_pixel_is_written_where_none_may_be(models, media, tmp_path):
    rollouts(trainer(models(), [row(video=media["videos"][0])], tmp_path, log_rollouts_steps=1, log_frames=False))
    assert not (tmp_path / "rollout_frames").exists()
    assert len(recorded(tmp_path)) == 6 and {len(line["frames"]) for line in recorded(tmp_path)} == {0}


def test_nothing_is_recorded_unless_asked_for(models, media, tmp_path):
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path)
    rollouts(tgrpo)
    assert not list(tmp_path.glob("rollout*")) and tgrpo._batch.rows[0].shown is None


def test_the_first_and_every_so_many_steps_are_recorded_and_a_few_groups_of_each(models, media, tmp_path):
    """Two generations of two groups a step, of which three groups are wanted; evaluations count anew."""
    rows = [row(f"{index}?", video=media["videos"][0]) for index in range(20)]
    tgrpo = trainer(
        models(), rows, tmp_path, max_steps=5, log_rollouts_steps=2, log_rollouts_groups=3, per_device_train_batch_size=8,
        gradient_accumulation_steps=2, steps_per_generation=1, eval_rows=rows[:4], eval_strategy="steps", eval_steps=4,
        per_device_eval_batch_size=8, num_generations_eval=2,
    )  # fmt: skip
    tgrpo.train()
    found = Counter(
        (line["mode"], line["step"], line["generation"], line["group"]) for line in recorded(tmp_path, kind="ordered")
    )
    expected = {("train", step, *place): 4 for step in (1, 2, 4) for place in ((0, 0), (0, 1), (1, 0))}
    assert found == expected | {("eval", step, 0, group): 2 for step in (4, 5) for group in range(3)}
    assert all(line["frames"] for line in recorded(tmp_path))


def test_a_skipped_prompt_says_why(models, media, tmp_path):
    rows = [row(video="none.mp4", problem_id=1), row(video=media["videos"][0])]
    tgrpo = trainer(
        models(), rows, tmp_path, per_device_train_batch_size=8, on_bad_video="skip", log_rollouts_steps=1
    )  # fmt: skip
    rollouts(tgrpo)
    skipped = recorded(tmp_path, group=0)
    assert len(skipped) == 4 and all("none.mp4" in line["error"] for line in skipped)
    assert {(line["reward"], line["advantage"], line["group_taught"]) for line in skipped} == {(None, 0.0, False)}
    assert {line["error"] for line in recorded(tmp_path, group=1)} == {""}


@pytest.mark.parametrize("where, taught", [("advantage", True), ("reward", False)])
def test_a_group_of_equal_rewards_teaches_by_its_bonus_alone(models, media, tmp_path, where, taught):
    """All right: in the reward 0.3 for each cancels; behind the standardisation it moves every rollout."""
    accuracy = Scripted([1, 1, 1, 1], [0, 0])
    tgrpo = trainer(
        models(), [row(video=media["videos"][0])], tmp_path, accuracy, temporal_bonus=where, log_rollouts_steps=1
    )  # fmt: skip
    rollouts(tgrpo)
    assert {line["group_taught"] for line in recorded(tmp_path)} == {taught}
    assert {line["advantage"] for line in recorded(tmp_path, kind="ordered")} == {0.3 if taught else 0.0}


def test_plain_grpo_and_rows_without_video_are_recorded_too(models, media, tmp_path):
    rows = [row("text?"), row(video=media["videos"][0])]
    options = {"temporal_reward_func": None}
    tgrpo = trainer(
        models(), rows, tmp_path, options=options, per_device_train_batch_size=8, log_rollouts_steps=1
    )  # fmt: skip
    rollouts(tgrpo)
    found = recorded(tmp_path)
    assert Counter((line["group"], line["kind"]) for line in found) == {(0, "ordered"): 4, (1, "ordered"): 4}
    assert {line["bonus"] for line in found} == {None} and {list(line["rewards"])[0] for line in found} == {"parity"}


def test_datasets_loads_the_records(models, media, tmp_path):
    rows = [row("text?", problem_id=1), row(video=media["videos"][0], problem_id=2)]
    rollouts(trainer(models(), rows, tmp_path, per_device_train_batch_size=8, log_rollouts_steps=1))
    files = str(tmp_path / "rollouts*.jsonl")
    loaded = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == recorded(tmp_path) and loaded.num_rows == 10
    assert loaded.features["bonus"] == datasets.Value("float64")


@pytest.mark.parametrize(
    "setting, value, message",
    [
        ("log_rollouts_steps", 0, r"log_rollouts_steps \(0\) must be at least 1, or unset"),
        ("log_rollouts_groups", 0, r"log_rollouts_groups \(0\) must be at least 1, or unset"),
        ("log_frame_side", 8, r"log_frame_side \(8\) must be at least 16\."),
        ("log_rollouts_mib", 0.0, r"log_rollouts_mib \(0.0\) must be above 0"),
        ("log_rollouts_mib", float("nan"), r"log_rollouts_mib \(nan\) must be above 0"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, setting, value, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **{setting: value})
