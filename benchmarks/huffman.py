r"""Huffman and rANS coding of symbols against zstd on the same symbols.

    OMP_NUM_THREADS=1 python -m benchmarks.huffman --net DATA/songhan --model MODEL.safetensors \
        --json results/huffman.json

Drawn streams of 2**24 symbols; with `--net` those of the authors' SqueezeNet (the folder that
`benchmarks.squeezenet` takes), survivors and gaps as a file holds them; with `--model` uniform levels of a
model's weights, as in `benchmarks.levels`. A stream is tensors, cut into blocks of 2**20 symbols as in a
file. Ours has a code for each tensor: tables are made when it is encoded, and read and made ready when it is
decoded, which counts in bytes and time. zstd gets block by block.

Turns alternate, so that all see the same machine, and decode for a tenth of a second each, over and over:
what the turn before left in caches and of memory is no coder's merit. With one thread times are those of
this process (not of others on the same cores), with two of the clock, for one thread again beside.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from benchmarks import levels
from dwindle.code import entropy, gaps, huffman, rans, streams
from dwindle.code.plan import BLOCK, Coding, book, choose, count
from dwindle.io import read_checkpoint
from dwindle.records import Shared
from dwindle.share.assign import assign
from dwindle.share.kmeans import kmeans

SEED = 0
SYMBOLS = 1 << 24
LEVEL = 3
REPEATS = 15
LONG = 0.1
"""Seconds of decoding that are timed: much more than it takes to start two threads."""

SHARES = (0.1, 0.4)
"""Steps of uniform levels, in standard deviations of a tensor."""

Symbols = NDArray[np.uint8] | NDArray[np.uint16]
Task = Callable[[], Iterable[Any]]
"""What codes the blocks of a tensor, or some of them: when its results are taken, one after the other."""


def laplace(bits: int) -> list[Symbols]:
    """Laplace weights by their entry in an optimal codebook (fitted to the first million)."""
    values = np.random.default_rng(SEED).laplace(size=SYMBOLS).astype(np.float32)
    centroids = kmeans(values[: 1 << 20], 1 << bits, init="optimal", seed=SEED).centroids
    return [assign(values, centroids).astype(np.uint8)]


def short_gaps() -> list[Symbols]:
    """Gaps of 5 bits between survivors of 8 % density, as LeNet-300-100's first layer has; 31 for longer."""
    drawn = np.random.default_rng(SEED).geometric(0.08, SYMBOLS)
    return [np.minimum(drawn - 1, 31).astype(np.uint8)]


STREAMS: dict[str, Callable[[], list[Symbols]]] = {
    "laplace, 5 bits": lambda: laplace(5),
    "laplace, 8 bits": lambda: laplace(8),
    "gaps, 5 bits": short_gaps,
}


def of_squeezenet(folder: Path) -> dict[str, Callable[[], list[Symbols]]]:
    """Indices and gaps of the authors' SqueezeNet."""
    layers = folder / "SqueezeNet_deploy.prototxt"
    records = read_checkpoint(folder / "compressed_SqueezeNet.net", layers=layers).records
    found: dict[str, list[Symbols]] = {"SqueezeNet, indices": [], "SqueezeNet, gaps": []}
    for record in records.values():
        if isinstance(record, Shared):
            plan, zero = choose(Coding("rans"), count(record))[0], book(record).zero
            symbols: Symbols = record.indices
            if plan.arrangement == "gaps" and zero is not None:
                stored, symbols = gaps.split(symbols, zero, plan.gap_bits)
                found["SqueezeNet, gaps"].append(stored)
            found["SqueezeNet, indices"].append(symbols)
    return {name: lambda tensors=tensors: tensors for name, tensors in found.items()}


def of_model(path: Path) -> dict[str, Callable[[], list[Symbols]]]:
    """Levels of a model's tensors that have at most 256 of them, so that zstd gets a byte for each."""

    def made(step: float) -> list[Symbols]:
        maps = [levels.as_record(array).indices for array in levels.quantized(levels.weights(path), step)]
        return [symbols for symbols in maps if symbols.dtype == np.uint8]

    return {f"{path.stem}, steps of {step}": lambda step=step: made(step) for step in SHARES}


@dataclass(frozen=True)
class Peer:
    """A coder with its tensors.

    Attributes:
        size: bytes of the coded blocks and tables.
        encode: from symbols to bytes, a tensor for each.
        decode: from bytes to symbols, half of a tensor's blocks for each, or all where there is but one.
    """

    size: int
    encode: list[Task]
    decode: list[Task]


def cut(symbols: Symbols) -> list[Symbols]:
    return [symbols[start : start + BLOCK] for start in range(0, len(symbols), BLOCK)]


def ours(kind: streams.Kind, tensors: list[Symbols]) -> Peer:
    """One of our coders; each half of a tensor's blocks is decoded with tables of its own."""
    make = streams.huffman_code if kind == "huffman" else streams.rans_code

    def encode(symbols: Symbols) -> Iterator[bytes]:
        code = make(entropy.counts(symbols, int(symbols.max()) + 1))
        for part in cut(symbols):
            yield streams.encode(part, code, 0)

    def decode(code: streams.Code, parts: list[tuple[bytes, int]]) -> Iterator[Symbols]:
        coder = huffman if kind == "huffman" else rans
        table = coder.read_table(code.table, code.alphabet)[0]
        for data, size in parts:
            found = np.empty(size, table.dtype)
            if isinstance(table, huffman.Table):
                huffman.decode(data, table, found)
            else:
                rans.decode(data, table, found)
            yield found

    size, tasks = 0, []
    for symbols in tensors:
        code = make(entropy.counts(symbols, int(symbols.max()) + 1))
        parts = [(data, len(part)) for data, part in zip(encode(symbols), cut(symbols), strict=True)]
        size += len(code.table) + sum(len(data) for data, _ in parts)
        for half in halves(parts):
            tasks.append(lambda code=code, half=half: decode(code, half))
    return Peer(size, [lambda symbols=symbols: encode(symbols) for symbols in tensors], tasks)


