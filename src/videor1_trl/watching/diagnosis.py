"""What usually goes wrong in a run, said in words with the run's figures, from its log alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from .logs import Entry, series


FEWEST = 5  # logged steps below which nothing is said: a start says little
WINDOW = 20  # logged steps at the end that most figures are means of
# The thresholds; the table of docs/watching.md says each with its reason
CUT_OFF = 0.2  # share of completions
FORMAT = 0.02  # best mean of the format reward
EQUAL_GROUPS = 0.8  # share of groups
MOVED = 0.05  # mean change of an advantage by the bonus, which then teaches in groups of equal rewards too
BONUS_RATE, EFFECT = 0.05, 0.005  # share of rollouts with a bonus; mean change of an advantage
GAP, RIGHT = 0.02, 0.1  # accuracy on ordered less contrast frames; accuracy below which a gap means nothing
ENTROPY_LOW, ENTROPY_FALL, ENTROPY_RISE = 0.02, 0.1, 3.0  # nats a token; of the start's
KL = 1.0  # nats a token
SAMPLER, RATIO = 0.05, 0.1  # nats a token; distance of the mean importance ratio from 1


@dataclass(frozen=True)
class Finding:
    """
    Something that goes wrong.

    Args:
        name (`str`): one of `CHECKS`. text (`str`): what it is, with its figures, and what to do.
    """

    name: str
    text: str


def diagnose(log: Sequence[Entry]) -> list[Finding]:
    """
    What goes wrong in a run by its log; nothing of a run that logged fewer than 5 steps.

    Args:
        log (`Sequence[Entry]`): entries as of `trainer.state.log_history` or [`read_log`].
    """
    steps = [entry for entry in log if "reward" in entry]
    if len(steps) < FEWEST:
        return []
    return [Finding(name, text) for name, check in CHECKS.items() for text in check(Log(steps))]


@dataclass(frozen=True)
class Log:
    """The entries of training, and figures of them."""

    entries: Sequence[Entry]

    def all(self, metric: str) -> list[float]:
        """Its values in the order of the steps, what is no finite number left out."""
        return series(list(self.entries), metric)[1]

    def late(self, metric: str) -> float | None:
        """Mean of the last 20 values; `None` where it was not logged."""
        values = self.all(metric)[-WINDOW:]
        return fmean(values) if values else None

    def mean(self, metric: str) -> float | None:
        """Mean of all values; `None` where it was not logged."""
        values = self.all(metric)
        return fmean(values) if values else None

    @property
    def span(self) -> str:
        """The steps that `late` is a mean of, in words."""
        steps = [entry["step"] for entry in self.entries[-WINDOW:]]
        return f"steps {steps[0]} to {steps[-1]}"

    def means(self, prefix: str) -> list[str]:
        """Names of the metrics `rewards/NAME/mean` whose name has that in it."""
        names = {
            name for entry in self.entries for name in entry if name.startswith("rewards/") and name.endswith("/mean")
        }
        return sorted(name for name in names if prefix in name)


def _cut_off(log: Log) -> Iterator[str]:
    share = log.late("completions/clipped_ratio")
    if share is not None and share > CUT_OFF:
        longest = log.late("completions/max_length") or 0
        yield (
            f"{share:.0%} of the completions in {log.span} were cut off (the longest had {longest:.0f} tokens), so they have no answer. "
            "Raise max_completion_length, or let a cold start or a length reward teach shorter ones."
        )


def _format(log: Log) -> Iterator[str]:
    for name in log.means("format"):
        values = log.all(name)
        if values and max(values) < FORMAT:
            yield (
                f"{name} never rose above {max(values):.3f} in {len(values)} logged steps: no completion has the format, and what is "
                "never there cannot be reinforced. Start from a cold start, or check the prompt's wording."
            )


def _equal_groups(log: Log) -> Iterator[str]:
    share, moved = log.late("frac_reward_zero_std"), log.late("temporal/effect") or 0.0
    # a bonus that is added to advantages is none of the rewards
    if share is not None and share > EQUAL_GROUPS and moved < MOVED:
        accuracy = log.late("temporal/accuracy")
        said = "" if accuracy is None else f" (accuracy there: {accuracy:.2f})"
        yield (
            f"in {share:.0%} of the groups of {log.span} all rollouts had the same reward{said}, so these have no gradient. Take "
            "questions that are neither always right nor always wrong, more generations a prompt, or a higher temperature."
        )


def _effect(log: Log) -> Iterator[str]:
    rate, effect = log.mean("temporal/bonus_rate"), log.mean("temporal/effect")
    if rate is not None and effect is not None and rate > BONUS_RATE and effect < EFFECT:
        yield (
            f"{rate:.0%} of the ordered rollouts got the bonus, and it moved the advantages by {effect:.4f} in the mean: it cancels in the "
            'standardisation, and the run is plain GRPO. Set temporal_bonus="advantage", or use rewards that differ in a group.'
        )


def _order(log: Log) -> Iterator[str]:
    accuracy, gap = log.late("temporal/accuracy"), log.late("temporal/gap")
    if accuracy is not None and gap is not None and accuracy > RIGHT and gap < GAP:
        yield (
            f"on contrast frames {accuracy - gap:.0%} of the answers were right in {log.span}, on ordered ones {accuracy:.0%}: these questions "
            "need no order, and the bonus teaches none. Take questions about order, or another contrast (reverse_frames)."
        )


def _nothing_right(log: Log) -> Iterator[str]:
    accuracies = log.all("temporal/accuracy")
    if accuracies and max(accuracies) == 0:
        yield (
            f"no answer was right in {len(accuracies)} logged steps. Check that the gold answers and the problem types are those of the "
            "questions, and try the model on a few of them (videor1 ask)."
        )


def _entropy(log: Log) -> Iterator[str]:
    values, now = log.all("entropy"), log.late("entropy")
    if now is None:
        return
    start = fmean(values[:FEWEST])
    if now < ENTROPY_LOW or now < ENTROPY_FALL * start:
        yield (
            f"the entropy fell from {start:.2f} to {now:.3f} nats a token: the rollouts of a group are nearly the same. Raise "
            "the temperature or beta, or lower the learning rate."
        )
    elif now > ENTROPY_RISE * max(start, 0.1):
        yield (
            f"the entropy rose from {start:.2f} to {now:.2f} nats a token: the model comes apart. Lower the learning rate, or "
            "raise beta."
        )


def _kl(log: Log) -> Iterator[str]:
    now = log.late("kl")
    if now is not None and now > KL:
        yield (
            f"the KL divergence to the reference is {now:.2f} nats a token in {log.span}: the model has left it. Lower the learning rate, or "
            "raise beta."
        )


def _not_finite(log: Log) -> Iterator[str]:
    for name in ("loss", "grad_norm", "kl"):
        bad = [
            entry["step"]
            for entry in log.entries
            if isinstance(each := entry.get(name), float) and not math.isfinite(each)
        ]
        if bad:
            yield f"{name} was no finite number at {len(bad)} of the logged steps, first at step {bad[0]}. Lower the learning rate."
            return


def _skipped(log: Log) -> Iterator[str]:
    counts = log.all("video/skipped_rows")
    if sum(counts):
        yield (
            f"{fmean(counts):.1f} rows of a batch were skipped in the mean, at {sum(count > 0 for count in counts)} of {len(counts)} logged "
            "steps: media that cannot be read, or prompts that are too long. Each is named in the warnings; `--check_media` finds them "
            "beforehand."
        )


def _sampler(log: Log) -> Iterator[str]:
    for name in (
        "vllm/ordered_logp_difference",
        "vllm/contrast_logp_difference",
        "sampling/sampling_logp_difference/mean",
    ):
        value = log.mean(name)
        if value is not None and value > SAMPLER:
            yield (
                f"vLLM's log-probabilities and the trained model's differ by {value:.3f} nats a token ({name}): the sampler is not the "
                "model that learns. Use the same dtype for both, or see docs/vllm.md."
            )
            return
    ratio = log.late("sampling/importance_sampling_ratio/mean")
    if ratio is not None and abs(ratio - 1) > RATIO:
        yield (
            f"the mean importance ratio between vLLM and the trained model is {ratio:.2f} in {log.span}, and should be 1: the sampler is not "
            "the model that learns. Use the same dtype for both, or see docs/vllm.md."
        )


CHECKS: dict[str, Callable[[Log], Iterator[str]]] = {
    "cut off": _cut_off,
    "format never right": _format,
    "no answer right": _nothing_right,
    "all groups equal": _equal_groups,
    "bonus without effect": _effect,
    "order not needed": _order,
    "entropy off": _entropy,
    "KL off": _kl,
    "not finite": _not_finite,
    "skipped rows": _skipped,
    "sampler unlike learner": _sampler,
}
