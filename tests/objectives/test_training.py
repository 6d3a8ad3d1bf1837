"""What objectives ask of the trainer: log-probabilities on the contrast frames, and contrast rollouts that are trained."""

import functools
import re
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from helpers import Scripted, config, logged, parity, rollouts, row, trainer
from torch.nn.functional import log_softmax

from videor1_trl import (
    TGRPOTrainer,
    format_reward,
    get_contrast_by_column,
    get_gap_reward,
    get_mirrored_interval_reward,
    get_relation_reward,
    get_shuffle_around,
    reverse_frames,
    shuffle_frames,
)
from videor1_trl.data.columns import check_objective_data
from videor1_trl.models.encoding import collate_features, collate_token_types


class Halves:
    """An objective that trains contrast rollouts: the rewards that it is given, in turn, and no bonus."""

    __name__ = "halves"

    def __init__(self, rewards=(1.0, 0.0, 0.0, 0.5)):
        self.rewards, self.seen = list(rewards), []

    def __call__(self, accuracies, contrast_accuracies, **group):
        self.seen.append(group)
        return [0.0] * len(accuracies)

    def contrast_rewards(self, accuracies, contrast_accuracies, **group):
        return self.rewards[: len(contrast_accuracies)]


class Drops:
    """An objective that notes what it is told of log-probabilities."""

    __name__ = "drops"
    needs_contrast_rollouts = False
    needs_logps = True

    def __init__(self):
        self.seen = []

    def __call__(self, accuracies, contrast_accuracies, **group):
        assert contrast_accuracies == [] == group["contrast_completions"]
        self.seen.append(group)
        return [0.1, 0.0, 0.0, 0.0]


def canned(tgrpo, lengths=(6, 3, 5, 2, 4, 7)):
    """Makes `generate` return tokens that follow from group, place and kind, of several lengths."""

    def completion(group, place, contrast):
        generator = torch.Generator().manual_seed(1000 * group + 10 * place + contrast)
        tokens = torch.full((max(lengths),), tgrpo._tokenizer.pad_token_id)
        length = lengths[(group + 2 * place + contrast) % len(lengths)]
        tokens[:length] = torch.randint(40, 250, (length,), generator=generator)
        return tokens

    def generate(**kwargs):
        rows = [(each.group, each.place, 0) for each in tgrpo._batch.rows]
        rows += [(each.group, each.place, 1) for each in tgrpo._batch.rows if each.contrast is not None]
        return torch.cat([kwargs["input_ids"], torch.stack([completion(*each) for each in rows])], dim=1)

    tgrpo.model.generate = generate
    return tgrpo


def logps_of(model, prompt, ids):
    """The plain model on one row: log-probabilities of the completion's tokens, (C,)."""
    inputs = torch.tensor([prompt.input_ids + list(ids)])
    types = {key: torch.tensor([values[0] + [0] * len(ids)]) for key, values in collate_token_types([prompt]).items()}
    logits = model(input_ids=inputs, **types, **collate_features([prompt])).logits[0, -len(ids) - 1 : -1].float()
    return log_softmax(logits, dim=-1).gather(1, torch.tensor(ids)[:, None])[:, 0]


def forwards(tgrpo):
    """The number of the language model's forward calls, and of rows that were generated, by name."""
    counts = SimpleNamespace(forwards=0, generated=[])
    tgrpo.model.register_forward_hook(lambda *_: setattr(counts, "forwards", counts.forwards + 1))
    generate = tgrpo.model.generate

    def counting(**kwargs):
        counts.generated.append(len(kwargs["input_ids"]))
        return generate(**kwargs)

    tgrpo.model.generate = counting
    return counts


# --- what is not asked for costs nothing


@pytest.mark.parametrize(
    "objective, generated, passes",
    [(None, 4, 0), (lambda a, b, **group: [0.0] * 4, 6, 0), (Halves(), 6, 0), (Drops(), 4, 2)],
    ids=["plain GRPO", "accuracies", "trained contrast", "log-probabilities"],
)
def test_what_an_objective_does_not_ask_for_is_not_computed(models, media, tmp_path, objective, generated, passes):
    """One step makes a forward before its rollouts and one for its loss; log-probabilities take one behind each prompt, and no contrast rollouts."""
    if objective is not None and not hasattr(objective, "rewards") and not hasattr(objective, "seen"):
        objective.__name__ = "zeros"
    tgrpo = trainer(
        models(), [row(video=media["videos"][0])], tmp_path, options={"temporal_reward_func": objective},
    )  # fmt: skip
    canned(tgrpo)
    counts = forwards(tgrpo)
    tgrpo.train()
    assert counts.generated == [generated]
    assert counts.forwards == 2 + passes  # the prompts before the rollouts, and the loss


