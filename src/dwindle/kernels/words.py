"""Unaligned little-endian words in arrays, and single instructions, that numba has no name for.

`load64` and `store` check nothing, not even under NUMBA_BOUNDSCHECK: whoever calls them proves that the word
lies inside. `word_at` is the one to use where speed allows it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic
from numpy.typing import NDArray

intrinsic: Any = _intrinsic  # its own type is that of the function called at compile time


def _address(context: Any, builder: Any, array_type: Any, array: Any, at: Any, word: Any) -> Any:
    """Pointer to a `word` that begins at element `at` of the array."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data  # type: ignore[no-untyped-call]
    return builder.bitcast(builder.gep(data, [at]), word.as_pointer())


@intrinsic
def load64(typing: Any, data: Any, at: Any) -> Any:
    """The uint64 that begins at element `at` (uint64) of an array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], args[0], args[1], ir.IntType(64))
        return builder.load(pointer, align=1)

    return types.uint64(data, types.uint64), codegen


@intrinsic
def store(typing: Any, out: Any, at: Any, value: Any, like: Any) -> Any:
    """Write the low bits of a uint64, as many as the type of `like` has, from element `at` (uint64) on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = args[3].type
        pointer = _address(context, builder, signature.args[0], args[0], args[1], word)
        low = builder.trunc(args[2], word) if word.width < 64 else args[2]
        builder.store(low, pointer, align=1)
        return context.get_dummy_value()

    return types.void(out, types.uint64, types.uint64, like), codegen


@intrinsic
def top_bits(typing: Any, value: Any) -> Any:
    """The two highest bits of an unsigned number as wide as its type."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width = args[0].type.width
        top = builder.lshr(args[0], ir.IntType(width)(width - 2))
        return builder.zext(top, ir.IntType(64)) if width < 64 else top

    return types.uint64(value), codegen


@intrinsic
def leading_zeros(typing: Any, value: Any) -> Any:
    """Zero bits above the highest one bit of a uint64 that is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.IntType(1)(1))

    return types.uint64(types.uint64), codegen


@njit(cache=True, nogil=True)
def word_at(data: NDArray[np.uint8], at: np.uint64) -> Any:
    """Bytes `at` to `at + 7` as a uint64; those after the end of `data` are zero."""
    size = np.uint64(len(data))
    if at + np.uint64(8) <= size:
        return load64(data, at)
    word = np.uint64(0)
    for i in range(np.uint64(8)):
        if at + i < size:
            word |= np.uint64(data[at + i]) << (np.uint64(8) * i)
    return word
