"""Picture files as upright 8-bit RGB, or an error that names the file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dwindle.errors import DataError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are decoded, whatever the file's name; others of Pillow's run programs or need extras."""

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Ends of the names of picture files, lower case."""

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a file of kilobytes can claim any size."""


def decode(path: Path) -> Image.Image:
    """Decode a picture to RGB, turned as its EXIF orientation says.

    Grey and palette pictures become RGB, CMYK is converted without a profile, of 16 bits the upper 8 are
    taken, transparent pixels lie on white, and of an animation the first frame counts.

    Args:
        path: a file of one of FORMATS.

    Raises:
        DataError: if the file cannot be read, is damaged or no picture, has over MAX_PIXELS pixels, or holds
            numbers that are no brightness of 8 or 16 bits.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of sizes; neither warning names the file.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as picture:
                check_pixels(path, *picture.size)
                picture.load()
                return _rgb(path, ImageOps.exif_transpose(picture))
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: expected at most {MAX_PIXELS} pixels, got more: {error}") from error
    # A damaged file trips Pillow's decoders anywhere: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        reason = "none that is known" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{path}: expected a picture ({', '.join(FORMATS)}), got: {reason}") from error


def check_pixels(path: Path, width: int, height: int) -> None:
    """Refuse a picture too large to decode or to resize.

    Raises:
        DataError: if it has over MAX_PIXELS pixels.
    """
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: expected at most {MAX_PIXELS} pixels, got {width} x {height}")


def _rgb(path: Path, picture: Image.Image) -> Image.Image:
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 0xFFFF:
            got = f"{values.min()} to {values.max()}"
            raise DataError(f"{path}: expected brightness of 8 or 16 bits, got {got}")
        picture = Image.fromarray((values >> 8).astype(np.uint8))
    if picture.mode == "F":
        raise DataError(f"{path}: expected brightness of 8 or 16 bits, got floating-point numbers")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        picture = Image.alpha_composite(ground, layer)
    return picture.convert("RGB")
