"""Huffman and rANS coding of symbols against zstd on the same symbols.

    OMP_NUM_THREADS=1 python -m benchmarks.huffman --json results/huffman.json

One thread, one process. Ours and zstd's turns alternate, so that both see the same machine; times are those
of this process (not of others on the same cores). Compiled code is run once before it is timed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from dwindle.code import entropy, huffman, rans
from dwindle.code.lengths import code_lengths
from dwindle.share.assign import assign
from dwindle.share.kmeans import kmeans

SEED = 0
SYMBOLS = 1 << 24
LEVEL = 3
REPEATS = 15
LIMIT = 12
"""Longest code, as the codec takes it for alphabets of up to 512 symbols."""

Symbols = NDArray[np.uint8]


def laplace(bits: int) -> Symbols:
    """Laplace weights by their entry in an optimal codebook (fitted to the first million)."""
    values = np.random.default_rng(SEED).laplace(size=SYMBOLS).astype(np.float32)
    centroids = kmeans(values[: 1 << 20], 1 << bits, init="optimal", seed=SEED).centroids
    return assign(values, centroids).astype(np.uint8)


def gaps() -> Symbols:
    """Gaps of 5 bits between survivors of 8 % density, as LeNet-300-100's first layer has; 31 for longer."""
    return np.minimum(np.random.default_rng(SEED).geometric(0.08, SYMBOLS) - 1, 31).astype(np.uint8)


STREAMS: dict[str, Callable[[], Symbols]] = {
    "laplace, 5 bits": lambda: laplace(5),
    "laplace, 8 bits": lambda: laplace(8),
    "gaps, 5 bits": gaps,
}


def prepared(symbols: Symbols) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Encoding and decoding of each peer, checked and warm."""
    lengths = code_lengths(entropy.counts(symbols, 256), LIMIT)
    table = huffman.decode_table(lengths)
    coded = huffman.encode(symbols, lengths)
    weights = rans.frequencies(entropy.counts(symbols, 256))
    slots, states = rans.decode_table(weights), rans.encode(symbols, weights)
    compressor, decompressor = zstandard.ZstdCompressor(level=LEVEL), zstandard.ZstdDecompressor()
    compressed = compressor.compress(symbols.tobytes())
    peers: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "dwindle": (
            lambda: huffman.encode(symbols, code_lengths(entropy.counts(symbols, 256), LIMIT)),
            lambda: huffman.decode(coded, len(symbols), table, np.uint8),
        ),
        "dwindle rans": (
            lambda: rans.encode(symbols, rans.frequencies(entropy.counts(symbols, 256))),
            lambda: rans.decode(states, len(symbols), slots, np.uint8),
        ),
        "zstd": (
            lambda: compressor.compress(symbols),
            lambda: decompressor.decompress(compressed, max_output_size=len(symbols)),
        ),
    }
    for encode, decode in peers.values():
        encode()
        assert np.array_equal(np.frombuffer(decode(), np.uint8), symbols)
    return peers


def timed(call: Callable[[], Any]) -> float:
    """Seconds of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(symbols: Symbols) -> dict[str, Any]:
    """Sizes in bytes; rates in million symbols a second, best and median."""
    peers = prepared(symbols)
    result: dict[str, Any] = {"symbols": len(symbols)}
    result["entropy_bytes"] = round(entropy.entropy_bytes(entropy.counts(symbols, 256)))
    times: dict[str, list[float]] = {f"{peer} {what}": [] for peer in peers for what in ("encode", "decode")}
    for turn in range(REPEATS):
        for peer, (encode, decode) in peers.items():
            times[f"{peer} decode"].append(timed(decode))
            if turn < 3:
                times[f"{peer} encode"].append(timed(encode))
    for peer, (encode, _) in peers.items():
        result[peer] = {"bytes": len(encode())}
        for what in ("encode", "decode"):
            seconds = times[f"{peer} {what}"]
            result[peer][f"{what}_best"] = round(len(symbols) / min(seconds) / 1e6)
            result[peer][f"{what}_median"] = round(len(symbols) / statistics.median(seconds) / 1e6)
    for kind in ("best", "median"):
        for peer in ("dwindle", "dwindle rans"):
            ratio = result[peer][f"decode_{kind}"] / result["zstd"][f"decode_{kind}"]
            result[f"{peer}: decode_times_zstd_{kind}"] = round(ratio, 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    json_path = parser.parse_args().json
    output = "" if json_path is None else f" --json {json_path}"
    packages = ("numpy", "numba", "llvmlite", "zstandard")
    report: dict[str, Any] = {
        "command": f"OMP_NUM_THREADS=1 python -m benchmarks.huffman{output}",
        "unit": "million symbols a second, process time",
        "seed": SEED,
        "repeats": REPEATS,
        "zstd_level": LEVEL,
        "code_limit_bits": LIMIT,
        "threads": 1,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages}
        | {"zstd": ".".join(map(str, zstandard.ZSTD_VERSION))},
        "streams": {name: measure(make()) for name, make in STREAMS.items()},
    }
    text = json.dumps(report, indent=2)
    print(text)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(text + "\n")


if __name__ == "__main__":
    main()
