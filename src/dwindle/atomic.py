"""Writing files so that a crash, a full disk or a second writer loses nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dwindle.errors import OutputError


def check_output(path: Path, *, force: bool = False, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse an output before any work is done.

    Args:
        path: where the output will be written.
        force: replace an existing file.
        inputs: files that are being read; the output must be none of them.

    Raises:
        OutputError: if `path` is an input, a folder, exists without `force`, or its folder cannot be written.
    """
    for source in inputs:
        if source.exists() and path.exists() and path.samefile(source):
            raise OutputError(f"{path}: expected an output other than the input, got the same file")
    if path.is_dir():
        raise OutputError(f"{path}: expected a file to write, got a folder")
    if path.exists() and not force:
        raise OutputError(f"{path}: expected no file there, got one; --force (force=True) replaces it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: expected an existing folder, got {path.parent}, which is none")


@contextlib.contextmanager
def writing(path: Path, *, force: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place only when the block ends without an error.

    The bytes are synced before the rename, so that after a crash `path` holds either the old file or the
    whole new one. Without `force`, a file that appears at `path` meanwhile is kept.

    Raises:
        OutputError: if the file cannot be written: no such folder, no permission, no space.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    temporary = Path(name)
    try:
        os.close(handle)
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        if force:
            temporary.replace(path)
        else:
            os.link(temporary, path)
            temporary.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise OutputError(
                f"{path}: expected no file there, got one; --force (force=True) replaces it"
            ) from error
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or errno.errorcode.get(error.errno or 0)}"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes, *, force: bool = True) -> None:
    """Write a whole file through `writing`."""
    with writing(path, force=force) as stream:
        stream.write(data)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
