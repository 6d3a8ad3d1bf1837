"""Checks of log-probabilities: a row by itself and among others, with its video and with another, packed, padded, rolled out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import torch

from ..cold_start.collator import Completions
from ..cold_start.trainer import VideoSFTTrainer
from ..contrast import reverse_frames
from ..data.placing import PromptError
from ..models.encoding import EncodedPrompt
from ..sharing.attention import cannot_share
from .bench import Bench, Gradients
from .prompts import taken
from .result import Broken, NotApplicable
from .scenes import RECORDS


SINGLE = ("video", "image", "text", "longer video")  # prompts that any batch may have beside each other
FELT = 1e-5  # that another video moves a log-probability by, at least
WAYS = {"share_prefix=False": (False, False), "share_prefix=True, row by row": (True, False)}


def usable(bench: Bench, names: Sequence[str]) -> list[str]:
    """Those of the prompts whose media the processor takes."""
    found = []
    for name in names:
        try:
            taken(bench, name)
        except NotApplicable:
            continue
        found.append(name)
    return found


def rows_alone(bench: Bench) -> str:
    names = usable(bench, SINGLE)
    return f"{', '.join(names)}: {_alone_and_together(bench, names, names)}"


def two_videos(bench: Bench) -> str:
    if (refused := why_refused(bench, "two videos")) is None:
        return _several(bench, "two videos")
    return f"{_several(bench, 'equal videos')}; of unequal length they are refused: {refused}"


def two_images(bench: Bench) -> str:
    return _several(bench, "two images")


def video_and_image(bench: Bench) -> str:
    return _several(bench, "video and image")


def why_refused(bench: Bench, name: str) -> str | None:
    """Why a prompt cannot be encoded, `None` where it can."""
    taken(bench, name)
    try:
        bench.prompt(name)
    except PromptError as error:
        return str(error.__cause__ or error).strip().splitlines()[0]
    return None


def _several(bench: Bench, name: str) -> str:
    """A prompt of two media: both of them are in the log-probabilities, and these the same alone and in a batch."""
    if (refused := why_refused(bench, name)) is not None:
        raise NotApplicable(f"such a prompt is refused: {refused}")
    completion = bench.completion(8)
    before = bench.logps([bench.prompt(name)], [completion])[0]
    for which in ("first", "last"):
        moved = bench.logps([bench.prompt(f"{name}, other {which}")], [completion])[0] - before
        if not moved.abs().max().item() > FELT:
            raise Broken(f"another one {which} changes no log-probability.")
    return _alone_and_together(bench, [name, *usable(bench, ("video", "text"))], [name])


def _alone_and_together(bench: Bench, names: list[str], compared: list[str]) -> str:
    rows = [bench.prompt(name) for name in names]
    completions = [bench.completion(length, start) for start, length in enumerate((9, 4, 12, 6, 3)[: len(rows)])]
    said = []
    for way, (wanted, shares) in WAYS.items():
        with bench.computing(wanted, shares):
            together = _together(bench, names, rows, completions)
            for name, row, ids, found in zip(names, rows, completions, together, strict=True):
                if name in compared:
                    what = f"{name} ({way}), alone and beside {len(rows) - 1} other rows"
                    said.append(bench.differ([found], bench.logps([row], [ids]), what))
    return f"within {max(said):.1g} of each row by itself"


def _together(
    bench: Bench, names: list[str], rows: list[EncodedPrompt], completions: list[list[int]]
) -> list[torch.Tensor]:
    """All rows in one batch; where that cannot be computed, the error says of which two."""
    try:
        return bench.logps(rows, completions)
    except Exception as error:
        for one, other in itertools.combinations(range(len(rows)), 2):
            try:
                bench.logps([rows[one], rows[other]], [completions[one], completions[other]])
            except Exception as of_two:
                said = f"{names[one]!r} beside {names[other]!r}: {type(of_two).__name__}: {of_two}"
                raise Broken(said) from of_two
        raise Broken(f"{', '.join(names)} beside each other: {type(error).__name__}: {error}") from error


def video_counts(bench: Bench) -> str:
    taken(bench, "video")
    completion, found = bench.completion(12), {}
    contrast = bench.load("video", reverse_frames)
    others = {
        "another video": bench.prompt("other video"),
        "its frames reversed": contrast.contrast or contrast.encoded,
    }
    for way, (wanted, shares) in {**WAYS, "as it is": (True, bench.sharing.shares)}.items():
        with bench.computing(wanted, shares):
            before = bench.logps([bench.prompt("video")], [completion])[0]
            for what, other in others.items():
                after = bench.logps([other], [completion])[0]
                found[what] = (after - before).abs().max().item()
                if not found[what] > FELT:
                    raise Broken(f"{what} ({way}) changes no log-probability by more than {found[what]:.1g}.")
    return ", ".join(f"{what} moves them by up to {moved:.2g}" for what, moved in found.items())


def rollouts(bench: Bench) -> str:
    """Sampler and learner agree."""
    names = usable(bench, ("video", "image", "text", "longer video"))
    rows = [bench.prompt(names[0]), *(bench.prompt(name) for name in names)]
    said = []
    for way, wanted in (("share_prefix=True", True), ("share_prefix=False", False)):
        with bench.computing(wanted, wanted and bench.sharing.shares):
            ids, logits = bench.rollouts(rows, 6)
            expected = logits.float().log_softmax(-1).gather(2, torch.tensor(ids, device=logits.device)[..., None])
            found = bench.logps(rows, ids)
        said.append(bench.differ(found, expected.squeeze(-1), f"rollouts and log-probabilities ({way})"))
    prefilled = "each prompt prefilled once" if bench.sharing.prefills else "prompts computed row by row"
    return f"within {max(said):.1g} ({prefilled})"


def packed(bench: Bench) -> str:
    """What compute-once promises; row by row each row's positions are its own, as in the packed sequence."""
    if not bench.sharing.shares:
        reason = cannot_share(bench.base) or "this model's rows are computed one by one"
        raise NotApplicable(f"rows compute their prompts one by one: {reason}.")
    names = usable(bench, ("video", "text", "image", "longer video", "two videos"))
    prompts = [bench.prompt(name) for name in names if name != "two videos" or why_refused(bench, name) is None]
    rows = [prompts[0]] * 2 + [prompts[1]] * 2 + prompts[2:]
    if not bench.sharing.packs(rows):
        raise NotApplicable("images see ahead in this model, so its rows are computed one by one.")
    lengths = (8, 5, 4, 0, 3, 6, 2)[: len(rows)]
    completions = [bench.completion(length, 7 * index) for index, length in enumerate(lengths)]
    results: list[tuple[list[torch.Tensor], list[torch.Tensor], Gradients]] = []
    for shares in (True, False):
        with bench.computing(True, shares), torch.enable_grad():
            scores = bench.scores(rows, completions)
            results.append(([each.detach() for each in scores.logps], scores.entropies, bench.gradients(scores.loss)))
    (logps, entropies, gradients), (own_logps, own_entropies, own_gradients) = results
    found = bench.differ(logps, own_logps, "log-probabilities packed and row by row")
    bench.differ(entropies, own_entropies, "entropies packed and row by row")
    of_norm = bench.differ_in_gradients(gradients, own_gradients, "gradients packed and row by row")
    experts = hasattr(bench.base.config.get_text_config(), "output_router_logits")
    only = "; with router_aux_loss_coef=0.0 alone: the router's loss counts every row's tokens" if experts else ""
    return f"log-probabilities within {found:.1g}, gradients within {of_norm:.1g} of their norm{only}"


