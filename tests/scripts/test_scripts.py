"""What the scripts say to their users: cheap checks first, in the words of the command line, one line and no traceback."""

import contextlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import files
import pytest
import yaml
from helpers import refused
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import GRPOTrainer

import videor1_trl
from videor1_trl import make_prompt
from videor1_trl.config import LOSS_TYPES
from videor1_trl.media.limits import check_not_interrupted
from videor1_trl.scripts import evaluate, interruption, messages, record_flags, train_sft, train_tgrpo, training
from videor1_trl.text.prompts import PROBLEM_TYPES, PromptTemplate, load_prompt_template, question_text


EXAMPLES = Path(__file__).parents[2] / "examples"


GRPO = ["--beta", "0", "--num_generations", "2", "--per_device_train_batch_size", "2", "--max_completion_length", "4"]


def said(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, "argv", [f"{script.__name__.rpartition('.')[2]}.py", *map(str, arguments)])
    return refused(script.main)


@pytest.fixture
def no_file_is_opened(monkeypatch):
    def opened(*args, **kwargs):
        pytest.fail("a file of records or media was opened before what costs nothing was checked")

    monkeypatch.setattr(training, "load_records", opened)
    monkeypatch.setattr("videor1_trl.check_media", opened)


def test_rewards_are_found_by_name_path_and_call():
    """An answer of 0 to 4 s for 0 to 8 of 8 s: IoU 1/2, by its boundaries 1/4."""
    rows = {"completions": ["<answer>0 - 4</answer>"], "solution": ["0 - 8"], "duration": [8.0]}
    found = {
        "temporal_iou_reward": 0.5,
        "get_temporal_iou_reward(boundaries=True)": 0.25,
        "videor1_trl.rewards.grounding.get_temporal_iou_reward()": 0.5,
        "videor1_trl.rewards.grounding.temporal_iou_reward": 0.5,
    }
    assert {name: train_tgrpo.find_reward(name)(**rows)[0] for name in found} == found
    for name in train_tgrpo.REWARDS:
        assert train_tgrpo.find_reward(name) is getattr(videor1_trl, name)
    own = {name for name in videor1_trl.__all__ if name.endswith("_reward") and not name.startswith("get_")}
    assert own - {"temporal_reward"} == set(train_tgrpo.REWARDS)  # which is an objective


@pytest.mark.parametrize(
    "name, message",
    [
        ("get_temporal_iou_reward", "is no reward function, which is called with completions"),
        ("videor1_trl.get_temporal_iou_reward", "is no reward function, which is called with completions"),
        ("temporal_reward", "is neither accuracy_reward, format_reward, length_reward, temporal_iou_reward, "),
        ("videor1_trl.temporal_reward", "is no reward function"),
        ("get_crpo_reward(router='none')", "is no reward function"),
        ("get_temporal_iou_reward(True)", "is neither a name nor a call with plain settings by name"),
        ("get_temporal_iou_reward(boundaries=print())", "is neither a name nor a call with plain settings by name"),
        ("get_temporal_iou_reward(borders=True)", "unexpected keyword argument 'borders'"),
        ("get_no_reward()", "get_no_reward"),
    ],
)
def test_what_is_no_reward_is_refused_by_its_name(name, message):
    with pytest.raises(ValueError, match=re.escape(f"reward_funcs ({name!r})")) as refusal:
        train_tgrpo.find_reward(name)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--reward_funcs", "no_reward"], "--reward_funcs ('no_reward') is neither accuracy_reward"),
        (["--reward_funcs", "no_module.reward"], "--reward_funcs ('no_module.reward'): No module named"),
        (["--reward_funcs", "get_length_reward"], "--reward_funcs ('get_length_reward') is no reward function"),
        (["--use_peft", "--lora_target_modules", "no_such_layer"], "--use_peft: Target modules"),
        (["--attn_implementation", "no_such_attention"], "--attn_implementation"),
        (["--attn_implementation", "flash_attention_2"], "--attn_implementation"),
        (["--load_in_4bit"], "--load_in_4bit and --load_in_8bit need bitsandbytes"),
        (["--report_to", "comet_ml"], "--report_to comet_ml: "),
        (["--report_to", "no_logger"], "--report_to no_logger: it must be one of"),
        (["--resume_from_checkpoint", "true"], "--resume_from_checkpoint True: there is no whole checkpoint in"),
        (["--resume_from_checkpoint", "/no/where"], "--resume_from_checkpoint (/no/where) is no folder"),
        (["--prompt_template", "/no/template.yaml"], "--prompt_template (/no/template.yaml) is no file"),
        (["--model_name_or_path", "./no/model"], "--model_name_or_path (./no/model) is not a folder"),
        (["--resume_from_checkpoint", str(EXAMPLES)], "is no whole checkpoint: its trainer_state.json is missing"),
        (["--eval_strategy", "steps", "--eval_steps", "1"], "--eval_strategy steps: there is nothing to evaluate on"),
        (["--learning_rate", "-1"], "--learning_rate (-1.0) must be at least 0"),
        (["--gradient_accumulation_steps", "0"], "--gradient_accumulation_steps (0) must be at least 1"),
        (["--per_device_train_batch_size", "0"], "--per_device_train_batch_size (0) must be at least 1"),
    ],
)
def test_what_costs_nothing_is_checked_before_any_file_is_opened(monkeypatch, flags, no_file_is_opened, more, message):
    found = said(monkeypatch, train_tgrpo, *flags, *GRPO, *more)
    assert found.startswith("train_tgrpo.py: ") and message in found, found
    if not any("reward" in each for each in more):
        found = said(monkeypatch, train_sft, *flags, *more)
        assert found.startswith("train_sft.py: ") and message in found, found


