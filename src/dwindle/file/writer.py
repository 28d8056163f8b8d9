"""Records to a `.dwz` file: planned, coded, written beside the target, read back and compared, renamed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from dwindle import atomic, dtypes
from dwindle.code import blocks, gaps, sparse
from dwindle.code.cursor import varint
from dwindle.code.plan import BLOCK, Code, Coding, Counts, Plan, choose, count, shared_code, symbol_counts
from dwindle.errors import VerificationError, shown
from dwindle.file import layout
from dwindle.file.reader import Archive, default_threads
from dwindle.records import MAX_ENTRIES, Raw, Record, Shared, Tied, same


@dataclass(frozen=True)
class Written:
    """A file as it lies on disk, read back and found equal to what went in.

    Attributes:
        path: where it is.
        size: its bytes, all of them.
    """

    path: Path
    size: int


def write(
    path: Path | str,
    records: Mapping[str, Record],
    *,
    coding: Coding | None = None,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
    threads: int | None = None,
) -> Written:
    """Write records to `path`; the file appears there only after it was decoded again and compared.

    The same records, metadata and coding give the same bytes, whatever the number of threads.

    Args:
        path: where to write.
        records: what to write, in this order; a `Tied` names another record of the mapping.
        coding: how shared tensors are coded.
        metadata: free text to keep with the tensors.
        force: replace an existing file.
        threads: workers, all processors by default.

    Raises:
        OutputError: if `path` exists without `force` or cannot be written.
        VerificationError: if what was written does not decode to `records`.
        TypeError: if metadata is anything but text.
        ValueError: if a tie leads nowhere.
    """
    path = Path(path)
    atomic.check_output(path, force=force)
    check_metadata(metadata or {})
    with ThreadPoolExecutor(threads or default_threads()) as pool:
        coded = _encode(records, coding or Coding(), pool)
        header, _ = layout.write_header(layout.Header(metadata or {}, coded.codes, coded.entries))
        with atomic.writing(path, force=force) as stream:
            size = _write(stream, header, _payloads(records, coded))
            stream.flush()
            _verify(Path(stream.name), path, records, threads)
    return Written(path, size)


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse metadata that is not text.

    Raises:
        TypeError: at the first item that is something else.
    """
    for key, text in metadata.items():
        if not (isinstance(key, str) and isinstance(text, str)):
            raise TypeError(f"metadata: expected text for text, got {text!r} for {key!r}")


@dataclass(frozen=True, eq=False)
class _Coded:
    codes: tuple[Code, ...]
    entries: dict[str, layout.Entry]
    blocks: dict[str, list[bytes]]


def _encode(records: Mapping[str, Record], coding: Coding, pool: ThreadPoolExecutor) -> _Coded:
    """Choose a plan for every shared tensor and code its blocks."""
    shared = {name: record for name, record in records.items() if isinstance(record, Shared)}
    counts = dict(zip(shared, pool.map(count, shared.values()), strict=True))
    plans = dict(
        zip(shared, pool.map(lambda name: choose(shared[name], coding, counts[name]), shared), strict=True)
    )
    codes: tuple[Code, ...] = ()
    if coding.coder == "huffman" and coding.dictionary == "network":
        codes, plans = _one_dictionary(plans, counts)
    plans = _within_alphabets(shared, plans)
    numbers = {name: number for number, name in enumerate(records)}
    entries: dict[str, layout.Entry] = {}
    coded: dict[str, list[bytes]] = {}
    for name, record in records.items():
        if isinstance(record, Tied):
            if isinstance(records.get(record.to, record), Tied):
                raise ValueError(f"{shown(name)}: expected a tie to a tensor of its own, got {record.to!r}")
            entries[name] = layout.TiedEntry(numbers[record.to])
        elif isinstance(record, Raw):
            entries[name] = layout.RawEntry(record.dtype, record.shape)
        else:
            coded[name] = _encode_tensor(record, plans[name], pool)
            sizes = [len(block) for block in coded[name]]
            entries[name] = layout.SharedEntry(
                record.dtype, record.shape, record.codebook, plans[name], sizes
            )
    return _Coded(codes, entries, coded)


def _encode_tensor(record: Shared, plan: Plan, pool: ThreadPoolExecutor) -> list[bytes]:
    n, shape = len(record.indices), sparse.matrix_shape(record.shape)
    ranges = [blocks.block_range(plan, n, block) for block in range(blocks.block_count(plan, n))]
    return list(pool.map(lambda part: blocks.encode(record.indices[part], plan, shape), ranges))


def _one_dictionary(
    plans: dict[str, Plan], counts: dict[str, Counts]
) -> tuple[tuple[Code, ...], dict[str, Plan]]:
    """Give all tensors the same code for indices, and those stored by gaps the same code for gaps."""
    streams = {name: symbol_counts(plan, counts[name]) for name, plan in plans.items()}
    codes: list[Code] = []

    def common(which: list[NDArray[np.int64]]) -> Code | None:
        code = shared_code(which, len(codes))
        if code:
            codes.append(code)
        return code

    index_code = common([indices for indices, _ in streams.values()])
    gap_code = common([gap_counts for _, gap_counts in streams.values() if gap_counts is not None])
    changed = {
        name: replace(plan, index_code=index_code, gap_code=gap_code if plan.arrangement == "gaps" else None)
        for name, plan in plans.items()
    }
    return tuple(codes), changed


def _within_alphabets(shared: Mapping[str, Shared], plans: dict[str, Plan]) -> dict[str, Plan]:
    """Turn to fixed widths once the alphabets of tables are more than a reader takes (many 16-bit gaps)."""
    budget = layout.MAX_ALPHABETS - 2 * max(MAX_ENTRIES, 1 << gaps.WIDTHS[-1])  # less the network's two
    kept: dict[str, Plan] = {}
    for name, plan in plans.items():
        budget += layout.PER_HEADER_BYTE * shared[name].codebook.nbytes
        own = [code for code in (plan.index_code, plan.gap_code) if code and code.shared is None]
        alphabets = sum(len(code.lengths) for code in own)
        if alphabets > budget:
            plan, alphabets = replace(plan, index_code=None, gap_code=None), 0
        budget -= alphabets
        kept[name] = plan
    return kept


def _payloads(records: Mapping[str, Record], coded: _Coded) -> Iterator[bytes | memoryview]:
    for name, record in records.items():
        if isinstance(record, Shared):
            yield from coded.blocks[name]
        elif isinstance(record, Raw):
            step = BLOCK * dtypes.itemsize(record.dtype)
            data = memoryview(record.data)
            for start in range(0, len(data), step):
                yield data[start : start + step]


def _write(stream: IO[bytes], header: bytes, payloads: Iterator[bytes | memoryview]) -> int:
    """Write the whole file; its size."""
    front = layout.MAGIC + bytes([layout.VERSION]) + varint(len(header)) + header
    size = stream.write(front + _checksum(front))
    for payload in payloads:
        size += stream.write(payload) + stream.write(_checksum(payload))
    return size


def _checksum(data: bytes | memoryview) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def _verify(written: Path, path: Path, records: Mapping[str, Record], threads: int | None) -> None:
    with Archive(written, threads=threads, max_bytes=None) as archive:
        if list(archive) != list(records):
            raise VerificationError(f"{path}: expected the names that were written, got others")
        for name, record in records.items():
            if not same(archive.record(name), record):
                raise VerificationError(
                    f"{path}: {shown(name)}: expected the record that was written, got another"
                )
