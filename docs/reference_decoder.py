"""Reads a `.dwz` file of version 0 with NumPy and the standard library alone: `docs/format.md`, as a program.

    python docs/reference_decoder.py FILE.dwz [-o OUT.npz]

Written for reading, not for speed nor against hostile files: the limits of section 8 are left out. Element
types that NumPy has not (bfloat16, float8) come as their bits, in unsigned integers of the same width.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

BLOCK = 1 << 20
STORAGE = "f8 f4 f2 u2 u1 u1 i8 i4 i2 i1 u8 u4 u2 u1 ? c8 c16".split()  # noqa: SIM905 (by dtype number)
Lengths = list[int]  # bits of each symbol's code, 0 where it has none


def require(condition: bool, rule: str) -> None:
    """Stop where a rule of the format is broken."""
    if not condition:
        raise ValueError(f"expected {rule}")


class Bytes:
    """Bytes read from the front."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        require(count <= len(self.data) - self.at, f"{count} more bytes")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """The next varint."""
        value = shift = 0
        while True:
            digit = self.byte()
            value |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                require(digit > 0 or shift == 7, "a varint in its shortest form")
                return value
            require(shift < 63, "a varint of at most 63 bits")


class Bits(Bytes):
    """Bits read from the lowest of each byte on; `at` counts bits."""

    def bit(self) -> int:
        """The next bit."""
        require(self.at < 8 * len(self.data), "one more bit")
        self.at += 1
        return self.data[(self.at - 1) // 8] >> (self.at - 1) % 8 & 1

    def number(self, width: int) -> int:
        """The next `width` bits, the lowest first."""
        return sum(self.bit() << i for i in range(width))

    def unary(self) -> int:
        """How many ones come before the next zero."""
        return next(ones for ones in itertools.count() if not self.bit())

    def end(self) -> int:
        """Bytes used; what is left of the last one is zero."""
        require(self.number(-self.at % 8) == 0, "zero bits up to the end of a byte")
        return self.at // 8


def read_table(source: Bytes, alphabet: int) -> Lengths:
    """A code table (section 6)."""
    bits = Bits(source.data[source.at :])
    k = bits.number(2)
    symbols = list(range(alphabet))
    if not bits.bit():
        symbols, at, present, first = [], 0, True, 1
        while at < alphabet:
            low = bits.unary()
            run = (1 << low) + bits.number(low) - first
            require(run <= alphabet - at, "runs within the alphabet")
            symbols += range(at, at + run) if present else ()
            at, present, first = at + run, not present, 0
    lengths = [0] * alphabet
    previous = max(len(symbols) - 1, 1).bit_length()
    for symbol in symbols[:-1]:
        z = (bits.unary() << k) + bits.number(k)
        previous += -(z + 1) // 2 if z % 2 else z // 2
        require(1 <= previous <= 15, "codes of 1 to 15 bits")
        lengths[symbol] = previous
    if len(symbols) == 1:
        lengths[symbols[0]] = 1
    elif symbols:
        room = (1 << 15) - sum(1 << 15 - length for length in lengths if length)
        require(room > 0 and room & (room - 1) == 0, "a complete code")
        lengths[symbols[-1]] = 16 - room.bit_length()
    source.take(bits.end())
    return lengths


def read_huffman(source: Bytes, count: int, lengths: Lengths) -> list[int]:
    """Symbols in a Huffman code, in one stream or four (section 7)."""
    order = sorted((length, symbol) for symbol, length in enumerate(lengths) if length)
    if len(order) < 2:
        require(count == 0 or bool(order), "a symbol to choose")
        return [symbol for _, symbol in order] * count
    codes, code, before = {}, 0, 0
    for length, symbol in order:
        code <<= length - before
        codes[length, code] = symbol
        code, before = code + 1, length
    streams, step = 4 if count >= 1 << 14 else 1, -(-count // 4) if count >= 1 << 14 else count
    sizes = [source.varint() for _ in range(streams - 1)]
    symbols: list[int] = []
    for i in range(streams):
        data = source.take(sizes[i] if i < streams - 1 else len(source.data) - source.at)
        bits = Bits(data)
        for _ in range(min(step, count - i * step)):
            length, code = 0, 0
            while (length, code) not in codes:
                length, code = length + 1, code << 1 | bits.bit()
            symbols.append(codes[length, code])
        require(bits.end() == len(data), "no bytes after the last code of a stream")
    return symbols


def read_fixed(source: Bytes, count: int, width: int) -> list[int]:
    """Numbers of a fixed width (section 5)."""
    bits = Bits(source.take((count * width + 7) // 8))
    numbers = [bits.number(width) for _ in range(count)]
    bits.end()
    return numbers


class Shared:
    """A tensor stored as a codebook and indices, as its entry describes it."""

    def __init__(self, source: Bytes, storage: np.dtype, shape: list[int], tables: list[Lengths]) -> None:
        self.arrangement = source.byte()
        require(self.arrangement < 4, "an arrangement of 0 to 3")
        self.entries = source.varint()
        self.codebook = np.frombuffer(source.take(self.entries * storage.itemsize), storage)
        zeros = np.flatnonzero(self.codebook.view(f"<u{storage.itemsize}") == 0)
        require(self.arrangement == 0 or len(zeros) > 0, "an entry 0.0 where survivors are stored")
        self.zero = int(zeros[0]) if len(zeros) else 0
        self.index_table = read_choice(source, tables, self.entries)
        require(self.arrangement < 2 or self.index_table is None, "fixed widths in a matrix")
        if self.arrangement == 1:
            self.gap_bits = source.byte()
            require(1 <= self.gap_bits <= 16, "gaps of 1 to 16 bits")
            self.gap_table = read_choice(source, tables, 1 << self.gap_bits)
        n = math.prod(shape)
        self.rows, self.columns = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, n)
        step = BLOCK if self.arrangement < 2 else max(n, 1)
        self.counts = [min(step, n - start) for start in range(0, n, step)]
        self.sizes = [source.varint() for _ in self.counts]

    def read_blocks(self, source: Bytes) -> np.ndarray:
        """The index of every element."""
        indices: list[int] = []
        for size, count in zip(self.sizes, self.counts, strict=True):
            indices += self.read(checked(source.take(size), source), count)
        flat = np.array(indices, np.int64)
        return flat.reshape(self.columns, self.rows).T if self.arrangement == 3 else flat

    def read(self, block: bytes, n: int) -> list[int]:
        """The indices of one block of n elements (section 4)."""
        source, kept, places = Bytes(block), n, list(range(n))
        if self.arrangement:
            kept = source.varint()
            places = self.from_gaps(source, kept) if self.arrangement == 1 else self.from_matrix(source, kept)
        symbols = read_symbols(Bytes(block[source.at :]), kept, self.index_table, self.entries)
        require(sorted({-1, *places, n}) == [-1, *places, n], "rising places within the block")
        out = [self.zero] * n
        for place, symbol in zip(places, symbols, strict=True):
            out[place] = symbol
        return out

    def from_gaps(self, source: Bytes, kept: int) -> list[int]:
        """Places of survivors and fillers."""
        size = source.varint() if self.gap_table is not None else (kept * self.gap_bits + 7) // 8
        gaps = read_symbols(Bytes(source.take(size)), kept, self.gap_table, 1 << self.gap_bits)
        return [int(place) for place in np.cumsum(np.array(gaps, np.int64) + 1) - 1]

    def from_matrix(self, source: Bytes, kept: int) -> list[int]:
        """Places of survivors in CSR or CSC."""
        lines, across = (self.rows, self.columns) if self.arrangement == 2 else (self.columns, self.rows)
        pointers = read_fixed(source, lines + 1, kept.bit_length())
        within = read_fixed(source, kept, max(across - 1, 0).bit_length())
        require(pointers[0] == 0 and pointers[-1] == kept and sorted(pointers) == pointers, "rising pointers")
        require(all(place < across for place in within), "places within their row")
        return [i * across + p for i in range(lines) for p in within[pointers[i] : pointers[i + 1]]]


def read_symbols(source: Bytes, count: int, table: Lengths | None, limit: int) -> list[int]:
    """Symbols under `limit`, of fixed width or in a Huffman code, to the end of `source`."""
    width = max(limit - 1, 0).bit_length()
    symbols = read_fixed(source, count, width) if table is None else read_huffman(source, count, table)
    require(source.at == len(source.data), "no bytes after the last symbol")
    require(max(symbols, default=-1) < limit, f"symbols under {limit}")
    return symbols


def read_choice(source: Bytes, tables: list[Lengths], alphabet: int) -> Lengths | None:
    """Which code a stream has: fixed width (None), one of its own, or one of the file's."""
    choice = source.varint()
    require(choice < 2 + len(tables), "a table that exists")
    return None if choice == 0 else read_table(source, alphabet) if choice == 1 else tables[choice - 2]


