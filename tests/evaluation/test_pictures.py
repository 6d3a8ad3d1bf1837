"""Small pictures of what questions showed: those that the model saw, bounded in number and size, and none that nobody names."""

from types import SimpleNamespace

import pytest
import tiny
from PIL import Image
from test_grouped import answers, question

from videor1_trl.evaluation.pictures import keep_pictures
from videor1_trl.generation.journal import read_lines
from videor1_trl.generation.requests import GenerationSettings
from videor1_trl.media.thumbnails import MAX_FRAMES


@pytest.fixture
def asked(tmp_path):
    """Five questions on videos of 8 frames, of which 4 are seen; the third is not there."""
    for number in (0, 1, 3, 4):
        tiny.write_mp4(tmp_path / f"{number}.mp4", tiny.colour_frames(number, count=8))
    return [question(f"q{n}", str(tmp_path / f"{n}.mp4")) for n in range(5)]


def keep(folder, asked, most, controls=("shuffled", "reversed", "single-frame", "text-only"), **settings):
    found = {name: answers(asked, "A" * len(asked)) for name in ("ordered", *controls)}
    backend = SimpleNamespace(settings=GenerationSettings(**settings))
    count = keep_pictures(folder, asked, found, backend, most)
    lines = {line["key"]: line for line in read_lines(folder / "frames.jsonl")}
    assert count == len(lines)
    return lines


def test_pictures_are_of_the_frames_that_were_seen_under_every_control(asked, tmp_path):
    line = keep(tmp_path, asked, 1)["q0"]
    assert set(line) == {"key", "seconds", "ordered", "shuffled", "reversed", "single-frame"}  # text-only shows none
    assert len(set(line["ordered"])) == len(line["seconds"]) == 4 and line["seconds"] == sorted(line["seconds"])
    assert line["reversed"] == line["ordered"][::-1]
    assert sorted(line["shuffled"]) == sorted(line["ordered"]) != line["shuffled"]
    assert len(set(line["single-frame"])) == 1 and len(line["single-frame"]) == 4
    for name in line["ordered"]:
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "JPEG" and max(picture.size) <= 160


def test_as_many_questions_as_asked_for_evenly_spread_and_unreadable_ones_have_none(asked, tmp_path):
    assert list(keep(tmp_path, asked, 2, controls=())) == ["q0"]  # q2 cannot be read
    assert list(keep(tmp_path, asked, 99, controls=())) == ["q0", "q1", "q3", "q4"]
    most = keep(tmp_path, asked, 3, controls=("shuffled",))
    assert list(most) == ["q0", "q1", "q3"]
    left = {path.name for path in (tmp_path / "frames").iterdir()}
    assert left == {name.split("/")[1] for line in most.values() for name in line["ordered"]}  # of q4 none is left


def test_a_question_of_many_frames_has_a_bounded_number(tmp_path):
    path = tmp_path / "long.mp4"
    tiny.write_mp4(path, tiny.colour_frames(7, count=48))
    line = keep(tmp_path, [question("q", str(path))], 1, video_num_frames=48)["q"]
    assert len(line["ordered"]) == len(line["shuffled"]) == MAX_FRAMES
