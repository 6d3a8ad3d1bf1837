"""The configurations of accelerate that come with the package are taken by accelerate, and mean what they say; so is the SLURM script."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from test_manual import PAGES, tool

from videor1_trl.scripts.recipes import FOLDER, read_recipe, recipe_names


ROOT = Path(__file__).parents[2]
CONFIGS = {path.stem: path for path in sorted((FOLDER / "accelerate").glob("*.yaml"))}
ZERO = {"zero2": (2, "none"), "zero3": (3, "none"), "zero3_offload": (3, "cpu")}
ENGINE_OF = {
    "video_r1_7b": "zero3",
    "video_r1_7b_server": "zero3",
    "video_r1_7b_sft": "zero2",
    "video_r1_3b_lora": "ddp",
    "video_r1_3b_lora_sft": "ddp",
}


def parsed(*arguments):
    """What `accelerate launch` makes of a command line, and the environment that it gives to the processes."""
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args([*map(str, arguments)]))
    if not args.use_deepspeed:
        return args, prepare_multi_gpu_env(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)  # as `launch_command` does
    command, environment = prepare_deepspeed_cmd_env(args)
    assert command is None, "no launcher of DeepSpeed's, which needs a host file"
    return args, environment


@pytest.fixture
def launched(monkeypatch):
    """`launched(name, ...)`: the arguments of a launch on that configuration; its environment is this process's until the test ends."""

    def launch(name, *arguments):
        args, environment = parsed("--config_file", CONFIGS[name], "--num_processes", 4, *arguments, "script.py")
        for key, value in environment.items():
            if key.startswith(("ACCELERATE_", "FSDP_")):
                monkeypatch.setenv(key, value)
        return args

    return launch


def test_there_is_a_configuration_of_each_engine():
    assert set(CONFIGS) == {"ddp", "fsdp2", *ZERO}


@pytest.mark.parametrize("name", CONFIGS)
def test_accelerate_takes_the_configuration(name, launched):
    config = load_config_from_file(str(CONFIGS[name]))
    kind = "MULTI_GPU" if name == "ddp" else "FSDP" if name == "fsdp2" else "DEEPSPEED"
    assert config.distributed_type == kind and config.mixed_precision == "bf16" and config.num_machines == 1
    assert config.num_processes == -1, "the command says how many: accelerate asks for it where it does not"
    args = launched(name)
    assert (args.num_processes, args.mixed_precision) == (4, "bf16")
    assert [args.multi_gpu, args.use_fsdp, args.use_deepspeed] == [
        kind == each for each in ("MULTI_GPU", "FSDP", "DEEPSPEED")
    ]


