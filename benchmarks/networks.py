"""`dwindle compress` on checkpoints with AlexNet's and VGG-16's shapes: time, memory, and bytes by layer.

    python -m benchmarks.networks --network vgg-16 --json results/vgg-16.json

The checkpoint is made here: float32, seeded Laplace weights, in each layer of the deviation that keeps a
signal's size (He initialisation). The command itself compresses it with the densities, bits and gap bits of
Han et al. 2016 and its Huffman codes, in a process of its own: first without compiled code, then with what
that run left. Then the file is inspected, verified and decompressed, and the same is coded by `auto`. Linux
only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwindle.code import entropy
from dwindle.file import Archive, ledger
from dwindle.file.reader import default_threads
from dwindle.io import read_checkpoint
from dwindle.records import Shared, to_storage, zero_entry
from dwindle.report import PAPER, PaperNetwork, PaperRow
from dwindle.report.layers import LayerRow, layer_table
from dwindle.share.assign import assign

SEED = 0
BITS = {"conv": 8, "linear": 5}
CHUNK = 1 << 20
"""Weights made at once: this process must stay smaller than those it measures, which inherit its peak."""

INTERVAL = 0.01
"""Seconds between two looks at a process's memory."""


REASONS = [
    "Index bits: our k-means goes on from its linear start until the entries are used about evenly, which "
    "lowers the error and raises the entropy. At the linear steps themselves the same weights would take "
    "entropy_at_linear_steps. The paper's codebooks lie between the two, or below, where trained weights "
    "have longer tails than Laplace ones.",
    "Gap bits and entries: survivors of random weights lie at random, so their gaps are geometric, their "
    "fillers as frequent as q / (1 - q), q = (1 - density) ** (2 ** gap bits). Where the paper has fewer gap "
    "bits or fewer fillers, the survivors of the trained layer lie in clusters.",
    "The paper's entries are derived from its sizes after sharing, given in two or three digits; its total "
    "after coding is more than its rows add up to.",
]
"""Why the bytes differ from the paper's."""


class Layer(NamedTuple):
    """The weights NAME.weight, beside NAME.bias of one element a row.

    Attributes:
        name: without ".weight".
        shape: of the weights.
        paper: the paper's figures for them.
    """

    name: str
    shape: tuple[int, ...]
    paper: PaperRow


@dataclass(frozen=True)
class Network:
    """A network's layers, and the paper's figures."""

    layers: tuple[Layer, ...]
    paper: PaperNetwork

    @property
    def gap_bits(self) -> int:
        """Width of the gaps, in all layers the same."""
        return int(self.layers[0].paper.gap_bits[0])

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight and bias."""
        found: dict[str, tuple[int, ...]] = {}
        for layer in self.layers:
            found |= {f"{layer.name}.weight": layer.shape, f"{layer.name}.bias": layer.shape[:1]}
        return found

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(math.prod(shape) for shape in self.tensors.values())


ALEXNET = {
    # Caffe's: conv2, conv4 and conv5 in two groups.
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}


VGG_16 = {
    "conv1_1": (64, 3, 3, 3),
    "conv1_2": (64, 64, 3, 3),
    "conv2_1": (128, 64, 3, 3),
    "conv2_2": (128, 128, 3, 3),
    "conv3_1": (256, 128, 3, 3),
    "conv3_2": (256, 256, 3, 3),
    "conv3_3": (256, 256, 3, 3),
    "conv4_1": (512, 256, 3, 3),
    "conv4_2": (512, 512, 3, 3),
    "conv4_3": (512, 512, 3, 3),
    "conv5_1": (512, 512, 3, 3),
    "conv5_2": (512, 512, 3, 3),
    "conv5_3": (512, 512, 3, 3),
    "fc6": (4096, 25088),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}


def network(name: str, shapes: dict[str, tuple[int, ...]]) -> Network:
    """A network with the paper's figures, layer for layer."""
    paper = PAPER[name]
    rows = zip(shapes.items(), paper.layers.values(), strict=True)
    return Network(tuple(Layer(layer, shape, row) for (layer, shape), row in rows), paper)


NETWORKS = {"alexnet": network("alexnet", ALEXNET), "vgg-16": network("vgg-16", VGG_16)}


def make_checkpoint(path: Path, network: Network) -> None:
    """Write the checkpoint tensor by tensor, a chunk of it at a time in memory."""
    header, position = {}, 0
    for name, shape in network.tensors.items():
        end = position + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(SEED)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for shape in network.tensors.values():
            left = math.prod(shape)
            # Scale s means a variance of 2 s ** 2; He initialisation asks for 2 / inputs.
            scale = 1 / math.sqrt(math.prod(shape[1:]))
            while left:
                part = random.laplace(scale=scale, size=min(left, CHUNK)).astype("<f4")
                stream.write(part.data)
                left -= len(part)


