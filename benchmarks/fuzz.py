"""Mutated `.dwz` files, opened and decoded: nothing but a `DwindleError` may come of them.

    python -m benchmarks.fuzz --files 1000000 --json results/fuzz.json

Files that hold every feature of the format in small, and now and then one with tensors long enough for lanes
and several pieces, are changed in one to three places: half of them in their raw bytes, half in the header
before the text model, or in what follows it, under checksums put right again. A process that dies, or takes
longer than `SLOW` seconds for a file, is a finding too; the file is tried again first, since a kernel may
just have been compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from dwindle.code import text
from dwindle.code.cursor import Cursor, prefixed, varint
from dwindle.code.plan import CODERS, Coder, Coding
from dwindle.errors import DwindleError
from dwindle.file import Archive, layout, write
from dwindle.file.front import Extent, extents
from dwindle.records import Raw, Record, Shared, Tied
from dwindle.share.levels import from_levels
from dwindle.share.trellis import to_path

MOST = 1 << 20
SLOW = 2.0
LONG = 1 / 20
"""How often a long file is taken."""


def records(seed: int) -> dict[str, Record]:
    """A few small tensors of every kind."""
    dice = np.random.default_rng(seed)
    codebook = np.concatenate([[0], np.sort(dice.normal(size=15))]).astype("<f4")
    kept = np.where(dice.random(160) < 0.3, dice.integers(1, 16, 160), 0).astype(np.uint8)
    sparse = np.where(dice.random(4100) < 0.1, dice.normal(size=4100), 0).astype("<f4")
    return {
        "fc.weight": Shared("float32", (4, 4, 2, 5), codebook, kept),
        "fc.bias": Raw("float32", (6,), dice.normal(size=6).astype("<f4").tobytes()),
        "half": Raw("bfloat16", (5,), dice.bytes(10)),
        "steps": Raw("int64", (4100,), np.arange(4100, dtype="<i8").tobytes()),
        "sparse": Raw("float32", (41, 100), sparse.tobytes()),
        "zeros": Raw("float32", (5000,), bytes(20000)),
        "again": Raw("float32", (5000,), bytes(20000)),
        "levels": levels((50, 90), 5.0, dice),
        "path": path((60, 20), 5.0, dice),
        "tied": Tied("fc.weight"),
    }


def long_records(seed: int) -> dict[str, Record]:
    """Tensors over the lengths from which streams have lanes, of few and of many bits, and planes pieces."""
    dice = np.random.default_rng(seed)
    floats = dice.normal(size=70_000).astype("<f4")
    return {
        "few": levels((17_000,), 2.0, dice),
        "many": levels((17_000,), 40.0, dice),
        "path": path((170, 100), 5.0, dice),
        "float": Raw("float32", (70_000,), floats.tobytes()),
        "brain": Raw("bfloat16", (70_000,), (floats.view("<u4") >> 16).astype("<u2").tobytes()),
    }


def levels(shape: tuple[int, ...], spread: float, dice: np.random.Generator) -> Shared:
    """Normal values as multiples of a step."""
    drawn = np.rint(dice.normal(0, spread, shape)).astype(np.int32)
    codebook, indices = from_levels(drawn, 0.125, "float32")
    return Shared("float32", shape, codebook, indices)


def path(shape: tuple[int, ...], spread: float, dice: np.random.Generator) -> Shared:
    """Normal values along a trellis."""
    codebook, indices = from_levels(to_path(dice.normal(0, spread, shape), 1.0), 0.125, "float32")
    return Shared("float32", shape, codebook, indices)


def seeds(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """Honest files, each coder once; and long ones."""
    path = folder / "honest.dwz"

    def made(held: dict[str, Record], coder: Coder) -> bytes:
        coding, metadata = Coding(coder), {"a": "b"}
        write(path, held, coding=coding, metadata=metadata, extras={"x": b"y" * 40}, threads=1, force=True)
        return path.read_bytes()

    small = [made(records(seed), coder) for seed, coder in enumerate(CODERS)]
    return small, [made(long_records(0), coder) for coder in ("huffman", "rans", "context")]


def parts_of(data: bytes) -> tuple[bytes, bytes]:
    """The header before the text model, and all that follows its checksum."""
    cursor = Cursor(memoryview(data), 5)
    size = cursor.varint()
    header = text.decode(cursor.prefixed(), size)
    return header, data[cursor.offset + 4 :]


def mutate(data: bytes, dice: random.Random) -> bytes:
    """One change: a byte put in, taken out, set or flipped, or a run repeated."""
    part = bytearray(data)
    at = dice.randrange(len(part) + 1)
    value = dice.choice([0, 1, 2, 0x7F, 0x80, 0xFF, dice.randrange(256)])
    change = dice.randrange(5)
    if change == 0 or at == len(part):
        part.insert(at, value)
    elif change == 1:
        del part[at : at + dice.randint(1, 4)]
    elif change == 2:
        part[at] ^= 1 << dice.randrange(8)
    elif change == 3:
        part[at] = value
    else:
        part[at:at] = part[at : at + dice.randint(1, 12)]
    return bytes(part)


def sealed(header: bytes, rest: bytes) -> bytes:
    """A file of this header, with every checksum right that the header says there is."""

    def front(version: int) -> bytes:
        found = layout.MAGIC + bytes([version]) + varint(len(header)) + prefixed(b"\0" + header)
        return found + zlib.crc32(found).to_bytes(4, "little")

    data = bytearray(front(layout.VERSION) + rest)
    start = len(data) - len(rest)
    try:
        parsed = layout.read_header(memoryview(header))
        data[:start] = front(layout.version_of(parsed))
        known = extents(parsed, start, len(data))
    except DwindleError:
        return bytes(data)
    found = [extent for of_tensor in known.values() for extent in of_tensor]
    if parsed.values_size:
        found.append(Extent(start, parsed.values_size))
    for extent in found:
        end = extent.start + extent.size
        data[end : end + 4] = zlib.crc32(data[extent.start : end]).to_bytes(4, "little")
    return bytes(data)


def attempt(path: Path, data: bytes) -> str:
    """Open a file and decode all of it; the name of the error, or "decoded"."""
    path.write_bytes(data)
    try:
        with Archive(path, threads=1, max_bytes=MOST) as archive:
            archive.check()
            return "decoded"
    except DwindleError as error:
        return type(error).__name__


def timed(path: Path, data: bytes) -> tuple[str, float]:
    """What came of an attempt, and its seconds."""
    begun = time.perf_counter()
    return attempt(path, data), time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dice, outcomes, slowest = random.Random(options.seed), Counter(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant"
        small, long = seeds(Path(folder))
        honest = [*small, *long]
        split = [parts_of(data) for data in honest]
        for data in honest:
            if attempt(path, data) != "decoded":
                raise SystemExit("expected honest files to decode")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        for _ in range(options.files):
            which, changes = dice.randrange(len(small)), dice.randint(1, 3)
            if dice.random() < LONG:
                which = len(small) + dice.randrange(len(long))
            if dice.random() < 0.5:
                mutant = honest[which]
                for _ in range(changes):
                    mutant = mutate(mutant, dice)
            else:
                header, rest = split[which]
                for _ in range(changes):
                    if dice.random() < 0.6:
                        header = mutate(header, dice)
                    else:
                        rest = mutate(rest, dice)
                mutant = sealed(header, rest)
            outcome, took = timed(path, mutant)
            if took > SLOW:
                outcome, took = timed(path, mutant)
            outcomes[outcome] += 1
            slowest = max(slowest, took)
            if slowest > SLOW:
                Path("slow.dwz").write_bytes(mutant)
                raise SystemExit(f"expected at most {SLOW} s for a file, got {slowest:.1f}: slow.dwz")
        seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = {
        "command": f"python -m benchmarks.fuzz --files {options.files} --seed {options.seed}",
        "boundscheck": os.environ.get("NUMBA_BOUNDSCHECK", "0"),
        "files": options.files,
        "outcomes": dict(outcomes.most_common()),
        "slowest_ms": round(1000 * slowest, 1),
        "seconds": round(seconds),
        "memory_growth_mib": round((after - before) / 1024, 1),
        "most_bytes_decoded": MOST,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
