"""Frames kept on disk: what is read twice is decoded once, by whoever asks, and no death or second writer leaves a half."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from files import write
from helpers import row, trainer

from videor1_trl import TGRPOConfig, VideoError, load_video
from videor1_trl.data.placing import read_video
from videor1_trl.generation.media import load_requests
from videor1_trl.generation.requests import GenerationRequest, GenerationSettings
from videor1_trl.media import video as video_module
from videor1_trl.media.frame_cache import FrameCache


SAMPLING = {"fps": 2.0, "min_frames": 4, "max_frames": 16, "num_frames": None}


@pytest.fixture
def reads(monkeypatch):
    """The names of the videos that are read from here on, one entry for each time."""
    found, real = [], video_module.read_source

    def counted(data, name, *args, **kwargs):
        found.append(name)
        return real(data, name, *args, **kwargs)

    monkeypatch.setattr(video_module, "read_source", counted)
    return found


def read(source, cache, **settings):
    return read_video(source, SAMPLING | settings, load_video, None, cache)


def test_what_is_kept_is_what_was_read_and_is_not_read_again(videos, tmp_path, reads):
    path = str(videos("h264.mp4"))
    for _ in range(2):
        cache = FrameCache(tmp_path, 2**30)  # as another run has it
        frames, metadata = read(path, cache)
        expected, known = load_video(path)
        reads.pop()  # this one's
        assert torch.equal(frames, expected) and frames.dtype == torch.uint8
        assert metadata == known
    assert reads == [path] and len(cache) == 1


def test_another_clip_sampling_or_content_is_another_video(videos, tmp_path, reads):
    cache, path = FrameCache(tmp_path / "kept", 2**30), tmp_path / "a.mp4"
    path.write_bytes(videos("h264.mp4").read_bytes())
    asked = [
        ({"path": str(path)}, {}),
        ({"path": str(path), "start": 0.5, "end": 1.0}, {}),
        ({"path": str(path), "start": 0.5, "end": 1.0, "reverse": True}, {}),
        ({"path": str(path), "start": 0.5, "end": 1.5}, {}),
        ({"path": str(path), "start": 0.5, "end": 1.5, "reverse": True}, {}),
        (str(path), {"num_frames": 3}),
        (str(path), {"fps": 1.0}),
        ({"bytes": videos("hevc.mp4").read_bytes()}, {}),
    ]
    for _ in range(2):
        for source, settings in asked:
            frames, _ = read(source, cache, **settings)
            assert torch.equal(frames, load_video(source, **SAMPLING | settings)[0])
            reads.pop()
    assert len(reads) == len(asked)
    path.write_bytes(videos("h264_one_key.mp4").read_bytes())
    os.utime(path, ns=(1, 1))
    frames, _ = read(str(path), cache)
    reads.pop()
    assert torch.equal(frames, load_video(path)[0])


def test_what_cannot_be_read_is_not_kept_and_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    cache = FrameCache(tmp_path / "kept", 2**30)
    with pytest.raises(VideoError, match="no such file"):
        read(str(tmp_path / "none.mp4"), cache)
    assert len(cache) == 0
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="media_cache_dir .*file"):
        FrameCache(tmp_path / "file", 2**30)


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: b"", lambda data: b"\xff" * 9 + data[9:]])
def test_a_file_that_is_not_whole_is_read_anew(videos, tmp_path, reads, damage):
    cache, path = FrameCache(tmp_path, 2**30), str(videos("h264.mp4"))
    expected, _ = read(path, cache)
    [kept] = tmp_path.glob("??/*.safetensors")
    kept.write_bytes(damage(kept.read_bytes()))
    for _ in range(2):
        assert torch.equal(read(path, cache)[0], expected)
    assert reads == [path, path]


def size_of(folder):
    return sum(each.stat().st_size for each in folder.rglob("*.safetensors"))


def test_the_folder_stays_within_its_bound_and_what_was_used_last_stays(tmp_path, reads):
    paths = [str(write(tmp_path / f"{number}.mp4", frames=8 + number)) for number in range(6)]
    one = 8 * 96 * 64 * 3
    cache = FrameCache(tmp_path / "kept", int(4.5 * one))
    for path in paths[:4]:
        read(path, cache, num_frames=8)
        time.sleep(0.01)
    read(paths[0], cache, num_frames=8)  # used again: 1 is now the oldest
    read(paths[4], cache, num_frames=8)
    assert size_of(tmp_path / "kept") <= 4.5 * one
    del reads[:]
    read(paths[0], cache, num_frames=8)
    assert reads == []
    read(paths[1], cache, num_frames=8)
    assert reads == [paths[1]]
    small = FrameCache(tmp_path / "small", one // 2)  # for not even one
    read(paths[0], small, num_frames=8)
    assert len(small) == 0


WRITER = """
import sys, random
from videor1_trl import load_video
from videor1_trl.data.placing import read_video
from videor1_trl.media.frame_cache import FrameCache
folder, most, seed, *paths = sys.argv[1:]
cache, rng = FrameCache(folder, int(most)), random.Random(int(seed))
print("begun", flush=True)
for number in range(10**9 if seed == "0" else 60):
    path, count = rng.choice(paths), rng.randint(4, 8)
    frames, _ = read_video(path, dict(fps=2.0, min_frames=4, max_frames=16, num_frames=count), load_video, None, cache)
    assert len(frames) == count
    assert bytes(frames.numpy().tobytes()) == load_video(path, num_frames=count)[0].numpy().tobytes()