def test_the_policys_own_pass_over_the_completions_is_not_made_again(models, media, tmp_path):
    """With two steps for each batch TRL reads the old log-probabilities, and the reference: beside these and two losses one pass is left."""
    objective = Drops()
    tgrpo = trainer(
        models(), [row(video=media["videos"][0])], tmp_path, options={"temporal_reward_func": objective}, num_iterations=2, max_steps=2,
        beta=0.04,
    )  # fmt: skip
    counts = forwards(canned(tgrpo))
    tgrpo.train()
    assert len(objective.seen) == 1 and counts.forwards == 1 + 1 + 1 + 2  # the prompts, the old pass, contrast, losses


# --- log-probabilities on the contrast frames


@pytest.mark.parametrize(
    "share, further", [(True, {}), (False, {}), (True, {"num_iterations": 2, "beta": 0.04}), (True, {"beta": 0.04})]
)
def test_log_probabilities_are_those_of_the_completions_behind_both_prompts(models, media, tmp_path, share, further):
    """Read for this alone, or, with `num_iterations`, taken from TRL's pass."""
    rows = [
        row("a?", video=media["videos"][0]),
        row("bb?", image=media["image"]),
        row("ccc?", video=media["videos"][1]),
    ]
    objective = Drops()
    options = {"temporal_reward_func": objective}
    tgrpo = canned(
        trainer(
            models(), rows, tmp_path, options=options, per_device_train_batch_size=12, share_prefix=share, **further
        )
    )
    if "beta" in further:  # another reference than the policy, which must not be taken for it
        with torch.no_grad():
            tgrpo.ref_model.lm_head.weight.mul_(1.5)
    inputs = rollouts(tgrpo)
    assert len(objective.seen) == 2, "the image prompt has no group to value"
    rewards = torch.tensor(tgrpo._logs["rewards"]["drops"])
    assert rewards[4:8].isnan().all() and rewards[:4].tolist() == pytest.approx([0.1, 0, 0, 0])
    batch = [each for each in tgrpo._batch.rows if each.counterpart is not None]
    assert len(batch) == 8 and all(each.contrast is None for each in batch)
    tgrpo.model.eval()
    seen = [pair for group in objective.seen for pair in zip(group["completion_ids"], group["logps"], strict=True)]
    behind = [values for group in objective.seen for values in group["contrast_logps"]]
    with torch.no_grad():
        for each, (ids, ordered), contrast in zip(batch, seen, behind, strict=True):
            assert ordered == pytest.approx(logps_of(tgrpo.model, each.encoded, ids).tolist(), abs=1e-4)
            assert contrast == pytest.approx(logps_of(tgrpo.model, each.counterpart, ids).tolist(), abs=1e-4)
            assert max(abs(a - b) for a, b in zip(ordered, contrast, strict=True)) > 1e-4
    assert "contrast" not in inputs


def test_log_prob_drop_by_name_pays_the_right_rollouts_that_need_the_order(models, media, tmp_path):
    accuracy = Scripted([1, 1, 1, 0])
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, accuracy, objective="log_prob_drop")
    accuracy.lists = [[1, 1, 1, 0]]
    canned(tgrpo)
    rollouts(tgrpo)
    drops = [sum(a) / len(a) - sum(b) / len(b) for a, b in tgrpo._batch.logps]
    mean = sum(drops) / 4
    expected = [0.3 if drop > mean and place < 3 else 0.0 for place, drop in enumerate(drops)]
    assert tgrpo._logs["rewards"]["log_prob_drop_reward"] == pytest.approx(expected)
    assert tgrpo._metrics["train"]["temporal/accuracy"] == [0.75]
    assert "temporal/gap" not in tgrpo._metrics["train"], "there are no contrast rollouts"


# --- contrast rollouts that are trained