@pytest.mark.parametrize("name", ZERO)
def test_zero_has_its_stage_saves_whole_models_and_takes_the_recipes_steps(name, launched, tmp_path):
    pytest.importorskip("deepspeed")
    launched(name)
    plugin = DeepSpeedPlugin()
    stage, offload = ZERO[name]
    found = plugin.deepspeed_config
    assert found["zero_optimization"]["stage"] == plugin.zero_stage == stage
    assert found["zero_optimization"]["offload_optimizer"]["device"] == offload
    assert found["zero_optimization"]["offload_param"]["device"] == offload
    assert found["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] == (stage == 3)
    assert plugin.zero3_init_flag == (stage == 3)
    # or the Trainer would refuse a recipe that accumulates
    assert (found["gradient_accumulation_steps"], found["gradient_clipping"]) == ("auto", "auto")


def test_fsdp2_saves_shards_in_checkpoints_and_offloads_nothing(launched):
    launched("fsdp2")
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    assert type(plugin.cpu_offload).__name__ == "OffloadPolicy"  # torch's for none
    assert plugin.cpu_ram_efficient_loading and plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"


def test_recipes_are_listed_without_them_and_the_wheel_has_them():
    assert not set(recipe_names()) & set(CONFIGS)
    patterns = re.search(r"^videor1_trl = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    package = ROOT / "src" / "videor1_trl"
    packed = {path for pattern in json.loads(patterns) for path in package.glob(pattern)}
    assert packed >= {package / "scripts" / "configs" / "accelerate" / path.name for path in CONFIGS.values()}


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_name_configurations_that_are_there(name):
    head = (FOLDER / f"{name}.yaml").read_text().split("\n\n")[0]
    named = re.findall(r"configs/accelerate/(\w+)\.yaml", head)
    assert set(named) <= set(CONFIGS)
    assert set(named[:1]) == {ENGINE_OF[name]} if name in ENGINE_OF else not named
    assert "--use_deepspeed" not in head


@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_in_a_configuration_is_one_that_is_taken(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    head = CONFIGS[name].read_text().split("compute_environment")[0].replace("#", "").replace("\\\n", " ")
    [line] = [line.split() for line in head.splitlines() if "accelerate launch" in line]
    assert f"examples/configs/accelerate/{name}.yaml" in line
    taken(line[2:], tmp_path)


def taken(arguments, folder):
    """What accelerate and the training script make of the words behind `accelerate launch`."""
    args, _ = parsed(*arguments)
    script = importlib.import_module(f"videor1_trl.scripts.{Path(args.training_script).stem}")
    more = ["--bf16", "False", "--use_cpu", "True", "--output_dir", str(folder)]
    script.make_parser().parse_args_and_config([*args.training_script_args, *more])
    return args


# --- launches


@pytest.mark.slow
def test_two_processes_train_on_the_configuration_of_ddp(models, media, tmp_path):
    """A real launch, with gloo: the environment and the ranks are those of a launch on GPUs."""
    records = [
        {
            "problem_id": index, "problem": "Which way?", "data_type": "video", "problem_type": "multiple choice",
            "options": ["A. left", "B. right"], "solution": "<answer>A</answer>", "path": Path(media["videos"][index]).name,
        }
        for index in range(2)
    ]  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(records))
    settings = {
        "model_name_or_path": models().path, "dataset": tmp_path / "r.json", "data_root": media["folder"], "output_dir": tmp_path / "run", "max_steps": 1,
        "use_cpu": True, "bf16": False, "dtype": "float32", "report_to": "none", "num_generations": 4, "beta": 0,
        "per_device_train_batch_size": 4, "max_completion_length": 4, "video_max_pixels": 1568, "activation_checkpointing": False,
        "gradient_checkpointing": False, "logging_steps": 1,
    }  # fmt: skip
    start = ["-m", "accelerate.commands.launch", "--config_file", CONFIGS["ddp"], "--num_processes", "2"]
    command = [sys.executable, *start, "--mixed_precision", "no", ROOT / "examples" / "train_tgrpo.py"]
    flags = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(f"Saved to {tmp_path / 'run'}.") == 1
    [checkpoint] = (tmp_path / "run").glob("checkpoint-*")
    assert json.loads((checkpoint / "manifest.json").read_text())["num_processes"] == 2
    assert torch.load(tmp_path / "run" / "training_args.bin", weights_only=False).max_steps == 1


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The commands of a cluster of two nodes with 8 GPUs each, in PATH: `accelerate` writes down what it is started with."""
    scripts = {
        "scontrol": 'printf "%s\\n" first second',
        "srun": '[ "$1" = --kill-on-bad-exit=1 ] || exit 9; shift\n'
        'for node in 0 1; do SLURM_NODEID=$node SLURM_PROCID=$node "$@" || exit 1; done',
        "accelerate": f"exec {sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\"",
    }
    for name, body in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    of_slurm = {"JOB_NODELIST": "node[1-2]", "NNODES": "2", "GPUS_ON_NODE": "8", "JOB_ID": "812345"}
    return {
        **os.environ,
        **{f"SLURM_{name}": value for name, value in of_slurm.items()},
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }


@pytest.mark.parametrize(
    "chosen, engine, script, recipe",
    [
        ({}, "zero3", "train_tgrpo", "video_r1_7b"),
        (
            {"ENGINE": "zero2", "SCRIPT": "train_sft", "RECIPE": "video_r1_7b_sft"},
            "zero2",
            "train_sft",
            "video_r1_7b_sft",
        ),
        ({"ENGINE": "fsdp2"}, "fsdp2", "train_tgrpo", "video_r1_7b"),
    ],
)
def test_the_slurm_script_starts_one_launcher_on_each_node(
    chosen, engine, script, recipe, cluster, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    path = ROOT / "examples" / "slurm" / "train.sh"
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    command = ["bash", path, "--output_dir", "runs/with space", "--learning_rate", "2e-6"]
    done = subprocess.run(command, env={**cluster, **chosen}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    nodes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(nodes) == 2 and all(words[0] == "launch" for words in nodes)
    for rank, words in enumerate(nodes):
        args = taken(words[1:], tmp_path)
        assert (args.num_machines, args.num_processes, int(args.machine_rank)) == (2, 16, rank)
        assert (args.main_process_ip, args.main_process_port) == ("first", 32345)  # 20000 + 812345 % 20000
        assert args.config_file == f"examples/configs/accelerate/{engine}.yaml"
        assert args.training_script == f"examples/{script}.py"
        assert args.training_script_args[:2] == ["--config", f"examples/configs/{recipe}.yaml"]
        assert args.training_script_args[2:] == command[2:], "flags pass as they are, spaces too"


def test_the_slurm_script_stops_where_it_is_not_in_a_job():
    path = ROOT / "examples" / "slurm" / "train.sh"
    without = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(["bash", path], env=without, capture_output=True, text=True)
    assert done.returncode != 0 and "SLURM_JOB_NODELIST" in done.stderr


# --- the page


@pytest.mark.slow
def test_the_tables_of_devices_are_what_the_estimate_gives():
    for table in tool("devices").tables():
        assert table in PAGES["docs/devices.md"], "python docs/tools/devices.py prints those of today"


def test_every_engine_of_the_tables_has_a_configuration():
    found = set(re.findall(r"[|(] ?(ddp|zero\w+|fsdp\w*) ", PAGES["docs/devices.md"]))
    assert found and found <= set(CONFIGS)


def test_the_recipes_number_of_gpus_goes_with_their_batches():
    """4 GPUs of the paper's run hold whole groups: 4 * 2 * 4 rollouts are 4 prompts of 8."""
    recipe = read_recipe(FOLDER / "video_r1_7b.yaml")
    rollouts = 4 * recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"]
    assert rollouts % recipe["num_generations"] == 0
    assert yaml.safe_load(CONFIGS["zero3"].read_text())["deepspeed_config"]["zero_stage"] == 3
