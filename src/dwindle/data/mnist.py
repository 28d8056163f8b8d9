"""The MNIST digits: found, or fetched once, and checked by MD5 before anything is made of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from dwindle import atomic
from dwindle.checkout import source_tree
from dwindle.data.pixels import pixels
from dwindle.data.shift import shift as moved
from dwindle.errors import DataError

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://yann.lecun.com/exdb/mnist/",
)
"""Where the four gzip files are published, in the order they are tried."""

TIMEOUT = 30.0
"""Seconds a mirror may stay silent before the next one is tried."""


@dataclass(frozen=True)
class _File:
    name: str
    md5: str
    header: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.header + math.prod(self.shape)


_TRAIN_IMAGES = _File("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", 16, (60000, 28, 28))
_TRAIN_LABELS = _File("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", 8, (60000,))
_TEST_IMAGES = _File("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", 16, (10000, 28, 28))
_TEST_LABELS = _File("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", 8, (10000,))


@dataclass(frozen=True, eq=False)
class Mnist:
    """The data set in memory.

    Attributes:
        train_images: uint8, shape (60000, 28, 28), 0 is background.
        train_labels: int64, shape (60000,), 0 to 9.
        test_images: uint8, shape (10000, 28, 28).
        test_labels: int64, shape (10000,).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: ClassVar[int] = 10
    batch: ClassVar[int] = 1000
    noun: ClassVar[str] = "digits"

    @property
    def train_inputs(self) -> Tensor:
        """The training images."""
        return self.train_images

    @property
    def test_inputs(self) -> Tensor:
        """The test images."""
        return self.test_images

    def prepare(self, inputs: Tensor) -> Tensor:
        """Images as network input (`pixels`)."""
        return pixels(inputs)

    def augment(self, inputs: Tensor, shift: int, generator: torch.Generator) -> Tensor:
        """Images as network input, each moved by up to `shift` pixels."""
        return pixels(moved(inputs, shift, generator))


def mnist(root: Path | str | None = None) -> Mnist:
    """Load MNIST from the first of these places, as gzip or unpacked IDX files.

    1. `root`, if given; 2. `$DWINDLE_DATA/mnist`, if that folder exists; 3. `data/mnist` of the repository
    this package is a source tree of; 4. `dwindle/mnist` in the user's cache (`$XDG_CACHE_HOME`, else
    `~/.cache`), into which files that are missing or damaged are downloaded.

    Args:
        root: the folder that holds the four files. Nothing else is looked at then.

    Raises:
        DataError: if a file is missing, damaged (its unpacked MD5 is wrong), or cannot be downloaded.
    """
    folder = Path(root) if root is not None else _installed_folder()
    cache = folder is None
    if folder is None:
        folder = cache_folder()
    files = (_TRAIN_IMAGES, _TRAIN_LABELS, _TEST_IMAGES, _TEST_LABELS)
    contents = [_fetch(folder, file) if cache else _read(folder, file) for file in files]
    arrays = [_array(data, file) for data, file in zip(contents, files, strict=True)]
    return Mnist(arrays[0], arrays[1].long(), arrays[2], arrays[3].long())


def cache_folder() -> Path:
    """The folder downloads are kept in."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dwindle" / "mnist"


def _installed_folder() -> Path | None:
    variable = os.environ.get("DWINDLE_DATA")
    if variable and (Path(variable) / "mnist").is_dir():
        return Path(variable) / "mnist"
    repository = source_tree()
    if repository is not None and (repository / "data" / "mnist").is_dir():
        return repository / "data" / "mnist"
    return None


def _read(folder: Path, file: _File) -> bytes:
    """The unpacked bytes of one file of `folder`, checked."""
    packed, plain = folder / f"{file.name}.gz", folder / file.name
    path = packed if packed.is_file() else plain
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{packed}: expected this MNIST file, gzip or unpacked, got none") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return _checked(_unpacked(data, file, str(path)) if path is packed else data, file, str(path))


def _fetch(folder: Path, file: _File) -> bytes:
    """The unpacked bytes of one file of the cache, downloaded first unless a sound copy is there."""
    try:
        return _read(folder, file)
    except DataError:
        packed, data = _download(file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: the MNIST cache cannot be made: {error.strerror}") from error
    atomic.write_bytes(folder / f"{file.name}.gz", packed)
    return data


def _download(file: _File) -> tuple[bytes, bytes]:
    """The gzip file from the first mirror that has it intact, and what it unpacks to."""
    failures = []
    for mirror in MIRRORS:
        url = f"{mirror}{file.name}.gz"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 (https only, see MIRRORS)
                packed: bytes = answer.read(file.nbytes)
            return packed, _checked(_unpacked(packed, file, url), file, url)
        except DataError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{url}: {getattr(error, 'reason', None) or error}")
    raise DataError(
        f"{file.name}: expected it from one of {len(MIRRORS)} mirrors, got {'; '.join(failures)}; "
        "set DWINDLE_DATA to a folder with mnist/ in it to work offline"
    )


def _unpacked(packed: bytes, file: _File, where: str) -> bytes:
    """Gunzip, stopping one byte after the right size so that a hostile file costs no memory."""
    try:
        with gzip.open(io.BytesIO(packed)) as stream:
            return stream.read(file.nbytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where}: expected a whole gzip file, got damage: {error}") from error


def _checked(data: bytes, file: _File, where: str) -> bytes:
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != file.md5:
        raise DataError(f"{where}: expected MD5 {file.md5} unpacked, got {found}")
    return data


def _array(data: bytes, file: _File) -> Tensor:
    # The MD5 is known to be right, so the IDX header (magic number and sizes) holds nothing left to learn.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=file.header).reshape(file.shape)
