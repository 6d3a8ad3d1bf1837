"""`videor1` and its commands: by name, as modules, as examples, and out of the wheel in an environment of its own."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from helpers import refused

import videor1_trl
from videor1_trl.scripts import cli, evaluate, messages, plan, train_sft, train_tgrpo


ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "src" / "videor1_trl" / "scripts"
COMMANDS = ["train", "sft", "cot", "order", "eval", "ask", "compare", "view", "plot", "cache", "plan"]


def typed(monkeypatch, *arguments):
    """`videor1` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/videor1", *map(str, arguments)])
    cli.main()


# --- videor1


def test_the_command_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"videor1": "videor1_trl.scripts.cli:main"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_lists_every_command_in_a_line_of_its_own(monkeypatch, capsys, arguments):
    typed(monkeypatch, *arguments)
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert listed == COMMANDS == list(cli.COMMANDS)
    assert all(len(line) < 120 for line in lines)


def test_the_version_is_the_packages(monkeypatch, capsys):
    typed(monkeypatch, "--version")
    assert capsys.readouterr().out == f"videor1 {videor1_trl.__version__}\n"


@pytest.mark.parametrize(
    "name, message",
    [
        ("trian", "videor1: unknown command 'trian'. Did you mean train? There are train, sft, cot, order, eval, ask, compare, view, plot, cache, plan."),
        ("evaluate", "videor1: unknown command 'evaluate'. Did you mean eval? There are"),
        ("xyzzy", "videor1: unknown command 'xyzzy'. There are train,"),
    ],
)  # fmt: skip
def test_an_unknown_command_names_the_nearest_one(monkeypatch, name, message):
    assert refused(typed, monkeypatch, name).startswith(message)


