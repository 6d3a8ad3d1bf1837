"""Questions about order from any videos: keys that are right, positions that are balanced, and videos that tell nothing named."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from helpers import logged, trainer

from videor1_trl import VideoError, accuracy_reward, load_video, load_video_r1, make_order_tasks
from videor1_trl.evaluation.questions import load_record_questions, questions_fingerprint
from videor1_trl.evaluation.run import make_requests
from videor1_trl.generation.requests import GenerationSettings
from videor1_trl.scripts import evaluate, generate_cot
from videor1_trl.scripts import order_tasks as script


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve videos of 4 s that change with each frame, one that stands still, one of half a second, one that is none."""
    found = tmp_path_factory.mktemp("videos")
    (found / "below").mkdir()
    for number in range(12):
        tiny.write_mp4(found / "below" / f"{number:02d}.mp4", tiny.colour_frames(number))
    tiny.write_mp4(found / "still.mp4", np.full((16, 56, 56, 3), 90, np.uint8))
    tiny.write_mp4(found / "short.mp4", tiny.colour_frames(50, count=2))
    (found / "none.mp4").write_bytes(b"no video")
    return found


def made(folder, output, **options):
    settings = {"num_clips": 4, "min_clip_seconds": 0.5, "progress": False, **options}
    return make_order_tasks(sorted(folder.rglob("*.mp4")), output, **settings)


def records_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_videos_that_tell_no_order_are_counted_and_named(folder, tmp_path):
    found = made(folder, tmp_path / "order.jsonl")
    assert found.counts == {"clip_order": 12, "direction": 12, "odd_clip": 13}  # a still video has an odd clip, too
    assert [re.search(r"(\w+)\.mp4.*?(\w+)\)$", line).groups() for line in found.still] == [
        ("still", "clip_order"), ("still", "direction"),
    ]  # fmt: skip
    assert [line.partition("short.mp4: ")[2] for line in found.too_short] == [
        "0.50 s, clip_order needs 2 s", "0.50 s, direction needs 1 s", "0.50 s, odd_clip needs 2 s",
    ]  # fmt: skip
    assert len(found.unreadable) == 1 and "none.mp4" in found.unreadable[0]
    with pytest.raises(
        ValueError, match="no record could be made of 1 videos. The first that was left out: .*short.mp4: 0.50 s"
    ):
        make_order_tasks([folder / "short.mp4"], tmp_path / "none.jsonl", progress=False)
    assert not (tmp_path / "none.jsonl").exists()