def trained(models, media, folder, rewards=(1.0, 0.0, 0.0, 0.5), rows=None, accuracy=parity, **settings):
    rows = rows or [row("a?", video=media["videos"][0])]
    options = {"temporal_reward_func": Halves(rewards)}
    return canned(trainer(models(), rows, folder, accuracy, options=options, **settings))


def gradients(tgrpo, inputs):
    tgrpo.model.zero_grad()
    tgrpo.current_gradient_accumulation_steps = 1
    tgrpo._compute_loss(tgrpo.model, inputs).backward()
    return {name: p.grad.clone() for name, p in tgrpo.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("share", [True, False])
def test_the_gradient_is_that_of_grpo_with_the_contrast_rows_in_it(models, media, tmp_path, share):
    """By the formula: -1/N sum_i A_i mean_t log pi(o_it), over 4 ordered and 2 contrast rollouts, N = 6."""
    accuracy = Scripted([1, 0, 0, 0], [0, 0])
    tgrpo = trained(models, media, tmp_path, accuracy=accuracy, share_prefix=share)
    inputs = rollouts(tgrpo)
    found = gradients(tgrpo, inputs)
    batch, half = tgrpo._logs["advantages"], 1 / (0.5**0.5 + 1e-4) * 0.5  # rewards 1 and 0: mean 0.5, std 0.5 ** 0.5
    own = [each for each in inputs["contrast"] if each is not None]
    assert [each.advantage for each in own] in (
        [pytest.approx(half), pytest.approx(-half)],
        [pytest.approx(-half), pytest.approx(half)],
    )
    tgrpo.model.zero_grad()
    tgrpo.model.train()
    loss = 0.0
    for index, prompt in enumerate(inputs["encoded"]):
        ids = inputs["completion_ids"][index][inputs["completion_mask"][index].bool()].tolist()
        loss = loss - inputs["advantages"][index] * logps_of(tgrpo.model, prompt, ids).mean()
    for each in own:
        loss = loss - each.advantage * logps_of(tgrpo.model, each.encoded, each.ids.tolist()).mean()
    (loss / 6).backward()
    assert len(batch) == 4
    for name, parameter in tgrpo.model.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
    assert max(each.abs().max() for each in found.values()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo"])
def test_every_loss_type_trains_them_alike_packed_and_row_by_row(models, media, tmp_path, loss_type):
    rows = [row("a?", video=media["videos"][0]), row("bb?", image=media["image"])]
    results = []
    for share in (True, False):
        torch.manual_seed(0)
        tgrpo = trained(
            models, media, tmp_path, rows=rows, share_prefix=share, loss_type=loss_type, per_device_train_batch_size=8,
            max_steps=2, num_iterations=2, beta=0.04,
        )  # fmt: skip
        tgrpo.train()
        results.append(tgrpo)
    for key in ("loss", "grad_norm", "kl", "entropy"):
        assert logged(results[0], key) == pytest.approx(logged(results[1], key), abs=1e-5, rel=2e-3), key
    assert logged(results[0], "grad_norm")[0] > 0


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "luspo", "sapo", "dapo"])
def test_micro_batches_add_up_to_the_whole(models, media, tmp_path, loss_type):
    """Two video prompts and two of text, in one micro-batch or in four: the same gradient, whichever rows are where."""
    rows = [row("a?", video=media["videos"][0]), row("b?"), row("c?"), row("dd?", video=media["videos"][1])]
    found = []
    for size, accumulation in ((16, 1), (4, 4)):
        torch.manual_seed(0)
        tgrpo = trained(
            models, media, tmp_path, rows=rows, loss_type=loss_type, per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            importance_sampling_level="sequence" if loss_type == "luspo" else "token",
        )  # fmt: skip
        rollouts(tgrpo)
        tgrpo.model.zero_grad()
        tgrpo.current_gradient_accumulation_steps = accumulation
        for inputs in tgrpo._buffered_inputs:
            tgrpo._compute_loss(tgrpo.model, inputs).backward()
        found.append(tgrpo.model.get_input_embeddings().weight.grad.clone())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6 * found[0].abs().max().item())
    assert found[0].abs().max() > 1e-4


