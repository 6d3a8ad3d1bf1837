"""What can be typed behind every command: recipes by name, flags and keys that are misspelt, and the help in its groups."""

import importlib.util
import os
import re
from pathlib import Path

import pytest
import yaml
from helpers import refused
from trl import GRPOConfig, ModelConfig

from videor1_trl import TGRPOConfig
from videor1_trl.scripts import ask, command_line, dry_run, evaluate, generate_cot, recipes, train_sft, train_tgrpo


EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = {
    "toy": train_tgrpo,
    "toy_cot": generate_cot,
    "toy_eval": evaluate,
    "toy_sft": train_sft,
    "video_r1_3b_lora": train_tgrpo,
    "video_r1_3b_lora_sft": train_sft,
    "video_r1_72b_cot": generate_cot,
    "video_r1_7b": train_tgrpo,
    "video_r1_7b_server": train_tgrpo,
    "video_r1_7b_sft": train_sft,
    "video_r1_eval": evaluate,
}


def said(monkeypatch, script, *arguments):
    """What a command ends with, in its one line."""
    monkeypatch.setattr("sys.argv", [f"{script.__name__.rpartition('.')[2]}.py", *map(str, arguments)])
    found = refused(script.main)
    assert "\n" not in found
    return found


# --- recipes


def test_every_recipe_is_found_by_its_name_and_known_to_its_command():
    assert recipes.recipe_names() == sorted(RECIPES)
    for name, script in RECIPES.items():
        path = recipes.find_recipe(name)
        assert path == recipes.find_recipe(f"{name}.yaml") and path.parent.name == "configs"
        assert not script.make_parser().unknown_keys(recipes.read_recipe(path))


def test_the_recipes_of_a_clone_are_those_of_the_package():
    assert os.readlink(EXAMPLES / "configs") == "../src/videor1_trl/scripts/configs"
    assert (EXAMPLES / "configs").resolve() == recipes.FOLDER.resolve()


def test_a_file_goes_before_the_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy_eval").mkdir()  # a folder does not
    assert recipes.find_recipe("toy_eval") == recipes.FOLDER / "toy_eval.yaml"
    (tmp_path / "toy").write_text("seed: 3\n")
    assert recipes.find_recipe("toy") == Path("toy")


@pytest.mark.parametrize("arguments", [["--config", "toy_eval"], ["--config=toy_eval"]])
def test_a_recipe_is_given_by_name_and_flags_win_over_it(arguments):
    args, _, settings, _ = evaluate.make_parser().parse_args_and_config([*arguments, "--output_dir", "elsewhere"])
    assert args.control == ["shuffled", "reversed", "single-frame", "text-only"] and args.output_dir == "elsewhere"
    assert settings.max_new_tokens == 24


def test_of_several_recipes_the_last_counts():
    assert recipes.split_config(["--config", "toy", "--a", "1", "--config=toy_sft"]) == (
        recipes.FOLDER / "toy_sft.yaml",
        ["--a", "1"],
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config", "toi"], "--config (toi): there is no such file or recipe. Did you mean toy? The recipes: toy, toy_cot"),
        (["--config", "configs/toy_efal.yaml"], "(configs/toy_efal.yaml): there is no such file or recipe. Did you mean toy_eval?"),
        (["--config", "/no/where"], "--config (/no/where): there is no such file or recipe. The recipes: toy, "),
        (["--config"], "--config needs a YAML file or the name of a recipe: toy, toy_cot"),
        (["--config", "--seed", "3"], "--config needs a YAML file or the name of a recipe: toy, toy_cot"),
    ],
)  # fmt: skip
def test_a_recipe_that_is_not_there_is_said_with_the_nearest_and_all_others(monkeypatch, arguments, message):
    for script in (evaluate, train_sft):
        assert message in said(monkeypatch, script, *arguments)


def test_yaml_that_is_none_is_said_with_its_line(monkeypatch, tmp_path):
    config = tmp_path / "bad.yaml"
    config.write_text("dataset: a.json\nseed: {")
    found = said(monkeypatch, evaluate, "--config", config)
    assert found.startswith(f"evaluate.py: --config ({config}), line 2, column 8: expected")


def test_a_plans_flags_are_read_from_a_recipe_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text("dry_run: true\ndry_run_processes: 4\nseed: 3\n")
    monkeypatch.setattr("sys.argv", ["train_tgrpo.py", "--config", "mine", "--dry_run_processes", "2"])
    assert dry_run._with_config() == ["--dry_run=True", "--dry_run_processes=4", "--dry_run_processes", "2"]


# --- what is misspelt


@pytest.mark.parametrize(
    "script, arguments, message",
    [
        (train_tgrpo, ["--num_generation", "4"], "unknown flag '--num_generation'. Did you mean '--num_generations'?"),
        (train_tgrpo, ["--num-generation=4"], "unknown flag '--num-generation'. Did you mean '--num-generations'?"),
        (train_sft, ["--paddingfree"], "unknown flag '--paddingfree'. Did you mean '--padding_free'?"),
        (evaluate, ["--benchmarks", "mmvu"], "unknown flag '--benchmarks'. Did you mean '--benchmark'?"),
        (ask, ["--zzz"], "unknown flag '--zzz'. --help-all shows all that there are."),
        (ask, ["--question", "?", "clip.mp4"], "'clip.mp4' belongs to no flag. --help-all shows"),
        (
            ask,
            ["--vidio", "a.mp4", "--questoin", "?"],
            "unknown flag '--vidio'. Did you mean '--video'? unknown flag '--questoin'. Did you mean '--question'?",
        ),
    ],
)
def test_an_unknown_flag_names_the_nearest_one(monkeypatch, script, arguments, message):
    name = script.__name__.rpartition(".")[2]
    assert said(monkeypatch, script, *arguments).startswith(f"{name}.py: {message}")


