"""Faults in the middle of a run: rewards and objectives that return nonsense or hang, weights that are no numbers, full disks."""

import asyncio
import re
import resource
import threading

import numpy as np
import pytest
import torch
from datasets import Dataset
from helpers import config, logged, parity, row, sft_config, trainer
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl import VideoSFTTrainer, accuracy_reward
from videor1_trl.models.manifests import NotSaved, fault_of, newest_whole
from videor1_trl.rewards.checked import as_floats, checked
from videor1_trl.scripts import interruption


ROWS = [row("one?"), row("two?")]


# --- rewards


@pytest.mark.parametrize(
    "values, message",
    [
        (None, "returned None. It must return a list of one float or None per completion"),
        (1.0, "returned float 1.0. It must return a list"),
        ("good", "returned str 'good'. It must return a list"),
        ({"reward": 1}, "returned dict"),
        (["1.0"] * 4, "returned str '1.0' for completion 0. It must be a float, or None for no verdict"),
        ([0, 1, [1], 0], "returned list [1] for completion 2"),
        ([0, 1, {}, 0], "returned dict {} for completion 2"),
        ([0, 1, 1 + 2j, 0], "returned complex (1+2j) for completion 2"),
        ([0.0] * 3, "returned 3 values for 4 completions. It must return one per completion"),
        ([0.0] * 5, "returned 5 values for 4 completions"),
        ([0, 0, float("inf"), 0], "returned float inf for completion 2: one infinite reward makes all advantages"),
        ([0, -float("inf"), 0, 0], "returned float -inf for completion 1"),
        ([0, 10**40, 10**400, 0], f"returned int 1{'0' * 79} for completion 2: one infinite reward"),
        ([0, 0, 0, 10**5000], "returned int, too large to be shown, for completion 3: one infinite reward"),
    ],
)
def test_a_reward_that_is_none_names_its_function(values, message, models, tmp_path):
    def odd(completions, **kwargs):
        return values

    with pytest.raises(ValueError, match=re.escape(f"The reward function 'odd' {message}")):
        trainer(models(), ROWS, tmp_path, [parity, odd]).train()


def test_every_kind_of_number_is_a_reward():
    given = [
        1,
        0.5,
        True,
        np.float32(0.5),
        np.int64(2),
        np.array(0.25),
        np.array([0.5]),
        torch.tensor(0.5),
        torch.tensor([2]),
    ]
    assert as_floats(given, 9, "f") == [1.0, 0.5, 1.0, 0.5, 2.0, 0.25, 0.5, 0.5, 2.0]
    for array in (np.array([1.0, 0.0]), torch.tensor([1.0, 0.0])):
        assert as_floats(array, 2, "f") == [1.0, 0.0]
    assert np.isnan(as_floats([None, float("nan")], 2, "f")).all()


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


@given(ANY, st.integers(0, 3))
def test_whatever_is_returned_is_finite_floats_or_a_named_error(values, number):
    try:
        found = as_floats(values, number, "The reward function 'f'")
    except ValueError as error:
        assert str(error).startswith("The reward function 'f' returned ")
    else:
        assert len(found) == number and not any(np.isinf(found))


def test_what_a_reward_function_raises_itself_and_its_name_stay(models, tmp_path):
    def broken(completions, **kwargs):
        raise KeyError("column")

    with pytest.raises(KeyError, match="column"):
        trainer(models(), ROWS, tmp_path, broken, reward_seconds=60.0).train()
    assert trainer(models(), ROWS, tmp_path, [accuracy_reward, broken]).reward_func_names[:2] == [
        "accuracy_reward",
        "broken",
    ]


def test_a_reward_that_hangs_ends_the_run_by_its_name(models, tmp_path):
    over = threading.Event()

    def hanging(completions, **kwargs):
        over.wait(60)
        return [0.0] * len(completions)

    with pytest.raises(TimeoutError, match=re.escape("'hanging' takes more than reward_seconds (0.2 s)")):
        trainer(models(), ROWS, tmp_path, hanging, reward_seconds=0.2).train()
    over.set()


def test_a_limit_that_is_not_reached_changes_nothing(models, tmp_path):
    found = []
    for seconds in (None, 60.0):
        tgrpo = trainer(models(), ROWS, tmp_path, parity, reward_seconds=seconds, max_steps=2)
        tgrpo.train()
        found.append((logged(tgrpo, "reward"), logged(tgrpo, "grad_norm")))
    assert found[0] == found[1]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_the_limit_is_above_zero(seconds, tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"reward_seconds ({seconds}) must be above 0, or unset")):
        config(tmp_path, reward_seconds=seconds)


