"""What codebooks in 16 bits cost: bytes and test errors of the reference LeNets, shared without training.

    python -m benchmarks.codebooks --json results/codebooks.json

Every matrix gets codebooks by k-means with 8, 5 and 3 bits, in float32 as clustered, or rounded to float16 or
bfloat16 (`--codebook`). Errors are of the 10,000 test digits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

import dwindle
from dwindle import atomic
from dwindle.data import mnist, pixels
from dwindle.models import build
from dwindle.models.pretrained import reference_checkpoint
from dwindle.report.run import versions

COMMAND = "python -m benchmarks.codebooks --json results/codebooks.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    digits = mnist()
    inputs, labels = pixels(digits.test_images), digits.test_labels
    rows = []
    for network in ("lenet-300-100", "lenet-5"):
        source = reference_checkpoint(network)
        assert source is not None
        for bits in (8, 5, 3):
            for kind in (None, "float16", "bfloat16"):
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "x.dwz"
                    result = dwindle.compress_checkpoint(source, path, bits=bits, codebook=kind)
                    model = dwindle.load_into(build(network), path).eval()
                with torch.no_grad():
                    wrong = int((model(inputs).argmax(1) != labels).sum())
                row = {"network": network, "bits": bits, "codebook": kind or "float32"}
                rows.append(row | {"bytes": result.size, "test_error_percent": wrong / 100})
                print(json.dumps(rows[-1]), flush=True)
    report = {"command": COMMAND, "versions": versions(), "rows": rows}
    atomic.write_bytes(options.json, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