def test_their_old_and_reference_log_probabilities_are_those_of_their_frames(models, media, tmp_path):
    rows = [row("a?", video=media["videos"][0]), row("bb?", image=media["image"])]
    tgrpo = trained(models, media, tmp_path, rows=rows, num_iterations=2, beta=0.04, per_device_train_batch_size=8)
    with torch.no_grad():  # away from the reference
        for parameter in tgrpo.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    inputs = rollouts(tgrpo)
    own = [each for each in inputs["contrast"] if each is not None]
    assert len(own) == 2
    for each in own:
        with torch.no_grad():
            for name, model in (("old_per_token_logps", tgrpo.model), ("ref_per_token_logps", tgrpo.ref_model)):
                expected = logps_of(model, each.encoded, each.ids.tolist())
                torch.testing.assert_close(each.logps[name], expected, rtol=0, atol=1e-4)
        assert (each.logps["old_per_token_logps"] - each.logps["ref_per_token_logps"]).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["lora", "iterations", "part of a group"])
def test_they_train_with_adapters_iterations_and_groups_larger_than_a_micro_batch(models, media, tmp_path, extra):
    from peft import LoraConfig

    settings = {
        "lora": {"beta": 0.04},
        "iterations": {
            "num_iterations": 2,
            "steps_per_generation": 2,
            "gradient_accumulation_steps": 1,
            "max_steps": 4,
        },
        "part of a group": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    }[extra]
    rows = [row("a?", video=media["videos"][0]), row("b?", video=media["videos"][1])]
    options = {"temporal_reward_func": Halves()}
    if extra == "lora":
        options["peft_config"] = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    tgrpo = canned(trainer(models(), rows, tmp_path, options=options, **settings))
    tgrpo.train()
    assert all(value > 0 for value in logged(tgrpo, "grad_norm"))
    assert logged(tgrpo, "temporal/contrast_reward")[0] == pytest.approx(0.5)
    assert logged(tgrpo, "temporal/contrast_zero_std")[0] == 0.0


def test_only_they_have_a_gradient_where_the_ordered_rollouts_are_all_right(models, media, tmp_path):
    tgrpo = trained(models, media, tmp_path, accuracy=Scripted([1] * 4, [0, 0]))
    inputs = rollouts(tgrpo)
    assert not inputs["advantages"].any()
    assert any(each.any() for each in gradients(tgrpo, inputs).values())
    still = trained(models, media, tmp_path, rewards=(1.0, 1.0), accuracy=Scripted([1] * 4, [0, 0]))
    inputs = rollouts(still)
    assert not any(each.any() for each in gradients(still, inputs).values())
    assert still._metrics["train"]["temporal/contrast_zero_std"] == [1.0]


def test_a_contrast_rollout_without_a_reward_is_left_out(models, media, tmp_path):
    settings = {"num_contrast_generations": 3, "loss_type": "grpo"}
    tgrpo = trained(models, media, tmp_path, rewards=(1.0, None, 0.0), **settings)
    inputs = rollouts(tgrpo)
    assert sum(each is not None for each in inputs["contrast"]) == 2
    assert inputs["kept_share"].item() == pytest.approx(1 + 2 / 4)
    assert inputs["num_items_in_batch"] == inputs["completion_mask"].sum() + sum(
        len(each.ids) for each in inputs["contrast"] if each is not None
    )


def test_completions_that_are_cut_off_are_masked_where_trl_masks_them(models, media, tmp_path):
    tgrpo = canned(trained(models, media, tmp_path, mask_truncated_completions=True), lengths=(6,))
    inputs = rollouts(tgrpo)
    assert not inputs["completion_mask"].any()
    assert [each.mask.sum().item() for each in inputs["contrast"] if each is not None] == [0, 0]


def test_the_other_rewards_score_them_too_with_their_weights(models, media, tmp_path):
    form = Scripted([0] * 4, [1, 0])
    form.__name__ = "form"
    accuracy = Scripted([1, 0, 0, 0], [0, 0])
    tgrpo = trained(models, media, tmp_path, accuracy=[accuracy, form], reward_weights=[2.0, 0.5])
    rollouts(tgrpo)
    found = tgrpo._batch.contrast_rewards
    assert found[~found.isnan()].tolist() == pytest.approx([2.0 * 1.0 + 0.5 * 1, 0.0])