@pytest.mark.parametrize(
    "more, message",
    [
        (["--loss_type", "ppo"], "--loss_type ('ppo') must be one of grpo, bnpo"),
        (["--num_generations", "0"], "--num_generations (0) must be at least 2"),
        (["--num_iterations", "0"], "--num_iterations (0) must be at least 1"),
        (["--steps_per_generation", "0"], "--steps_per_generation (0) must be at least 1"),
    ],
)
def test_what_rollouts_cannot_be_made_by_is_refused_first(monkeypatch, flags, no_file_is_opened, more, message):
    assert message in said(monkeypatch, train_tgrpo, *flags, *GRPO, *more)


def test_trls_losses_are_those_that_are_taken():
    loss = inspect.getsource(GRPOTrainer._compute_loss)
    compared = re.findall(r'self\.loss_type (?:==|in) (\[[^\]]*\]|"\w+")', loss)
    assert set(re.findall(r'"(\w+)"', " ".join(compared))) == set(LOSS_TYPES)


@pytest.mark.parametrize("script", [train_tgrpo, train_sft])
def test_a_config_that_is_a_list_is_refused_in_one_line(monkeypatch, script, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("- dry_run: true\n")
    assert "must contain a YAML mapping" in said(monkeypatch, script, "--config", config)


def test_an_optimizer_that_is_not_installed_ends_the_run_in_one_line(monkeypatch, flags):
    found = said(monkeypatch, train_sft, *flags, "--optim", "galore_adamw", "--optim_target_modules", "all-linear")
    assert found.startswith("train_sft.py: ") and "galore" in found.lower() and "\n" not in found


def test_messages_of_the_package_name_flags(monkeypatch, flags):
    for more, message in (
        (["--temporal_alpha", "-1"], "--temporal_alpha (-1.0) must be at least 0"),
        (["--num_contrast_generations", "9"], "for no contrast rollouts at all give --plain_grpo."),
        (
            ["--per_device_train_batch_size", "16"],
            "one generation takes 8: --per_device_train_batch_size (16) x 1 processes",
        ),
        (["--max_prompt_length", "5"], "more than --max_prompt_length (5)"),
    ):
        found = said(monkeypatch, train_tgrpo, *flags, *GRPO, *more)
        assert message in found, found


@pytest.mark.parametrize(
    "message, expected",
    [
        ("video_fps (0) must be above 0.", "--video_fps (0) must be above 0."),
        ("seed (a) must be, set seed=1 or a seed", "--seed (a) must be, set --seed 1 or a seed"),
        ("/a/output_dir/b.mp4 of output_dir: no", "/a/output_dir/b.mp4 of --output_dir: no"),
        ("field 'options': must, column 'data_files'", "field 'options': must, column 'data_files'"),
        ("already --output_dir", "already --output_dir"),
        ("root (/x) is not a folder", "--data_root (/x) is not a folder"),
    ],
)
def test_fields_are_named_as_flags_and_nothing_else_is(message, expected):
    messages.make_flags_known(train_tgrpo.make_parser())
    assert messages.in_flags(message) == expected


def test_a_plan_for_two_processes_takes_the_batches_of_two(monkeypatch, flags, capsys, tmp_path):
    """Two rollouts of four on each: one process refuses them."""
    batches = ["--beta", "0", "--num_generations", "4", "--per_device_train_batch_size", "2"]
    batches += ["--max_completion_length", "4", "--gradient_accumulation_steps", "1", "--dry_run"]
    assert "must be divisible by --num_generations (4)" in said(monkeypatch, train_tgrpo, *flags, *batches)
    monkeypatch.setattr(sys, "argv", ["train_tgrpo.py", *flags, *batches, "--dry_run_processes", "2"])
    with pytest.raises(SystemExit) as ended:
        train_tgrpo.main()
    printed = capsys.readouterr().out
    assert ended.value.code == 0, printed
    assert "2 (cpu), sharding none" in printed
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"dry_run": True, "dry_run_processes": 2}))
    monkeypatch.setattr(sys, "argv", ["train_tgrpo.py", "--config", str(config), *flags, *batches])
    with pytest.raises(SystemExit) as ended:
        train_tgrpo.main()
    assert ended.value.code == 0
    assert "dry_run_processes (0) must be" in said(
        monkeypatch, train_tgrpo, *flags, *batches, "--dry_run_processes", "0"
    )