def test_what_needs_no_torch_does_not_wait_for_it():
    """The help, and the name of a recipe that is not there."""
    code = (
        "import sys; from videor1_trl.scripts import cli\n"
        "for sys.argv in (['videor1', '--help'], ['videor1', 'train', '--config', 'toi']):\n"
        "    try:\n        cli.main()\n    except SystemExit as ended:\n        print(ended)\n"
        "print({'torch', 'transformers', 'trl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "set()", done.stdout + done.stderr
    assert "videor1 train: --config (toi): there is no such file or recipe. Did you mean toy?" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_the_main_of_its_module_with_the_rest_of_the_arguments(monkeypatch, name):
    module = __import__(f"videor1_trl.scripts.{cli.COMMANDS[name].module}", fromlist=["main"])
    seen = []
    monkeypatch.setattr(module, "main", lambda: seen.append(list(sys.argv)))
    typed(monkeypatch, name, "--seed", "3")
    assert seen == [[f"videor1 {name}", "--seed", "3"]]


@pytest.mark.parametrize("name", ["train", "sft", "cot", "order", "eval", "ask", "cache", "plan"])
def test_errors_begin_with_the_command_that_was_typed(monkeypatch, name):
    found = refused(typed, monkeypatch, name, "--zzz")
    assert found == f"videor1 {name}: unknown flag '--zzz'. --help-all shows all that there are."


def test_an_interrupted_command_says_what_it_keeps(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "main", interrupted)
    assert refused(typed, monkeypatch, "eval") == "130"
    assert capsys.readouterr().err == f"\nvideor1 eval: interrupted. {messages.KEPT}\n"


# --- videor1 plan


@pytest.mark.parametrize(
    "arguments, script",
    [
        (["--config", "toy"], train_tgrpo),
        (["--config", "toy_sft"], train_sft),
        (["--config=video_r1_7b_sft"], train_sft),
        (["--config", "video_r1_3b_lora_sft.yaml"], train_sft),
        (["--config", "video_r1_7b", "--seed", "3"], train_tgrpo),
        (["--dataset", "a.json", "--padding_free"], train_sft),
        (["--dataset", "a.json", "--plain_grpo"], train_tgrpo),
        (["--dataset", "a.json"], train_tgrpo),  # both know it
        (["sft", "--dataset", "a.json"], train_sft),
        (["train", "--dataset", "a.json"], train_tgrpo),
    ],
)
def test_the_recipe_and_the_flags_decide_which_training_is_planned(arguments, script):
    named = arguments[0] in ("sft", "train")
    assert plan.choose_training(arguments) == (script, arguments[1:] if named else arguments)


def test_the_help_of_a_plan_says_how_the_training_is_chosen(monkeypatch, capsys):
    assert refused(typed, monkeypatch, "plan", "sft", "--help") == "0"
    printed = " ".join(capsys.readouterr().out.split())
    assert "usage: videor1 plan [" in printed and "--padding_free" in printed and "--temporal_alpha" not in printed
    assert "Without it the keys of the recipe and the flags decide: the training that knows more of them" in printed


@pytest.mark.parametrize("words", [["plan"], ["plan", "sft"]])
def test_a_plan_is_printed_and_nothing_trained(monkeypatch, capsys, flags, tmp_path, words):
    sizes = [] if "sft" in words else ["--per_device_train_batch_size", "8", "--num_generations", "8"]
    assert refused(typed, monkeypatch, *words, *flags, *sizes) == "0"
    printed = capsys.readouterr().out
    assert "4: video 4 (100%)" in printed and ("rollouts at a time" in printed) == ("sft" not in words)
    assert printed.splitlines()[-1] == "Nothing was found that would stop this run."
    assert not list(tmp_path.glob("out/*"))


def test_the_toy_is_planned_without_its_cold_start(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    left = []
    monkeypatch.setattr("atexit.register", lambda call, folder, **options: left.append(folder))
    assert refused(typed, monkeypatch, "plan", "--config", "toy", "--toy_size", "40") == "0"
    printed = capsys.readouterr().out
    assert "40: video" in printed and "8 prompts, 64 rows" in printed
    assert not list(tmp_path.iterdir()) and left[0].is_dir()
    shutil.rmtree(left[0])


# --- the examples


def loaded(path, monkeypatch, *arguments):
    """The example as it is started with these arguments."""
    monkeypatch.setattr(sys, "argv", [path.name, *map(str, arguments)])
    spec = spec_from_file_location("__main__", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)


@pytest.mark.parametrize("name, trainer", [("train_tgrpo", "TGRPOTrainer"), ("train_sft", "VideoSFTTrainer")])
def test_the_trainer_that_an_example_makes_is_the_one_that_trains(monkeypatch, flags, tmp_path, name, trainer):
    """A copy of the example whose trainer is another class than the package's."""
    text = (ROOT / "examples" / f"{name}.py").read_text()
    made = f"return videor1_trl.{trainer}(**run.trainer_arguments())"
    assert text.count(made) == 1
    copy = tmp_path / f"{name}.py"
    copy.write_text(
        text.replace(
            made,
            f"class Mine(videor1_trl.{trainer}): pass\n    raise SystemExit(str(Mine(**run.trainer_arguments())))",
        )
    )
    sizes = ["--num_generations", "2", "--per_device_train_batch_size", "2", "--beta", "0"] if "tgrpo" in name else []
    assert "__main__.make_trainer.<locals>.Mine object" in refused(loaded, copy, monkeypatch, *flags, *sizes)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_says_how_it_is_started_and_what_it_ends_with(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    command = rf"examples/{path.name}"
    assert command in text and ("last line" in text)
    assert any(word in text for word in ("CPU", "GPU")) and any(word in text for word in ("seconds", "minute"))


def code_lines(path):
    """Lines of code, without what is imported and without comments; blocks are compared by them."""
    lines, inside = [], False
    for line in path.read_text().splitlines():
        starts = line.lstrip().startswith(("import ", "from "))
        if starts or inside or not line.strip() or line.startswith("#"):
            inside = (starts and line.rstrip().endswith("(")) or (inside and ")" not in line)
            continue
        lines.append(line.strip())
    return lines


def test_nothing_of_more_than_eight_lines_stands_twice_in_scripts_and_examples():
    seen = {}
    for path in [*SCRIPTS.glob("*.py"), *(ROOT / "examples").glob("*.py")]:
        lines = code_lines(path)
        for start in range(len(lines) - 8):
            block = tuple(lines[start : start + 9])
            assert seen.setdefault(block, (path.name, start)) == (path.name, start), (path.name, seen[block], block)


def test_check_arguments_and_check_media_are_one_function_each():
    names = [
        node.name
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    assert (names.count("check_arguments"), names.count("check_media")) == (1, 1)


# --- out of the wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """
    The Python of an environment that has the wheel, and of all else what this one has: its packages by a path, not its `.pth`
    files, so that the checkout, which is installed here by one of them, is not there.
    """
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # `build` in the checkout would take up what an earlier one left
    source.mkdir()
    shutil.copytree(ROOT / "src" / "videor1_trl", source / "src" / "videor1_trl")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True, timeout=60)
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, str(next(folder.glob("*.whl")))], check=True, capture_output=True, timeout=120)
    [packages] = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "everything_else.pth").write_text(str(Path(pytest.__file__).parents[1]) + "\n")
    return python


def ran(command, cwd):
    """What a command prints in that folder, which is not the checkout; it must end well."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


TWO_STEPS = "--toy_size 48 --toy_target 0 --max_steps 2 --num_generations 4 --per_device_train_batch_size 8".split()


@pytest.mark.slow
def test_the_wheel_brings_commands_and_recipes(installed, tmp_path):
    videor1 = installed.parent / "videor1"
    where = "import videor1_trl.scripts.recipes as r; print(r.__file__, *r.recipe_names())"
    file, *names = ran([installed, "-c", where], tmp_path).split()
    assert Path(file).is_relative_to(installed.parents[1]) and "toy" in names and "video_r1_7b" in names
    assert ran([videor1, "--version"], tmp_path) == f"videor1 {videor1_trl.__version__}\n"

    planned = ran([videor1, "plan", "--config", "toy", *TWO_STEPS], tmp_path)
    assert planned.splitlines()[-1] == "Nothing was found that would stop this run." and not list(tmp_path.iterdir())

    trained = ran([videor1, "train", "--config", "toy", *TWO_STEPS], tmp_path)
    assert trained.splitlines()[-1] == "Saved to runs/toy."
    assert (tmp_path / "runs" / "toy" / "model.safetensors").is_file()
    planned = ran([videor1, "plan", "--config", "toy_sft"], tmp_path)  # of the toy that was just made
    assert "rollouts" not in planned and planned.splitlines()[-1] == "Nothing was found that would stop this run."


@pytest.mark.slow
def test_accelerate_launches_the_module_of_the_wheel(installed, tmp_path):
    launch = "-m accelerate.commands.launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
    module = "-m videor1_trl.scripts.train_tgrpo --config toy --output_dir launched".split()
    trained = ran([installed, *launch.split(), *module, *TWO_STEPS], tmp_path)
    assert trained.splitlines()[-1] == "Saved to launched."
    assert (tmp_path / "launched" / "model.safetensors").is_file()


# --- videor1 cache


def test_frames_are_read_ahead_by_a_command_and_bad_videos_are_named(monkeypatch, capsys, flags, tmp_path):
    sizes = ["--per_device_train_batch_size", "8", "--num_generations", "8"]
    kept = ["--media_cache_dir", str(tmp_path / "kept")]
    assert refused(typed, monkeypatch, "cache", *flags, *sizes).endswith(
        "--media_cache_dir is not set: give the folder in which the frames are to be kept."
    )
    for _ in range(2):
        typed(monkeypatch, "cache", *flags, *sizes, *kept)
        assert f"videos are kept in {tmp_path / 'kept'}." in capsys.readouterr().out
    files = list((tmp_path / "kept").glob("??/*.safetensors"))
    assert files
    bad = tmp_path / "bad.json"
    record = {
        "problem": "?", "solution": "<answer>A</answer>", "problem_type": "free-form", "data_type": "video", "path": "no.mp4"
    }  # fmt: skip
    bad.write_text(__import__("json").dumps([record]))
    said = refused(typed, monkeypatch, "cache", *flags, *sizes, *kept, "--dataset", str(bad))
    assert "no.mp4: no such file" in capsys.readouterr().out and "1 videos cannot be read" in said
