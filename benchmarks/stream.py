"""Checkpoints of growing size in and out, losslessly: seconds, bytes a second and memory.

    python -m benchmarks.stream --json results/stream.json

Each size runs in a process of its own: a safetensors file of float32 tensors of 16 MiB, normal values, to a
verified `.dwz` and back to safetensors, which must be the same bytes. Memory is the most that was resident.
A process that is new loads its compiled kernels first, which takes as long for any size: one tensor goes in
and out before the clock starts, and the time that takes is reported apart.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from dwindle.file import Archive, write
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.records import Raw, Record

TENSOR = 1 << 22
SIZES = (1, 6, 60)
"""Tensors of each checkpoint: 17 MB to 1 GB."""


class Normal(Mapping[str, Record]):
    """Tensors that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __getitem__(self, name: str) -> Record:
        values = np.random.default_rng(int(name)).normal(0, 0.02, TENSOR).astype("<f4")
        return Raw("float32", (TENSOR // 1024, 1024), values.tobytes())

    def __iter__(self) -> Iterator[str]:
        return map(str, range(self.count))

    def __len__(self) -> int:
        return self.count

    def outline(self, name: str) -> tuple[str, tuple[int, ...]]:
        return "float32", (TENSOR // 1024, 1024)


def one(count: int, folder: Path) -> dict[str, float]:
    """In and out; the file to read is there."""
    source, first = folder / "a.safetensors", folder / "first.safetensors"
    write_checkpoint(first, Normal(1))
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loading = sum(in_and_out(first))
    into, out = in_and_out(source)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = source.stat().st_size
    return {
        "bytes": size,
        "dwz_percent": round(100 * source.with_suffix(".dwz").stat().st_size / size, 2),
        "first_tensor_s": round(loading, 2),
        "compress_and_verify_MB_s": round(size / into / 1e6),
        "decompress_MB_s": round(size / out / 1e6),
        "memory_MiB": round(peak / 1024),
        "memory_before_MiB": round(base / 1024),
    }


def in_and_out(source: Path) -> tuple[float, float]:
    """Seconds to a `.dwz` beside a checkpoint, and from there to the same bytes again."""
    packed, back = source.with_suffix(".dwz"), source.with_suffix(".back.safetensors")
    start = time.perf_counter()
    checkpoint = read_checkpoint(source)
    write(packed, checkpoint.records, metadata=checkpoint.metadata)
    middle = time.perf_counter()
    with Archive(packed, max_bytes=None) as archive:
        write_checkpoint(back, archive.records, archive.metadata)
    end = time.perf_counter()
    assert filecmp.cmp(source, back, shallow=False)
    return middle - start, end - middle


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(int(options.one[0]), Path(options.one[1]))))
        return
    rows = []
    for count in (1, *SIZES):  # the first compiles
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder) / "a.safetensors", Normal(count))
            command = [sys.executable, "-m", "benchmarks.stream", "--one", str(count), folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout))
    report = {
        "command": "python -m benchmarks.stream --json results/stream.json",
        "cores": os.cpu_count(),
        "largest_tensor_MiB": 4 * TENSOR >> 20,
        "sizes": rows[1:],
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
