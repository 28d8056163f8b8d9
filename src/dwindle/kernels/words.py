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

BROKEN = np.uint64(0xFFFFFFFFFFFFFFFF)
"""What `varint_at` returns where there is no varint."""

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
def prefetch(typing: Any, data: Any, at: Any) -> Any:
    """Have the bytes at element `at` (uint64) of an array brought to the cache, if there are such."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], args[0], args[1], ir.IntType(8))
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(fetch, [pointer, number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.void(data, types.uint64), codegen


@intrinsic
def bits_of(typing: Any, array: Any) -> Any:
    """Bits of an element of an array, as a number that is known when a kernel is compiled."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.IntType(64)(array.dtype.bitwidth)

    return types.uint64(array), codegen


@intrinsic
def turned(typing: Any, word: Any, bits: Any) -> Any:
    """An unsigned number with its bits turned left, in as many bits as its type has."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        amount = builder.trunc(args[1], kind) if kind.width < 64 else args[1]
        turn = builder.module.declare_intrinsic("llvm.fshl", [kind], ir.FunctionType(kind, [kind] * 3))
        return builder.call(turn, [args[0], args[0], amount])

    return word(word, types.uint64), codegen


@intrinsic
def reversed_bits(typing: Any, value: Any) -> Any:
    """The bits of a uint64 in opposite order."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitreverse(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic
def leading_zeros(typing: Any, value: Any) -> Any:
    """Zero bits above the highest one bit of a uint64 that is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.IntType(1)(1))

    return types.uint64(types.uint64), codegen


@intrinsic
def trailing_zeros(typing: Any, value: Any) -> Any:
    """Zero bits below the lowest one bit of a uint64 that is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

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


@njit(cache=True, nogil=True)
def varint_at(data: NDArray[np.uint8], at: np.uint64, stop: np.uint64) -> Any:
    """The varint at `at`, under 2**56 and in its shortest form, and the place after it, at most `stop`."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < stop and shift < np.uint64(56):
        digit = np.uint64(data[at])
        at += np.uint64(1)
        value |= (digit & np.uint64(0x7F)) << shift
        if digit < np.uint64(0x80):
            return (value, at) if digit or not shift else (BROKEN, at)
        shift += np.uint64(7)
    return BROKEN, at


@njit(cache=True, nogil=True)
def put_varint(value: np.uint64, out: NDArray[np.uint8], at: np.uint64) -> Any:
    """Write a varint; the place after it."""
    while value > np.uint64(0x7F):
        out[at] = np.uint8(value & np.uint64(0x7F) | np.uint64(0x80))
        at += np.uint64(1)
        value >>= np.uint64(7)
    out[at] = np.uint8(value)
    return at + np.uint64(1)


@njit(cache=True, nogil=True)
def copy(source: NDArray[np.uint8], size: np.uint64, out: NDArray[np.uint8], at: np.uint64) -> Any:
    """Write the first `size` bytes; the place after them."""
    for i in range(size):
        out[at + i] = source[i]
    return at + size
