"""Groups that teach nothing: counted by kind, replaced by further prompts; advantages on the scale of their task."""

import json
import re
from collections import Counter

import pytest
import torch
from datasets import Dataset
from helpers import config, logged, parity, rollouts, row, trainer

from videor1_trl import TGRPOTrainer
from videor1_trl.further_prompts import _Layout
from videor1_trl.objectives.spread import TaskSpread, equal_groups


def by_question(teaching):
    """An accuracy: 1, 0, 1, 0 ... for the questions that teach, and 1 for all other rollouts."""

    def accuracy(completions, kind, **kwargs):
        return [
            float(place % 2) if each in teaching else 1.0
            for place, each in enumerate(kind)
        ]  # fmt: skip

    accuracy.calls = []
    return accuracy


def questions(number, teaching=(), **columns):
    return [
        row(f"{'x' * index}?", kind="teaches" if index in teaching else "idle", **columns) for index in range(number)
    ]


# --- by kind


def test_groups_of_one_reward_are_those_without_variance():
    nan = torch.nan
    rewards = torch.tensor([0.3, 0.3, 0.3, 0.1, nan, 0.3, nan, nan, 0.1 + 0.2, 0.3])
    assert equal_groups(rewards, 2).tolist() == [True, False, True, True, True]


def test_the_share_of_groups_without_variance_is_logged_by_problem_type_and_medium(models, media, tmp_path):
    rows = [
        row("a?", video=media["videos"][0], kind="teaches"),
        row("b?", video=media["videos"][1], kind="idle", problem_type="OCR"),
        row("c?", image=media["image"], kind="idle"),
        row("d?", kind="teaches", problem_type="OCR"),
    ]
    settings = {"per_device_train_batch_size": 16, "options": {"temporal_reward_func": None}}
    tgrpo = trainer(models(), rows, tmp_path, by_question(["teaches"]), **settings)
    tgrpo.train()
    found = {name: logged(tgrpo, name) for name in tgrpo.state.log_history[0] if name.startswith("zero_std/")}
    assert found == {
        "zero_std/multiple choice": [0.5], "zero_std/OCR": [0.5], "zero_std/video": [0.5], "zero_std/image": [1.0],
        "zero_std/text": [0.0],
    }  # fmt: skip
    assert logged(tgrpo, "frac_reward_zero_std") == [0.5]


# --- further prompts


def test_each_rank_makes_its_idle_groups_anew_and_as_many_as_the_others():
    """Two ranks of three groups of two rows, idle: 1 and 2 of the first, the third of the other, beside which it makes its first again."""
    layout = _Layout(size=2, rows=6, ranks=2, idle=[False, True, True, False, False, True])
    assert layout.holes == [1, 2, 5]
    assert [layout.round_of(rank) for rank in range(2)] == [[2, 3, 4, 5], [6, 7, 10, 11]]
    assert layout.fill([True, False, True, False]) == [2, 5]  # of groups 1, 2, 3 and 5
    assert layout.holes == [1] and [layout.round_of(rank) for rank in range(2)] == [[2, 3], [6, 7]]
    alone = _Layout(size=2, rows=12, ranks=1, idle=[False, True, True, False, False, True])
    assert alone.round_of(0) == [2, 3, 4, 5, 10, 11] and alone.fill([True, False, False]) == [2, 5]


def test_a_round_is_a_whole_batch_where_a_group_lies_on_two_ranks():
    spread = _Layout(size=4, rows=6, ranks=2, idle=[True, False, True])
    assert [spread.round_of(rank) for rank in range(2)] == [list(range(6)), list(range(6, 12))]
    assert spread.fill([False, False, True]) == [0] and spread.idle == [False, False, True]


def sampled(models, folder, accuracy, rows, **settings):
    return trainer(
        models(), rows, folder, accuracy,
        **{"per_device_train_batch_size": 8, "dynamic_sampling": 3, "beta": 0.04, "num_iterations": 2, "shuffle_dataset": False,
           **settings},
    )  # fmt: skip


def test_idle_groups_give_their_place_to_others_that_teach(models, media, tmp_path):
    """Of two groups the second is idle, as three of four questions are; rows are padded alike, and their advantages are the new ones."""
    rows = [row("a?", video=media["videos"][0], kind="teaches"), *questions(6, teaching=(5,))]
    tgrpo = sampled(models, tmp_path, by_question(["teaches"]), rows, dynamic_sampling=12)
    inputs = rollouts(tgrpo)
    texts = Counter(tgrpo._tokenizer.decode(encoded.input_ids) for encoded in inputs["encoded"])
    assert len(texts) in (1, 2) and set(texts.values()) <= {4, 8} and all("idle" not in text for text in texts)
    assert inputs["advantages"].abs().min() > 0.5 and len(inputs["advantages"]) == 8
    for index, encoded in enumerate(inputs["encoded"]):
        own = inputs["prompt_ids"][index][inputs["prompt_mask"][index].bool()]
        assert own.tolist() == encoded.input_ids
    assert inputs["num_items_in_batch"] == inputs["completion_mask"].sum()
    found = {name.partition("/")[2]: value[0] for name, value in tgrpo._metrics["train"].items() if "dynamic" in name}
    assert found["left"] == 0 and found["replaced"] == 0.5 and found["rounds"] >= 1
    assert found["extra_completions"] >= 4 * found["rounds"]
    tgrpo.train()
    assert all(value > 0 for value in logged(tgrpo, "grad_norm"))


