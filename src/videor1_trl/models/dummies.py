"""
Dummy rows that let a rank call the vision tower as often as the others, where a rank that calls it less often would make
all of them hang: ZeRO-3 and FSDP gather parameters layer by layer, on all ranks at once.
"""

import torch
from PIL import Image
from transformers import Trainer
from transformers.video_utils import VideoMetadata

from .encoding import EncodedPrompt, EncodeSettings, encode_prompt
from .families import Processor


def calls_must_match(trainer: Trainer) -> bool:
    """Whether every rank must call every module equally often: where parameters are gathered layer by layer."""
    plugin = trainer.accelerator.state.deepspeed_plugin if trainer.is_deepspeed_enabled else None
    return trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3)


class Dummies:
    """
    The dummies of a run, made once they are needed.

    Args:
        kinds (`set[str]`): the media in the data, `"video"` and `"image"`.
        processor: the model's processing class.
        encode_settings ([`~encoding.EncodeSettings`]): of the run.
    """

    def __init__(self, kinds: set[str], processor: Processor, encode_settings: EncodeSettings):
        self._kinds, self._processor, self._encode_settings = kinds, processor, encode_settings
        self._made: dict[str, EncodedPrompt] = {}

    def missing(self, rows: list[EncodedPrompt]) -> list[EncodedPrompt]:
        """A dummy for each kind of media that these rows lack and those of other ranks may have."""
        missing = sorted(self._kinds.difference(*(row.kinds for row in rows)))
        for kind in missing:
            if kind not in self._made:
                self._made[kind] = dummy_prompt(kind, self._processor, self._encode_settings)
        return [self._made[kind] for kind in missing]


def dummy_prompt(kind: str, processor: Processor, encode_settings: EncodeSettings) -> EncodedPrompt:
    """A prompt of nothing but a small black video (two frames) or image; `kind` is `"video"` or `"image"`."""
    black = torch.zeros(2, 3, 56, 56, dtype=torch.uint8)
    clip = VideoMetadata(total_num_frames=2, fps=1.0, duration=2.0, frames_indices=[0, 1])
    return encode_prompt(
        processor,
        [{"role": "user", "content": [{"type": kind}]}],
        [(black, clip)] if kind == "video" else [],
        [Image.new("RGB", (56, 56))] if kind == "image" else [],
        **encode_settings,
    )


def with_rows_below(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    dummies: list[EncodedPrompt],
    num_completion: int,
    pad_token_id: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Rows with the dummies below them. A dummy has one completion token, so that its vision tower has a gradient (zero,
    once its outputs are dropped).

    Args:
        input_ids, attention_mask (`torch.Tensor` of shape (B, P + C)): left-padded prompts, right-padded completions.
        num_completion (`int`): C.

    Returns:
        Both with shape (B + D, P' + C), padded further on the left where a dummy is longer than the prompts.
    """
    if not dummies:
        return input_ids, attention_mask
    prompts = [input_ids.new_tensor(dummy.input_ids) for dummy in dummies]
    widest = max(input_ids.shape[1] - num_completion, *map(len, prompts))
    left = widest + num_completion - input_ids.shape[1]
    ids = torch.nn.functional.pad(input_ids, (left, 0, 0, len(dummies)), value=pad_token_id)
    mask = torch.nn.functional.pad(attention_mask, (left, 0, 0, len(dummies)))
    for row, prompt in enumerate(prompts, start=len(input_ids)):
        ids[row, widest - len(prompt) : widest] = prompt
        mask[row, widest - len(prompt) : widest + 1] = 1
    return ids, mask
