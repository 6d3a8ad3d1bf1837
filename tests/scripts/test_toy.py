"""The toy: its model, its questions and its videos, and what `train_tgrpo.py` says to those who call it wrongly."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from videor1_trl import extract_answer, load_image, load_video, load_video_r1
from videor1_trl.scripts import toy, toy_cold_start
from videor1_trl.text.prompts import make_prompt


EXAMPLES = Path(__file__).parents[2] / "examples"


SCRIPT = EXAMPLES / "train_tgrpo.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`{"train": records, "held_out": records, "folder": Path}`: 40 questions each."""
    folder = tmp_path_factory.mktemp("toy")
    files = {
        "train": toy.make_dataset(folder, "train", 40, seed=1, progress=False),
        "held_out": toy.make_dataset(folder, "held_out", 40, seed=2, held_out=True, progress=False),
    }
    return {**{name: json.loads(file.read_text()) for name, file in files.items()}, "folder": folder}


@pytest.fixture(scope="module")
def model_and_processor():
    return toy.make_model()


@pytest.fixture(scope="module")
def saved(model_and_processor, tmp_path_factory):
    """Folder of the untrained toy model."""
    folder = tmp_path_factory.mktemp("toy_model")
    for part in model_and_processor:
        part.save_pretrained(folder)
    return folder