def test_the_rounds_are_bounded_and_nothing_is_asked_where_all_teach(models, tmp_path):
    idle = sampled(models, tmp_path, by_question([]), questions(4), beta=0.0)
    inputs = rollouts(idle)
    assert not inputs["advantages"].any()
    assert idle._metrics["train"]["dynamic_sampling/rounds"] == [3]
    assert idle._metrics["train"]["dynamic_sampling/extra_completions"] == [24]  # two groups of four, three times
    assert idle._metrics["train"]["dynamic_sampling/left"] == [1.0]
    busy = sampled(models, tmp_path, by_question(["idle"]), questions(4), beta=0.0)
    rollouts(busy)
    assert busy._metrics["train"]["dynamic_sampling/rounds"] == [0]
    assert busy._metrics["train"]["dynamic_sampling/extra_completions"] == [0]


def test_a_group_whose_contrast_rollouts_teach_stays(models, media, tmp_path):
    class Contrasted:
        __name__ = "contrasted"

        def __call__(self, accuracies, contrast_accuracies, **group):
            return [0.0] * len(accuracies)

        def contrast_rewards(self, accuracies, contrast_accuracies, **group):
            return [1.0, 0.0]

    rows = [row("a?", video=media["videos"][0], kind="idle"), *questions(3)]
    tgrpo = sampled(models, tmp_path, by_question([]), rows, options={"temporal_reward_func": Contrasted()})
    inputs = rollouts(tgrpo)
    contrast = [each for each in inputs["contrast"] if each is not None]
    assert len(contrast) == 2 and sorted(each.advantage for each in contrast)[1] > 0.5
    assert tgrpo._metrics["train"]["dynamic_sampling/left"][0] < 1.0
    tokens = inputs["completion_mask"].sum() + sum(each.mask.sum() for each in contrast)
    assert inputs["num_items_in_batch"] == tokens and inputs["kept_share"].item() == pytest.approx(
        1 + len(contrast) / 8
    )
    tgrpo.current_gradient_accumulation_steps = 1
    tgrpo._compute_loss(tgrpo.model, inputs).backward()


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["task", "group"])
def test_a_resumed_run_draws_the_same_prompts_and_goes_on_bit_for_bit(models, tmp_path, scale):
    def run(folder, resume=None, **settings):
        torch.manual_seed(0)
        tgrpo = sampled(
            models, folder, mixed, questions(9), save_strategy="steps", save_steps=2, max_steps=4, beta=0.0, num_iterations=1,
            scale_rewards=scale, dynamic_sampling=2, **settings,
        )  # fmt: skip
        tgrpo.train(resume_from_checkpoint=resume)
        return tgrpo

    def mixed(completions, **kwargs):
        """Idle groups now and then: what a completion begins with."""
        return [float(each[0]["content"][:1] > "m") if each[0]["content"] else 1.0 for each in completions]

    whole = run(tmp_path / "a")
    again = run(tmp_path / "b", str(tmp_path / "a" / "checkpoint-2"))
    assert sum(logged(whole, "dynamic_sampling/rounds")) > 0
    for name in ("reward", "grad_norm", "dynamic_sampling/replaced", "dynamic_sampling/extra_completions"):
        assert logged(again, name)[-2:] == logged(whole, name)[-2:], name
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    if scale == "task":
        assert whole.task_spread.moments == again.task_spread.moments != {}
        (tmp_path / "a" / "checkpoint-2" / "task_spread.json").unlink()
        (tmp_path / "a" / "checkpoint-2" / "manifest.json").unlink()
        with pytest.raises(ValueError, match="has none \\(task_spread.json\\)"):
            run(tmp_path / "c", str(tmp_path / "a" / "checkpoint-2"))


def test_what_dynamic_sampling_cannot_do_is_refused(tmp_path):
    with pytest.raises(ValueError, match=re.escape("dynamic_sampling (-1) must be at least 0")):
        config(tmp_path, dynamic_sampling=-1)
    stream = Dataset.from_list(questions(8)).to_iterable_dataset()
    with pytest.raises(
        NotImplementedError, match=re.escape("dynamic_sampling (2) draws further prompts from the whole data")
    ):
        TGRPOTrainer("no/model", parity, config(tmp_path, dynamic_sampling=2), stream)


# --- by task


