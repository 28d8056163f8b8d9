"""Tensors of an ONNX model that lie in files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple

from dwindle import dtypes
from dwindle.atomic import writing
from dwindle.io import onnx_values
from dwindle.io.mapped import mapped
from dwindle.records import Raw, Record, resolve

if TYPE_CHECKING:
    from onnx import TensorProto

ALIGNMENT = 4096
"""Where tensors begin in a file that is written, so that each can be mapped."""


class Extent(NamedTuple):
    """A tensor in a file."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int


class Tensors(Mapping[str, Record]):
    """The tensors of a model; those in other files are mapped when they are asked for."""

    def __init__(self, tensors: Mapping[str, Raw | Extent]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Record:
        """A tensor.

        Raises:
            KeyError: if there is none of that name.
            CheckpointError: if its file is gone, or shorter than it was.
        """
        found = self._tensors[name]
        if isinstance(found, Raw):
            return found
        place = found.file, found.begin, found.end
        data = mapped(*place, dtypes.itemsize(found.dtype), f"tensor {name!r}")
        return Raw(found.dtype, found.shape, data)

    def __iter__(self) -> Iterator[str]:
        """Names in the order of the model."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._tensors)

    def outline(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of a tensor, without mapping it."""
        found = self._tensors[name]
        return found.dtype, found.shape


@dataclass
class Beside:
    """The files beside a model that its tensors may lie in.

    Attributes:
        model: the file of the model.
    """

    model: Path
    _sizes: dict[str, tuple[Path, int]] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """Those that were found to hold tensors."""
        return [file for file, _ in self._sizes.values()]

    def find(self, tensor: TensorProto) -> tuple[Path, int, int]:
        """The file a tensor lies in, and where it begins and ends there.

        Raises:
            ValueError: if that is not within a file in the model's folder.
        """
        if any(onnx_values.has(tensor, name) for name in onnx_values.FIELDS):
            raise ValueError("expected its elements in another file only, got some in the model too")
        said = {entry.key: entry.value for entry in tensor.external_data}
        file, size = self._file(said.get("location", ""))
        begin = _number(said, "offset", 0)
        length = _number(said, "length", max(size - begin, 0))
        if begin + length > size:
            raise ValueError(f"expected bytes {begin} to {begin + length} of {file}, got {size} bytes in all")
        return file, begin, begin + length

    def _file(self, location: Any) -> tuple[Path, int]:
        """A regular file in the folder of the model, links followed, and its size."""
        if location not in self._sizes:
            paths = PurePosixPath(str(location)), PureWindowsPath(str(location))
            climbs = any(path.is_absolute() or path.drive or ".." in path.parts for path in paths)
            if not isinstance(location, str) or not location or "\0" in location or climbs:
                raise ValueError(f"expected a file in the model's folder, got {str(location)[:80]!r}")
            file = self.model.parent / location
            try:
                real = file.resolve(strict=True)
                # Where the model is a link to a store of files, so are the files beside it.
                folders = self.model.parent.resolve(), self.model.resolve().parent
                if not any(real.is_relative_to(folder) for folder in folders):
                    raise ValueError(
                        f"expected a file in the model's folder, got a link from {location!r} out of it"
                    )
                if not real.is_file():
                    raise ValueError(f"expected a file at {location!r}, got something else")
                self._sizes[location] = real, real.stat().st_size
            except (OSError, RuntimeError) as error:
                reason = getattr(error, "strerror", None) or error
                raise ValueError(f"expected the file {location!r} beside the model: {reason}") from error
        return self._sizes[location]


def _number(said: Mapping[str, str], key: str, default: int) -> int:
    text = said.get(key)
    if text is None:
        return default
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"expected a whole number as {key}, got {str(text)[:40]!r}")
    return int(text)


def write(
    path: Path, records: Mapping[str, Record], tensors: Iterable[tuple[str, TensorProto]], *, force: bool
) -> None:
    """Write the elements of tensors to a file in the model's folder, and where they are to their messages.

    Args:
        path: the file.
        records: tensors by name, one at a time.
        tensors: the name and message of each to write.
        force: replace an existing file.

    Raises:
        OutputError: if the file cannot be written.
    """
    with writing(path, force=force) as stream:
        for name, tensor in tensors:
            data = onnx_values.as_bytes(resolve(records, name))
            stream.write(bytes(-stream.tell() % ALIGNMENT))
            begin = stream.tell()
            stream.write(data)
            onnx_values.clear(tensor)
            del tensor.external_data[:]
            tensor.data_location = tensor.EXTERNAL
            for key, value in (("location", path.name), ("offset", begin), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))


def names(model: Path) -> Iterator[Path]:
    """Names for the data of a model that is written: its own and .data, then a number between the two."""
    yield model.with_name(f"{model.name}.data")
    for number in count(1):
        yield model.with_name(f"{model.name}.{number}.data")