def run_script(*arguments, config=None, cwd=None):
    command = [sys.executable, str(SCRIPT), *(["--config", str(config)] if config else []), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


def main_in_process(monkeypatch, *arguments) -> str:
    """The message with which the script ends when it is called with these arguments."""
    from videor1_trl.scripts import train_tgrpo

    monkeypatch.setattr(sys, "argv", ["train_tgrpo.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        train_tgrpo.main()
    return str(stopped.value)


# Model and tokenizer


def test_the_model_has_less_than_two_million_parameters(model_and_processor):
    assert sum(parameter.numel() for parameter in model_and_processor[0].parameters()) < 2_000_000


def test_the_seed_alone_sets_the_weights():
    state = torch.get_rng_state()
    first, second, other = (toy.make_model(seed)[0].get_input_embeddings().weight for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_answers_survive_the_tokenizer_and_their_words_are_whole_tokens(data, model_and_processor):
    tokenizer = model_and_processor[1].tokenizer
    for record in data["train"] + data["held_out"]:
        text = f"{record['process']}\n{record['solution']}"
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert len(ids) <= 11  # four tags, four colours, a new line and at most two words of the longest answer, + 1


def test_the_chat_template_has_one_placeholder_per_medium(model_and_processor):
    content = [{"type": "video"}, {"type": "image"}, {"type": "text", "text": "red"}]
    text = model_and_processor[1].apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|><|vision_start|><|image_pad|><|vision_end|>red"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_saved_toy_is_loaded_by_the_auto_classes(saved, model_and_processor):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(saved), AutoProcessor.from_pretrained(saved)
    assert torch.equal(model.get_input_embeddings().weight, model_and_processor[0].get_input_embeddings().weight)
    assert processor.tokenizer.padding_side == "left"
    assert processor.tokenizer.eos_token == "<|im_end|>" and processor.tokenizer.pad_token == "<|endoftext|>"


# Questions and media


def test_all_kinds_and_problem_types_occur(data):
    for name in ("train", "held_out"):
        assert {record["data_source"] for record in data[name]} == {f"toy/{kind}" for kind in toy.KINDS}
        types = {record["problem_type"] for record in data[name]}
        assert types == {"multiple choice", "numerical", "free-form", "regression"}
        assert {record["data_type"] for record in data[name]} == {"video", "image"}


def test_records_are_read_as_video_r1_records(data):
    dataset = load_video_r1(data["folder"] / "train.json")
    assert len(dataset) == 40
    record, row = data["train"][0], dataset[0]
    assert row["prompt"] == make_prompt(record["problem"], record["problem_type"], record["options"])
    assert all(Path(row["video"] or row["image"]).is_file() for row in dataset)


def test_train_and_held_out_files_are_disjoint(data):
    for name in ("problem_id", "path"):
        assert not {record[name] for record in data["train"]} & {record[name] for record in data["held_out"]}
    sequences = [
        {record["process"] for record in data[name] if record["data_source"] == "toy/order"}
        for name in ("train", "held_out")
    ]
    assert sequences[0] and sequences[1] and not sequences[0] & sequences[1]


def test_videos_show_the_colours_of_their_rationale_in_order(data):
    names = list(toy.COLOURS) + ["black"]
    palette = torch.tensor([*toy.COLOURS.values(), (15, 15, 15)], dtype=torch.float)
    checked = 0
    for record in data["train"] + data["held_out"]:
        if record["data_source"] not in ("toy/order", "toy/count", "toy/colour"):
            continue
        frames, _ = load_video(data["folder"] / record["path"])
        assert frames.shape == (8, 3, toy.SIZE, toy.SIZE)  # two sampled frames, one temporal patch, per colour
        means = frames.float().mean(dim=(2, 3))
        brightness = means.amax(dim=1, keepdim=True).clamp(min=60) / palette.amax(dim=1).clamp(min=60)
        distance = (means[:, None] - brightness[..., None] * palette).norm(dim=2)
        shown = [names[index] for index in distance.argmin(dim=1)]
        steps = record["process"].removeprefix("<think>").removesuffix("</think>").split()
        assert shown == [step for step in steps for _ in range(2)]
        checked += 1
    assert checked > 40


def test_answers_follow_from_the_rationale(data):
    letters = dict(zip(toy.COLOURS, "ABCDEF", strict=True))
    for record in data["train"] + data["held_out"]:
        steps = record["process"].removeprefix("<think>").removesuffix("</think>").split()
        answer = extract_answer(record["solution"])
        kind = record["data_source"].removeprefix("toy/")
        if kind in ("order", "colour"):
            assert answer == letters[steps[0]]
            assert f"{answer}. {steps[0]}" in record["options"]
        elif kind == "count":
            assert answer == str(sum(step in record["problem"] for step in steps))
        elif kind == "direction":
            assert answer == " to ".join(steps)


def test_a_moving_bar_is_where_its_direction_says(data):
    halves = {"left": (slice(None), slice(0, 20)), "right": (slice(None), slice(36, None))}
    halves |= {"top": (slice(0, 20), slice(None)), "bottom": (slice(36, None), slice(None))}
    records = [record for record in data["train"] if record["data_source"] == "toy/direction"]
    assert records
    for record in records:
        frames, _ = load_video(data["folder"] / record["path"])
        for frame, side in ((frames[0], 0), (frames[-1], 1)):
            rows, columns = halves[extract_answer(record["solution"]).split(" to ")[side]]
            lit = frame[:, rows, columns].float().amax(dim=0).mean()
            assert lit > frame.float().amax(dim=0).mean() + 20


def test_an_image_is_filled_to_the_share_asked_for(data):
    records = [record for record in data["train"] + data["held_out"] if record["data_source"] == "toy/image share"]
    assert records
    for record in records:
        pixels = torch.tensor(list(load_image(data["folder"] / record["path"]).getdata()), dtype=torch.float)
        lit = (pixels.amax(dim=1) > 60).float().mean().item()
        assert round(100 * lit) == int(extract_answer(record["solution"]))


def test_the_same_seed_gives_the_same_files(data, tmp_path):
    again = toy.make_dataset(tmp_path, "train", 40, seed=1, progress=False)
    assert json.loads(again.read_text()) == data["train"]
    for record in data["train"][:8]:
        first, second = (folder / record["path"] for folder in (data["folder"], tmp_path))
        assert first.read_bytes() == second.read_bytes()


# Cold start and evaluation


def test_the_cold_start_stops_at_its_target_and_not_without_it(data, tmp_path):
    model, processor = toy.make_model()
    dataset = load_video_r1(data["folder"] / "train.json")
    kept = model.get_input_embeddings().weight.detach().clone()
    settings = {"num_validation": 4, "batch_size": 4, "check_every": 1, "progress": False}
    assert toy_cold_start.cold_start(model, processor, dataset, tmp_path, target=0.0, **settings)["steps"] == 1
    assert not torch.equal(model.get_input_embeddings().weight, kept)
    with pytest.raises(RuntimeError, match="below its target"):
        toy_cold_start.cold_start(model, processor, dataset, tmp_path, target=1.0, max_steps=2, **settings)
    assert not list(tmp_path.iterdir()), "the trainer leaves nothing behind"


def test_greedy_answers_come_in_the_order_of_their_rows(data):
    model, processor = toy.make_model()
    with torch.no_grad():  # random weights of the usual size leave the prompt next to no influence
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    rows = list(load_video_r1(data["folder"] / "train.json"))[:6]
    together = toy_cold_start.greedy_answers(model, processor, rows)
    assert together == [toy_cold_start.greedy_answers(model, processor, [row])[0] for row in rows]
    assert len(set(together)) > 1


def test_a_question_without_an_answer_is_named():
    from videor1_trl.generation.requests import GeneratedCompletion

    with pytest.raises(RuntimeError, match=r"question 3: a\.mp4: no frames"):
        toy_cold_start.text_of(GeneratedCompletion("3", None, error="a.mp4: no frames"))


# The script


def test_the_script_explains_itself_in_less_than_ten_seconds_of_processor_time():
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run_script("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "--plain_grpo" in done.stdout and "--temporal_alpha" in done.stdout and "--lora_r" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10  # a busy machine does not count


def test_the_script_ends_with_one_line_and_no_traceback(tmp_path):
    done = run_script("--output_dir", tmp_path, "--dataset", tmp_path / "none.json", "--use_cpu")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("train_tgrpo.py: ") and "none.json" in done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "dataset is not set"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--no_such_flag", "1"], "--no_such_flag"),
        (["--dataset", "nowhere.json"], "nowhere.json"),
        (["--temporal_alpha", "-1"], "temporal_alpha (-1.0)"),
        (["--temporal_alpha", "much"], "temporal_alpha"),
        (["--dataset", "{data}"], "model_name_or_path is not set"),
        (
            ["--dataset", "{data}", "--model_name_or_path", "./no/model"],
            "model_name_or_path (./no/model) is not a folder",
        ),
        (["--dataset", "{data}", "--model_name_or_path", "{data_folder}"], "model_name_or_path"),
        (["--dataset", "{data}", "--model_name_or_path", "{model}", "--data_root", "{model}"], "40 missing"),
        (["--dataset", "{data}", "--model_name_or_path", "{model}", "--reward_funcs", "no_reward"], "'no_reward'"),
        (["--dataset", "{data}", "--model_name_or_path", "{model}", "--eval_strategy", "steps"], "eval_dataset"),
        (["--dataset", "toy", "--toy_size", "3"], "toy_size (3)"),
    ],
)
def test_what_does_not_fit_is_said_in_a_message(arguments, message, data, saved, tmp_path, monkeypatch, capsys):
    names = {"data": data["folder"] / "train.json", "data_folder": data["folder"], "model": saved}
    arguments = [argument.format(**names) for argument in arguments]
    said = main_in_process(monkeypatch, "--output_dir", tmp_path, "--use_cpu", "--report_to", "none", *arguments)
    assert said.startswith("train_tgrpo.py: ") and message in said
    assert capsys.readouterr().err.count("Traceback") == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--resume_from_checkpoint", "/no/where"], "resume_from_checkpoint (/no/where) is no folder"),
        (["--max_prompt_length", "5"], "more than --max_prompt_length (5)"),
        (["--data_files", "of_the_recipe.json", "--max_prompt_length", "5"], "more than --max_prompt_length (5)"),
    ],
)
def test_what_shows_only_in_training_is_said_in_a_message_too(arguments, message, data, saved, tmp_path, monkeypatch):
    said = main_in_process(
        monkeypatch,
        *("--output_dir", tmp_path, "--use_cpu", "--report_to", "none", "--beta", "0", "--bf16", "False"),
        *("--dataset", data["folder"] / "train.json", "--model_name_or_path", saved, *arguments),
    )
    assert said.startswith("train_tgrpo.py: ") and message in said


def test_a_malformed_config_is_said_in_a_message(tmp_path, monkeypatch):
    config = tmp_path / "bad.yaml"
    config.write_text("dataset: [1, 2\nseed: {")
    said = main_in_process(monkeypatch, "--config", config, "--use_cpu")
    assert said.startswith("train_tgrpo.py: ") and "bad.yaml" in said


def test_a_model_that_takes_no_videos_is_refused_before_its_weights_are_read(data, tmp_path, monkeypatch):
    toy.make_tokenizer().save_pretrained(tmp_path / "text")
    (tmp_path / "text" / "config.json").write_text('{"model_type": "llama"}')
    said = main_in_process(
        monkeypatch,
        *("--output_dir", tmp_path, "--use_cpu", "--dataset", data["folder"] / "train.json"),
        *("--model_name_or_path", tmp_path / "text"),
    )
    assert "rows have a video, but the" in said and "takes none" in said


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True], ids=["t-grpo", "plain GRPO"])
def test_a_short_run_on_the_toy_leaves_what_it_promises(plain, tmp_path):
    from transformers import AutoModelForImageTextToText

    config = EXAMPLES / "configs" / "toy.yaml"
    flags = ["--output_dir", tmp_path, "--toy_size", 48, "--toy_target", 0, "--max_steps", 2, "--num_generations", 4]
    done = run_script(*flags, "--per_device_train_batch_size", 8, *(["--plain_grpo"] if plain else []), config=config)
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line for line in done.stdout.splitlines() if not line.startswith("[")]  # as deepspeed's, if installed
    assert said[-1] == f"Saved to {tmp_path}."
    assert [line.split(":")[0] for line in said[:2]] == ["data", "cold start"]
    assert [line.split("  ")[0] for line in said[2:5]] == ["step 1/2", "step 2/2", said[4]]
    assert said[4].startswith("trained 2 steps in ") and ("contrast" in said[2]) == (not plain)
    assert "\r" not in done.stderr and "Warning" not in done.stderr  # of a bar, of a library
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 2 and summary["method"] == ("GRPO" if plain else "T-GRPO")
    assert set(summary["after"]["shuffled"]) == set(toy.KINDS)
    page = (tmp_path / "view.html").read_text()
    assert '<h2 id="curves-title">Curves</h2>' in page and ('"kind": "contrast"' in page) == (not plain)
    assert list((tmp_path / "rollout_frames").rglob("*.jpg")) and (tmp_path / "trainer_state.json").is_file()
    assert {"data", "cold_start", "training", "total"} <= set(summary["seconds"])
    for name in ("curves.png", "frames.png", "data/train.json", "data/held_out.json"):
        assert (tmp_path / name).stat().st_size > 1000
    assert list((tmp_path / "data" / "videos").glob("*.mp4"))
    AutoModelForImageTextToText.from_pretrained(tmp_path)
