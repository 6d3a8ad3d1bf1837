"""Gives images: RGB, turned upright, on white."""

import os
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from .blobs import Blob
from .errors import ImageError, MediaError, reason
from .isolation import Isolation, check_isolation, load_image_in_process
from .limits import IMAGE_FORMATS, Limits, meter, metered
from .opening import Timed
from .pictures import on_white
from .sources import named_source, opened_source


# Longer to shorter side of a picture, at most: `smart_resize` of the Qwen-VL families refuses others
MAX_ASPECT_RATIO = 200
PROGRESSIVE_BYTES = 256  # of a progressive JPEG that are decoded at a time


def load_image(source: object, *, limits: Limits | None = None, isolation: Isolation = "thread") -> PIL.Image.Image:
    """
    An image as RGB, turned upright by its EXIF orientation, white behind what is transparent, 16 bits scaled to 8.

    Args:
        source: a file as `str` or `pathlib.Path`, a member of an archive (`archive.zip::name`), an address in one of
            `limits.stores`, `bytes`, a PIL image, or a `dict` with `path` or `bytes`.
        limits ([`~media.limits.Limits`], *optional*): what reading a file may take; beyond it, it cannot be read.
        isolation (`str`, defaults to `"thread"`): `"process"`: another process reads the file, which is ended where a decoder
            hangs, and may crash. Images that are passed are taken here.

    Raises `ImageError` whatever is wrong with it.
    """
    if isinstance(source, PIL.Image.Image):
        name = "<image>"
    elif isinstance(source, (str, Path, bytes, dict)):
        name = named_source(source, ImageError)[1]
    else:
        raise ImageError(f"<{type(source).__name__}>", "not an image. Pass a path, a PIL image or a dict with a path.")
    check_isolation(isolation)
    if isolation == "process" and not isinstance(source, PIL.Image.Image):
        return PIL.Image.fromarray(load_image_in_process(source, name, limits or Limits()))
    with metered(limits):
        try:
            if isinstance(source, PIL.Image.Image):
                found = _as_rgb(PIL.ImageOps.exif_transpose(source), is_made=source.format is None)
            else:
                with opened_source(source, ImageError) as (data, _), _opened(data) as image:
                    found = _as_rgb(PIL.ImageOps.exif_transpose(image))
        except ImageError:
            raise
        # Pillow's decoders raise whatever they stumble over: KeyError, zlib.error, RuntimeError ...
        except Exception as error:
            raise ImageError(name, reason(error)) from error
    check_sides(*found.size, ImageError, name)
    return found


def _opened(data: str | bytes | Blob) -> PIL.Image.Image:
    """A file as Pillow opens it; nothing of its pixels is read yet. Raises a `ValueError` with the reason where it is refused."""
    limits = meter().limits
    if not isinstance(data, bytes):
        if (os.path.getsize(data) if isinstance(data, str) else data.size) > limits.image_bytes:
            raise ValueError(f"its file has more than {limits.image_bytes:,} bytes. Save it smaller")
        # into memory: Pillow maps an uncompressed TIFF of a path into memory, and turns that wrongly
        data = Path(data).read_bytes() if isinstance(data, str) else data.all()
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
