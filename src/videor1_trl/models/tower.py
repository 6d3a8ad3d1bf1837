"""The vision tower once per distinct video: of one forward call, or of a whole step where the tower is frozen."""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Protocol, TypeGuard

import torch
from accelerate.utils import recursively_apply
from torch import nn
from transformers import PreTrainedModel

from .encoding import EncodedPrompt, Medium, MediumOutput, collate_features, join_features
from .lengths import FRAMES, Parts, lengths_of
from .mended import SECONDS
from .own_families import family_of
from .patches import embed_patches_by_products


class _Read(Protocol):
    """What a tower gives, as far as models read it alike; some have `deepstack_features` too."""

    pooler_output: torch.Tensor | list[torch.Tensor]


def media_of(prompt: EncodedPrompt) -> list[Medium] | None:
    """The media of a prompt, videos and images each in their order; `None` where they cannot be told apart."""
    if family_of(prompt.model_type).join is not None:  # made for whole prompts
        return None
    if prompt.media is None:
        of_kind: dict[str, dict[str, torch.Tensor]] = {"video": {}, "image": {}}
        for key, value in prompt.features.items():
            if key not in SECONDS:
                of_kind["video" if "video" in key else "image"][key] = value
        apart = {kind: _apart(kind, features) for kind, features in of_kind.items() if features}
        if any(features is None for features in apart.values()):
            return None
        prompt.media = [Medium(kind, each) for kind, features in apart.items() for each in features or []]
    return prompt.media


def _apart(kind: str, features: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]] | None:
    """
    The features of each video or image: as many patches as its grid says, as many frames as are told (Gemma 4), else one entry
    of each feature; `None` where the features differ in their number of entries (LLaVA-OneVision counts images by prompt too).
    """
    sizes = [1] * len(next(iter(features.values())))
    if (grid := features.get(f"{kind}_grid_thw")) is not None:
        sizes = grid.prod(-1).tolist()
    elif (frames := features.get(f"num_frames_per_{kind}")) is not None:
        sizes = frames.tolist()
    parts = {
        key: value.split(sizes) if len(value) == sum(sizes) else value.split(1) for key, value in features.items()
    }
    if FRAMES in features and features[FRAMES].ndim == 5:  # padded to the longest video of the prompt
        videos = parts[FRAMES]
        parts[FRAMES] = [video[:, :length] for video in videos for length in lengths_of(video)]
    if len({len(each) for each in parts.values()}) > 1:
        return None
    return [dict(zip(parts, each, strict=True)) for each in zip(*parts.values(), strict=True)]


def distinct_media(prompts: list[EncodedPrompt]) -> tuple[list[Medium], list[Medium], dict[str, list[int]]] | None:
    """
    All media of several prompts, the distinct ones by content, and for each kind the index of every medium among the
    distinct ones of that kind; `None` where the media of a prompt cannot be told apart.
    """
    of_prompts = [media_of(prompt) for prompt in prompts]
    every = [medium for media in of_prompts for medium in media or []]
    if any(media is None for media in of_prompts):
        return None
    found: dict[tuple, list[tuple[int, Medium]]] = {}
    distinct: dict[str, list[Medium]] = {"video": [], "image": []}
    indices: dict[str, list[int]] = {"video": [], "image": []}
    for medium in every:
        alike = found.setdefault(medium.fingerprint(), [])
        index = next((index for index, other in alike if medium.equals(other)), None)
        if index is None:
            index = len(distinct[medium.kind])
            distinct[medium.kind].append(medium)
            alike.append((index, medium))
        indices[medium.kind].append(index)
    return every, distinct["video"] + distinct["image"], {kind: each for kind, each in indices.items() if each}


class TowerOutput(SimpleNamespace):
    """
    What a model reads of its tower's output, as transformers' `BaseModelOutputWithPooling`; not that class itself, since a
    dict would be taken apart by the wrappers of a model (DDP, accelerate) on its way in.
    """

    def to_tuple(self) -> tuple[object, ...]:
        """Its fields in their order; transformers 5.24 asks for them where a model is to return tuples."""
        return tuple(vars(self).values())


MediaInputs = Mapping[str, torch.Tensor | dict[str, TowerOutput]]  # what a model's forward gets of media


@contextlib.contextmanager
def patched(owner: object, **methods: Callable[..., object]) -> Iterator[None]:
    """Within the context an object has these methods; then what it had itself, if anything, stands there again."""
    before = {name: vars(owner)[name] for name in methods if name in vars(owner)}
    for name, method in methods.items():
        setattr(owner, name, method)
    try:
        yield
    finally:
        for name in methods:
            if name in before:
                setattr(owner, name, before[name])
            else:
                delattr(owner, name)