def test_the_same_seed_gives_the_same_file_and_each_place_of_the_key_comes_equally_often(folder, tmp_path):
    files = [made(folder, tmp_path / f"{name}.jsonl", seed=seed).file for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    assert files[0].read_text() == files[1].read_text() != files[2].read_text()
    records = records_of(files[0])
    orders = [re.findall(r"\d", each["solution"]) for each in records if each["task"] == "clip_order"]
    assert all(Counter(order[place] for order in orders) == dict.fromkeys("1234", 3) for place in range(4))
    letters = {
        task: Counter(each["solution"][8] for each in records if each["task"] == task)
        for task in ("direction", "odd_clip")
    }
    assert letters["direction"] == {"A": 6, "B": 6}
    assert sorted(letters["odd_clip"].values()) == [3, 3, 3, 4]
    backward = [each for each in records if each["clips"][0].get("reverse")]
    assert len(backward) == 6 and Counter(each["solution"][8] for each in backward) == {"A": 3, "B": 3}


def test_a_question_about_order_says_nothing_of_it(folder, tmp_path):
    """Clips stand in their own order in some records, and the question said that they did not."""
    found = [record for seed in range(8) for record in records_of(made(folder, tmp_path / "o.jsonl", seed=seed).file)]
    asked = [record for record in found if record["task"] == "clip_order"]
    assert any(record["solution"] == "<answer>1, 2, 3, 4</answer>" for record in asked)
    assert all("not in the order" not in record["problem"] for record in asked)


def test_one_video_alone_is_no_odd_clip_and_is_named_so(folder, tmp_path):
    found = make_order_tasks([folder / "below" / "00.mp4"], tmp_path / "o.jsonl", min_clip_seconds=0.5, progress=False)
    assert found.counts["odd_clip"] == 0 and found.still == []
    assert len(found.alone) == 1 and "00.mp4: there is no other video" in found.alone[0]


def test_an_evaluation_shows_the_clips_of_a_record(folder, tmp_path):
    """It asked with the one column `video` alone: no video was shown at all."""
    found = made(folder, tmp_path / "order.jsonl")
    questions = load_record_questions(found.file, found.root)
    backend = SimpleNamespace(settings=GenerationSettings())
    for question, row in zip(questions, load_video_r1(found.file, found.root), strict=True):
        requests = list(make_requests([question], backend, ["reversed", "text-only"]))
        assert [list(each.videos) for each in requests] == [row["videos"], row["videos"], []]
    moved = replace(questions[0], clips=({**questions[0].clips[0], "end": 1.0}, *questions[0].clips[1:]))
    assert questions_fingerprint([moved]) != questions_fingerprint(questions[:1])


def test_a_dry_run_looks_for_the_files_of_clips(folder, tmp_path, run_script, capsys):
    videos = tmp_path / "videos"
    shutil.copytree(folder / "below", videos)
    found = make_order_tasks(sorted(videos.iterdir())[:3], tmp_path / "o.jsonl", min_clip_seconds=0.5, progress=False)
    (videos / "00.mp4").unlink()
    flags = ["--dataset", found.file, "--data_root", found.root, "--output_dir", tmp_path / "out", "--dry_run", "true"]
    for script_of, asked in ((generate_cot, "9 records, 15 videos, 0 images"), (evaluate, "9 questions on 15 videos")):
        with pytest.raises(SystemExit) as stopped:
            run_script(script_of, flags, {"--model_name_or_path": "no/model"})
        printed = capsys.readouterr().out
        assert stopped.value.code == 1 and asked in printed
        assert printed.count(f"problem: {videos / '00.mp4'}: missing") == 1 and printed.endswith("Problems: 1.\n")


def test_the_key_of_a_record_is_what_its_clips_show(folder, tmp_path):
    """Without the loader's help: from the bounds, the files and the direction in the record."""
    found = made(folder, tmp_path / "order.jsonl")
    for record in records_of(found.file):
        answer, clips = re.search(r">(.*?)<", record["solution"])[1], record["clips"]
        if record["task"] == "clip_order":
            starts = [clips[int(number) - 1]["start"] for number in answer.split(", ")]
            assert starts == sorted(starts) and len({clip["path"] for clip in clips}) == 1
            assert all(clip["end"] - clip["start"] == pytest.approx(0.8) for clip in clips)
        elif record["task"] == "direction":
            said = record["options"]["AB".index(answer)]
            assert said[3:] == ("backward" if clips[0].get("reverse") else "forward")
        else:
            others = [number for number, clip in enumerate(clips) if clip["path"] != record["path"]]
            assert others == ["ABCD".index(answer)]
            assert len({round(clip["end"] - clip["start"], 2) for clip in clips}) == 1


def test_a_video_may_run_backwards(folder):
    path = str(folder / "below" / "00.mp4")
    clip = {"path": path, "start": 0.5, "end": 3.0}
    forward, ahead = load_video(clip, fps=4.0)
    backward, metadata = load_video({**clip, "reverse": True}, fps=4.0)
    assert torch.equal(backward, forward.flip(0)) and metadata.total_num_frames == ahead.total_num_frames == 10
    assert metadata.frames_indices == list(range(10))
    few, metadata = load_video({**clip, "reverse": True}, num_frames=3)
    assert metadata.frames_indices == [
        9 - index for index in reversed(load_video(clip, num_frames=3)[1].frames_indices)
    ]
    assert torch.equal(load_video({**clip, "reverse": False}, fps=4.0)[0], forward)
    with pytest.raises(VideoError, match="reverse is 'yes'. It must be true or false"):
        load_video({**clip, "reverse": "yes"})


@pytest.mark.slow
def test_the_records_train_and_score_right(folder, tmp_path, models):
    found = made(folder, tmp_path / "order.jsonl", num_clips=3)
    dataset = load_video_r1(found.file, found.root)
    golds = [f"<think>so</think>{solution}" for solution in dataset["solution"]]
    columns = {name: dataset[name][:] for name in ("solution", "problem_type", "options")}
    assert accuracy_reward(golds, **columns) == [1.0] * len(dataset)
    assert accuracy_reward(["<answer>?</answer>"] * len(dataset), **columns) == [0.0] * len(dataset)
    chosen = dataset.select([0, 12, 24])  # one of each task
    assert chosen["task"][:] == ["clip_order", "direction", "odd_clip"]
    settings = {"per_device_train_batch_size": 12, "video_num_frames": 2}
    tgrpo = trainer(models(), chosen, tmp_path / "out", **settings)
    tgrpo.train()
    assert logged(tgrpo, "temporal/accuracy") and logged(tgrpo, "grad_norm")
    loaded = tgrpo.batch_loader.load([chosen[0]] * 4, 0, 4, 2, step=1)[0].encoded
    assert tgrpo._tokenizer.decode(loaded.input_ids).count("<|vision_start|>") == 3, "a prompt has its three clips"


BAD = {
    "no list": ({"start": 0}, "must be a list of objects"),
    "unknown key": ([{"begin": 0}], "has unknown keys ['begin']"),
    "no seconds": ([{"start": "0"}], "start and end must be seconds, not '0'"),
    "no direction": ([{"reverse": "yes"}], "reverse must be true or false, not 'yes'"),
    "leaves the root": ([{"path": "../x.mp4"}], "leaves root"),
}


@pytest.mark.parametrize("clips, message", BAD.values(), ids=BAD)
def test_clips_of_a_record_that_are_none_are_named(tmp_path, clips, message):
    record = {
        "problem": "?",
        "problem_type": "free-form",
        "solution": "<answer>a</answer>",
        "path": "v.mp4",
        "clips": clips,
    }
    (tmp_path / "r.json").write_text(json.dumps([record]))
    with pytest.raises(ValueError, match="record 0, field 'clips': .*" + re.escape(message)):
        load_video_r1(tmp_path / "r.json")


def test_clips_are_of_the_records_own_file_unless_they_name_another(tmp_path):
    clips = [{"start": 0, "end": 2.5}, {"path": "other.mp4", "reverse": True}]
    record = {
        "problem": "?",
        "problem_type": "free-form",
        "solution": "<answer>a</answer>",
        "path": "v.mp4",
        "clips": clips,
    }
    plain = {key: value for key, value in record.items() if key != "clips"} | {"data_type": "video"}
    (tmp_path / "r.json").write_text(json.dumps([record, plain]))
    one, two = load_video_r1(tmp_path / "r.json").to_list()
    assert one["videos"] == [
        {"path": f"{tmp_path}/v.mp4", "start": 0.0, "end": 2.5, "reverse": False},
        {"path": f"{tmp_path}/other.mp4", "start": None, "end": None, "reverse": True},
    ]
    assert one["video"] is None and two["videos"] is None and two["video"] == f"{tmp_path}/v.mp4"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tasks": ["sorting"]}, "tasks (sorting) must be some of clip_order, direction, odd_clip"),
        ({"tasks": ["direction", "direction"]}, "names one twice"),
        ({"num_clips": 3.0}, "num_clips (3.0) must be a whole number"),
        ({"seed": 1.5}, "seed (1.5) must be a whole number"),
        ({"num_clips": 2}, "num_clips (2) must be between 3 and 9"),
        ({"min_clip_seconds": 0}, "min_clip_seconds (0) must be above 0"),
        ({"still_below": float("nan")}, "still_below (nan) must be at least 0"),
        ({"seed": -1}, "seed (-1) must be at least 0"),
        ({"tasks": "direction"}, "tasks ('direction') and videos ("),
        ({"root": "/nowhere"}, "lies outside of root (/nowhere)"),
    ],
)
def test_arguments_out_of_range_are_named(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        made(folder, tmp_path / "order.jsonl", **options)


def test_the_command_takes_folders_and_names_what_it_left_out(folder, tmp_path, run_script):
    output = tmp_path / "order.jsonl"
    printed = run_script(
        script,
        ["--videos", str(folder), "--output", str(output), "--min_clip_seconds", "0.5", "--tasks", "direction"],
        {},
    )
    assert "direction: 12 records" in printed and "still: 1 left out" in printed and "none.mp4" in printed
    assert f"--data_root {folder}" in printed and len(records_of(output)) == 12
