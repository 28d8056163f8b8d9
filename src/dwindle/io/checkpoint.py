"""Reading and writing checkpoints of every format the project knows, chosen by content and suffix."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dwindle.atomic import check_output, unwritable
from dwindle.errors import CheckpointError, CorruptError, OutputError
from dwindle.io import net_file, npz_file, onnx_file, safetensors_file, shard_layout, shards
from dwindle.io.contents import Checkpoint
from dwindle.records import Record

__all__ = ["Checkpoint", "is_folder", "read_checkpoint", "write_checkpoint"]

SHARD_SIZE = 5_000_000_000
"""Bytes of tensors in a shard unless told otherwise."""

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

_DWZ_MAGIC = b"\x89DWZ"
_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"
_FORMATS = {
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".onnx": "onnx",
    ".net": "net",
    **dict.fromkeys(TORCH_SUFFIXES, "torch"),
}


def read_checkpoint(path: Path | str, *, key: str | None = None, layers: Path | None = None) -> Checkpoint:
    """Read a checkpoint: a .safetensors, torch, .npz, .onnx or .net file, or a folder of safetensors shards.

    The content decides what a file is, and only where it does not tell, the suffix. Nothing stored in a file
    is ever executed, and sizes are checked before anything is allocated. Records of safetensors and torch
    files, and those that an ONNX model keeps in other files, view the mapped file: keep it unchanged while
    they are in use.

    Args:
        path: the file or folder.
        key: for torch checkpoints, the dotted path to a nested state dict.
        layers: for .net files, the network's prototxt.

    Raises:
        CheckpointError: if there is no such file, it is damaged, compressed already (a .dwz) or of an unknown
            format, or a tensor in it has an unknown dtype.
        UnsafeCheckpointError: if it only loads by running code stored inside it (a pickle).
    """
    path = Path(path)
    try:
        format_ = "shards" if path.is_dir() else _format(path)
        if key is not None and format_ != "torch":
            raise CheckpointError(f"{path}: expected no key, since only torch checkpoints nest, got {key!r}")
        if (format_ == "net") != (layers is not None):
            raise CheckpointError(
                f"{path}: expected --layers PROTOTXT (layers=) with a .net file, and only there"
            )
        if format_ == "net" and layers is not None:
            checkpoint = net_file.read(path, layers)
        elif format_ == "shards":
            checkpoint = shards.read(path)
        elif format_ == "safetensors":
            checkpoint = safetensors_file.read(path)
        elif format_ == "npz":
            checkpoint = npz_file.read(path)
        elif format_ == "onnx":
            checkpoint = onnx_file.read(path)
        else:
            checkpoint = _read_torch(path, key)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"{path}: expected a checkpoint that can be read, got: {reason}") from error
    _check_names(path, checkpoint)
    files = checkpoint.files or ((path,) if layers is None else (path, layers))
    return replace(checkpoint, files=files)


def write_checkpoint(
    path: Path | str,
    records: Mapping[str, Record],
    metadata: Mapping[str, str] | None = None,
    *,
    extras: Mapping[str, bytes] | None = None,
    shard_size: int | None = None,
    source: Path | str = "extras",
    force: bool = False,
) -> list[Path]:
    """Write records as a checkpoint, the format chosen by the suffix; `Shared` records are expanded.

    A folder (`is_folder`) becomes safetensors shards and their index: those the extras tell of, or, without
    them or with `shard_size`, shards of that size.

    Args:
        path: ends in .safetensors, .npz, .pt, .pth, .bin, .ckpt, .onnx or .net, or is a folder.
        records: the tensors. Ties stay ties in torch checkpoints and are written twice in the others.
        metadata: text pairs; only safetensors has a place for them.
        extras: what else it takes to write the file the records come from again, as `read_checkpoint` or an
            archive gives them.
        shard_size: most bytes of tensors in a shard; one that is larger has a shard of its own.
        source: where the extras come from, for errors.
        force: replace an existing file, or the shards of an existing folder.

    Returns:
        The files that were written.

    Raises:
        CheckpointError: if a tensor's dtype or name has no form in the format, or there is no graph for an
            ONNX model.
        CorruptError: if the extras say what cannot be.
        OutputError: if the suffix is unknown, the file exists (without `force`) or cannot be written.
    """
    if is_folder(path, shard_size):
        layout = _layout(records, metadata or {}, extras or {}, shard_size, Path(source))
        return shards.write(Path(path), records, layout, force=force)
    path = Path(path)
    format_ = _FORMATS.get(path.suffix.lower())
    if format_ is None:
        known = f"{', '.join(_FORMATS)}, or in / for a folder of shards"
        raise OutputError(f"{path}: expected a name that ends in {known}, got {path.name!r}")
    check_output(path, force=force)
    if format_ == "safetensors":
        safetensors_file.write(path, records, metadata or {}, force=force)
    elif format_ == "npz":
        npz_file.write(path, records, force=force)
    elif format_ == "net":
        net_file.write(path, records, force=force)
    elif format_ == "onnx":
        graph = (extras or {}).get(onnx_file.EXTRA)
        if graph is None:
            raise CheckpointError(
                f"{path}: expected a file made from an ONNX model, which alone has its graph, got {source}"
            )
        return onnx_file.write(path, records, graph, Path(source), force=force)
    else:
        _write_torch(path, records, force=force)
    return [path]


def is_folder(path: Path | str, shard_size: int | None = None) -> bool:
    """Whether an output is a folder of shards.

    It is if it is a folder already, ends in a slash, has no suffix, or if shards of a size are asked for.

    Raises:
        OutputError: if shards are asked for under the name of a file of tensors.
    """
    try:
        if str(path).endswith(("/", os.sep)) or Path(path).is_dir():
            return True
    except OSError as error:  # a name too long, a folder that may not be searched
        raise unwritable(Path(path), error) from error
    if shard_size is not None and Path(path).suffix.lower() in _FORMATS:
        raise OutputError(f"{path}: expected a folder for shards, got the name of a file")
    return shard_size is not None or not Path(path).suffix


def _layout(
    records: Mapping[str, Record],
    metadata: Mapping[str, str],
    extras: Mapping[str, bytes],
    size: int | None,
    source: Path,
) -> shard_layout.Layout:
    """Which tensors go to which shard."""
    if size is not None or shard_layout.EXTRA not in extras:
        return shard_layout.by_size(records, SHARD_SIZE if size is None else size, metadata)
    try:
        return shard_layout.from_bytes(extras[shard_layout.EXTRA], metadata, len(records))
    except CorruptError as error:
        raise CorruptError(f"{source}: {error}") from error


def _format(path: Path) -> str:
    """Which reader a file needs."""
    with path.open("rb") as stream:
        head = stream.read(9)
    if path.suffix.lower() == ".net":  # which has no magic of its own
        return "net"
    if head.startswith(_DWZ_MAGIC):
        raise CheckpointError(f"{path}: expected a checkpoint, got a .dwz file, which is compressed already")
    if safetensors_file.looks_like(head):
        return "safetensors"
    if head.startswith(_ZIP_MAGIC):
        format_ = _zip_format(path)
        if format_ is not None:
            return format_
    if head.startswith(_PICKLE_MAGIC):
        return "torch"
    if onnx_file.looks_like(head):
        return "onnx"
    format_ = _FORMATS.get(path.suffix.lower())
    if format_ is None:
        raise CheckpointError(
            f"{path}: expected {', '.join(_FORMATS)} or a folder of shards, got a file of unknown format"
        )
    return format_


def _zip_format(path: Path) -> str | None:
    """Which of the two formats that are zip archives, where the archive can tell."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    return "npz" if any(name.endswith(".npy") for name in names) else None


def _read_torch(path: Path, key: str | None) -> Checkpoint:
    try:
        from dwindle.io import torch_file
    except ImportError as error:
        raise CheckpointError(f"{path}: expected torch to be installed, which reads this format") from error
    return torch_file.read(path, key)


def _write_torch(path: Path, records: Mapping[str, Record], *, force: bool) -> None:
    try:
        from dwindle.io import torch_file
    except ImportError as error:
        raise CheckpointError(f"{path}: expected torch to be installed, which writes this format") from error
    torch_file.write(path, records, force=force)


def _check_names(path: Path, checkpoint: Checkpoint) -> None:
    for name in checkpoint.records:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise CheckpointError(
                f"{path}: tensor {name!r}: expected a name that is valid Unicode"
            ) from error