print("done", flush=True)
"""


@pytest.mark.slow
def test_two_writers_and_one_that_is_killed_leave_whole_files_within_the_bound(tmp_path):
    paths = [str(write(tmp_path / f"{number}.mp4", frames=8 + number)) for number in range(4)]
    folder, most = tmp_path / "kept", 12 * 8 * 96 * 64 * 3

    def start(seed):
        command = [sys.executable, "-c", WRITER, str(folder), str(most), str(seed), *paths]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    writers = [start(seed) for seed in (1, 2)]
    rng = random.Random(0)
    for _ in range(2):
        victim = start(0)
        assert victim.stdout.readline() == "begun\n"
        time.sleep(0.3 + 0.4 * rng.random())
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
    for writer in writers:
        printed, error = writer.communicate(timeout=120)
        assert printed == "begun\ndone\n", error
    assert 0 < size_of(folder) <= most
    cache = FrameCache(folder, most)
    for path in paths:
        for count in range(4, 9):
            frames, _ = read(path, cache, num_frames=count)
            assert torch.equal(frames, load_video(path, num_frames=count)[0])
    assert size_of(folder) <= most


def test_what_a_killed_writer_left_goes_after_an_hour(tmp_path):
    FrameCache(tmp_path, 2**30)
    old, young = tmp_path / "1-a.part", tmp_path / "1-b.part"
    old.write_text("x"), young.write_text("x")
    os.utime(old, (time.time() - 4000,) * 2)
    FrameCache(tmp_path, 2**30)
    assert not old.exists() and young.exists()


def test_second_epochs_another_run_and_evaluation_read_no_video(models, media, tmp_path, reads):
    rows = [row(f"question {number}", video=media["videos"][number % 2]) for number in range(4)]
    options = {"media_cache_dir": str(tmp_path / "kept"), "video_cache_gb": 0.0, "video_num_workers": 0}
    for run in range(2):
        tgrpo = trainer(models(), rows, tmp_path / str(run), **options)
        for _ in range(2):
            tgrpo.batch_loader.load(rows, 0, 1, 0, step=1)
    assert sorted(reads) == sorted(media["videos"][:2])
    settings = GenerationSettings(media_cache_dir=str(tmp_path / "kept"), video_max_pixels=tgrpo.args.video_max_pixels)
    shrink = tgrpo.batch_loader._shrink
    requests = [GenerationRequest(str(number), each["prompt"], [each["video"]]) for number, each in enumerate(rows)]
    found = list(load_requests(requests, settings, load_video, shrink))
    assert len(found) == 4 and all(each.videos for each in found) and len(reads) == 2


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_bound_that_is_none_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="media_cache_gb"):
        TGRPOConfig(str(tmp_path), media_cache_gb=value)
