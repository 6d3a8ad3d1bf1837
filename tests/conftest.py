"""Shared fixtures: tiny models and videos made once per session, and a fresh random state for every test."""

import os
import random
import sys
import tempfile


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DS_ACCELERATOR", "cpu")  # where DeepSpeed is installed it would say what it has not found

os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp(prefix="trackio_"))  # read at its import, which is TRL's

import files  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from PIL import Image  # noqa: E402
from stand_in_server import Server  # noqa: E402

from videor1_trl.media.limits import begin_readings  # noqa: E402


collect_ignore = [
    "engines/run.py",
    "engines/resume.py",
    "engines/killed_records.py",
    "engines/sampling.py",
]  # started as processes

torch.set_num_threads(1)
# No test is about time: on a busy machine any example may take long. The suite has the same examples in every run;
# `--hypothesis-profile=search` looks for new ones
untimed = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("search", **untimed)
settings.register_profile("fixed", derandomize=True, **untimed)
settings.load_profile("fixed")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available() or os.environ.get("FAIL_WITHOUT_CUDA") == "1":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def uninterrupted():
    """What a test interrupts in this process goes on behind it."""
    yield
    begin_readings()


@pytest.fixture(autouse=True)
def seeded():
    """The same random state for every test, and the state before it restored behind it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """`models(family)`: a [`tiny.Tiny`], built once per session. Tests must not change its weights."""
    built = {}

    def get(family="qwen2_5_vl"):
        if family not in built:
            built[family] = tiny.build(family, tmp_path_factory.mktemp(family))
        return built[family]

    return get


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """Four mp4 files of 16 frames (4 s) in changing colours, and an image: `{"videos": [...], "image": ...}`."""
    folder = tmp_path_factory.mktemp("media")
    videos = [tiny.write_mp4(folder / f"{seed}.mp4", tiny.colour_frames(seed)) for seed in range(4)]
    image = folder / "image.png"
    Image.fromarray(tiny.colour_frames(9)[0]).save(image)
    return {"videos": videos, "image": str(image), "folder": folder}


@pytest.fixture
def serve():
    """`serve(answer)`: a running [`stand_in_server.Server`]."""
    servers = []

    def start(answer):
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def run_script(monkeypatch, capsys):
    """`run_script(script, arguments, defaults)`: what an example prints; defaults are for flags that arguments lack."""

    def call(script, arguments, defaults):
        arguments = list(map(str, arguments))
        for name, value in defaults.items():
            if name not in arguments:
                arguments += [name, str(value)]
        monkeypatch.setattr(sys, "argv", [f"{script.__name__.rpartition('.')[2]}.py", *arguments])
        capsys.readouterr()
        script.main()
        return capsys.readouterr().out

    return call


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Makes each kind of video once: `videos("h264.mp4")` is its path."""
    folder, made = tmp_path_factory.mktemp("media"), {}

    def make(name):
        if name not in made:
            made[name] = files.write(folder / name, **files.KINDS[name])
        return made[name]

    return make
