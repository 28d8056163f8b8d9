"""Options of the commands on reference networks, and the data that goes with a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dwindle.data import Examples


def known_model(name: str | None) -> str | None:
    """Refuse a network that is not known."""
    from dwindle.models import NAMES

    if name is not None and name not in NAMES:
        raise typer.BadParameter(f"expected one of {', '.join(NAMES)}, got {name}")
    return name


def _known_preprocessing(name: str | None) -> str | None:
    from dwindle.data import PREPROCESSINGS

    if name is not None and name not in PREPROCESSINGS:
        raise typer.BadParameter(f"expected one of {', '.join(PREPROCESSINGS)}, got {name}")
    return name


def small_model(name: str) -> str:
    """Refuse a network that is not trained in minutes."""
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
Model = Annotated[str, typer.Option(callback=known_model, help=f"{NETWORKS}.")]
Device = Annotated[str, typer.Option(callback=_usable_device, help="Where the network runs: cpu, cuda, mps.")]


def examples_of(model: str, folder: Path | None, preprocessing: str | None) -> Examples:
    """The data a network is trained and tested on.

    Args:
        model: the network's name.
        folder: where the data is; MNIST is found without it.
        preprocessing: of pictures, by name; torchvision's if None.

    Raises:
        DataError: if the data is missing or damaged.
    """
    from dwindle.data import PREPROCESSINGS, image_examples, mnist
    from dwindle.errors import DataError
    from dwindle.models import DATA

    if DATA[model] == "mnist":
        return mnist(folder)
    if folder is None:
        raise DataError(f"{model}: expected a folder of pictures (--data), got none")
    return image_examples(folder, PREPROCESSINGS[preprocessing or "torchvision"])