def zstd(tensors: list[Symbols]) -> Peer:
    """Zstandard; each thread has a decompressor of its own, which must not be shared while it is used."""
    compressor, kept = zstandard.ZstdCompressor(level=LEVEL), threading.local()

    def decode(parts: list[tuple[bytes, int]]) -> Iterator[Symbols]:
        if not hasattr(kept, "machine"):
            kept.machine = zstandard.ZstdDecompressor()
        for data, size in parts:
            yield np.frombuffer(kept.machine.decompress(data, max_output_size=size), np.uint8)

    size, tasks = 0, []
    for symbols in tensors:
        parts = [(compressor.compress(part), len(part)) for part in cut(symbols)]
        size += sum(len(data) for data, _ in parts)
        for half in halves(parts):
            tasks.append(lambda half=half: decode(half))
    encode: list[Task] = [
        lambda symbols=symbols: map(compressor.compress, cut(symbols)) for symbols in tensors
    ]
    return Peer(size, encode, tasks)


def halves(parts: list[tuple[bytes, int]]) -> list[list[tuple[bytes, int]]]:
    """The blocks of a tensor for two threads; of one block, for one."""
    middle = len(parts) // 2
    return [half for half in (parts[:middle], parts[middle:]) if half]


def prepared(tensors: list[Symbols]) -> dict[str, Peer]:
    """All coders, checked and warm."""
    peers = {"huffman": ours("huffman", tensors), "rans": ours("rans", tensors), "zstd": zstd(tensors)}
    for peer in peers.values():
        back = [part for task in peer.decode for part in task()]
        assert np.array_equal(np.concatenate(back), np.concatenate(tensors))
    return peers


def timed(tasks: list[Task], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of one thread."""
    start = clock()
    for task in tasks:
        for _ in task():  # a block's memory serves the next but one: all coders find it warm
            pass
    return clock() - start


def timed_in_two(tasks: list[Task], pool: ThreadPoolExecutor) -> float:
    """Seconds of the clock of two threads, which take every other task."""
    start = time.perf_counter()
    waiting = [pool.submit(timed, tasks[first::2]) for first in range(2)]
    for thread in waiting:
        thread.result()
    return time.perf_counter() - start


def measure(tensors: list[Symbols]) -> dict[str, Any]:
    """Sizes in bytes; rates in million symbols a second, best and median."""
    peers, symbols = prepared(tensors), sum(map(len, tensors))
    bound = sum(entropy.entropy_bytes(entropy.counts(tensor, 256)) for tensor in tensors)
    result: dict[str, Any] = {"symbols": symbols, "tensors": len(tensors), "entropy_bytes": round(bound)}
    times: dict[tuple[str, str], list[float]] = {}
    with ThreadPoolExecutor(2) as pool:
        for turn in range(REPEATS):
            for name, peer in peers.items():
                times_over = math.ceil(LONG / timed(peer.decode))
                often = peer.decode * times_over
                found = {"decode": timed(often), "clock": timed(often, time.perf_counter)}
                found["two"] = timed_in_two(often, pool)
                found = {what: seconds / times_over for what, seconds in found.items()}
                if turn < 5:
                    found["encode"] = timed(peer.encode)
                for what, seconds in found.items():
                    times.setdefault((name, what), []).append(seconds)
    for name, peer in peers.items():
        row: dict[str, Any] = {"bytes": peer.size, "over_entropy_percent": percent(peer.size, bound)}
        for what in ("encode", "decode"):
            row[f"{what}_best"] = round(symbols / min(times[name, what]) / 1e6)
            row[f"{what}_median"] = round(symbols / statistics.median(times[name, what]) / 1e6)
        if name != "zstd":
            for what in ("encode", "decode"):
                row[f"{what}_times_zstd_best"] = ratio(times, min, ("zstd", what), (name, what))
                row[f"{what}_times_zstd_median"] = ratio(
                    times, statistics.median, ("zstd", what), (name, what)
                )
        row["two_threads_times_one"] = ratio(times, min, (name, "clock"), (name, "two"))
        result[name] = row
    return result


def percent(size: float, bound: float) -> float:
    return round(100 * (size / bound - 1), 2)


def ratio(
    times: dict[tuple[str, str], list[float]],
    kind: Callable[[list[float]], float],
    slow: tuple[str, str],
    fast: tuple[str, str],
) -> float:
    return round(kind(times[slow]) / kind(times[fast]), 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", type=Path, help="folder of the authors' SqueezeNet and its prototxt")
    parser.add_argument("--model", type=Path, help="a .safetensors file whose weights are cut into levels")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    makers = dict(STREAMS)
    makers |= of_squeezenet(options.net) if options.net else {}
    makers |= of_model(options.model) if options.model else {}
    packages = ("numpy", "numba", "llvmlite", "zstandard")
    report: dict[str, Any] = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.huffman"
        + (" --net DATA/songhan" if options.net else "")
        + (f" --model {options.model.name}" if options.model else "")
        + " --json results/huffman.json",
        "unit": "million symbols a second, process time of one thread; two threads by the clock",
        "seed": SEED,
        "repeats": REPEATS,
        "zstd_level": LEVEL,
        "code_limit_bits": streams.LONGEST,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages}
        | {"zstd": ".".join(map(str, zstandard.ZSTD_VERSION))},
        "streams": {},
    }
    for name, make in makers.items():
        report["streams"][name] = measure(make())
        print(name, json.dumps(report["streams"][name], indent=2), flush=True)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
