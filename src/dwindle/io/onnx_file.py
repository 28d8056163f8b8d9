"""ONNX models: their tensors as records, the rest as an extra. Only here is the onnx package needed.

The extra `onnx` is the model as a protobuf message, coded by `extra.pack`, without its tensors' elements.
Where those were taken out, the last of the tensor's `external_data` is a pair with the key `dwz`, and as its
value the name of the record, unless that is the tensor's own name. `raw_data` is there and empty where the
elements were in it. A tensor that lay in another file is as if it had been in `raw_data`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from dwindle import dtypes
from dwindle.atomic import writing
from dwindle.errors import CheckpointError, CorruptError, OutputError
from dwindle.io import extra, onnx_external, onnx_graph, onnx_values
from dwindle.io.contents import Checkpoint
from dwindle.io.mapped import mapped
from dwindle.io.onnx_graph import Place
from dwindle.records import Raw, Record, outline, resolve

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

EXTRA = "onnx"
"""The name of the extra."""

MAX_MESSAGE = (1 << 31) - 1
"""Bytes a protobuf message may have; tensors of a model that would be longer go to a file beside it."""

LARGE = 1024
"""Bytes from which on an attribute is a record, and an initializer may go to a file beside the model."""

_MARK = "dwz"
_IR_VERSION = 0x08
_NEXT_TAGS = b"\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca\xd2"
"""The first bytes of the fields that may follow `ir_version`."""


def looks_like(head: bytes) -> bool:
    """Whether a file begins as nearly all models do: a version, then another field."""
    return len(head) > 2 and head[0] == _IR_VERSION and 0 < head[1] < 0x80 and head[2] in _NEXT_TAGS


def read(path: Path) -> Checkpoint:
    """Read a model: its initializers, also of subgraphs, and the larger ones of its tensor attributes.

    Those of subgraphs are named behind the nodes and attributes they are inside of, the value of a Constant
    by its output; the second of a name gets a number. Elements in other files are mapped when they are asked
    for. Tensors of other element types than ours stay in the graph; they are listed as skipped, and as kept.

    Raises:
        CheckpointError: if it is no model, a tensor's elements do not fit its shape and type, or do not lie
            in a file in the model's folder; or if onnx is not installed.
        OSError: if the file cannot be opened.
    """
    size = path.stat().st_size
    if size > MAX_MESSAGE:
        raise CheckpointError(f"{path}: expected a model of at most {MAX_MESSAGE} bytes, got {size}")
    try:
        return _take_apart(_parse(path.read_bytes()), path)
    except ImportError as error:
        raise CheckpointError(f"{path}: {_NOT_INSTALLED}, which reads this format") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def write(
    path: Path, records: Mapping[str, Record], graph: bytes, source: Path, *, force: bool
) -> list[Path]:
    """Write a model: the graph of the extra with the elements of its tensors back in it.

    A model that would be longer than a message may be keeps its large initializers in a file beside it, named
    as `onnx_external.names` says. Such files of a model that is replaced are removed, unless there are other
    models in the folder, which may need them.

    Args:
        path: the file.
        records: the tensors, those that were read; their values may be others.
        graph: the extra.
        source: where it comes from, for errors.
        force: replace an existing file.

    Returns:
        The files that were written.

    Raises:
        CorruptError: if the extra is no model, or not one with just these tensors.
        CheckpointError: if onnx is not installed.
        OutputError: if a file cannot be written.
    """
    try:
        model = _parse(extra.unpack(graph))
        places = _places(model, records)
    except ImportError as error:
        raise CheckpointError(f"{path}: {_NOT_INSTALLED}, which writes this format") from error
    except (ValueError, CorruptError) as error:
        raise CorruptError(f"{source}: onnx: {error}") from error
    outside = _outside(path, model, places)
    old = list(takewhile(Path.exists, onnx_external.names(path)))
    said = _locations(path) if old and path.exists() else set()
    beside = next(name for name in onnx_external.names(path) if name not in old)
    if outside:
        onnx_external.write(beside, records, outside.items(), force=False)
    try:
        for name, place in places.items():
            if name not in outside:
                _unmark(place.tensor)
                onnx_values.put(place.tensor, resolve(records, name))
        with writing(path, force=force) as stream:
            stream.write(model.SerializeToString(deterministic=True))
    except BaseException:
        if outside:
            beside.unlink(missing_ok=True)
        raise
    gone = [file for file in old if file.name in said]
    if gone and [file.name for file in path.parent.iterdir() if file.suffix.lower() == ".onnx"] == [
        path.name
    ]:
        for file in gone:
            file.unlink(missing_ok=True)
    return [path, beside] if outside else [path]


_NOT_INSTALLED = "expected onnx to be installed (pip install 'dwindle[onnx]')"


def _parse(data: bytes) -> ModelProto:
    """A model.

    Raises:
        ImportError: if onnx is not installed.
        ValueError: if it is none.
    """
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ValueError("expected an ONNX model, got a damaged one, or something else") from error
    # Few bytes are no message at all: what has no graph is no model.
    if not model.HasField("graph") or model.ir_version < 1:
        raise ValueError("expected an ONNX model, got a message without a graph or a version")
    return model


def _locations(path: Path) -> set[str]:
    """The files beside a model that its tensors lie in; none if it cannot be read."""
    try:
        places = list(onnx_graph.walk(_parse(path.read_bytes())))
    except (OSError, ValueError):
        return set()
    return {e.value for place in places for e in place.tensor.external_data if e.key == "location"}


def _take_apart(model: ModelProto, path: Path) -> Checkpoint:
    beside = onnx_external.Beside(path)
    tensors: dict[str, Raw | onnx_external.Extent] = {}
    kept: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for place in onnx_graph.walk(model):
        name = _free(place.name, tensors, numbers)
        try:
            found = _take(place, beside)
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from error
        if found is not None:
            tensors[name] = found
            _mark(place.tensor, name)
        elif onnx_values.outline(place.tensor) is None and _counts(place):
            kept[name] = None
    extras = {EXTRA: extra.pack(model.SerializeToString(deterministic=True))}
    records = onnx_external.Tensors(tensors)
    return Checkpoint(records, {}, tuple(kept), extras, tuple(kept), (path, *beside.files))


def _take(place: Place, beside: onnx_external.Beside) -> Raw | onnx_external.Extent | None:
    """Take a tensor out of its message, or None where it stays: of no dtype of ours, or a small attribute."""
    tensor = place.tensor
    if any(entry.key == _MARK for entry in tensor.external_data):
        raise ValueError(f"expected external data without the key {_MARK!r}, got one")
    known = onnx_values.outline(tensor)
    if tensor.data_location == tensor.EXTERNAL:
        file, begin, end = beside.find(tensor)
        del tensor.external_data[:]
        tensor.ClearField("data_location")
        if known is None:
            tensor.raw_data = bytes(mapped(file, begin, end, 1, "its data"))
            return None
        expected = math.prod(known[1]) * dtypes.itemsize(known[0])
        if end - begin != expected:
            raise ValueError(f"expected {expected} bytes for {known[0]}{list(known[1])}, got {end - begin}")
        tensor.raw_data = b""
        return onnx_external.Extent(*known, file, begin, end)
    if known is None or not _counts(place):
        return None
    return Raw(*known, onnx_values.take(tensor, *known))


def _counts(place: Place) -> bool:
    """Whether a tensor is worth a record of its own."""
    return not place.attribute or place.tensor.ByteSize() >= LARGE


def _free(name: str, taken: Mapping[str, object], numbers: dict[str, int]) -> str:
    """The name, or where it is taken the first with a number that is not; `numbers` says what was tried."""
    free = name
    while free in taken:
        numbers[name] = numbers.get(name, 1) + 1
        free = f"{name}#{numbers[name]}"
    return free


def _mark(tensor: TensorProto, name: str) -> None:
    mark = tensor.external_data.add(key=_MARK)
    if name != tensor.name:
        mark.value = name


def _unmark(tensor: TensorProto) -> None:
    del tensor.external_data[-1]


def _places(model: ModelProto, records: Mapping[str, Record]) -> dict[str, Place]:
    """Where the elements of each record go.

    Raises:
        ValueError: if it is not one place for each, of its dtype and shape.
    """
    places: dict[str, Place] = {}
    for place in onnx_graph.walk(model):
        data = place.tensor.external_data
        if not data or data[-1].key != _MARK:
            continue
        name = data[-1].value if data[-1].HasField("value") else place.tensor.name
        if name not in records or name in places:
            got = "it twice" if name in places else "none"
            raise ValueError(f"tensor {name!r}: expected one of this name, got {got}")
        known = onnx_values.outline(place.tensor)
        if known != outline(records, name):
            raise ValueError(
                f"tensor {name!r}: expected {known} as in the graph, got {outline(records, name)}"
            )
        places[name] = place
    if len(places) != len(records):
        missing = next(name for name in records if name not in places)
        raise ValueError(f"tensor {missing!r}: expected a place in the graph, got none")
    return places


def _outside(path: Path, model: ModelProto, places: Mapping[str, Place]) -> dict[str, TensorProto]:
    """The tensors that go to a file beside the model: none where all of it fits into a message."""
    sizes = {}
    for name, place in places.items():
        known = onnx_values.outline(place.tensor)
        assert known is not None  # noqa: S101 (records have dtypes)
        sizes[name] = onnx_values.most_bytes(place.tensor, *known)
    size = model.ByteSize() + sum(sizes.values())
    if size <= MAX_MESSAGE:
        return {}
    outside = {n: p.tensor for n, p in places.items() if not p.attribute and sizes[n] >= LARGE}
    left = size - sum(sizes[name] for name in outside)
    if left > MAX_MESSAGE:
        raise OutputError(f"{path}: expected a graph of at most {MAX_MESSAGE} bytes, got {left}")
    return outside
