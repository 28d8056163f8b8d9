"""Commands that evaluate reference networks: evaluate, sensitivity."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dwindle.cli import show
from dwindle.cli.networks import NETWORKS, Data, Device, Model, Preprocessing, examples_of, known_model
from dwindle.cli.output import Json, print_json, say

if TYPE_CHECKING:
    from torch import nn


def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .dwz file or a checkpoint.")],
    model: Annotated[
        str | None,
        typer.Option(
            callback=known_model, help=f"{NETWORKS}; a .dwz may name it itself.", show_default=False
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="The network before compression, to compare answers with.", show_default=False),
    ] = None,
    data: Data = None,
    preprocessing: Preprocessing = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Test error of a reference network as read from a file; with --against, how far its answers moved.

    Example: dwindle evaluate runs/demo/model.dwz --model lenet-300-100

    Example: dwindle evaluate alexnet.dwz --model alexnet --data imagenet --against alexnet.pth
    """
    from dwindle.outcome import read_network
    from dwindle.train import compare, error, predict

    name, network = read_network(file, model)
    before = None if against is None else read_network(against, name)[1].to(device)
    network.to(device)
    examples = examples_of(name, data, preprocessing)
    inputs, labels = examples.test_inputs.to(device), examples.test_labels.to(device)
    if before is None:
        agreed = None
        answers = predict(network, inputs, batch=examples.batch, prepare=examples.prepare)
    else:
        agreed = compare(before, network, inputs, labels, batch=examples.batch, prepare=examples.prepare)
        answers = agreed.after
    wrong = error(answers.cpu(), labels.cpu())
    if as_json:
        content = {"file": str(file), "model": name, "bytes": file.stat().st_size, "test_error": wrong}
        print_json(content if agreed is None else content | {"agreement": agreed.to_json()})
        return
    typer.echo(f"{file}: {name}, {wrong:.2f} % of {len(labels)} test {examples.noun} wrong")
    if agreed is not None:
        show.agreement(agreed)


def sensitivity(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the table and the figure.")],
    model: Model = "lenet-300-100",
    reference: Annotated[
        Path | None, typer.Option(help="Its checkpoint; the repository's without it.", show_default=False)
    ] = None,
    data: Data = None,
    preprocessing: Preprocessing = None,
    as_json: Json = False,
) -> None:
    """Error against sparsity, each layer pruned alone and without retraining, on 5,000 training examples.

    Example: dwindle sensitivity --model lenet-5 -o runs/sensitivity
    """
    from dwindle import atomic
    from dwindle.data import split
    from dwindle.errors import CheckpointError
    from dwindle.models import reference_checkpoint
    from dwindle.outcome import read_network
    from dwindle.prune import scan_sensitivity
    from dwindle.report import figures
    from dwindle.report.run import versions
    from dwindle.train import error, predict

    checkpoint = reference or reference_checkpoint(model)
    if checkpoint is None:
        raise CheckpointError(f"{model}: expected --reference CHECKPOINT, got none and no repository")
    _, network = read_network(checkpoint, model)
    output.mkdir(parents=True, exist_ok=True)
    examples = examples_of(model, data, preprocessing)
    count = len(examples.train_labels)
    _, chosen = split(count, min(5000, count))
    inputs, labels = examples.train_inputs[chosen], examples.train_labels[chosen]

    def accuracy(candidate: nn.Module) -> float:
        answers = predict(candidate, inputs, batch=examples.batch, prepare=examples.prepare)
        return 100 - error(answers, labels)

    scan = scan_sensitivity(network, accuracy)
    errors = {name: [round(100 - score, 4) for score in scores] for name, scores in scan.scores.items()}
    content = {
        "command": shlex.join(["dwindle", *sys.argv[1:]]),
        "versions": versions(),
        "model": model,
        examples.noun: len(labels),
        "baseline": round(100 - scan.baseline, 4),
        "sparsities": scan.sparsities,
        "errors": errors,
    }
    table, figure = (output / f"sensitivity-{model}.{suffix}" for suffix in ("json", "png"))
    atomic.write_bytes(table, (json.dumps(content, indent=1) + "\n").encode())
    figures.sensitivity(figure, scan.sparsities, errors, f"{model}: each layer pruned alone")
    if as_json:
        print_json(content)
        return
    show.sensitivity(scan.sparsities, errors, 100 - scan.baseline)
    say(f"wrote {table}, {figure}")
