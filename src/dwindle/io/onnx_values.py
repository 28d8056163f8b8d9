"""The elements of a tensor of an ONNX model: out of its message and into it again, to the field and the bit.

A `TensorProto` holds its elements as bytes (`raw_data`), or as numbers in a field that depends on their type.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes
from dwindle.code.cursor import prefixed
from dwindle.records import Raw, Shared, to_storage

if TYPE_CHECKING:
    from onnx import TensorProto

DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    19: "float8_e5m2",
}
"""The dtype of each number of `TensorProto.DataType`; text, other floats and fewer bits than 8 have none."""

RAW = "raw_data"
FIELDS = (RAW, "float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")

MAX_RANK = 64
"""Dimensions a tensor may have: NumPy holds no more."""

MAX_ELEMENTS = 1 << 48
"""Elements a tensor may have, dimensions of 0 left out: a `.dwz` file holds no more."""

_NUMBERS = {"float_data": 4, "double_data": 10}
"""The numbers of the fields whose elements lie in the message as they are, one after the other."""

_LENGTH_DELIMITED = 2
_TYPED = {
    "float32": "float_data",
    "complex64": "float_data",
    "float64": "double_data",
    "complex128": "double_data",
    "int64": "int64_data",
    "uint64": "uint64_data",
    "uint32": "uint64_data",
}


def field(dtype: str) -> str:
    """The field that holds elements of a dtype as numbers; floats under 32 bits are there as their bits."""
    return _TYPED.get(dtype, "int32_data")


def outline(tensor: TensorProto) -> tuple[str, tuple[int, ...]] | None:
    """Dtype and shape, or None where the elements have no dtype of ours, or are in several messages.

    Raises:
        ValueError: if the shape is none.
    """
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None or tensor.HasField("segment"):
        return None
    shape = tuple(tensor.dims)
    if len(shape) > MAX_RANK or min(shape, default=0) < 0:
        raise ValueError(f"expected at most {MAX_RANK} dimensions, none negative, got {_short(shape)}")
    if math.prod(size for size in shape if size) > MAX_ELEMENTS:
        raise ValueError(f"expected at most {MAX_ELEMENTS} elements, got {_short(shape)}")
    return dtype, shape


def take(tensor: TensorProto, dtype: str, shape: tuple[int, ...]) -> bytes:
    """Take the elements out of a message; `raw_data` stays in it, empty, where they were there.

    Raises:
        ValueError: if they are not as many as dtype and shape say, or in another field than they should be.
    """
    found = [name for name in FIELDS if has(tensor, name)]
    expected = math.prod(shape) * dtypes.itemsize(dtype)
    name = field(dtype)
    if found == [RAW]:
        data = tensor.raw_data
        tensor.raw_data = b""
    elif found in ([], [name]):
        data = _numbers(tensor, dtype, name) if found else b""
        tensor.ClearField(name)
    else:
        raise ValueError(f"expected elements in {RAW} or {name}, got {' and '.join(found)}")
    if len(data) != expected:
        raise ValueError(f"expected {expected} bytes for {dtype}{_short(shape)}, got {len(data)}")
    return data


def put(tensor: TensorProto, record: Raw | Shared) -> None:
    """Put elements where `take` took them from."""
    data = as_bytes(record)
    raw, name = tensor.HasField(RAW), field(record.dtype)
    clear(tensor)
    if raw:
        tensor.raw_data = data
    elif name in _NUMBERS:
        # A float that goes through Python may lose the bits of a NaN; as part of a message it does not.
        if data:
            tensor.MergeFromString(bytes([_NUMBERS[name] << 3 | _LENGTH_DELIMITED]) + prefixed(data))
    else:
        getattr(tensor, name).extend(np.frombuffer(data, _word(record.dtype)).tolist())


def clear(tensor: TensorProto) -> None:
    """Take all elements out of a message."""
    for name in FIELDS:
        tensor.ClearField(name)


def most_bytes(tensor: TensorProto, dtype: str, shape: tuple[int, ...]) -> int:
    """What a message with its elements back takes at most."""
    n = math.prod(shape)
    numbers = not tensor.HasField(RAW) and field(dtype) not in _NUMBERS
    return 256 + (10 * n if numbers else n * dtypes.itemsize(dtype))


def as_bytes(record: Raw | Shared) -> bytes:
    """The elements of a record, as `raw_data` has them."""
    if isinstance(record, Raw):
        return bytes(record.data)
    return to_storage(record).tobytes()


def has(tensor: TensorProto, name: str) -> bool:
    """Whether a message has elements in a field; `raw_data` may be there and empty."""
    return tensor.HasField(RAW) if name == RAW else bool(len(getattr(tensor, name)))


def _numbers(tensor: TensorProto, dtype: str, name: str) -> bytes:
    """The elements of a field of numbers."""
    values = getattr(tensor, name)
    if name in _NUMBERS:
        alone = type(tensor)()
        alone.CopyFrom(tensor)
        alone.DiscardUnknownFields()
        for descriptor, _ in alone.ListFields():
            if descriptor.name != name:
                alone.ClearField(descriptor.name)
        message: bytes = alone.SerializeToString()
        # The elements are all of the message behind its tag and length.
        return message[len(message) - len(values) * (4 if name == "float_data" else 8) :]
    word = _word(dtype)
    most = 1 if dtype == "bool" else np.iinfo(word).max
    numbers: NDArray[Any] = np.array(values, np.uint64 if name == "uint64_data" else np.int64)
    if numbers.size and not np.iinfo(word).min <= numbers.min() <= numbers.max() <= most:
        raise ValueError(f"expected numbers of {dtype} in {name}, got {numbers.min()} to {numbers.max()}")
    return numbers.astype(word).tobytes()


def _word(dtype: str) -> np.dtype[Any]:
    """The whole numbers that elements are in a field of numbers."""
    storage = dtypes.STORAGE[dtype]
    return storage if storage.kind in "iu" else np.dtype(f"<u{storage.itemsize}")


def _short(shape: tuple[int, ...]) -> str:
    return str(list(shape)) if len(shape) <= 8 else f"{len(shape)} dimensions"