class Tower:
    """
    The vision tower of a model, with its projector. Patches are embedded by products from now on ([`~patches.PatchProduct`]).

    Args:
        model (`PreTrainedModel`): the unwrapped model.
        same_as (`Tower`, *optional*): the policy's, where this is a reference model's: if both are equal, what the one made
            serves the other.
        autocast (`Callable`): the context that the model's own forward runs in.
        must_match (`Callable`): whether every rank must call the tower equally often. It is then never called a second time, as
            otherwise where outputs turn out not to come one per medium: its first pass reads all media, to find out.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        same_as: "Tower | None" = None,
        autocast: Callable[[], AbstractContextManager] = contextlib.nullcontext,
        must_match: Callable[[], bool] = lambda: False,
    ):
        self.model = model
        embed_patches_by_products(model)
        self._autocast, self._must_match = autocast, must_match
        self._one_by_one: bool | None = None  # whether an output has one entry for each medium, once there was one
        owners = [module for module in model.modules() if _takes_outputs(module)]
        self._owner = owners[-1] if owners else None  # the innermost: its forward calls the tower
        self._modules: list[nn.Module] = []
        if owners:
            decoder = owners[-1].get_decoder()
            self._modules = [child for child in owners[-1].children() if child is not decoder]
        self._policy = same_as
        # states of the parameters, and whether they were equal
        self._compared: tuple[list[tuple[int, int]] | None, bool] = None, False

    def _parameters(self) -> list[nn.Parameter]:
        """Of the tower, and those between tower and language model that stand by themselves."""
        own = [] if self._owner is None else list(self._owner.parameters(recurse=False))
        return own + [parameter for module in self._modules for parameter in module.parameters()]

    @property
    def is_trained(self) -> bool:
        """Whether gradients may reach the tower; so it seems where it is not known which modules it is."""
        return not self._modules or any(parameter.requires_grad for parameter in self._parameters())

    @property
    def is_frozen(self) -> bool:
        """
        Whether what the tower makes of a video stays the same for a whole step: it can be handed to the model, nothing in
        the tower is trained (as with LoRA on the language model only), it drops nothing at random, and it has no adapter,
        which PEFT switches off for the reference.
        """
        within = [each for module in self._modules for each in module.modules()]
        return (
            bool(self._modules)
            and not any(parameter.requires_grad for parameter in self._parameters())
            and not any(_drops(each) or hasattr(each, "_disable_adapters") for each in within)
        )

    def serves(self) -> bool:
        """Whether what the policy's tower makes holds for this one: it is the policy's, or at present equal to it."""
        if self._policy is None:
            return True
        ours, theirs = self._parameters(), self._policy._parameters()
        state = [(parameter.data_ptr(), parameter._version) for parameter in ours + theirs]
        if self._compared[0] != state:
            self._compared = state, len(ours) == len(theirs) and all(map(_same, ours, theirs))
        return self._compared[1]

    @contextlib.contextmanager
    def reads_once(self, prompts: list[EncodedPrompt], device: torch.device, keep: bool) -> Iterator[MediaInputs]:
        """
        Within the context the arguments that it gives stand for the media of these prompts in a call of the model, which
        then reads each distinct one once.

        Args:
            keep (`bool`): compute outputs now, without gradients, where the prompts do not hold them yet, and let the
                prompts keep them; only where the tower [`is_frozen`] and [`serves`].
        """
        found = None if self._owner is None else distinct_media(prompts)
        if found is None:  # the model's forward may want all of it
            yield {key: value.to(device, non_blocking=True) for key, value in collate_features(prompts).items()}
            return
        every, media, indices = found
        if keep and media and self._encode(media, device):
            yield {"mm_encoder_outputs": _outputs(every, media, indices)}
        elif self._one_by_one is None and self._must_match():
            with self._watching(every):
                yield _joined(every, device)
        elif len(every) == len(media) or self._one_by_one is False:
            yield _joined(every, device)
        else:
            with self._repeating(every, indices, device):
                yield _joined(media, device)

    @torch.no_grad()
    def _encode(self, media: list[Medium], device: torch.device) -> bool:
        """Whether each medium has an output of its own now; nothing is tried again where that could not be."""
        if self._one_by_one is False:
            return False
        lacking = [medium for medium in media if medium.output is None]
        for kind in dict.fromkeys(medium.kind for medium in lacking):
            chosen = [medium for medium in lacking if medium.kind == kind]
            method, inputs = getattr(self._owner, f"get_{kind}_features"), _joined(chosen, device)
            with self._autocast():
                found = method(**_known(method, inputs), return_dict=True)
            if not _is_one_by_one(found, len(chosen)):
                self._one_by_one = False
                return False
            for index, medium in enumerate(chosen):
                medium.output = recursively_apply(torch.clone, _chosen(found, [index]))  # no more than it is kept
        return True

    def _watching(self, every: list[Medium]) -> AbstractContextManager[None]:
        """Within the context it is seen whether the tower's outputs come one for each of these media."""
        kinds = {medium.kind for medium in every}
        originals = {f"get_{kind}_features": getattr(self._owner, f"get_{kind}_features") for kind in kinds}

        def watching(kind: str) -> Callable[..., object]:
            def features(*args: object, **kwargs: object) -> object:
                with patched(self._owner, **originals):  # Qwen3-VL reads videos through get_image_features
                    found = originals[f"get_{kind}_features"](*args, **kwargs)
                total = sum(medium.kind == kind for medium in every)
                self._one_by_one = self._one_by_one is not False and _is_one_by_one(found, total)
                return found

            return features

        return patched(self._owner, **{f"get_{kind}_features": watching(kind) for kind in kinds})

    def _repeating(
        self, every: list[Medium], indices: dict[str, list[int]], device: torch.device
    ) -> AbstractContextManager[None]:
        """Within the context the model's tower reads distinct media, and gives outputs for every medium."""
        originals = {f"get_{kind}_features": getattr(self._owner, f"get_{kind}_features") for kind in indices}

        def repeating(kind: str) -> Callable[..., object]:
            original = originals[f"get_{kind}_features"]

            def features(*args: object, **kwargs: object) -> object:
                with patched(self._owner, **originals):  # Qwen3-VL reads videos through get_image_features
                    found = original(*args, **kwargs)
                    if not _is_one_by_one(found, max(indices[kind]) + 1):
                        self._one_by_one = False
                        inputs = _joined([medium for medium in every if medium.kind == kind], device)
                        return original(**_known(original, inputs), return_dict=True)
                for name, value in _chosen(found, indices[kind]).items():
                    setattr(found, name, value)
                return found

            return features

        return patched(self._owner, **{f"get_{kind}_features": repeating(kind) for kind in indices})


