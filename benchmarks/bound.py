"""LeNet-300-100 through a bound on its accuracy, with a training loop of the user's own.

    python -m benchmarks.bound --json results/bound-lenet-300-100.json

For each seed a reference is trained on 50,000 digits. `evaluate` is the accuracy on the other 10,000 of the
training set; the search sees nothing else. The test set is looked at once for the reference and once for the
file. A run that was stopped resumes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import dwindle
from dwindle import atomic
from dwindle.data import mnist, split
from dwindle.models import build
from dwindle.report.run import versions

BATCH, EPOCHS = 128, 30


def images(digits):
    return digits.unsqueeze(1).float() / 255


def moved(batch, generator):
    """Each digit moved by up to a pixel either way."""
    framed = functional.pad(batch, (1, 1, 1, 1))
    down, right = (torch.randint(0, 3, (len(batch),), generator=generator) for _ in range(2))
    rows, columns = torch.arange(28)[None, :] + down[:, None], torch.arange(28)[None, :] + right[:, None]
    return framed[torch.arange(len(batch))[:, None, None], rows[:, :, None], columns[:, None, :]]


class User:
    """A user's data and loops: nothing here knows of compression."""

    def __init__(self, digits, seed):
        training, held_out = split(len(digits.train_labels), 10_000, seed=seed)
        self.inputs, self.targets = digits.train_images[training], digits.train_labels[training]
        self.held_inputs = digits.train_images[held_out]
        self.held_targets = digits.train_labels[held_out]
        self.digits = digits
        self.generator = torch.Generator().manual_seed(seed)

    def epoch(self, model, first, last):
        """SGD with momentum over all digits once, at a rate that falls from first to last."""
        model.train()
        optimizer = torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad],
            lr=first,
            momentum=0.9,
            nesterov=True,
            weight_decay=3e-5,
        )
        order = torch.randperm(len(self.targets), generator=self.generator)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(order) // BATCH + 1, last)
        for chosen in order.split(BATCH):
            optimizer.zero_grad()
            batch = moved(self.inputs[chosen], self.generator)
            functional.cross_entropy(model(images(batch)), self.targets[chosen]).backward()
            optimizer.step()
            schedule.step()

    def reference(self):
        model = build("lenet-300-100")
        rates = [0.1 * (1 - done / EPOCHS) + 1e-4 for done in range(EPOCHS + 1)]
        for first, last in itertools.pairwise(rates):
            self.epoch(model, first, last)
        return model.eval()

    def train(self, model):
        self.epoch(model, 0.05, 0.001)

    def evaluate(self, model):
        return accuracy(model, self.held_inputs, self.held_targets)

    def test(self, model):
        return accuracy(model, self.digits.test_images, self.digits.test_labels)


@torch.no_grad()
def accuracy(model: nn.Module, inputs, targets):
    model.eval()
    right = [
        int((model(images(x)).argmax(1) == y).sum())
        for x, y in zip(inputs.split(1000), targets.split(1000), strict=True)
    ]
    return sum(right) / len(targets)


def one_seed(seed, digits, options):
    torch.manual_seed(seed)
    user = User(digits, seed)
    options.runs.mkdir(parents=True, exist_ok=True)
    kept, path = options.runs / f"bound-reference-{seed}.pt", options.runs / f"bound-{seed}.dwz"
    if kept.exists():
        model = build("lenet-300-100").eval()
        model.load_state_dict(torch.load(kept, weights_only=True))
    else:
        model = user.reference()
        torch.save(model.state_dict(), kept)
    start = time.perf_counter()
    result = dwindle.compress(
        model,
        path,
        evaluate=user.evaluate,
        train=user.train,
        max_drop=options.max_drop,
        max_passes=options.max_passes,
        work=options.runs / f"bound-{seed}",
        force=True,
    )
    seconds = time.perf_counter() - start
    loaded = dwindle.load_into(build("lenet-300-100"), path)
    found = result.steps[[step.size for step in result.steps].index(result.size)]
    return {
        "seed": seed,
        "bytes": result.size,
        "rate": result.rate,
        "setting": dict(found.setting),
        "reference_score": result.reference_score,
        "score": result.score,
        "reference_test_error": 100 * (1 - user.test(model)),
        "test_error": 100 * (1 - user.test(loaded)),
        "evaluations": result.evaluations,
        "passes": result.passes,
        "seconds": round(seconds, 1),
        "steps": [
            {
                "setting": dict(s.setting),
                "size": s.size,
                "score": s.score,
                "holds": s.holds,
                "passes": s.passes,
            }
            for s in result.steps
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max-drop", type=float, default=0.001)
    parser.add_argument("--max-passes", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of what resumes")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    digits = mnist()
    seeds = []
    for seed in options.seeds:
        seeds.append(one_seed(seed, digits, options))
        print(json.dumps({key: value for key, value in seeds[-1].items() if key != "steps"}), flush=True)
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.bound", *sys.argv[1:]]),
        "max_drop": options.max_drop,
        "threads": options.threads,
        "versions": versions(),
        "seeds": seeds,
    }
    atomic.write_bytes(options.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
