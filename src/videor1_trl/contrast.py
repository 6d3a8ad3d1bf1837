"""The frames a contrast rollout sees: the same video with its order of time spoiled."""

from __future__ import annotations

import torch


def shuffle_frames(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    The frames in a random order, never the order they came in: uniform over the other T! - 1 permutations.

    Source: Video-R1 (arXiv 2503.21776), whose code may draw the identity. The draw depends on T and the generator
    alone, so that ranks with equally seeded generators agree. Equal frames stay equal: a still video has no order.

    Args:
        frames (`torch.Tensor` (T, C, H, W), any dtype, in practice uint8): left as it is.
        generator (`torch.Generator`): moved on by one or more draws where T > 1, else untouched.

    Returns:
        `torch.Tensor` (T, C, H, W), a copy on the same device; `frames` itself where T < 2.

    >>> frames = torch.arange(2, dtype=torch.uint8).view(2, 1, 1, 1)
    >>> shuffle_frames(frames, torch.Generator().manual_seed(0)).flatten().tolist()
    [1, 0]
    """
    num_frames = len(frames)
    if num_frames < 2:
        return frames
    identity = torch.arange(num_frames, device=generator.device)
    order = identity
    while torch.equal(order, identity):  # at most two draws on average, at T = 2
        order = torch.randperm(num_frames, generator=generator, device=generator.device)
    return frames[order.to(frames.device)]


def reverse_frames(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    The frames from last to first; nothing is drawn. A video that reads the same backwards stays as it is.

    Args:
        frames (`torch.Tensor` (T, C, H, W), any dtype, in practice uint8): left as it is.
        generator (`torch.Generator`): not used.

    Returns:
        `torch.Tensor` (T, C, H, W), a copy on the same device.

    >>> frames = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1)
    >>> reverse_frames(frames, torch.Generator()).flatten().tolist()
    [2, 1, 0]
    """
    return frames.flip(0)


def freeze_frame(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    One frame, drawn uniformly, in the place of every frame: what is to be seen without any movement.

    Args:
        frames (`torch.Tensor` (T, C, H, W), any dtype, in practice uint8): left as it is.
        generator (`torch.Generator`): moved on by one draw where T > 1, else untouched.

    Returns:
        `torch.Tensor` (T, C, H, W), a copy on the same device; `frames` itself where T < 2.

    >>> frames = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    >>> len(set(freeze_frame(frames, torch.Generator().manual_seed(0)).flatten().tolist()))
    1
    """
    num_frames = len(frames)
    if num_frames < 2:
        return frames
    place = int(torch.randint(num_frames, (1,), generator=generator, device=generator.device))
    return frames[place : place + 1].expand_as(frames).contiguous()