@torch.enable_grad()
def cold_start(bench: Bench) -> str:
    """`VideoSFTTrainer`'s collator and call of the model."""
    names = usable(bench, ("video", "text", "image", "longer video"))
    collator = Completions(
        bench.loader(),
        end_token_ids=bench.end_token_ids,
        placeholder_ids=bench.sharing.placeholder_ids,
        pad_token_id=bench.pad_token_id,
    )
    shares = bench.sharing.shares
    losses = _sft(bench, collator, names, shares=False)
    for name, loss in zip(names, losses, strict=True):
        with torch.no_grad():
            alone = _sft(bench, collator, [name], shares=False)
        bench.differ(alone, [loss], f"the loss of {name}, padded by itself and in a batch")
    if not shares:
        return "padded rows alone = in a batch; padding_free falls back to padding, since rows cannot share a sequence"
    padded, packed_losses = bench.gradients(losses.mean()), _sft(bench, collator, names, shares=True)
    packed = bench.gradients(packed_losses.mean())
    found = bench.differ([packed_losses.mean()], [losses.mean()], "losses padded and padding-free")
    of_norm = bench.differ_in_gradients(packed, padded, "gradients padded and padding-free")
    return f"loss within {found:.1g}, gradients within {of_norm:.1g} of their norm"


def _sft(bench: Bench, collator: Completions, names: list[str], shares: bool) -> torch.Tensor:
    """The mean loss of each row, (B,), with its graph."""
    batch = collator([RECORDS[name] for name in names])
    tensors = {key: batch[key].to(bench.device) for key in ("input_ids", "attention_mask", "labels")}
    trainer = cast("Any", _Supervised(bench))
    with bench.computing(True, shares):
        call: Any = VideoSFTTrainer._model_call(trainer, bench.model, batch["encoded"], tensors, False)
        logps: torch.Tensor = call(**tensors, use_cache=False, fused_lm_head=True).log_probs
    return -logps.float().sum(1) / (tensors["labels"] != -100).sum(1)


class _Supervised:
    """What `VideoSFTTrainer` needs of itself to call the model."""

    def __init__(self, bench: Bench):
        self.sharing, self._pad_token_id = bench.sharing, bench.pad_token_id