def test_a_check_of_the_model_is_asked_for_with_a_plan(monkeypatch, flags):
    assert "add --dry_run, or ask for it by `videor1 plan`" in said(monkeypatch, train_tgrpo, *flags, "--check_model")


@pytest.mark.slow
def test_resuming_by_true_goes_on_from_the_last_checkpoint(monkeypatch, flags, tmp_path):
    saving = ["--save_strategy", "steps", "--save_steps", "1", "--max_steps", "2"]
    monkeypatch.setattr(sys, "argv", ["train_sft.py", *flags, *saving, "--dataloader_num_workers", "0"])
    train_sft.main()
    seen = []
    monkeypatch.setattr(interruption, "train", lambda trainer, resume: seen.append(resume))
    for asked in ("true", "True", str(tmp_path / "out" / "checkpoint-1")):
        monkeypatch.setattr(sys, "argv", ["train_sft.py", *flags, *saving, "--resume_from_checkpoint", asked])
        train_sft.main()
    monkeypatch.setattr(sys, "argv", ["train_sft.py", *flags, *saving, "--resume_from_checkpoint", "false"])
    train_sft.main()
    last, first = str(tmp_path / "out" / "checkpoint-2"), str(tmp_path / "out" / "checkpoint-1")
    assert seen == [last, last, first, None]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["the whole group", "the run"])