def read(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a file."""
    require(data[:4] == b"\x89DWZ", "a .dwz file")
    require(data[4:5] == b"\x00", "version 0")
    front = Bytes(data, 5)
    size = front.varint()
    header = Bytes(front.take(size))
    checked(data[: front.at], front)
    metadata = {}
    for _ in range(header.varint()):
        key, value = header.take(header.varint()), header.take(header.varint())
        metadata[key.decode()] = value.decode()
    tables = [read_table(header, header.varint()) for _ in range(header.varint())]
    entries: dict[str, int | tuple[np.dtype, list[int], Shared | None]] = {}
    name = b""
    for _ in range(header.varint()):
        name = name[: header.varint()] + header.take(header.varint())
        require(name.decode() not in entries, "each name once")
        entries[name.decode()] = read_entry(header, tables)
    require(header.at == size, "no bytes after the last entry")
    tensors: dict[str, np.ndarray] = {}
    for key, entry in entries.items():
        if not isinstance(entry, int):
            tensors[key] = read_tensor(front, *entry)
    require(front.at == len(data), "no bytes after the last block")
    owners = {key: list(entries)[entry] for key, entry in entries.items() if isinstance(entry, int)}
    return {key: tensors[owners.get(key, key)] for key in entries}, metadata


def read_entry(source: Bytes, tables: list[Lengths]) -> int | tuple[np.dtype, list[int], Shared | None]:
    """What the header says of one tensor: the number of its owner, or dtype, shape and coding."""
    kind = source.byte()
    if kind == 1:
        return source.varint()
    require(kind in (0, 2), "an entry kind of 0 to 2")
    storage = np.dtype(STORAGE[source.byte()]).newbyteorder("<")
    shape = [source.varint() for _ in range(source.byte())]
    return storage, shape, Shared(source, storage, shape, tables) if kind == 2 else None


def read_tensor(source: Bytes, storage: np.dtype, shape: list[int], shared: Shared | None) -> np.ndarray:
    """The blocks of one tensor."""
    if shared:
        return shared.codebook[shared.read_blocks(source)].reshape(shape)
    n = math.prod(shape)
    counts = [min(BLOCK, n - start) for start in range(0, n, BLOCK)]
    raw = b"".join(checked(source.take(count * storage.itemsize), source) for count in counts)
    return np.frombuffer(raw, storage).reshape(shape)


def checked(data: bytes, source: Bytes) -> bytes:
    """`data`, compared with the CRC-32 that comes next."""
    require(zlib.crc32(data) == int.from_bytes(source.take(4), "little"), "bytes that match their checksum")
    return data


def main() -> None:
    """List the tensors of a file, or write them as .npz."""
    parser = argparse.ArgumentParser(description="Decode a .dwz file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="an .npz file to write")
    arguments = parser.parse_args()
    try:
        tensors, _ = read(arguments.file.read_bytes())
    except (ValueError, LookupError) as error:
        sys.exit(f"{arguments.file}: {error}")
    sys.stdout.writelines(f"{name}: {v.dtype} {list(v.shape)}\n" for name, v in tensors.items())
    if arguments.output:
        with zipfile.ZipFile(arguments.output, "w") as archive:
            for name, values in tensors.items():
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, values)


if __name__ == "__main__":
    main()