def test_evaluation_scores_them_only(models, media, tmp_path):
    rows = [row(video=media["videos"][0])]
    options = {"temporal_reward_func": Halves()}
    settings = {"per_device_eval_batch_size": 4, "eval_strategy": "no"}
    tgrpo = trainer(models(), rows, tmp_path, eval_rows=rows, options=options, **settings)
    assert tgrpo.evaluate()["eval_temporal/gap"] is not None
    assert "contrast" not in tgrpo._prepare_inputs(next(iter(tgrpo.get_eval_dataloader())))


def test_skipped_rows_and_trained_contrast_rows_go_together(models, media, tmp_path):
    """One prompt beside a skipped one has the gradient that it has alone."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    good = row("good?", video=media["videos"][0])
    found = []
    for rows in ([row("bad?", video=str(bad)), good], [row("text?"), good]):
        tgrpo = trained(
            models, media, tmp_path, rows=rows, on_bad_video="skip", per_device_train_batch_size=8, beta=0.0,
            accuracy=Scripted([0] * 4 + [1, 0, 0, 0], [0, 0]),
        )  # fmt: skip
        inputs = rollouts(tgrpo)
        found.append((inputs["kept_share"].item(), gradients(tgrpo, inputs)))
    (with_bad, bad_gradients), (with_text, text_gradients) = found
    assert (with_bad, with_text) == (pytest.approx(0.5 + 2 / 8), pytest.approx(1 + 2 / 8))
    name = next(name for name in bad_gradients if "embed_tokens" in name)
    torch.testing.assert_close(
        bad_gradients[name] * with_bad, text_gradients[name] * with_text, rtol=1e-4, atol=1e-6
    )  # six rows in the mean, or ten of which four have no advantage


# --- what cannot work


def test_what_cannot_be_trained_is_refused_before_any_weights_are_loaded(models, tmp_path):
    options = {"temporal_reward_func": Halves()}
    with pytest.raises(ValueError, match=re.escape("num_contrast_generations (1) must be at least 2")):
        trainer(models(), [row()], tmp_path, options=options, num_contrast_generations=1)
    with pytest.raises(NotImplementedError, match="'some/model' is none"):
        trainer(models(), [row()], tmp_path, [parity, "some/model"], options=options)
    with pytest.raises(ValueError, match=re.escape("objective ('gap') has no effect: the trainer was given another")):
        trainer(models(), [row()], tmp_path, options=options, objective="gap")
    with pytest.raises(ValueError, match=re.escape("objective ('gap') has no effect")):
        TGRPOTrainer("no/model", parity, config(tmp_path, objective="gap"), temporal_reward_func=None)


def test_columns_that_the_data_lack_and_a_contrast_of_another_kind_are_refused_at_the_start(tmp_path):
    def refused(message, rows, contrast=reverse_frames, **settings):
        dataset = Dataset.from_list(rows)
        with pytest.raises(ValueError, match=re.escape(message)):
            TGRPOTrainer("no/model", parity, config(tmp_path, **settings), dataset, contrast=contrast)

    labels = {"objective": "relation", "objective_column": "about"}
    refused(
        "train_dataset has no column 'about', which the objective relation_reward takes, only prompt",
        [row()],
        **labels,
    )
    refused(
        "no column 'kind', which the contrast contrast_by_column takes", [row()], get_contrast_by_column("kind", {})
    )
    mirrored = {"objective": "mirrored_interval", "objective_router": "none", "temporal_bonus": "advantage"}
    refused("train_dataset has no column 'duration'", [row()], **mirrored)
    message = "contrast (shuffle_frames) is not what mirrored_interval_reward is about, which is reverse_frames"
    for contrast in (shuffle_frames, functools.partial(shuffle_frames), get_contrast_by_column("about", {})):
        refused(message, [row(duration=8.0, about="time")], contrast, **mirrored)
    refused("contrast (shuffle_around)", [row(duration=8.0)], get_shuffle_around(1.0), **mirrored)
    check = [{"time": reverse_frames}, lambda frames, generator: frames.flip(0)]  # what may run backwards is taken
    for contrast in (get_contrast_by_column("about", check[0]), check[1]):
        data = Dataset.from_list([row(duration=8.0, about="time")])
        check_objective_data(get_mirrored_interval_reward(), contrast, data, None)


def test_values_that_an_objective_cannot_read_are_refused_at_the_start_with_their_row():
    def refused(message, objective, rows):
        with pytest.raises(ValueError, match=re.escape(message)):
            check_objective_data(objective, None, Dataset.from_list(rows), None)

    relation = get_relation_reward(router="labels", column="about")
    for label in ("when", "", ["dynamic"], 2):
        rows = [row(about=None, problem_id=4), row(about=label, problem_id=17)]
        refused(
            f"train_dataset, row 1 (problem_id 17): about ({label!r}) must be 'dynamic' or 'static'", relation, rows
        )
    refused("train_dataset, row 0: about ('when') must be", relation, [row(about="when")])
    mirrored = get_mirrored_interval_reward()
    refused("train_dataset, row 1: duration (-1.0) must be", mirrored, [row(duration=2.0), row(duration=-1.0)])
    labelled = get_mirrored_interval_reward(router="labels", column="about")
    refused("row 0: about ('when') must be", labelled, [row(duration=2.0, about="when")])
    fine = [row(about=label) for label in ("dynamic", " Static ", "DYNAMIC", None)]
    check_objective_data(relation, None, Dataset.from_list(fine), None)


@pytest.mark.parametrize("name", ["group_draw", "logps", "contrast_logps", "trainer_state", "log_extra", "log_metric"])
def test_columns_of_the_names_that_objectives_and_rewards_are_called_with_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=re.escape(f"train_dataset has a column {name!r}, a name that rewards")):
        TGRPOTrainer("no/model", parity, config(tmp_path), Dataset.from_list([row(**{name: 1})]))


def test_a_contrast_that_cannot_be_called_or_sees_other_seconds_is_refused_at_the_start(tmp_path):
    def of_rows(frames, generator, row):
        return frames

    def needs_more(frames, generator, strength, row):
        return frames

    data = Dataset.from_list([row(frame_seconds="mine", about="a")])
    for contrast in (of_rows, get_contrast_by_column("about", {"a": of_rows})):
        with pytest.raises(ValueError, match=re.escape("train_dataset has a column 'frame_seconds'")):
            TGRPOTrainer("no/model", parity, config(tmp_path), data, contrast=contrast)
    check_objective_data(get_gap_reward(), reverse_frames, data, None)  # which does not see the row
    for contrast in (needs_more, get_contrast_by_column("about", {"a": needs_more})):
        with pytest.raises(TypeError, match=re.escape("contrast (needs_more) cannot be called")):
            TGRPOTrainer("no/model", parity, config(tmp_path), Dataset.from_list([row(about="a")]), contrast=contrast)
    nested = get_contrast_by_column("about", {"event": get_shuffle_around(column="when")})
    with pytest.raises(ValueError, match=re.escape("train_dataset has no column 'when', which the contrast")):
        TGRPOTrainer("no/model", parity, config(tmp_path), Dataset.from_list([row(about="a")]), contrast=nested)


def test_contrast_rewards_of_the_wrong_length_are_named(models, media, tmp_path):
    with pytest.raises(
        ValueError, match="'halves', asked for contrast rewards, returned 1 values for 2 contrast rollouts"
    ):
        rollouts(trained(models, media, tmp_path, rewards=(1.0,)))


# --- by name


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "relation", "objective_column": "about"},
        {"objective": "crpo", "objective_column": "about"},
        {"objective": "crpo", "objective_router": "self", "objective_explore": 0.2},
        {"objective": "crpo", "objective_router": "none"},
        {"objective": "log_prob_drop"},
        {"objective": "mirrored_interval", "objective_router": "none", "temporal_bonus": "advantage"},
        {"objective": "gap", "temporal_bonus": "advantage"},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
def test_every_objective_trains_by_its_name(models, media, tmp_path, settings):
    rows = [
        row("a?", video=media["videos"][0], about="dynamic", duration=8.0),
        row("b?", video=media["videos"][1], about="static", duration=8.0),
    ]
    rewards = [parity, format_reward]
    options = {"contrast": reverse_frames}
    tgrpo = canned(
        trainer(models(), rows, tmp_path, rewards, options=options, per_device_train_batch_size=8, **settings)
    )
    tgrpo.train()
    name = {"crpo": "crpo_reward", "gap": "gap_reward"}.get(settings["objective"], f"{settings['objective']}_reward")
    assert f"rewards/{name}/mean" in tgrpo.state.log_history[0]
    assert ("temporal/contrast_reward" in tgrpo.state.log_history[0]) == (settings["objective"] == "crpo")
