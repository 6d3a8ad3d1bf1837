"""Checks of what the processor makes of prompts: equal tokens under contrast, placeholders that are known, pixels in their budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from ..contrast import reverse_frames, shuffle_frames
from ..models.encoding import EncodedPrompt, EncodeSettings
from ..models.families import takes_videos
from .bench import Bench
from .result import Broken, NotApplicable
from .scenes import KINDS, RECORDS


PIXELS = "pixel_values"  # what the names of pictures' features begin with
BUDGETS: dict[str, tuple[str, str, Callable[[int], EncodeSettings]]] = {
    "video": ("large video", "video_max_pixels", lambda pixels: EncodeSettings(video_max_pixels=pixels)),
    "image": ("large image", "image_max_pixels", lambda pixels: EncodeSettings(image_max_pixels=pixels)),
}


def taken(bench: Bench, name: str) -> None:
    """Raises [`~result.NotApplicable`] where the processor takes none of the media in that prompt."""
    processor = bench.processor
    takes = {"video": takes_videos(processor), "image": getattr(processor, "image_processor", None) is not None}
    for kind, column in KINDS.items():
        if RECORDS[name][column] and not takes[kind]:
            raise NotApplicable(f"{type(processor).__name__} takes no {column}.")


def contrast_ids(bench: Bench) -> str:
    """With as many pixels as the processor gives by itself: some drop what frames have in common."""
    taken(bench, "video")
    for name in ("video", "longer video", "slow video", "still video"):
        for contrast in (shuffle_frames, reverse_frames):
            row = bench.load(name, contrast, EncodeSettings())  # raises where the ids differ
            how = f"{name}, {contrast.__name__}"
            if row.contrast is None:
                raise Broken(f"{how}: no prompt on contrast frames was made.")
            if row.contrast.input_ids != row.encoded.input_ids or row.contrast.token_types != row.encoded.token_types:
                raise Broken(
                    f"{how}: the prompts on ordered and on contrast frames differ, so the text gives the order away."
                )
            changed = _changed(row.encoded, row.contrast)
            if other := [key for key in changed if not key.startswith(PIXELS)]:
                raise Broken(f"{how}: {', '.join(other)} depends on the order of the frames.")
            if (name != "still video") is not bool(changed):
                said = "the pixels are the same" if not changed else "the pixels differ, and the frames are all equal"
                raise Broken(f"{how}: {said}.")
    return "shuffled and reversed, moving, slow and still: equal ids, other pixels where something moves"


def _changed(one: EncodedPrompt, other: EncodedPrompt) -> list[str]:
    if one.features.keys() != other.features.keys():
        return sorted(one.features.keys() ^ other.features.keys())
    return [key for key in one.features if not torch.equal(one.features[key], other.features[key])]


def visual(bench: Bench, name: str) -> list[int]:
    """The tokens of a prompt that stand for features: by their types, else those that are known to."""
    encoded = bench.prompt(name)
    types = encoded.token_types.get("mm_token_type_ids")
    if types is not None:
        return [token for token, kind in zip(encoded.input_ids, types, strict=True) if kind]
    return [token for token in encoded.input_ids if token in bench.sharing.placeholder_ids]


def placeholders(bench: Bench) -> str:
    name = "video" if takes_videos(bench.processor) else "image"
    taken(bench, name)
    token, longest = max(
        ((token, len(list(run))) for token, run in itertools.groupby(bench.prompt(name).input_ids)),
        key=lambda run: run[1],
    )
    found = set(visual(bench, name)) | ({token} if longest > 3 else set())
    known = bench.sharing.placeholder_ids
    if unknown := found.difference(known):
        text = bench.tokenizer.convert_ids_to_tokens(min(unknown))
        raise Broken(f"{text!r} stands for visual features, and nothing keeps rollouts from sampling it.")
    if not found:
        raise Broken("no token of a prompt with media is known to stand for visual features.")
    if ends := set(known).intersection(bench.end_token_ids):
        raise Broken(
            f"{bench.tokenizer.convert_ids_to_tokens(min(ends))!r} ends completions, and is a visual placeholder."
        )
    return f"never sampled: {', '.join(bench.tokenizer.convert_ids_to_tokens(known))}"


def pixel_budget(bench: Bench) -> str:
    found = []
    for kind, (name, setting, settings_of) in BUDGETS.items():
        try:
            taken(bench, name)
        except NotApplicable:
            continue
        free = _pixels(bench, name, EncodeSettings())
        wanted = free // 2
        try:
            kept = _pixels(bench, name, settings_of(wanted))
        except (NotImplementedError, ValueError) as error:
            found.append(f"{kind}: refused, {str(error).partition('. ')[0]}")
            continue
        of = "of a frame" if kind == "video" else "of an image"
        if kept > wanted:
            raise Broken(f"{setting}={wanted} is ignored: {kept} pixels {of} without a word ({free} without it).")
        if kept < wanted / 4:
            raise Broken(f"{setting}={wanted} leaves {kept} pixels {of}: it is counted otherwise than it says.")
        found.append(f"{kind}: {kept} of at most {wanted} pixels ({free} without a budget)")
    if not found:
        raise NotApplicable("the processor takes neither videos nor images.")
    return "; ".join(found)


def _pixels(bench: Bench, name: str, settings: EncodeSettings) -> int:
    """Pixels that the model reads of each frame or image, padding left out."""
    features = bench.load(name, settings=settings).encoded.features
    key = next(key for key in features if key.startswith(PIXELS))
    values = features[key]
    share = 1.0
    for other, value in features.items():
        if other.endswith("position_ids") and (value < 0).any():
            share = (value >= 0).all(-1).float().mean().item()  # the other patches are padding
    pictures = 8 if name == "large video" else 1
    if name == "large image" and "image_grid_thw" in features and values.ndim == 2:
        pictures = getattr(bench.processor.image_processor, "temporal_patch_size", 1)  # each patch stands so often
    return int(values.numel() * share / 3 / pictures)
