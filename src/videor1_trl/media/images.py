"""Gives images: RGB, turned upright, on white."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from .decode import ImageError, MediaError, Timed, on_white, printable, reason
from .isolation import Isolation, check_isolation, load_image_in_process
from .limits import IMAGE_FORMATS, Limits, meter, metered


# Longer to shorter side of a picture, at most: `smart_resize` of the Qwen-VL families refuses others
MAX_ASPECT_RATIO = 200
PROGRESSIVE_BYTES = 256  # of a progressive JPEG that are decoded at a time


def load_image(source: object, *, limits: Limits | None = None, isolation: Isolation = "thread") -> PIL.Image.Image:
    """
    An image as RGB, turned upright by its EXIF orientation, white behind what is transparent, 16 bits scaled to 8.

    Args:
        source: a local file as `str` or `pathlib.Path`, a PIL image, or a `dict` with `path` or `bytes`.
        limits ([`~media.limits.Limits`], *optional*): what reading a file may take; beyond it, it cannot be read.
        isolation (`str`, defaults to `"thread"`): `"process"`: another process reads the file, which is ended where a decoder
            hangs, and may crash. Images that are passed are taken here.

    Raises `ImageError` whatever is wrong with it.
    """
    data: str | bytes | PIL.Image.Image
    if isinstance(source, (str, Path, dict)):
        data, name = _unpack(source, ImageError)
    elif isinstance(source, PIL.Image.Image):
        data, name = source, "<image>"
    else:
        raise ImageError(f"<{type(source).__name__}>", "not an image. Pass a path, a PIL image or a dict with a path.")
    check_isolation(isolation)
    if isolation == "process" and not isinstance(data, PIL.Image.Image):
        return PIL.Image.fromarray(load_image_in_process(source, name, limits or Limits()))
    with metered(limits):
        try:
            if isinstance(data, PIL.Image.Image):
                found = _as_rgb(PIL.ImageOps.exif_transpose(data), is_made=data.format is None)
            else:
                with _opened(data) as image:
                    found = _as_rgb(PIL.ImageOps.exif_transpose(image))
        # Pillow's decoders raise whatever they stumble over: KeyError, zlib.error, RuntimeError ...
        except Exception as error:
            raise ImageError(name, reason(error)) from error
    check_sides(*found.size, ImageError, name)
    return found


def _opened(data: str | bytes) -> PIL.Image.Image:
    """A file as Pillow opens it; nothing of its pixels is read yet. Raises a `ValueError` with the reason where it is refused."""
    limits = meter().limits
    if isinstance(data, str):
        if os.path.getsize(data) > limits.image_bytes:
            raise ValueError(f"its file has more than {limits.image_bytes:,} bytes. Save it smaller")
        # into memory: Pillow maps an uncompressed TIFF of a path into memory, and turns that wrongly
        data = Path(data).read_bytes()
    PIL.Image.init()
    formats = [each for each in IMAGE_FORMATS if each in PIL.Image.OPEN]  # without AVIF in old versions
    try:
        image = PIL.Image.open(Timed(data), formats=formats)
    except PIL.UnidentifiedImageError as error:
        said = "cannot be read (UnidentifiedImageError): it is damaged, or none of"
        raise ValueError(f"{said} {', '.join(formats)}") from error
    limits.check_pixels(*image.size, of="image")
    if image.info.get("progressive"):  # a scan over all pixels takes 31 bytes: time is looked at more often
        image.decodermaxblock = PROGRESSIVE_BYTES
    return image


def _as_rgb(image: PIL.Image.Image, is_made: bool = False) -> PIL.Image.Image:
    """RGB of 8 bits: white behind what is transparent, pictures of 16 bits scaled; `is_made`: it came out of no file."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known. Save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion clips at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its pixels go from {values.min()} to {values.max()}, and only 8 and 16 bits are read")
        clear = image.info.get("transparency") if isinstance(image.info.get("transparency"), int) else None
        grey = (values * 255 + 32767) // 65535
        grey = np.where(values == clear, 255, grey) if clear is not None else grey
        return PIL.Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("1", "L", "RGB") and is_made:
        return image.convert("RGB")  # made of another picture, whose transparent colour it may still name
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        return PIL.Image.fromarray(np.ascontiguousarray(on_white(np.asarray(image.convert("RGBA")))))
    return image.convert("RGB")


def check_sides(width: int, height: int, error: type[MediaError], name: str) -> None:
    """Raises `error` for sides that differ by more than the processors of the Qwen-VL families and their like take."""
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise error(
            name,
            f"its sides ({width} x {height}) differ by more than {MAX_ASPECT_RATIO} times, which processors refuse",
        )


def _unpack(source: str | Path | Mapping[str, object], error: type[MediaError]) -> tuple[str | bytes, str]:
    """A path (`str`) or the bytes, and the name for messages, of a path or a dict; its file is seen to be a file."""
    data: object = None
    path: object = source
    if isinstance(source, dict):
        data, path = source.get("bytes"), source.get("path")
        unknown = sorted(printable(str(each)) for each in set(source) - {"path", "bytes", "start", "end"})
        if unknown or (data is None and path is None):
            what = f"has unknown keys {unknown}" if unknown else "has neither path nor bytes"
            raise error(str(path or "<dict>"), f"the dict {what}. Its keys are path, bytes, start and end.")
    if data is not None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise error(str(path or "<bytes>"), f"bytes is of type {type(data).__name__}. Pass a bytes object.")
        return bytes(data), str(path or "<bytes>")
    if not isinstance(path, (str, Path)):
        raise error(f"<{type(path).__name__}>", "path is neither a str nor a pathlib.Path. Pass one of them.")
    name = str(path)
    if "://" in name:
        raise error(name, "a URL, and only local files are read. Download it first.")
    if "\0" in name or not os.path.exists(name):
        raise error(name, "no such file")
    if not os.path.isfile(name):  # a pipe or a device would be waited on for ever
        raise error(name, "a directory" if os.path.isdir(name) else "not a regular file")
    return name, name
