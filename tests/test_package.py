"""What a user gets: the wheel, its import, and a README whose Python runs."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tiny

import videor1_trl
from videor1_trl import TGRPOConfig


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_the_package_its_type_marker_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "videor1_trl",
        f"videor1_trl-{videor1_trl.__version__}.dist-info",
    }
    modules = {path.name for path in (ROOT / "src" / "videor1_trl").glob("*.py")}
    assert {Path(name).name for name in names if name.startswith("videor1_trl/")} == modules | {"py.typed"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_wheel_imports_outside_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    code = "import videor1_trl; print(videor1_trl.__file__, videor1_trl.TGRPOTrainer.__name__)"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(target / "videor1_trl" / "__init__.py"), "TGRPOTrainer"]


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_of_the_readme_runs(block, models, media, tmp_path, monkeypatch, capsys):
    """As it stands, but for the model's name and the settings that a 7 B recipe needs on a CPU in seconds."""
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
    (tmp_path / "data" / "train.json").write_text(json.dumps(records))
    rationales = [{**record, "process": "<think>To the left.</think>"} for record in records]
    (tmp_path / "data" / "cot.json").write_text(json.dumps(rationales))
    monkeypatch.chdir(tmp_path)
    small = "bf16=False, use_cpu=True, report_to='none', max_steps=1, video_max_pixels=1568, "
    code = block
    for name in ("Qwen/Qwen2.5-VL-3B-Instruct", "Video-R1/Video-R1-7B"):
        code = code.replace(name, models().path)
    code = code.replace(
        "per_device_train_batch_size=8", f"{small} max_completion_length=6, per_device_train_batch_size=8"
    )
    code = code.replace("per_device_train_batch_size=4", f"{small} dataloader_num_workers=0")
    code = code.replace("GenerationSettings()", "GenerationSettings(max_new_tokens=4, video_max_pixels=1568)")
    code = code.replace("clip.mp4", "data/0.mp4")
    assert small in code or "max_new_tokens=4" in code
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    if "trainer" in names:
        assert names["trainer"].state.global_step == 1
    else:
        assert len(capsys.readouterr().out.splitlines()) >= 2, "a line for each completion"


def test_readme_names_every_field_of_the_config_and_every_metric():
    from trl import GRPOConfig

    own = set(TGRPOConfig.__dataclass_fields__) - set(GRPOConfig.__dataclass_fields__)
    assert not {name for name in own if f"`{name}`" not in README}
    source = "".join((ROOT / "src" / "videor1_trl" / name).read_text() for name in ("trainer.py", "temporal.py"))
    metrics = set(re.findall(r'"((?:temporal|video)/\w+)"', source))
    assert len(metrics) == 6
    assert not {name for name in metrics if f"`{name}`" not in README}


def test_readme_names_no_file_that_is_not_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links and not [link for link in links if not (ROOT / link).exists()]


def commands_of_the_readme():
    """(script, arguments) of every command that runs one of the examples."""
    text = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        scripts = [place for place, word in enumerate(words) if re.fullmatch(r"examples/\w+\.py", word)]
        if scripts:
            yield Path(words[scripts[0]]).stem, words[scripts[0] + 1 :]


@pytest.mark.parametrize("script, arguments", commands_of_the_readme(), ids=lambda each: str(each)[:40])
def test_commands_of_the_readme_are_ones_that_the_scripts_take(script, arguments, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    parser = importlib.import_module(script).make_parser()
    if script.startswith("train"):
        arguments = [*arguments, "--bf16", "False", "--use_cpu", "True", "--output_dir", str(tmp_path)]
    parser.parse_args_and_config(arguments)


def test_the_readme_runs_every_example():
    shown = {script for script, _ in commands_of_the_readme()}
    assert shown == {"train_tgrpo", "train_sft", "generate_cot", "evaluate", "ask", "plot_run"}


def test_readme_and_constraints_name_the_same_versions():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    section = README.split("## Versions")[1]
    named = dict(re.findall(r"(\w+) (\d+\.\d+\.\d+)", section))
    assert len(named) == 8
    assert all(pins[name] == version for name, version in named.items())


def test_public_names_are_documented():
    public = [name for name in vars(videor1_trl) if not name.startswith("_")]
    undocumented = [
        name for name in public if callable(getattr(videor1_trl, name)) and not getattr(videor1_trl, name).__doc__
    ]
    assert not undocumented
