"""Commands that run recipes: train, demo."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dwindle.cli import show
from dwindle.cli.networks import Data, Device, Threads, examples_of, small_model
from dwindle.cli.output import Json, print_json, say

if TYPE_CHECKING:
    from dwindle.outcome import Outcome
    from dwindle.recipe import Recipe


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
        str, typer.Option(callback=small_model, help="lenet-300-100 or lenet-5.")
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
    examples = examples_of(plan.model, data, plan.preprocessing)
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
