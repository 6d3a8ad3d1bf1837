"""Frames as arrays: in RGB on a white ground, turned upright, and stacked in the size that they are wanted in."""

import math
import struct
from typing import Any

import numpy as np
import torch
from av import VideoFrame
from av.sidedata.sidedata import Type as SideDataType

from .errors import VideoError
from .limits import TooMuch, meter
from .shrink import current_shrink


class Frames:
    """
    The frames taken, each written into its place as it comes, in the size that it will be resized to: what they were decoded to
    is never held twice, nor all of it at full size.
    """

    def __init__(self, most: int):
        self._most, self._count = most, 0
        self._stack: np.ndarray | None = None
        self._shrink = current_shrink()
        self._smaller: tuple[int, int] | None = None  # height and width, once the first picture is there
        self.sizes: set[tuple[int, ...]] = set()

    def add(self, picture: np.ndarray) -> None:
        """A picture (H, W, 3) behind those that are there."""
        self.sizes.add(picture.shape[1::-1])
        if self._shrink is not None and self._stack is None:
            self._smaller = self._shrink.size(self._most, *picture.shape[:2])
        if self._shrink is not None and self._smaller is not None:
            picture = self._shrink.resize(picture, self._smaller)
        if self._stack is None:
            taken, most = self._most * picture.nbytes, meter().limits.frames_bytes
            if taken > most:
                raise TooMuch(
                    f"{self._most} frames of {picture.shape[1]} x {picture.shape[0]} take {taken / 2**30:.1f} GiB, more than "
                    f"{most / 2**30:.1f}. Take fewer frames, or scale it down"
                )
            self._stack = np.empty((self._most, *picture.shape), np.uint8)
        if len(self.sizes) == 1:
            self._stack[self._count] = picture
        self._count += 1

    def tensor(self, name: str) -> torch.Tensor:
        """uint8 (T, 3, H, W)."""
        if len(self.sizes) > 1:
            sizes = sorted(self.sizes)
            raise VideoError(name, f"its frames change size (width, height): {sizes}. Encode it anew with one size.")
        if self._stack is None:
            raise VideoError(name, "none of its frames could be taken")
        return torch.from_numpy(self._stack[: self._count]).permute(0, 3, 1, 2)


def pixels_of(frame: VideoFrame) -> np.ndarray:
    """RGB, uint8 (H, W, 3), as stored, white behind what is transparent."""
    meter().limits.check_pixels(frame.width, frame.height)
    has_alpha = any(part.is_alpha for part in frame.format.components) or frame.format.has_palette
    return on_white(frame.to_ndarray(format="rgba")) if has_alpha else frame.to_ndarray(format="rgb24")


class Orientation:
    """
    The display matrix that holds for the frames of a stream, seen one after the other: row by row (ISO 14496-12, 8.3.2).

    A frame whose matrix is looked at is held until Python looks for cycles, since PyAV's side data points back at it: hundreds of
    large ones would be. So only the first one is, and those whose rotation differs from the last.
    """

    def __init__(self) -> None:
        self.matrix: tuple[int, ...] | None = None
        self._rotation: int | None = None

    def see(self, frame: VideoFrame) -> None:
        if frame.rotation == self._rotation:
            return
        self._rotation = frame.rotation
        side_data: Any = frame.side_data  # PyAV's stubs do not know that it goes by type
        found = side_data.get(SideDataType.DISPLAYMATRIX)
        if found is not None:
            self.matrix = struct.unpack("=9i", bytes(found)[:36])


def on_white(rgba: np.ndarray) -> np.ndarray:
    """RGBA, uint8 (H, W, 4), on a white ground: RGB, uint8 (H, W, 3)."""
    if rgba[..., 3].min(initial=255) == 255:
        return rgba[..., :3]
    white = np.empty((*rgba.shape[:-1], 3), np.uint8)
    for top in range(0, len(rgba), 64):  # the sums take several times the memory of the picture
        rows = rgba[top : top + 64]
        alpha = rows[..., 3:].astype(np.uint16)
        white[top : top + 64] = (rows[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return white


def upright(picture: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """
    A picture (H, W, 3) turned and mirrored by a display matrix, exactly as ffmpeg does: all eight orientations, those of front
    cameras among them.
    """
    if matrix is None:
        return picture
    right, right_to_down, _, down_to_right, down, *_ = matrix
    if max(abs(right_to_down), abs(down_to_right)) * 100 < min(abs(right), abs(down)):
        picture = picture[:, ::-1] if right < 0 else picture
        return picture[::-1] if down < 0 else picture
    if max(abs(right), abs(down)) * 100 < min(abs(right_to_down), abs(down_to_right)):
        picture = picture.transpose(1, 0, 2)
        picture = picture[:, ::-1] if down_to_right < 0 else picture
        return picture[::-1] if right_to_down < 0 else picture
    turned = round(math.degrees(math.atan2(right_to_down, right)))
    raise ValueError(f"its frames are to be turned by {turned} degrees, not by a multiple of 90")
