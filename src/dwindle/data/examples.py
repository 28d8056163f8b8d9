"""What a recipe trains on and is measured by, whether it is in memory or in files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from dwindle.data.images import Images, images
from dwindle.data.preprocessing import Preprocessing
from dwindle.errors import DataError


class Examples(Protocol):
    """A data set as the inputs it keeps, and functions that make network inputs of a batch of them."""

    @property
    def train_inputs(self) -> Tensor:
        """What is kept of the examples to train on, shape (N, ...)."""

    @property
    def train_labels(self) -> Tensor:
        """Their classes, int64, shape (N,)."""

    @property
    def test_inputs(self) -> Tensor:
        """What is kept of the examples to test on, shape (M, ...)."""

    @property
    def test_labels(self) -> Tensor:
        """Their classes, int64, shape (M,)."""

    @property
    def classes(self) -> int:
        """How many classes there are."""

    @property
    def batch(self) -> int:
        """Examples a network is evaluated on at a time."""

    @property
    def noun(self) -> str:
        """What the examples are called, in the plural."""

    def prepare(self, inputs: Tensor) -> Tensor:
        """Network inputs of a batch of train or test inputs, on their device."""

    def augment(self, inputs: Tensor, shift: int, generator: torch.Generator) -> Tensor:
        """The same, moved at random by up to `shift` pixels."""


@dataclass(frozen=True, eq=False)
class ImageExamples:
    """Pictures to train on and to test on.

    Attributes:
        pictures: all of them.
        labels: int64, their classes.
        train_inputs: int64, shape (N,), places among `pictures`.
        test_inputs: int64, shape (M,), likewise.
        classes: how many classes the network knows.
    """

    pictures: Images
    labels: Tensor
    train_inputs: Tensor
    test_inputs: Tensor
    classes: int
    batch: ClassVar[int] = 32
    noun: ClassVar[str] = "pictures"

    @property
    def train_labels(self) -> Tensor:
        """Classes of the pictures to train on, int64, shape (N,)."""
        return self.labels[self.train_inputs]

    @property
    def test_labels(self) -> Tensor:
        """Classes of the pictures to test on, int64, shape (M,)."""
        return self.labels[self.test_inputs]

    def prepare(self, inputs: Tensor) -> Tensor:
        """Decoded pictures, cut from the centre."""
        return self.pictures.load(inputs)

    def augment(self, inputs: Tensor, shift: int, generator: torch.Generator) -> Tensor:
        """Decoded pictures; where they are moved at all, mirrored half the time too."""
        return self.pictures.load(inputs, shift=shift, generator=generator if shift else None)


def image_examples(folder: Path | str, preprocessing: Preprocessing, classes: int = 1000) -> ImageExamples:
    """Labelled pictures of a folder (`images`), to train on and to test on.

    In a folder with `val/` in it, as ImageNet comes, those are tested on, and those of `train/` are trained
    on where it is there. Any other folder is split: even places to train on, odd ones to test on.

    Args:
        folder: the folder.
        preprocessing: what the network wants.
        classes: how many classes the network knows.

    Raises:
        DataError: if pictures are missing, are without labels, or have classes that the network lacks.
    """
    root = Path(folder)
    if (root / "val").is_dir():
        parts = [images(root / "val", preprocessing, classes=classes)]
        if (root / "train").is_dir():
            parts.insert(0, images(root / "train", preprocessing, classes=classes))
        labels = torch.cat([part.known_labels() for part in parts])
        pictures = Images(root, tuple(path for part in parts for path in part.paths), labels, preprocessing)
        train, test = torch.arange(len(pictures)).tensor_split([len(pictures) - len(parts[-1])])
    else:
        pictures = images(root, preprocessing, classes=classes)
        train, test = torch.arange(len(pictures))[0::2], torch.arange(len(pictures))[1::2]
        labels = pictures.known_labels()
    if not len(test):
        raise DataError(f"{root}: expected at least 2 pictures, got {len(pictures)}")
    return ImageExamples(pictures, labels, train, test, classes)
