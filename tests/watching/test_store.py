"""The files of rollout records: whole lines, bounded, frames shared, what is behind a resumed step dropped."""

import json

import pytest

from videor1_trl.watching.store import FRAMES, RolloutFile, drop_left_over, frame_name, read_rollouts, rollout_files


def record(step, frames=(), **fields):
    return {"step": step, "group": 0, "kind": "ordered", "completion": "x" * 100, "frames": list(frames), **fields}


def steps(folder):
    return [line["step"] for line in read_rollouts(folder)]


def pictures(folder):
    return sorted(f"{FRAMES}/{path.parent.name}/{path.name}" for path in (folder / FRAMES).rglob("*.jpg"))


def test_frames_are_written_once_and_before_the_lines_that_name_them(tmp_path):
    file = RolloutFile(tmp_path, 0, 10**6)
    name = frame_name(b"a picture", 0)
    file.append([record(1, [name])], {name: b"a picture"})
    written = (tmp_path / name).stat().st_mtime_ns
    RolloutFile(tmp_path, 0, 10**6).append([record(2, [name])], {name: b"a picture"})
    assert (tmp_path / name).read_bytes() == b"a picture" and (tmp_path / name).stat().st_mtime_ns == written
    assert steps(tmp_path) == [1, 2] and pictures(tmp_path) == [name]
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_a_kill_left_of_a_line_is_cut_off(tmp_path):
    RolloutFile(tmp_path, 0, 10**6).append([record(1), record(2)], {})
    path = tmp_path / "rollouts.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert steps(tmp_path) == [1]  # a reader passes over it while the run is down
    RolloutFile(tmp_path, 0, 10**6).append([record(2)], {})
    assert steps(tmp_path) == [1, 2]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_full_file_is_set_aside_and_the_oldest_goes_with_the_frames_that_no_other_shows(tmp_path):
    """
    Room for 40,000 bytes: a file with its frames is full above 10,000, with its third picture of 4,000 bytes; so step 39 fills
    the 13th, and two of 13,700 fit beside the one that is written.
    """
    file = RolloutFile(tmp_path, 0, 40_000)
    shared = frame_name(b"s" * 1000, 0)
    largest = 0
    for step in range(1, 41):
        picture = bytes([step]) * 4000
        own = frame_name(picture, 0)
        file.append([record(step, [shared, own])], {shared: b"s" * 1000, own: picture})
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
    assert largest <= 40_000
    found = steps(tmp_path)
    assert found == list(range(found[0], 41)) and len(found) == 7  # none missing between
    assert sorted({name for line in read_rollouts(tmp_path) for name in line["frames"]}) == pictures(tmp_path)
    names = ["rollouts.00012.jsonl", "rollouts.00013.jsonl", "rollouts.jsonl"]
    assert [path.name for path in rollout_files(tmp_path)] == names


def test_a_resumed_run_drops_what_it_makes_anew(tmp_path):
    file = RolloutFile(tmp_path, 0, 3_000)  # a file for every few steps
    for step in range(1, 10):
        name = frame_name(bytes([step]), 0)
        file.append([record(step, [name])], {name: bytes([step])})
    kept = [step for step in steps(tmp_path) if step <= 6]
    assert kept and len(rollout_files(tmp_path)) > 2
    assert RolloutFile(tmp_path, 0, 3_000).go_on_from(6) == 3
    assert steps(tmp_path) == kept
    assert pictures(tmp_path) == sorted(frame_name(bytes([step]), 0) for step in kept)


def test_each_rank_has_files_of_its_own_and_those_of_ranks_that_are_gone_are_cut_too(tmp_path):
    for rank in range(3):
        name = frame_name(b"same", rank)
        RolloutFile(tmp_path, rank, 10**6).append(
            [record(1, [name], rank=rank), record(2, rank=rank)], {name: b"same"}
        )
    assert [path.name for path in rollout_files(tmp_path)] == [
        "rollouts.jsonl",
        "rollouts-001.jsonl",
        "rollouts-002.jsonl",
    ]
    assert len(pictures(tmp_path)) == 3
    assert drop_left_over(tmp_path, 1, 1, lambda rank: RolloutFile(tmp_path, rank, 10**6)) == 2
    assert [(line["rank"], line["step"]) for line in read_rollouts(tmp_path)] == [(0, 1), (0, 2), (1, 1), (2, 1)]


def test_a_line_that_is_no_record_is_named(tmp_path):
    (tmp_path / "rollouts.jsonl").write_text(json.dumps(record(1)) + '\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"rollouts\.jsonl, line 2: no record of a rollout, it lacks 'group'"):
        steps(tmp_path)
    (tmp_path / "rollouts.jsonl").write_text("no JSON\n")
    with pytest.raises(ValueError, match=r"rollouts\.jsonl, line 1: not JSON"):
        steps(tmp_path)


def test_half_a_surrogate_pair_does_not_end_the_run(tmp_path):
    RolloutFile(tmp_path, 0, 10**6).append([record(1, answer="\ud83d")], {})
    assert [line["answer"] for line in read_rollouts(tmp_path)] == ["?"]
