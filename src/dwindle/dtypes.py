"""Names, widths and bit patterns of the element types a checkpoint may hold.

NumPy has no bfloat16 and no float8, so an element is handled as its *storage*: the NumPy dtype of the same
width that carries its bits. Where NumPy knows the type, storage is the type itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGE: dict[str, np.dtype[Any]] = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float8_e4m3fn": np.dtype("u1"),
    "float8_e5m2": np.dtype("u1"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint64": np.dtype("<u8"),
    "uint32": np.dtype("<u4"),
    "uint16": np.dtype("<u2"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
}
"""Storage of each dtype name. The names are torch's."""

SHAREABLE = ("float64", "float32", "float16", "bfloat16")
"""Dtypes whose tensors may be pruned and shared; all others are kept exactly."""


def itemsize(dtype: str) -> int:
    """Bytes of one element of `dtype`."""
    return STORAGE[dtype].itemsize


FLOAT8 = {"float8_e4m3fn": (3, 7), "float8_e5m2": (2, 15)}
"""Bits of the mantissa and bias of the exponent of the 8-bit floats (Micikevicius et al. 2022, table 1)."""


def to_float(bits: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Values of storage `bits`: float64 for float64, float32 for the shorter floats.

    float32 and float64 are returned as they are, not copied.
    """
    if dtype in ("float64", "float32"):
        return bits
    if dtype == "float16":
        return bits.astype(np.float32)
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype in FLOAT8:
        values: NDArray[Any] = _float8_values(dtype)[bits]
        return values
    raise ValueError(f"expected a float dtype, one of {', '.join(SHAREABLE)}, got {dtype}")


def from_float(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Storage of `values` in `dtype`, rounded to nearest, ties to even; NaN stays NaN."""
    if dtype in ("float64", "float32", "float16"):
        return np.asarray(values).astype(STORAGE[dtype], copy=False)
    if dtype == "bfloat16":
        word = np.ascontiguousarray(values, np.float32).view(np.uint32)
        rounded = (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        quiet = (word >> np.uint32(16)) | np.uint32(0x40)
        return np.where(np.isnan(word.view(np.float32)), quiet, rounded).astype(np.uint16)
    raise ValueError(f"expected a float dtype, one of {', '.join(SHAREABLE)}, got {dtype}")


def _float8_values(dtype: str) -> NDArray[np.float32]:
    """The value of each of the 256 patterns."""
    bits, bias = FLOAT8[dtype]
    pattern = np.arange(256)
    exponent, mantissa = (pattern & 0x7F) >> bits, (pattern & ((1 << bits) - 1)).astype(np.float32)
    fraction = np.where(exponent == 0, mantissa, mantissa + (1 << bits))
    values = np.ldexp(fraction, np.maximum(exponent, 1) - bias - bits).astype(np.float32)
    if dtype == "float8_e5m2":
        values = np.where(exponent == 31, np.where(mantissa == 0, np.inf, np.nan), values)
    else:
        values = np.where(pattern & 0x7F == 0x7F, np.nan, values)
    return np.where(pattern >> 7, -values, values).astype(np.float32)