def test_running_means_by_hand():
    """
    Batch 1 of task a: rewards 1 and 0, E = 0.5, E2 = 0.5, sigma 0.5. Batch 2: 1 and 1, E = 0.99 * 0.5 + 0.01 = 0.505, E2 = 0.505,
    sigma = sqrt(0.505 - 0.255025) = 0.499975.
    """
    spread = TaskSpread()
    spread.update(torch.tensor([1.0, 0.0, 0.2, torch.nan]), ["a", "a", "b", "b"])
    assert spread.moments["a"] == (0.5, 0.5) and spread.sigma("a") == 0.5
    assert spread.sigma("b") == 1e-3, "one reward has no spread: the floor"
    spread.update(torch.tensor([1.0, 1.0]), ["a", "a"])
    assert spread.sigma("a") == pytest.approx(0.499975, abs=1e-6)
    assert spread.sigma("never seen") == 1.0


def test_groups_far_from_their_task_use_their_own_spread():
    """Sigma of the task 0.01: rewards 1 and 0 would be 50 from the mean, so they are divided by their own 0.5."""
    spread = TaskSpread(moments={"a": (0.0, 0.0001)})
    rewards = torch.tensor([1.0, 0.0, 0.01, 0.0])
    found = spread.divisors(rewards, ["a"] * 4, 2)
    assert found.tolist() == pytest.approx([0.5 + 1e-6] * 2 + [0.01 + 1e-6] * 2, abs=1e-6)
    # 1, 0, 0, 0: mean 1/4, variance 3/16 (of a population, as the released code has it), so 0.75 / 0.433 = 1.732
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0])
    found = (rewards - 0.25) / spread.divisors(rewards, ["a"] * 4, 4)
    assert found.tolist() == pytest.approx([1.7320, -0.5773, -0.5773, -0.5773], abs=1e-4)


class Halves:
    """Contrast rollouts are paid 1 and 0, ordered ones nothing beside their accuracy."""

    __name__ = "halves"

    def __call__(self, accuracies, contrast_accuracies, **group):
        return [0.0] * len(accuracies)

    def contrast_rewards(self, accuracies, contrast_accuracies, **group):
        return [1.0, 0.0]


def test_trained_contrast_rollouts_are_on_the_scale_of_their_own_rewards(models, media, tmp_path):
    """
    Ordered rewards all 1, of which sigma is the floor, 1e-3; contrast rewards 1 and 0: mean 0.5, sigma 0.5, advantages of 1, where
    sigma of the ordered ones gave 500.
    """
    settings = {"options": {"temporal_reward_func": Halves()}, "scale_rewards": "task"}
    rows = [row(video=media["videos"][0], kind="idle")]
    tgrpo = trainer(models(), rows, tmp_path, by_question([]), **settings)
    inputs = rollouts(tgrpo)
    assert not inputs["advantages"].any()
    found = sorted(each.advantage for each in inputs["contrast"] if each is not None)
    assert found == pytest.approx([-1.0, 1.0], abs=1e-4)
    assert tgrpo.task_spread.moments == {"multiple choice": (1.0, 1.0), "multiple choice (contrast)": (0.5, 0.5)}
    # far from their task, whose sigma is 0.01, they are divided by their own 0.5
    tgrpo.task_spread.moments["multiple choice (contrast)"] = (0.0, 0.0001)
    tgrpo.task_spread.decay = 1.0
    tgrpo._step = 0
    found = sorted(each.advantage for each in rollouts(tgrpo)["contrast"] if each is not None)
    assert found == pytest.approx([-1.0, 1.0], abs=1e-4)


def test_advantages_are_on_the_scale_of_their_task(models, tmp_path):
    """Choices of rewards 0 and 1 (sigma 0.5), and estimates of 0 and 0.1 (sigma 0.05): advantages of 1 in both, where 'none' has 0.05."""

    def accuracy(completions, problem_type, **kwargs):
        high = {"multiple choice": 1.0, "regression": 0.1}
        return [high[kind] * (place % 2) for place, kind in enumerate(problem_type)]

    rows = [row("a?"), row("b?", problem_type="regression")]
    tgrpo = trainer(models(), rows, tmp_path, accuracy, per_device_train_batch_size=8, scale_rewards="task")
    inputs = rollouts(tgrpo)
    assert inputs["advantages"].abs().tolist() == pytest.approx([1.0] * 8, abs=1e-4)
    assert sorted(tgrpo._logs["advantages"]) == pytest.approx([-1.0] * 4 + [1.0] * 4, abs=1e-4)
    assert tgrpo.task_spread.moments["regression"] == pytest.approx((0.05, 0.005))
    tgrpo.task_spread.save(tmp_path)
    assert json.loads((tmp_path / "task_spread.json").read_text()).keys() == {"multiple choice", "regression"}
    with pytest.raises(ValueError, match=re.escape("scale_rewards ('tasks') must be one of group, batch, none, task")):
        config(tmp_path, scale_rewards="tasks")