def measured(arguments: list[str], cache: Path) -> tuple[dict[str, Any], str]:
    """Run `dwindle` in a process of its own: seconds, peak memory in MB (10 ** 6 bytes), and what it printed.

    `peak` counts every resident page, those of mapped files too; `peak_anonymous` only memory of its own.
    """
    program = str(Path(sys.executable).with_name("dwindle"))
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [program, *arguments], stdout=output, env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}
        )
        anonymous, done = 0, 0
        while not done:
            time.sleep(INTERVAL)
            anonymous = max(anonymous, _anonymous(process.pid))
            done, status, used = os.wait4(process.pid, os.WNOHANG)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().decode()
    if process.returncode:
        raise RuntimeError(f"expected {arguments[0]} to end well, got status {process.returncode}: {printed}")
    figures = {
        "wall_seconds": round(wall, 2),
        "user_seconds": round(used.ru_utime, 2),
        "system_seconds": round(used.ru_stime, 2),
        "peak_mb": round(used.ru_maxrss * 1024 / 1e6),
        "peak_anonymous_mb": round(anonymous / 1e6),
    }
    return figures, printed


def _anonymous(pid: int) -> int:
    """Resident bytes of a process that no file backs; 0 once it has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return 0


def index_width(layer: Layer) -> int:
    """Bits of an index before Huffman coding."""
    return BITS["conv" if len(layer.shape) > 2 else "linear"]


def linear_steps(weights: NDArray[np.float32], record: Shared, row: LayerRow) -> float:
    """Entropy of an entry's index, in bits, had the codebook stayed at the linear start of k-means."""
    zero = zero_entry(record)
    alive = np.ones(row.elements, np.bool_) if zero is None else record.indices != zero
    survivors = weights.reshape(-1)[alive]
    steps = np.linspace(survivors.min(), survivors.max(), len(record.codebook) - (zero is not None))
    used = entropy.counts(assign(survivors, steps.astype(np.float32)), len(steps))
    return 8 * entropy.entropy_bytes(np.append(used, row.entries - row.survivors)) / row.entries


def compare(layer: Layer, row: LayerRow, gap_bits: int, bounds: dict[str, float]) -> dict[str, Any]:
    """A layer's figures beside the paper's; sizes in percent of the original, bits by stored entry."""
    return {
        "weights": row.elements,
        "density": round(100 * row.density, 2),
        "fillers_per_survivor": [
            round(row.entries / row.survivors - 1, 3) if row.gap_bits else None,
            round(paper_entries(layer, gap_bits) / (row.elements * layer.paper.density / 100) - 1, 3),
        ],
        "index_bits": {
            "fixed": row.index_bits[0],
            "coded": round(row.index_bits[1], 2),
            "entropy": round(8 * bounds["indices"] / row.entries, 2),
            "paper": [index_width(layer), layer.paper.index_bits[1]],
        },
        "gap_bits": {
            "fixed": row.gap_bits[0] if row.gap_bits else None,
            "coded": round(row.gap_bits[1], 2) if row.gap_bits else None,
            "entropy": round(8 * bounds["gaps"] / row.entries, 2) if row.gap_bits else None,
            "paper": [gap_bits, layer.paper.gap_bits[1]],
        },
        "shared_percent": [round(100 * row.shared / row.original, 2), layer.paper.shared],
        "coded_percent": [round(100 * row.coded / row.original, 2), layer.paper.coded],
        "coded_bytes": row.coded,
    }


def paper_entries(layer: Layer, gap_bits: int) -> float:
    """Survivors and fillers the paper stored, by its (rounded) size after sharing, less the codebook."""
    width = index_width(layer)
    return 32 * (layer.paper.shared / 100 * math.prod(layer.shape) - (1 << width)) / (width + gap_bits)


