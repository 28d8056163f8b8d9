"""The `.net` files that the authors of Deep Compression released, read and written byte for byte.

Little-endian, no magic, no checksum: the number of entries of each layer, fillers included, as uint32; then
for each layer
its codebook of 2**b float32 (b = 4 for layers named fc, 8 for all others), its bias, an index for each
entry (b = 4: two
in a byte, the lower half first), and its gap in 4 bits, two in a byte likewise. See `code.gaps` for what
gaps mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.atomic import writing
from dwindle.code import bits, gaps
from dwindle.errors import CheckpointError, CorruptError, shown
from dwindle.io import prototxt
from dwindle.io.contents import Checkpoint
from dwindle.records import Raw, Record, Shared, Tied, index_dtype, zero_entry

GAP_BITS = 4
MAX_WEIGHTS = 1 << 32


def read(path: Path, layers: Path) -> Checkpoint:
    """Read a `.net` file: for each layer `NAME.weight`, with its whole codebook, and `NAME.bias`.

    Args:
        path: the file.
        layers: the network's prototxt, which says what layers there are and of what shape.

    Raises:
        CheckpointError: if it does not hold exactly these layers, or the prototxt is none.
        OSError: if a file cannot be opened.
    """
    found = prototxt.read(layers)
    data = path.read_bytes()
    source = _Source(path, data)
    counts = source.numbers("<u4", len(found), "the number of entries of each layer")
    records: dict[str, Raw | Shared | Tied] = {}
    for layer, count in zip(found, counts.tolist(), strict=True):
        if f"{layer.name}.weight" in records:
            raise CheckpointError(f"{layers}: expected each layer once, got {shown(layer.name)} twice")
        weight, bias = _layer(source, layer, count)
        records[f"{layer.name}.weight"], records[f"{layer.name}.bias"] = weight, bias
    if source.at != len(data):
        raise CheckpointError(
            f"{path}: expected {source.at} bytes for the layers of {layers}, got {len(data)}"
        )
    return Checkpoint(records, {}, ())


def write(path: Path, records: Mapping[str, Record], *, force: bool) -> None:
    """Write a `.net` file, its layers in the order of their weights.

    Raises:
        CheckpointError: if there is anything but shared weights with 0.0 as entry 0 of 256 (or 16 in layers
        named
            fc), each with a float32 bias.
        OutputError: if the file cannot be written.
    """
    weights = [name for name in records if name.endswith(".weight")]
    for name in records:
        if name not in weights and not (name.endswith(".bias") and f"{name[:-5]}.weight" in weights):
            raise CheckpointError(f"{path}: {shown(name)}: expected only weights and biases of layers")
    counts, chunks = [], []
    for name in weights:
        count, parts = _parts(path, name, records)
        counts.append(count)
        chunks += parts
    with writing(path, force=force) as stream:
        stream.write(np.array(counts, "<u4").tobytes())
        for chunk in chunks:
            stream.write(chunk)


class _Source:
    """Bytes read from the front, the file named where they run out."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.at = path, data, 0

    def take(self, count: int, what: str) -> memoryview:
        if count > len(self.data) - self.at:
            left = len(self.data) - self.at
            raise CheckpointError(f"{self.path}: expected {count} bytes for {what}, got {left}")
        self.at += count
        return memoryview(self.data)[self.at - count : self.at]

    def numbers(self, dtype: str, count: int, what: str) -> NDArray[Any]:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize, what), dtype)


def _layer(source: _Source, layer: prototxt.Layer, count: int) -> tuple[Shared, Raw]:
    where, width = f"the layer {shown(layer.name)}", _index_bits(layer.name)
    n = math.prod(layer.shape)
    if n > MAX_WEIGHTS or count > n:
        raise CheckpointError(f"{source.path}: {where}: expected at most {n} entries, got {count}")
    codebook = source.numbers("<f4", 1 << width, f"the codebook of {where}")
    if codebook.view("<u4")[0]:
        raise CheckpointError(f"{source.path}: {where}: expected 0.0 as the first entry, got {codebook[0]}")
    bias = bytes(source.take(4 * layer.shape[0], f"the bias of {where}"))
    try:
        symbols = _halves(
            source.take(bits.packed_size(count, width), f"the indices of {where}"), count, width
        )
        stored = _halves(
            source.take(bits.packed_size(count, GAP_BITS), f"the gaps of {where}"), count, GAP_BITS
        )
        indices = np.empty(n, index_dtype(1 << width))
        gaps.join(stored.astype(np.uint16), symbols, 0, indices)
    except CorruptError as error:
        raise CheckpointError(f"{source.path}: {where}: {error}") from error
    return Shared("float32", layer.shape, codebook.copy(), indices), Raw("float32", layer.shape[:1], bias)


def _halves(data: memoryview, count: int, width: int) -> NDArray[np.uint8]:
    return bits.unpack(data, count, width, np.uint8)


def _parts(path: Path, name: str, records: Mapping[str, Record]) -> tuple[int, list[bytes]]:
    """The number of entries of a layer, and its bytes."""
    layer, record, bias = name.removesuffix(".weight"), records[name], records.get(f"{name[:-7]}.bias")
    width = _index_bits(layer)
    fits = isinstance(record, Shared) and record.dtype == "float32" and len(record.codebook) == 1 << width
    if not isinstance(record, Shared) or not fits or zero_entry(record) != 0:
        raise CheckpointError(
            f"{path}: {shown(name)}: expected a codebook of {1 << width} float32 that begins with 0.0"
        )
    if not isinstance(bias, Raw) or (bias.dtype, bias.shape) != ("float32", record.shape[:1]):
        raise CheckpointError(f"{path}: {shown(layer)}: expected a float32 bias for each output")
    stored, symbols = gaps.split(record.indices, 0, GAP_BITS)
    packed = bits.pack(symbols, width), bits.pack(stored, GAP_BITS)
    return len(stored), [record.codebook.tobytes(), bytes(bias.data), *packed]


def _index_bits(layer: str) -> int:
    return 4 if layer.startswith("fc") else 8
