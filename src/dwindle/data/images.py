"""A folder of pictures as a data set, decoded when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dwindle.data.decode import SUFFIXES, check_pixels, decode
from dwindle.data.preprocessing import Preprocessing
from dwindle.errors import DataError


@dataclass(frozen=True, eq=False)
class Images:
    """Pictures in a fixed order; none is in memory but those of the batch at hand.

    Attributes:
        folder: where they are from, for errors.
        paths: the files.
        labels: int64, shape (N,), the class of each; None where nothing says which.
        preprocessing: what is made of them.
    """

    folder: Path
    paths: tuple[Path, ...]
    labels: Tensor | None
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, positions: Tensor, *, shift: int = 0, generator: torch.Generator | None = None) -> Tensor:
        """Decode and preprocess some of the pictures.

        Args:
            positions: integers, shape (n,), places among `paths`.
            shift: with a generator, the crop is moved by a random number of pixels up to this in each
                direction, as far as the picture reaches.
            generator: a CPU generator; if given, pictures are mirrored half the time (Krizhevsky et al. 2012,
                section 4.1). Three draws of n integers are taken from it.

        Returns:
            float32, shape (n, 3, crop, crop), on the device of `positions`.

        Raises:
            DataError: if a picture cannot be decoded; it names the file.
        """
        n = len(positions)
        right = down = mirror = [0] * n
        if generator is not None:
            right, down = (
                (torch.randint(0, 2 * shift + 1, (n,), generator=generator) - shift).tolist()
                for _ in range(2)
            )
            mirror = torch.randint(0, 2, (n,), generator=generator).tolist()
        crop = self.preprocessing.crop
        batch = torch.empty(n, 3, crop, crop)
        for at, position in enumerate(positions.tolist()):
            path = self.paths[position]
            picture = decode(path)
            # A line one pixel wide would be resized to any length.
            check_pixels(path, *self.preprocessing.resized(*picture.size))
            batch[at] = self.preprocessing.apply(
                picture, right=right[at], down=down[at], mirror=bool(mirror[at])
            )
        return batch.to(positions.device)

    def batches(self, batch: int = 32) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All pictures in order, a batch at a time, each with its labels.

        Args:
            batch: pictures at a time; the last batch takes what is left.

        Raises:
            DataError: see `load`.
        """
        for positions in torch.split(torch.arange(len(self)), batch):
            if len(positions):
                yield self.load(positions), None if self.labels is None else self.labels[positions]

    def every(self, start: int, step: int) -> Images:
        """Those at the places `start`, `start + step`, and so on."""
        labels = None if self.labels is None else self.labels[start::step]
        return replace(self, paths=self.paths[start::step], labels=labels)

    def split(self) -> tuple[Images, Images]:
        """Pictures to calibrate or train with, at even places, and to evaluate with, at odd ones."""
        return self.every(0, 2), self.every(1, 2)

    def known_labels(self) -> Tensor:
        """The labels.

        Raises:
            DataError: if there are none.
        """
        if self.labels is None:
            name = next(path.name for path in self.paths if not _number(path.stem))
            raise DataError(f"{self.folder}: expected pictures named by class number, got {name}")
        return self.labels


def images(folder: Path | str, preprocessing: Preprocessing, *, classes: int | None = None) -> Images:
    """Find the pictures of a folder, in the order of their paths.

    Two layouts are known. In a flat folder a file's name is the number of its class ("0002.jpg"); where one
    is no number, the pictures have no labels. In a folder of class folders (ImageNet's) a picture's class is
    the place of its folder among the sorted names, or its number where all of them are numbers. Hidden files
    and folders do not count, nor do files without the ending of a picture.

    Args:
        folder: where to look.
        preprocessing: what the network wants.
        classes: how many classes the network knows; None takes any number.

    Raises:
        DataError: if the folder cannot be read, holds no picture or pictures in both layouts, or its classes
            are not `classes`.
    """
    root = Path(folder)
    try:
        entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
        flat = [path for path in entries if _is_picture(path)]
        folders = {path: _pictures_below(path) for path in entries if path.is_dir()}
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror}") from error
    if flat and any(folders.values()):
        raise DataError(f"{root}: expected pictures or folders of pictures, got both, such as {flat[0].name}")
    if flat:
        return Images(root, tuple(flat), _flat_labels(root, flat, classes), preprocessing)
    if not any(folders.values()):
        raise DataError(f"{root}: expected pictures ({', '.join(sorted(SUFFIXES))}), got none")
    numbers = _class_numbers(root, list(folders), classes)
    labels = [number for number, found in zip(numbers, folders.values(), strict=True) for _ in found]
    paths = tuple(path for found in folders.values() for path in found)
    return Images(root, paths, torch.tensor(labels), preprocessing)


def _flat_labels(root: Path, paths: list[Path], classes: int | None) -> Tensor | None:
    if not all(_number(path.stem) for path in paths):
        return None
    labels = [int(path.stem) for path in paths]
    _check_classes(root, paths, labels, classes)
    return torch.tensor(labels)


def _class_numbers(root: Path, folders: list[Path], classes: int | None) -> list[int]:
    if all(_number(path.name) for path in folders):
        numbers = [int(path.name) for path in folders]
        _check_classes(root, folders, numbers, classes)
        return numbers
    if classes is not None and len(folders) != classes:
        # Of some of ImageNet's classes the place among them says nothing.
        got = f"{len(folders)}; name the folders by class number to have fewer"
        raise DataError(f"{root}: expected {classes} class folders, got {got}")
    return list(range(len(folders)))


def _check_classes(root: Path, paths: list[Path], numbers: list[int], classes: int | None) -> None:
    most = (1 << 31) if classes is None else classes
    for path, number in zip(paths, numbers, strict=True):
        if number >= most:
            raise DataError(f"{path}: expected a class number of 0 to {most - 1}, got {number}")


def _number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) <= 18


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _pictures_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _is_picture(path))
