"""Videos read in processes of their own: the same frames, an end to those that hang, and a crash that costs one file."""

import os
import re
import signal
import subprocess
import sys
import time

import PIL.Image
import pytest
import torch
from files import KINDS, cut, picture
from helpers import loader, row

from videor1_trl import VideoSFTConfig
from videor1_trl.generation.media import load_requests
from videor1_trl.generation.requests import GenerationRequest, GenerationSettings
from videor1_trl.media import isolation
from videor1_trl.media.errors import ImageError, VideoError
from videor1_trl.media.images import load_image
from videor1_trl.media.limits import Limits
from videor1_trl.media.video import load_video


@pytest.fixture(scope="module", autouse=True)
def ended():
    yield
    isolation.end_all()


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith(("h264.", "vp9.", "mpeg4.", "anim"))])
def test_frames_and_metadata_are_those_of_a_thread(videos, name):
    for source in (videos(name), {"path": str(videos(name)), "start": 0.5}, {"bytes": videos(name).read_bytes()}):
        frames, metadata = load_video(source, num_frames=5)
        found, its_metadata = load_video(source, num_frames=5, isolation="process")
        assert torch.equal(found, frames) and found.stride() == frames.stride() and its_metadata == metadata


def test_errors_are_those_of_a_thread(videos, tmp_path):
    broken = cut(videos("h264.mp4"), tmp_path / "cut.mp4", 0.5)
    for source in (broken, tmp_path / "gone.mp4", {"path": str(videos("h264.mp4")), "start": 99}, {"bytes": b"text"}):
        errors = []
        for where in ("thread", "process"):
            with pytest.raises(VideoError) as caught:
                load_video(source, isolation=where)
            errors.append((caught.value.path, caught.value.reason))
        assert errors[0] == errors[1]


def test_frames_that_are_passed_are_taken_here():
    before = isolation._idle[:]
    frames = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    assert torch.equal(load_video(frames, isolation="process")[0], frames)
    image = PIL.Image.new("RGB", (8, 8))
    assert load_image(image, isolation="process").size == (8, 8) and isolation._idle == before


def test_images_and_their_errors_are_those_of_a_thread(tmp_path):
    PIL.Image.fromarray(picture(3, 48, 40)).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", {"bytes": (tmp_path / "a.png").read_bytes()}):
        assert load_image(source, isolation="process") == load_image(source)
    broken = cut(tmp_path / "a.png", tmp_path / "b.png", 0.5)
    for source in (broken, tmp_path / "gone.png", {"bytes": b"text"}, 5):
        errors = []
        for where in ("thread", "process"):
            with pytest.raises(ImageError) as caught:
                load_image(source, isolation=where)
            errors.append((caught.value.path, caught.value.reason))
        assert errors[0] == errors[1]
    with pytest.raises(ValueError, match=re.escape("isolation ('gpu') must be 'thread' or 'process'")):
        load_image(tmp_path / "a.png", isolation="gpu")


@pytest.mark.slow  # starts processes
def test_images_of_a_batch_are_read_where_the_settings_say(models, tmp_path, monkeypatch):
    """And one that takes its process down costs its row."""
    PIL.Image.fromarray(picture(3, 48, 40)).save(tmp_path / "a.png")
    settings = VideoSFTConfig(str(tmp_path), decode_isolation="process", bf16=False, use_cpu=True).video_settings
    rows = [row("which colour?", image=str(tmp_path / "a.png"))]
    with monkeypatch.context() as patch:
        stand_in(patch, "os.kill(os.getpid(), signal.SIGSEGV)")
        made = loader(models(), video_settings=settings, on_bad_video="skip")
        [found] = made.load(rows, 0, 1, 0, 1)
        assert "a.png: the process that decodes it died (SIGSEGV)" in str(found.error)
        [completion] = list(
            load_requests(
                [GenerationRequest("a", rows[0]["prompt"], [], [str(tmp_path / "a.png")])],
                GenerationSettings(decode_isolation="process"),
                load_video,
            )
        )
        assert "died (SIGSEGV)" in str(completion.error)
    [found] = made.load(rows, 0, 1, 0, 1)
    assert found.error is None and isolation._idle


def stand_in(monkeypatch, code):
    """The process runs this once it has its job."""
    job = "import sys, pickle, os, signal, time\npickle.load(sys.stdin.buffer)\n"
    isolation.end_all()
    monkeypatch.setattr(isolation, "_COMMAND", [sys.executable, "-c", job + code])


def test_a_process_that_dies_costs_its_file(videos, monkeypatch):
    with monkeypatch.context() as patch:
        stand_in(patch, "os.kill(os.getpid(), signal.SIGSEGV)")
        with pytest.raises(VideoError, match=r"h264\.mp4: the process that decodes it died \(SIGSEGV\)"):
            load_video(videos("h264.mp4"), isolation="process")
        stand_in(patch, "sys.stdout.write('{}'); sys.exit(3)")
        with pytest.raises(VideoError, match=r"died \(status 3\)"):
            load_video(videos("h264.mp4"), isolation="process")
    assert len(load_video(videos("h264.mp4"), num_frames=2, isolation="process")[0]) == 2


def test_a_decoder_that_hangs_within_itself_is_ended(videos, tmp_path, monkeypatch):
    """It never comes back to Python: the alarm of the process ends it."""
    hung = tmp_path / "sitecustomize.py"
    hung.write_text(
        "import ctypes, sys\n"
        "def hang(*args): ctypes.PyDLL(None).sleep(600)\n"  # holds the interpreter's lock: no thread could go on
        "import videor1_trl.media.decode as decode\ndecode.pixels_of = hang\n"
    )
    isolation.end_all()
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        since = time.monotonic()
        with pytest.raises(VideoError, match="reading it takes more than 1 s"):
            load_video(videos("h264.mp4"), isolation="process", limits=Limits(seconds=1))
        assert time.monotonic() - since < 60  # the start of the process among it
    assert len(load_video(videos("h264.mp4"), num_frames=2, isolation="process")[0]) == 2


def test_memory_of_a_process_is_bounded(videos):
    with pytest.raises(VideoError, match="cannot be read|died"):
        load_video(videos("h264.mp4"), isolation="process", limits=Limits(process_bytes=1))


def test_processes_end_with_the_one_that_asks(videos, tmp_path):
    code = f"""
import os, signal
from videor1_trl.media import isolation
from videor1_trl.media.video import load_video
load_video({str(videos("h264.mp4"))!r}, isolation="process")
print(isolation._idle[0].process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL
    pid = int(run.stdout)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}") or "zombie" in open(f"/proc/{pid}/status").read():
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} still runs")


def test_the_settings_reach_the_loader():
    assert set(GenerationSettings().video_settings) == {"fps", "min_frames", "max_frames", "num_frames"}
    found = GenerationSettings(decode_seconds=20.0, decode_isolation="process").video_settings
    assert found["limits"] == Limits(seconds=20.0) and found["isolation"] == "process"
    for name, value in (("decode_seconds", 0.0), ("decode_isolation", "gpu")):
        with pytest.raises(ValueError, match=re.escape(f"{name} ({value!r})")):
            GenerationSettings(**{name: value})
    with pytest.raises(ValueError, match="isolation"):
        load_video("x.mp4", isolation="gpu")
