"""The paper's LeNets over several seeds.

    python -m benchmarks.lenets lenet-5-paper --json results/lenet-5-paper.json

Each seed is a whole run of the recipe, from random weights to the file; the test set is looked at once for
each network reported. A run that was stopped resumes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch

from dwindle import atomic
from dwindle.data import mnist
from dwindle.outcome import measure
from dwindle.pipeline import run_recipe
from dwindle.recipe import read_recipe
from dwindle.report.run import versions, write_report

KEPT = (
    "bytes",
    "rate",
    "reference_error",
    "parameters",
    "parameters_left",
    "pruned_error",
    "test_error",
    "same_predictions",
    "layers",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of the runs; a stopped one resumes"
    )
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    digits = mnist()
    seeds = []
    for seed in options.seeds:
        recipe = read_recipe(options.recipe).model_copy(update={"seed": seed})
        folder = options.runs / f"{recipe.name}-{seed}"
        model = run_recipe(recipe, folder, digits, log=lambda line, seed=seed: print(seed, line, flush=True))
        outcome = measure(recipe, folder, digits, model)
        content = write_report(recipe, outcome, folder, {"seed": seed}).content
        seeds.append(
            {"seed": seed, "overhead": outcome.ledger.overhead} | {key: content[key] for key in KEPT}
        )
        print(json.dumps({key: value for key, value in seeds[-1].items() if key != "layers"}), flush=True)
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.lenets", *sys.argv[1:]]),
        "recipe": read_recipe(options.recipe).model_dump(mode="json"),
        "threads": options.threads,
        "versions": versions(),
        "seeds": seeds,
    }
    atomic.write_bytes(options.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