def test_functions_to_be_awaited_are_seen_too():
    async def late(completions, **kwargs):
        await asyncio.sleep(kwargs.get("seconds", 0))
        return kwargs["values"]

    call = checked(late, "late", 0.1)
    assert asyncio.iscoroutinefunction(call)
    assert asyncio.run(call(completions=["a", "b"], values=[1, None])) == [1.0, None]
    with pytest.raises(ValueError, match="'late' returned str 'x'"):
        asyncio.run(call(completions=["a"], values="x"))
    with pytest.raises(TimeoutError, match="'late' takes more than reward_seconds"):
        asyncio.run(call(completions=["a"], values=[1], seconds=60))


# --- objectives


@pytest.mark.parametrize("bonus", ["reward", "advantage"])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 1e400, "much", [1.0]])
def test_a_bonus_that_is_no_number_names_its_objective(value, bonus, models, media, tmp_path):
    """Added to an advantage, infinity made every weight NaN in one step."""

    def endless(accuracies, contrast_accuracies, **group):
        return [0.0, value, 0.0, 0.0]

    tgrpo = trainer(
        models(),
        [row(video=media["videos"][0])],
        tmp_path,
        temporal_bonus=bonus,
        options={"temporal_reward_func": endless},
    )
    with pytest.raises(ValueError, match="'endless', asked for bonuses, returned .* for ordered rollout 1"):
        tgrpo.train()


# --- weights and losses that are no numbers


def spoil(model):
    with torch.no_grad():
        dict(model.named_parameters())[next(n for n, _ in model.named_parameters() if n.endswith("norm.weight"))][
            0
        ] = torch.nan


def sft(tiny, folder, **overrides):
    rows = [row(f"{number}?", completion="<answer>A</answer>") for number in range(3)]
    return VideoSFTTrainer(tiny.path, sft_config(folder, **overrides), Dataset.from_list(rows))


def test_weights_that_are_no_numbers_end_supervised_training(models, tmp_path):
    """Its log said `loss 0.0`, step after step."""
    made = sft(models(), tmp_path)
    spoil(made.model)
    with pytest.raises(
        FloatingPointError, match=r"gradients of step 1 are not finite .* the weights of .* are not finite"
    ):
        made.train()


def test_weights_that_are_no_numbers_end_tgrpo(models, tmp_path):
    made = trainer(models(), ROWS, tmp_path)
    made.generate = None
    made._compute_loss = lambda model, inputs: torch.nan * sum(each.sum() for each in model.parameters())
    with pytest.raises(
        FloatingPointError, match="step 1 are not finite .*the weights are still finite: a loss was NaN"
    ):
        made.train()


def test_a_loss_that_is_no_number_changes_no_weight_and_no_checkpoint(models, tmp_path):
    made = sft(models(), tmp_path, max_steps=4, save_strategy="steps", save_steps=1, save_total_limit=1)
    weights, compute = {}, made.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        if made.state.global_step == 2:
            weights.update({name: each.detach().clone() for name, each in model.named_parameters()})
            return torch.inf * compute(model, inputs, *args, **kwargs)
        return compute(model, inputs, *args, **kwargs)

    made.compute_loss = compute_loss
    with pytest.raises(FloatingPointError, match="gradients of step 3 are not finite"):
        made.train()
    assert all(torch.equal(each, weights[name]) for name, each in made.model.named_parameters())
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-2", {})


# --- full disks


@pytest.mark.parametrize("kind", ["sft", "tgrpo"])
@pytest.mark.parametrize("room", [1000, 300_000])  # within the config, the weights
def test_a_full_disk_at_a_save_leaves_the_last_checkpoint_whole(room, kind, models, tmp_path):
    """No file may grow beyond so many bytes, which is what writing on a full disk meets; `save_total_limit` is no way out."""
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    made = sft(models(), tmp_path, **settings) if kind == "sft" else trainer(models(), ROWS, tmp_path, **settings)
    save, before = made._save_checkpoint, resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_checkpoint(model, trial):
        if made.state.global_step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            save(model, trial)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    made._save_checkpoint = save_checkpoint
    with pytest.raises(
        SystemExit, match="checkpoint-2 could not be written and is removed .*The last whole one is .*-1"
    ):
        interruption.train(made, None)  # in one line
    assert fault_of(tmp_path / "checkpoint-1") is None and not (tmp_path / "checkpoint-2").exists()
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(NotSaved, match="the model could not be written .*The last whole checkpoint is .*-1"):
            made.save_model(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resumed = sft(models(), tmp_path, **settings) if kind == "sft" else trainer(models(), ROWS, tmp_path, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-2", {})


def test_a_step_that_is_not_made_ends_the_command_in_one_line(models, tmp_path):
    made = sft(models(), tmp_path)
    spoil(made.model)
    with pytest.raises(SystemExit, match="The gradients of step 1 are not finite"):
        interruption.train(made, None)