def test_an_unknown_flag_is_said_before_values_are_checked(monkeypatch):
    found = said(monkeypatch, train_tgrpo, "--temporal_alpha", "-1", "--temporal_tau", "2")
    assert found == "train_tgrpo.py: unknown flag '--temporal_tau'. Did you mean '--temporal_mu'?"


def test_an_unknown_key_of_a_recipe_names_the_nearest_one_and_the_file(monkeypatch, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("num_generation: 4\nvideo-fps: 1.0\nseed: 3\n")
    assert said(monkeypatch, train_tgrpo, "--config", config) == (
        f"train_tgrpo.py: {config}: unknown key 'num_generation'. Did you mean 'num_generations'? "
        "unknown key 'video-fps'. Did you mean 'video_fps'?"
    )


def test_the_recipe_of_another_command_is_refused(monkeypatch):
    assert "unknown key 'padding_free'." in said(monkeypatch, train_tgrpo, "--config", "toy_sft")


def test_variables_of_the_environment_are_no_unknown_key(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDEOR1_TRL_TEST", "before")
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"env": {"VIDEOR1_TRL_TEST": "after"}, "question": "?"}))
    args, *_ = ask.make_parser().parse_args_and_config(["--config", str(config)])
    assert args.question == "?" and os.environ["VIDEOR1_TRL_TEST"] == "after"


def test_what_ends_in_a_picture_is_refused_at_once_where_nothing_draws(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: name != "matplotlib" and find(name, *rest) or None
    )
    for script, arguments, what in (
        (train_tgrpo, ["--config", "toy", "--output_dir", tmp_path], "--dataset toy"),
        (evaluate, ["--config", "toy_eval", "--output_dir", tmp_path], "--control"),
    ):
        assert said(monkeypatch, script, *arguments).endswith(
            f": {what} draws a picture, and matplotlib is not installed: pip install matplotlib."
        )


# --- the help


def printed(script, capsys, *arguments):
    """The help of a command, and its flags in their order."""
    with pytest.raises(SystemExit) as ended:
        script.make_parser().parse_args_and_config(list(arguments))
    assert ended.value.code == 0
    text = capsys.readouterr().out
    return text, re.findall(r"^  --([\w-]+)", text, re.MULTILINE)


def own(dataclass, parent):
    return {name for name in dataclass.__dataclass_fields__ if name not in parent.__dataclass_fields__}


def test_the_help_shows_this_packages_flags_first_and_the_others_behind_help_all(capsys):
    text, flags = printed(train_tgrpo, capsys, "--help")
    ours = own(TGRPOConfig, GRPOConfig) | set(train_tgrpo.ScriptArguments.__dataclass_fields__)
    assert ours <= set(flags) and {"beta", "temporal_alpha", "dry_run", "output_dir", "config"} <= set(flags)
    last = max(flags.index(name) for name in ours)
    assert last < flags.index("model_name_or_path") < flags.index("output_dir")
    assert not {"adam_epsilon", "lora_dropout"} & set(flags) and "--no_" not in text
    assert len(flags) == len(set(flags))
    whole, everything = printed(train_tgrpo, capsys, "--help-all")
    assert set(everything) >= {*flags, *TGRPOConfig.__dataclass_fields__, *ModelConfig.__dataclass_fields__}
    hidden = len(everything) - len(flags)
    assert (
        text.endswith(f"\n--help-all shows the other {hidden} flags, those of TRL and transformers.\n")
        and hidden > 100
    )
    assert "--help-all shows the" not in whole


def test_the_help_has_headings_in_their_order(capsys):
    text, _ = printed(train_sft, capsys, "-h")
    assert re.findall(r"^(\w.*):$", text, re.MULTILINE) == [
        "recipe",
        "records",
        "a plan instead of a run (as `videor1 plan`)",
        "supervised training, videos and images",
        "of TRL and transformers, the most used",
    ]
    assert text.startswith("usage: ") and len(text.splitlines()[0]) < 80


def test_the_help_of_a_command_without_trls_flags_hides_none(capsys):
    for script in (ask, evaluate, generate_cot):
        text, flags = printed(script, capsys, "--help")
        whole, everything = printed(script, capsys, "--help-all")
        assert flags == everything and "model_name_or_path" in flags and "of TRL" not in text


def test_the_help_says_what_kind_of_value_a_flag_takes(capsys):
    text, _ = printed(train_tgrpo, capsys, "--help")
    for expected in (
        "--video_num_frames N",
        "--temporal_alpha X",
        "--share_prefix [true|false]",
        "--bf16 true|false",
        "--dataset TEXT",
        "--temporal_bonus {reward,advantage}",
    ):
        assert re.search(rf"^  {re.escape(expected)}(  |$)", text, re.MULTILINE), expected


def test_a_field_whose_default_is_the_packages_is_its_own():
    assert {"beta", "video_fps", "temporal_mu"} <= set(command_line.own_fields(TGRPOConfig))
    assert "adam_epsilon" not in command_line.own_fields(TGRPOConfig) and not command_line.own_fields(ModelConfig)