def causes(network: Network, rows: dict[str, LayerRow], file_bytes: int) -> dict[str, float]:
    """What makes our file larger than the paper's, in percent of the original; adds up to the difference."""
    parts = dict.fromkeys(("index bits", "gap bits", "entries stored"), 0.0)
    paper = 0.0
    for layer in network.layers:
        row, theirs = rows[f"{layer.name}.weight"], paper_entries(layer, network.gap_bits)
        gap_bits = row.gap_bits[1] if row.gap_bits else 0.0
        parts["index bits"] += row.entries * (row.index_bits[1] - layer.paper.index_bits[1])
        parts["gap bits"] += row.entries * (gap_bits - layer.paper.gap_bits[1])
        parts["entries stored"] += (row.entries - theirs) * (
            layer.paper.index_bits[1] + layer.paper.gap_bits[1]
        )
        paper += 32 * row.elements * layer.paper.coded / 100
    total = 32 * network.parameters * network.paper.total[2] / 100
    parts["the paper's rows against its total"] = paper - total
    parts["biases, tables, checksums, rounding"] = 8 * file_bytes - total - sum(parts.values())
    return {cause: round(100 * bits / (32 * network.parameters), 2) for cause, bits in parts.items()}


def run(name: str, network: Network, folder: Path) -> dict[str, Any]:
    """Every figure but those of the machine."""
    source, target, back = folder / "in.safetensors", folder / "out.dwz", folder / "back.safetensors"
    make_checkpoint(source, network)
    command = ["compress", str(source), "-o", str(target)]
    command += [
        "--prune",
        ",".join(f"{x.name}.weight={1 - x.paper.density / 100:.2f}" for x in network.layers),
    ]
    command += ["--bits", ",".join(f"{kind}={bits}" for kind, bits in BITS.items())]
    command += ["--gap-bits", str(network.gap_bits), "--min-elements", "1", "--json"]
    cache = folder / "cache"
    by_auto = command.copy()
    command += ["--coder", "huffman"]
    commands: dict[str, Any] = {"compress_cold": measured(command, cache)[0]}
    cold = target.read_bytes()
    commands["compress"], _ = measured([*command, "--force"], cache)
    if target.read_bytes() != cold:
        raise RuntimeError("expected the same bytes twice")
    commands["inspect"], printed = measured(["inspect", str(target), "--json"], cache)
    commands["verify"], _ = measured(["verify", str(target)], cache)
    commands["decompress"], _ = measured(["decompress", str(target), "-o", str(back)], cache)
    paths = {str(source): f"{name}.safetensors", str(target): f"{name}.dwz"}
    inspected = sizes(network, source, target, json.loads(printed))
    commands["compress_by_auto"], _ = measured([*by_auto, "--force"], cache)
    return {
        "compress_command": " ".join(["dwindle", *(paths.get(word, word) for word in command)]),
        "commands": commands,
        **inspected,
        "file_bytes_by_auto": target.stat().st_size,
    }


def sizes(network: Network, source: Path, target: Path, inspected: dict[str, Any]) -> dict[str, Any]:
    """Bytes of the file and of each layer beside the paper's.

    Args:
        network: what the checkpoint was made from.
        source: the checkpoint.
        target: its file.
        inspected: what `dwindle inspect --json` says of the file.
    """
    bounds: dict[str, dict[str, float]] = {}
    for line in inspected["lines"]:
        if line["bound"] is not None:
            bounds.setdefault(line["tensor"], {})[line["part"]] = line["bound"]
    weights = read_checkpoint(source).records
    layers = {}
    with Archive(target) as archive:
        book = ledger(archive)
        rows = {row.name: row for row in layer_table(archive, book)}
        for layer in network.layers:
            tensor = f"{layer.name}.weight"
            found = compare(layer, rows[tensor], network.gap_bits, bounds[tensor])
            bits = linear_steps(to_storage(weights[tensor]), archive.resolved(tensor), rows[tensor])
            found["index_bits"]["entropy_at_linear_steps"] = round(bits, 2)
            layers[layer.name] = found
    shared = sum(row.shared for row in rows.values()) + book.size(part="raw")
    return {
        "parameters": network.parameters,
        "original_bytes": book.original,
        "file_bytes": book.file_size,
        "rate": round(book.rate, 2),
        "shared_percent": [round(100 * shared / book.original, 2), network.paper.total[1]],
        "coded_percent": [round(100 / book.rate, 2), network.paper.total[2]],
        "more_than_the_paper_percent": causes(network, rows, book.file_size),
        "reasons": REASONS,
        "layers": layers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    chosen = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        figures = run(chosen.network, NETWORKS[chosen.network], Path(folder))
    report = {
        "command": f"python -m benchmarks.networks --network {chosen.network} --json {chosen.json}",
        "seed": SEED,
        "distribution": "Laplace, float32",
        "threads": default_threads(),
        "cores": os.cpu_count(),
        "load_before": round(before, 2),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version()}
        | {
            package: importlib.metadata.version(package) for package in ("dwindle", "torch", "numpy", "numba")
        },
        "pairs": "[here, the paper]",
        **figures,
    }
    text = json.dumps(report, indent=2)
    print(text)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
