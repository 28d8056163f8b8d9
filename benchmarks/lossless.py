"""The lossless coder against zipnn, zstd and xz: bytes and speed, one thread.

    python -m benchmarks.lossless MODEL.safetensors --peer PYTHON --json results/lossless-NAME.json

Every float32 tensor of more than 16 KiB, as it is and cast to bfloat16, in process time; ours in blocks of
2**20 elements as in a file, zipnn tensor by tensor. Both make room for what they decode while they are timed;
in the first rounds that is memory new to the process, which takes longer than decoding. PYTHON is an
interpreter that has zipnn 0.5.4, whose pins clash with ours: ours and it take TURNS of ROUNDS each, on the
same bytes, and the best round of each counts.

Then the checkpoint as a file, with its header and short tensors: its size, and how quickly all tensors are
read, against zipnn on the bytes of the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from dwindle import dtypes
from dwindle.code import exact
from dwindle.code.plan import BLOCK
from dwindle.file import Archive, write
from dwindle.io import read_checkpoint

ROUNDS, TURNS = 9, 4

PEER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import zipnn
sizes, path, dtype, rounds = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
data = open(path, "rb").read()
parts, at = [], 0
for size in sizes:
    parts.append(data[at:at + size]); at += size
machine = zipnn.ZipNN(bytearray_dtype=dtype, threads=1, input_format="byte")
into = out = 1e9
for _ in range(rounds):
    copies, back = [bytearray(part) for part in parts], []
    start = time.process_time(); coded = [machine.compress(copy) for copy in copies]
    into = min(into, time.process_time() - start)
    start = time.process_time(); back = [machine.decompress(c) for c in coded]
    out = min(out, time.process_time() - start)
assert all(bytes(b) == p for b, p in zip(back, parts))
print(json.dumps({"bytes": sum(map(len, coded)), "encode_s": into, "decode_s": out}))
"""


def ours(parts: list[bytes], dtype: str) -> dict[str, float]:
    """Bytes and best process seconds."""
    into = out = 1e9
    for _ in range(ROUNDS):
        start = time.process_time()
        coded = [[exact.encode(block, dtype) for block in blocks(part, dtype)] for part in parts]
        into = min(into, time.process_time() - start)
        back: list[np.ndarray] = []  # lets go of what the round before decoded
        start = time.process_time()
        back = [decoded(codes, dtype, len(part)) for codes, part in zip(coded, parts, strict=True)]
        out = min(out, time.process_time() - start)
    assert all(found.tobytes() == part for found, part in zip(back, parts, strict=True))
    return {"bytes": sum(len(code) for codes in coded for code in codes), "encode_s": into, "decode_s": out}


def blocks(data: bytes | np.ndarray, dtype: str) -> list[Any]:
    """A tensor's bytes, cut as in a file."""
    view, step = memoryview(data) if isinstance(data, bytes) else data, BLOCK * dtypes.itemsize(dtype)
    return [view[start : start + step] for start in range(0, len(view), step)]


def decoded(codes: list[memoryview], dtype: str, size: int) -> np.ndarray:
    """A tensor in memory of its own."""
    found = np.empty(size, np.uint8)
    for code, place in zip(codes, blocks(found, dtype), strict=True):
        exact.decode(code, dtype, place)
    return found


def theirs(parts: list[bytes], dtype: str, peer: Path) -> dict[str, float]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(parts))
        file.flush()
        sizes = json.dumps([len(part) for part in parts])
        done = subprocess.run(
            [peer, "-c", PEER, sizes, file.name, dtype, str(ROUNDS)],
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def best(turns: list[dict[str, float]]) -> dict[str, float]:
    return {what: min(turn[what] for turn in turns) for what in turns[0]}


def whole(model: Path, peer: Path) -> dict[str, Any]:
    """The checkpoint as a file."""
    data = model.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.dwz"
        size = write(path, read_checkpoint(model).records).size
        turns = [(read(path), theirs([data], "float32", peer)) for _ in range(TURNS)]
    mine, peers = min(out for out, _ in turns), best([found for _, found in turns])
    sizes = {"dwindle": (size, mine), "zipnn 0.5.4": (int(peers["bytes"]), peers["decode_s"])}
    return {"bytes": len(data), "decode_times_zipnn": round(peers["decode_s"] / mine, 2)} | {
        name: {"percent": round(100 * coded / len(data), 2), "decode_GB_s": round(len(data) / out / 1e9, 3)}
        for name, (coded, out) in sizes.items()
    }


def read(path: Path) -> float:
    """Best process seconds to read all tensors of a file in one thread."""
    out = 1e9
    for _ in range(ROUNDS):
        start = time.process_time()
        with Archive(path, threads=1) as archive:
            found = dict(archive.walk())
        out = min(out, time.process_time() - start)
        del found
    return out


def general(parts: list[bytes]) -> dict[str, Any]:
    """What compressors that know nothing of floats make of the same bytes."""
    data = b"".join(parts)
    found: dict[str, Any] = {}
    for level in (3, 19):
        machine = zstandard.ZstdCompressor(level=level)
        start = time.process_time()
        coded = machine.compress(data)
        middle = time.process_time()
        zstandard.ZstdDecompressor().decompress(coded, max_output_size=len(data))
        found[f"zstd -{level}"] = summary(len(coded), len(data), middle - start, time.process_time() - middle)
    start = time.process_time()
    coded = lzma.compress(data[: 1 << 24], preset=6)
    middle = time.process_time()
    lzma.decompress(coded)
    size = min(len(data), 1 << 24)
    found["xz -6, first 16 MiB"] = summary(len(coded), size, middle - start, time.process_time() - middle)
    return found


def summary(coded: int, size: int, into: float, out: float) -> dict[str, float]:
    share, speeds = round(100 * coded / size, 2), (size / into / 1e9, size / out / 1e9)
    return {"percent": share, "encode_GB_s": round(speeds[0], 3), "decode_GB_s": round(speeds[1], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    records = read_checkpoint(options.model).records
    tensors = [bytes(record.data) for record in records.values() if record.dtype == "float32"]
    long = [tensor for tensor in tensors if len(tensor) > 1 << 14]
    short = [dtypes.from_float(np.frombuffer(tensor, "<f4"), "bfloat16").tobytes() for tensor in long]
    report: dict[str, Any] = {
        "command": f"python -m benchmarks.lossless {options.model.name} --peer PYTHON --json results/...",
        "threads": 1,
    }
    for dtype, parts in (("float32", long), ("bfloat16", short)):
        size = sum(map(len, parts))
        ours(parts[:3], dtype)
        turns = [(ours(parts, dtype), theirs(parts, dtype, options.peer)) for _ in range(TURNS)]
        mine, peer = (best(list(found)) for found in zip(*turns, strict=True))
        report[dtype] = {"bytes": size} | {
            name: summary(int(found["bytes"]), size, found["encode_s"], found["decode_s"])
            for name, found in (("dwindle", mine), ("zipnn 0.5.4", peer))
        }
        report[dtype]["encode_times_zipnn"] = round(peer["encode_s"] / mine["encode_s"], 2)
        report[dtype]["decode_times_zipnn"] = round(peer["decode_s"] / mine["decode_s"], 2)
        report[dtype] |= general(parts)
    report["file"] = whole(options.model, options.peer)
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