def _known(method: Callable[..., object], inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inputs that a method names."""
    return {key: inputs[key] for key in inspect.signature(method).parameters if key in inputs}


def _takes_outputs(module: nn.Module) -> TypeGuard[PreTrainedModel]:
    """Whether a module's forward calls a tower whose outputs come medium by medium, and takes them in its stead."""
    taken = inspect.signature(type(module).forward).parameters
    return hasattr(module, "get_image_features") and "mm_encoder_outputs" in taken


def _joined(media: list[Medium], device: torch.device) -> dict[str, torch.Tensor]:
    joined = join_features([medium.features for medium in media])
    return {key: value.to(device, non_blocking=True) for key, value in joined.items()}


def _is_one_by_one(output: _Read, total: int) -> bool:
    """Whether a tower's output has one entry for each of its `total` media."""
    return len(output.pooler_output) == total


def _chosen(output: _Read, indices: list[int]) -> MediumOutput:
    """What a model reads of its tower's output, for the media at these indices."""
    pooled = output.pooler_output
    chosen = MediumOutput(
        pooler_output=pooled[indices]
        if isinstance(pooled, torch.Tensor)
        else _like(pooled, map(pooled.__getitem__, indices))
    )
    layers = getattr(output, "deepstack_features", None)
    if layers is not None:
        chosen["deepstack_features"] = [[layer[index] for index in indices] for layer in layers]
    return chosen


def _outputs(
    media_of_prompts: list[Medium], media: list[Medium], indices: dict[str, list[int]]
) -> dict[str, TowerOutput]:
    """The model's `mm_encoder_outputs` for all media of the prompts; equal media are given the same output to keep."""
    outputs = {}
    for kind, index in indices.items():
        distinct = [medium.output for medium in media if medium.kind == kind]
        every = [medium for medium in media_of_prompts if medium.kind == kind]
        for medium, each in zip(every, index, strict=True):
            medium.output = distinct[each]
        kept = [medium.output for medium in every if medium.output is not None]
        pooled = [output["pooler_output"] for output in kept]
        joined = MediumOutput(pooler_output=_pooled(pooled))
        if "deepstack_features" in kept[0]:
            layers = zip(*(output["deepstack_features"] for output in kept), strict=True)
            joined["deepstack_features"] = [[each for of_medium in layer for each in of_medium] for layer in layers]
        outputs[kind] = TowerOutput(**joined)
    return outputs


def _pooled(pooled: list[torch.Tensor | list[torch.Tensor]]) -> torch.Tensor | list[torch.Tensor]:
    """Outputs of several media as a model takes them together: stacked, where they were and are of one length."""
    tensors = [output for output in pooled if isinstance(output, torch.Tensor)]
    if len(tensors) == len(pooled) and len({output.shape[1:] for output in tensors}) == 1:
        return torch.cat(tensors)
    every = [each for output in pooled for each in output]
    return Parts(every) if tensors or any(isinstance(output, Parts) for output in pooled) else every


def _like(pooled: Sequence[torch.Tensor], chosen: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return Parts(chosen) if isinstance(pooled, Parts) else list(chosen)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    alike = one.shape == other.shape and one.dtype == other.dtype
    return one is other or (alike and bool(torch.equal(one, other.to(one.device))))


def _drops(module: nn.Module) -> bool:
    """Whether a module leaves values out at random while it trains."""
    rates = [getattr(module, name, 0) for name in ("attention_dropout", "dropout", "drop_path_rate", "drop_prob")]
    dropout = isinstance(module, nn.Dropout) and module.p > 0
    return dropout or any(isinstance(rate, float) and rate > 0 for rate in rates)
