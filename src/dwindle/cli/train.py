"""Commands that run recipes and evaluate networks: train, evaluate, demo, sensitivity."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwindle.cli import show
from dwindle.cli.output import Json, print_json, say

if TYPE_CHECKING:
    from torch import nn

    from dwindle.data import Examples
    from dwindle.outcome import Outcome
    from dwindle.recipe import Recipe


def _known_model(name: str | None) -> str | None:
    from dwindle.models import NAMES

    if name is not None and name not in NAMES:
        raise typer.BadParameter(f"expected one of {', '.join(NAMES)}, got {name}")
    return name


def _known_preprocessing(name: str | None) -> str | None:
    from dwindle.data import PREPROCESSINGS

    if name is not None and name not in PREPROCESSINGS:
        raise typer.BadParameter(f"expected one of {', '.join(PREPROCESSINGS)}, got {name}")
    return name


def _small_model(name: str) -> str:
    from dwindle.models import DATA

    small = [known for known, data in DATA.items() if data == "mnist"]
    if name not in small:
        raise typer.BadParameter(f"expected one of {', '.join(small)}, got {name}")
    return name


def _usable_device(device: str) -> str:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise typer.BadParameter(f"expected a device torch can use, got {device}: {reason}") from error
    return device


Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder with the MNIST files, or with the pictures of a network for ImageNet.",
        show_default=False,
    ),
]
Preprocessing = Annotated[
    str | None,
    typer.Option(
        callback=_known_preprocessing,
        help="What pictures go through: torchvision (without it), caffe or efficientnet-lite.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of torch; results are the same only for the same number.")
]
NETWORKS = "lenet-300-100, lenet-5, alexnet, vgg-16 or resnet-50"
Model = Annotated[str, typer.Option(callback=_known_model, help=f"{NETWORKS}.")]
Device = Annotated[str, typer.Option(callback=_usable_device, help="Where the network runs: cpu, cuda, mps.")]


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A TOML file, or a packaged recipe's name.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder of the run; runs/NAME-SEED without it.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=(1 << 63) - 1, help="Instead of the recipe's.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="A checkpoint to compress instead of training one.", show_default=False),
    ] = None,
    data: Data = None,
    device: Device = "cpu",
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Begin anew, whatever is in the folder.")] = False,
    as_json: Json = False,
) -> None:
    """Carry a recipe out: train, prune, share, code, verify, evaluate.

    A run that was stopped, even killed, goes on where its last epoch ended and makes the same file.

    Networks for ImageNet start from your weights (torchvision's .pth files fit) and your pictures: a folder
    with train/ and val/ of class folders, or one of pictures named by class number, every second of which is
    tested on.

    Example: dwindle train lenet-300-100-paper -o runs/lenet

    Example: dwindle train alexnet-paper --reference alexnet.pth --data imagenet
    """
    from dwindle.recipe import read_recipe

    plan = read_recipe(recipe)
    if seed is not None:
        plan = plan.model_copy(update={"seed": seed})
    folder = output or Path("runs") / f"{plan.name}-{plan.seed}"
    _run(plan, folder, reference, data, device, threads, force, as_json)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for what it makes.")] = Path(
        "runs/demo"
    ),
    model: Annotated[
        str, typer.Option(callback=_small_model, help="lenet-300-100 or lenet-5.")
    ] = "lenet-300-100",
    data: Data = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compress a LeNet as Deep Compression does, from MNIST to a verified file, and compare with the paper.

    Prunes with retraining, shares with trained centroids, Huffman codes, writes, reads back, evaluates.
    Starts from the repository's trained network where there is one, and trains it first elsewhere.

    Example: dwindle demo
    """
    from dwindle.models import reference_checkpoint
    from dwindle.recipe import read_recipe

    plan = read_recipe(f"{model}-paper")
    _run(plan, output, reference_checkpoint(model), data, device, threads, True, as_json)


def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .dwz file or a checkpoint.")],
    model: Annotated[
        str | None,
        typer.Option(
            callback=_known_model, help=f"{NETWORKS}; a .dwz may name it itself.", show_default=False
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
    examples = _examples(name, data, preprocessing)
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
    examples = _examples(model, data, preprocessing)
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


def _examples(model: str, folder: Path | None, preprocessing: str | None) -> Examples:
    """The data a network is trained and tested on."""
    from dwindle.data import PREPROCESSINGS, image_examples, mnist
    from dwindle.errors import DataError
    from dwindle.models import DATA

    if DATA[model] == "mnist":
        return mnist(folder)
    if folder is None:
        raise DataError(f"{model}: expected a folder of pictures (--data), got none")
    return image_examples(folder, PREPROCESSINGS[preprocessing or "torchvision"])


def _run(
    plan: Recipe,
    folder: Path,
    reference: Path | None,
    data: Path | None,
    device: str,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run a recipe in a folder, measure it, draw it, print it."""
    import torch

    from dwindle.outcome import measure
    from dwindle.pipeline import run_recipe
    from dwindle.report.run import write_report

    if threads is not None:
        torch.set_num_threads(threads)
    started = time.perf_counter()
    examples = _examples(plan.model, data, plan.preprocessing)
    model = run_recipe(
        plan,
        folder,
        examples,
        reference=reference,
        force=force,
        device=device,
        log=lambda line: say(f"{time.perf_counter() - started:6.1f} s  {line}", quiet=as_json),
    )
    outcome = measure(plan, folder, examples, model, device=device)
    facts = {"seed": plan.seed, "threads": torch.get_num_threads(), "device": device}
    facts["seconds"] = round(time.perf_counter() - started, 1)
    written = write_report(plan, outcome, folder, facts)
    if as_json:
        print_json(written.content)
        return
    _print(plan, outcome, written.content)
    say(f"wrote {', '.join(str(path) for path in written.files)}")


def _print(plan: Recipe, outcome: Outcome, content: dict[str, Any]) -> None:
    show.layers(plan.model, content["layers"])
    show.outcome(plan.model, outcome)