def test_a_run_with_processes_for_its_batches_is_interrupted_in_one_line(flags, tmp_path, to):
    """A terminal interrupts them too: the run ended in the traceback of a worker."""
    saving = ["--save_strategy", "steps", "--save_steps", "1", "--max_steps", "2000", "--dataloader_num_workers", "2"]
    command = [sys.executable, str(EXAMPLES / "train_sft.py"), *flags, *saving, "--save_total_limit", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    until = time.monotonic() + 120
    while not (tmp_path / "out" / "checkpoint-2").exists() and time.monotonic() < until and run.poll() is None:
        time.sleep(0.2)
    (os.killpg if to == "the whole group" else os.kill)(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors[-2000:]
    # torch may say behind it how its processes took their end
    assert "train_sft.py: interrupted after step" in errors, errors[-2000:]
    assert "KeyboardInterrupt" not in errors and "RuntimeError" not in errors, errors[-3000:]


@pytest.mark.parametrize("raised", [RuntimeError("DataLoader worker (pid 7) exited unexpectedly"), None])
def test_an_interruption_that_gets_lost_ends_the_run_at_its_next_step(monkeypatch, capsys, tmp_path, raised):
    """Python drops what is raised while it cleans up; a worker's end is raised in its place."""

    class Trainer:
        args = SimpleNamespace(output_dir=str(tmp_path))
        state = SimpleNamespace(global_step=3)
        callback_handler = SimpleNamespace(callbacks=[])

        def add_callback(self, callback):
            self.callback = callback

        def is_world_process_zero(self):
            return True

        def train(self, resume_from_checkpoint):
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            if raised is not None:
                raise raised
            self.callback.on_step_begin(None, None, None)
            pytest.fail("the run went on")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        interruption.train(Trainer(), None)
    assert ended.value.code == 130 and "interrupted after step 3." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_a_command_reads_behind_one_that_was_interrupted_in_the_same_process(capsys):
    def interrupted():
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    try:
        with pytest.raises(SystemExit):
            messages.run_command(interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt):
        check_not_interrupted()
    messages.run_command(check_not_interrupted)


def test_a_script_that_is_interrupted_before_its_work_ends_in_one_line(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        messages.run_command(main, "Start again to go on.")
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip().endswith(": interrupted. Start again to go on.")


@pytest.mark.slow
def test_a_run_that_is_interrupted_says_where_its_last_checkpoint_is(flags, tmp_path):
    saving = ["--save_strategy", "steps", "--save_steps", "1", "--max_steps", "2000", "--dataloader_num_workers", "0"]
    command = [sys.executable, str(EXAMPLES / "train_sft.py"), *flags, *saving, "--save_total_limit", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    until = time.monotonic() + 120
    while not (tmp_path / "out" / "checkpoint-2").exists() and time.monotonic() < until and run.poll() is None:
        time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors[-2000:]
    last = errors.strip().splitlines()[-1]
    assert re.match(
        r"train_sft\.py: interrupted after step \d+\. The last checkpoint is .*checkpoint-\d+: go on from", last
    )
    assert "Traceback" not in errors
    assert (tmp_path / "out" / re.search(r"(checkpoint-\d+)$", last)[1]).is_dir()


def test_an_adapter_is_a_model_for_the_scripts(monkeypatch, flags, models, tmp_path, capsys):
    base = AutoModelForImageTextToText.from_pretrained(models().path)
    get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    AutoProcessor.from_pretrained(models().path).save_pretrained(tmp_path / "adapter")
    more = ["--model_name_or_path", str(tmp_path / "adapter"), "--use_peft"]
    monkeypatch.setattr(sys, "argv", ["train_tgrpo.py", *flags, *GRPO, *more])
    train_tgrpo.main()
    printed = capsys.readouterr().out
    assert "is an adapter and is trained on: --use_peft and --lora_... are not used" in printed
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    monkeypatch.setattr(sys, "argv", ["train_tgrpo.py", *flags, *GRPO, *more, "--dry_run"])
    with pytest.raises(SystemExit) as ended:
        train_tgrpo.main()
    printed = capsys.readouterr().out
    assert ended.value.code == 0, printed
    assert "of them trained (adapters)" in printed


# The wording of the questions

WORDING = {
    "prompt": "You see a film. {question}\nThink in <think>, answer in <answer>. {answer_form}",
    "answer_forms": {kind: f"Form of {kind}." for kind in PROBLEM_TYPES},
    "options": "Choose:\n{options}",
}


def written(folder, **changes):
    path = folder / "wording.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in {**WORDING, **changes}.items() if value is not None}))
    return path


def test_a_template_words_the_question_its_options_and_the_form_of_the_answer(tmp_path):
    template = load_prompt_template(written(tmp_path))
    assert question_text("Which {way}?", "multiple choice", ["left", "right"], template) == (
        "You see a film. Which {way}?\nChoose:\nA. left\nB. right\nThink in <think>, answer in <answer>. "
        "Form of multiple choice."
    )
    assert question_text("{question}", "OCR", (), template).startswith("You see a film. {question}\nThink")
    assert make_prompt("Why?", "free-form", (), PromptTemplate("{question}")) == [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"prompt": "no field"}, "prompt must have {question} once, and has it 0 times"),
        ({"prompt": "{question} {question}"}, "prompt must have {question} once, and has it 2 times"),
        ({"prompt": "{question} {answer} {answer_form}"}, "unknown field {answer}"),
        ({"prompt": None}, "no key 'prompt'"),
        ({"prompt": "{question}"}, "the prompt has no {answer_form}"),
        ({"answer_forms": {"OCR": "x"}}, "answer_forms has no line for 'multiple choice'"),
        (
            {"answer_forms": {**WORDING["answer_forms"], "riddle": "x"}},
            "a line for 'riddle', which is no problem type",
        ),
        ({"options": "none"}, "options must have {options} once"),
        ({"other": "x"}, "the unknown key 'other'"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_its_file(tmp_path, monkeypatch, flags, changes, message):
    path = written(tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"prompt_template \({re.escape(str(path))}\): .*{re.escape(message)}"):
        load_prompt_template(path)
    assert message in said(monkeypatch, train_tgrpo, *flags, *GRPO, "--prompt_template", path)


def test_one_template_words_training_rationales_evaluation_and_questions(tmp_path, records, media, models, run_script):
    from videor1_trl.scripts import ask, generate_cot

    path = written(tmp_path)
    parsed = train_sft.make_parser().parse_args_and_config(
        ["--dataset", str(records), "--data_root", str(media["folder"]), "--prompt_template", str(path),
         "--output_dir", str(tmp_path), "--bf16", "False", "--use_cpu", "True"]
    )  # fmt: skip
    prompts = record_flags.load_records(parsed[0], str(records))["prompt"][:]
    assert all(prompt[0]["content"].startswith("You see a film. Which way?\nChoose:\nA. left") for prompt in prompts)
    asked = []
    defaults = {"--model_name_or_path": models().path, "--max_new_tokens": 2, "--video_max_pixels": 1568}
    with pytest.MonkeyPatch.context() as patch:
        from videor1_trl.generation import encoding as generation

        encode = generation.encode_prompt
        patch.setattr(
            generation,
            "encode_prompt",
            lambda p, messages, *a, **k: asked.append(messages) or encode(p, messages, *a, **k),
        )
        of_records = ["--dataset", records, "--data_root", media["folder"], "--prompt_template", path]
        run_script(evaluate, [*of_records, "--output_dir", tmp_path / "eval"], defaults)
        run_script(generate_cot, [*of_records, "--output_dir", tmp_path / "cot"], defaults)
        one = ["--question", "Which way?", "--options", "left", "right", "--video", media["videos"][0]]
        run_script(ask, [*one, "--prompt_template", path], defaults)
    assert len(asked) >= 9
    for prompt in asked:
        text = "".join(part.get("text", "") for part in prompt[0]["content"])
        assert text.startswith("You see a film. Which way?\nChoose:\nA. left") and "Form of multiple choice." in text
    # a run that goes on may not change its wording
    other = written(tmp_path, options="Which of:\n{options}")
    again = ["--dataset", records, "--data_root", media["folder"], "--output_dir", tmp_path / "eval"]
    assert "questions" in refused(run_script, evaluate, [*again, "--prompt_template", other], defaults)


def test_malformed_rows_of_an_evaluation_are_dropped_and_counted(tmp_path, records, media, models, run_script):
    rows = json.loads(records.read_text())
    rows += [{**rows[0], "problem_type": "open-ended", "problem_id": 10 + n} for n in range(3)]
    records.write_text(json.dumps(rows))
    defaults = {"--model_name_or_path": models().path, "--max_new_tokens": 2, "--video_max_pixels": 1568}
    arguments = ["--dataset", records, "--data_root", media["folder"], "--output_dir", tmp_path / "eval"]
    assert "3 of 7 records are malformed" in refused(run_script, evaluate, arguments, defaults)
    printed = run_script(evaluate, [*arguments, "--drop_bad_records"], defaults)
    assert "Dropped as malformed: 3 rows." in printed
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert summary["dropped_records"] == 3 and summary["questions"] == 4
    assert "open-ended" in summary["first_dropped"][0]


@pytest.mark.slow
def test_an_interrupted_command_does_not_wait_for_the_video_that_it_reads(flags, records, media, tmp_path):
    """It waited for up to 10 s for the threads that read, for as long as its video took; processes of theirs read on."""
    file = files.write(tmp_path / "slow.avi", codec="mpeg4", frames=20)
    code = (  # a video whose every frame takes a tenth of a second, of which there are 3,000
        "import time, videor1_trl.media.decode as decode\n"
        "each = decode.video_stream\n"
        "def slow(container, name):\n"
        "    if 'slow' in name:\n"
        f"        open({str(tmp_path / 'begun')!r}, 'w').close()\n"
        "        for number in decode.meter().each(range(3000)): time.sleep(0.1)\n"
        "    return each(container, name)\n"
        "decode.video_stream = slow\n"
    )
    (tmp_path / "sitecustomize.py").write_text(code)
    found = json.loads(records.read_text())
    records.write_text(json.dumps([{**each, "path": str(file)} for each in found]))
    command = [sys.executable, str(EXAMPLES / "train_tgrpo.py"), *flags, "--check_media", "off", "--beta", "0"]
    command += ["--per_device_train_batch_size", "4", "--num_generations", "4", "--decode_isolation", "process"]
    command[command.index("--data_root") + 1] = str(tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    until = time.monotonic() + 120
    while not (tmp_path / "begun").exists() and time.monotonic() < until and run.poll() is None:
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=30)  # until its processes have closed their output, too
    assert run.returncode == 130 and "train_tgrpo.py: interrupted" in errors, errors[-2000:]
