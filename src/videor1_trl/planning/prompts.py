"""The data of a planned run: counted, their files read, and a sample encoded as training will encode it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Unpack

import datasets
from datasets.utils import tqdm
from transformers import PreTrainedConfig

from ..data.batch import BatchLoader
from ..data.placing import PromptError, named, record_name
from ..data.targets import completion_text
from ..media.check import MediaReport, check_media
from ..media.columns import MEDIA_COLUMNS, undecoded
from ..media.loader import Video, VideoLoader
from ..media.video import Sampling
from .arguments import RunArguments, generates
from .model import Findings, ModelPlan


Row = dict[str, Any]  # of the dataset, by its columns
_VISUAL_TOKENS = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")


@dataclass
class Prompt:
    """One sampled row as the model will read it: what it costs in tokens, frames, patches of pixels and bytes."""

    kind: str
    tokens: int
    visual_tokens: int
    completion_tokens: int
    frames: int
    seconds: float
    patches: int
    pixel_bytes: int


Encoder = Callable[[Row], Prompt]


@dataclass
class DataPlan:
    """
    A dataset, counted, and a sample of it encoded.

    Args:
        rows (`int`): rows that will be trained on, those with bad media left out where they are dropped.
        kinds (`dict[str, int]`): rows with a `"video"`, an `"image"`, or `"text"` alone.
        problem_types (`dict[str, int]`): empty without that column.
        media ([`MediaReport`], *optional*): the check of all files; `None` where it is off.
        prompts (`list[Prompt]`): of the sampled rows.
        faults (`list[str]`): why sampled rows could not be encoded.
        too_long (`list[str]`): the sampled rows that exceed `max_prompt_length`.
    """

    rows: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    problem_types: dict[str, int] = field(default_factory=dict)
    media: MediaReport | None = None
    prompts: list[Prompt] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)

    def longest(self, of: str) -> int:
        """The largest value of a field of the sampled prompts."""
        return max((getattr(prompt, of) for prompt in self.prompts), default=0)


def plan_data(
    name: str,
    dataset: datasets.Dataset,
    args: RunArguments,
    model: ModelPlan | None,
    findings: Findings,
    *,
    media: str,
    drop_bad_media: bool,
    num_sampled: int,
    encode: Encoder | None,
) -> DataPlan:
    """
    The plan of one dataset; arguments as in [`plan_run`].

    Args:
        name (`str`): what messages call it.
        encode (`Callable`, *optional*): an [`encoder`]; `None`: no row is encoded.
    """
    if not isinstance(dataset, datasets.Dataset):
        raise TypeError(
            f"{name}: a plan needs a datasets.Dataset, not {type(dataset).__name__}, whose rows are known."
        )
    data = DataPlan()
    kept = list(range(len(dataset)))
    if media != "off":
        if media == "sampled_frames":
            _, data.media = check_media(dataset, decode="sampled_frames", **args.video_settings)
        else:
            _, data.media = check_media(dataset, decode="first_frame", limits=args.limits)
        if not data.media.ok:
            (findings.warnings if drop_bad_media else findings.problems).append(f"{name}: {data.media}")
            bad = set(data.media.rows)
            kept = [row for row in kept if row not in bad]
    rows = undecoded(dataset)
    kinds = _kinds(rows)
    data.rows = len(kept)
    data.kinds = dict(Counter(kinds[row] for row in kept))
    if "problem_type" in dataset.column_names:
        types = list(dataset["problem_type"])
        data.problem_types = dict(Counter(str(types[row]) for row in kept).most_common())
    videos = data.kinds.get("video", 0)
    if not kept:
        findings.problems.append(f"{name}: no row is left.")
    elif videos and model is not None and model.processor is not None and not model.takes_videos:
        findings.problems.append(f"{name}: {videos} rows have a video, but the processor of {model.name} takes none.")
    elif encode is not None:
        sample = [rows[row] for row in _spread(kept, kinds, num_sampled)]
        _encode_sample(name, data, sample, args, encode, findings)
        _check_positions(name, data, args, model, findings)
    return data


def _kinds(dataset: datasets.Dataset) -> list[str]:
    """Of each row `"video"`, `"image"` or `"text"`; a row with both kinds of media counts as a video."""
    columns = [column for column in MEDIA_COLUMNS if column in dataset.column_names]
    if not columns:
        return ["text"] * len(dataset)
    filled = {kind: [False] * len(dataset) for kind in ("video", "image")}
    for column in columns:
        for row, value in enumerate(dataset[column]):
            filled[column.removesuffix("s")][row] |= value is not None and value != []
    return [
        "video" if video else "image" if image else "text"
        for video, image in zip(filled["video"], filled["image"], strict=True)
    ]


def _spread(rows: list[int], kinds: list[str], count: int) -> list[int]:
    """`count` of the rows, or a few more: evenly spaced over each kind, by its share, at least one of each."""
    chosen = []
    for kind in dict.fromkeys(kinds[row] for row in rows):
        of_kind = [row for row in rows if kinds[row] == kind]
        wanted = min(len(of_kind), max(1, round(count * len(of_kind) / len(rows))))
        chosen += [of_kind[index * len(of_kind) // wanted] for index in range(wanted)]
    return chosen


def _encode_sample(
    name: str, data: DataPlan, rows: list[Row], args: RunArguments, encode: Encoder, findings: Findings
) -> None:
    limit = args.max_prompt_length
    for row in tqdm(rows, desc=f"Encoding a sample of {name}"):
        try:
            prompt = encode(row)
        except ValueError as error:  # media that cannot be read, placeholders that do not fit: it names its record
            data.faults.append(str(error))
            continue
        data.prompts.append(prompt)
        if limit is not None and prompt.tokens > limit:
            data.too_long.append(f"{record_name(row)}: {prompt.tokens:,} tokens")
    skipped = args.on_bad_video == "skip"
    found = findings.warnings if skipped else findings.problems
    if data.faults:
        found.append(f"{name}: {len(data.faults)} of {len(rows)} sampled rows cannot be used. {data.faults[0]}")
    if data.too_long:
        found.append(
            f"{name}: {len(data.too_long)} of {len(rows)} sampled prompts exceed max_prompt_length ({limit:,}). "
            f"{data.too_long[0]}. Lower video_max_frames, video_max_pixels or image_max_pixels, or raise the limit."
        )


def _check_positions(
    name: str, data: DataPlan, args: RunArguments, model: ModelPlan | None, findings: Findings
) -> None:
    positions = model.max_positions if model is not None else None
    completion = getattr(args, "max_completion_length", None) or data.longest("completion_tokens")
    longest = data.longest("tokens") + completion
    if positions is not None and longest > positions:
        findings.warnings.append(
            f"{name}: prompt and completion may have {longest:,} tokens, and the model was made for {positions:,}."
        )


def encoder(
    args: RunArguments,
    model: ModelPlan,
    video_loader: VideoLoader,
) -> Encoder:
    """A function that encodes one row as training does, and says what it costs; arguments as in [`plan_run`]."""
    seen: list[Video] = []

    def load(source: object, **settings: Unpack[Sampling]) -> Video:
        seen.append(video_loader(source, **settings))
        return seen[-1]

    assert model.processor is not None  # else there is nothing to encode with
    loader = BatchLoader(
        model.processor,
        load,
        None,
        video_settings=args.video_settings,
        encode_settings={
            **args.pixel_settings,
            "chat_template_kwargs": getattr(args, "chat_template_kwargs", None) or {},
            "model_type": model.config.model_type,
        },
    )
    tokenizer = getattr(model.processor, "tokenizer", model.processor)
    visual = {getattr(owner, name, None) for owner in (model.config, model.processor) for name in _VISUAL_TOKENS}

    def encode(row: Row) -> Prompt:
        seen.clear()
        (loaded,) = loader.load([row], 0, 1, 0, step=0)
        encoded = loaded.encoded
        values = sum(value.numel() for key, value in encoded.features.items() if key.startswith("pixel_values"))
        completion = ""
        if not generates(args):
            completion = _completion(row)
        return Prompt(
            kind=next((kind for kind in ("video", "image") if kind in encoded.kinds), "text"),
            tokens=len(encoded.input_ids),
            visual_tokens=sum(token in visual for token in encoded.input_ids),
            completion_tokens=len(tokenizer(completion, add_special_tokens=False)["input_ids"]) + bool(completion),
            frames=sum(len(frames) for frames, _ in seen),
            seconds=sum(metadata.duration or 0.0 for _, metadata in seen),
            patches=values // _patch_values(model.config),
            pixel_bytes=4 * values,
        )

    return encode


def _completion(row: Row) -> str:
    try:
        return completion_text(row)
    except PromptError as error:
        raise named(error, row) from error


def _patch_values(config: PreTrainedConfig) -> int:
    """Values of a patch of pixels, as the vision tower takes it; 1 where the config does not tell."""
    vision = getattr(config, "vision_config", None)
    size = getattr(vision, "patch_size", None)
    if size is None:
        return 1
    size = size if isinstance(size, int) else size[0]
    return 3 * size**2 * (getattr(vision, "temporal_patch_size", None) or 1)
