"""Writing files so that a crash, a full disk or a second writer loses nothing."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dwindle.errors import OutputError


def check_output(path: Path, *, force: bool = False, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse an output before any work is done.

    Args:
        path: where the output will be written.
        force: replace an existing file.
        inputs: files that are being read; the output must be none of them, under any name.

    Raises:
        OutputError: if `path` is an input, a folder or a device, exists without `force`, or lies in no
            folder.
    """
    try:
        for source in inputs:
            if source.exists() and path.exists() and path.samefile(source):
                raise OutputError(f"{path}: expected an output other than the input, got the same file")
        if path.is_dir():
            raise OutputError(f"{path}: expected a file to write, got a folder")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: expected a file to write, got a device or a pipe")
        if os.path.lexists(path) and not force:
            raise occupied(path)
        if not path.parent.is_dir():
            raise OutputError(f"{path}: expected an existing folder, got {path.parent}, which is none")
    except OSError as error:  # a name too long, a folder that may not be searched
        raise unwritable(path, error) from error


@contextlib.contextmanager
def writing(path: Path, *, force: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place only when the block ends without an error.

    The bytes are synced before the rename, so that after a crash `path` holds either the old file or the
    whole new one. Without `force`, a file that appears at `path` meanwhile is kept; with it, the new file has
    the permissions of the old one, and a link is replaced, not what it leads to. Any OSError in the block
    counts as a failure to write.

    Raises:
        OutputError: if the file cannot be written: no such folder, no permission, no space, a folder at
            `path`, or, without `force`, a file.
    """
    temporary = temporary_for(path)
    try:
        # Created by a plain open, so that the umask decides its permissions as for any other file.
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if force:
            if path.is_file():
                with contextlib.suppress(OSError):  # some file systems have none
                    shutil.copymode(path, temporary)
            temporary.replace(path)
        else:
            move_to_free(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    except RuntimeError as error:
        # torch.save closes its archive after a failed write, fails again and hides the first failure.
        if isinstance(error.__context__, OSError):
            raise unwritable(path, error.__context__) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_for(path: Path) -> Path:
    """A hidden name beside `path` that nothing has yet."""
    return path.parent / f".{path.name[:20]}.{secrets.token_hex(8)}.tmp"


def is_temporary(name: str) -> bool:
    """Whether a name is one of those of `temporary_for`: what has it was left behind by a kill."""
    return re.fullmatch(r"\..*\.[0-9a-f]{16}\.tmp", name, re.DOTALL) is not None


def write_bytes(path: Path, data: bytes, *, force: bool = True) -> None:
    """Write a whole file through `writing`."""
    with writing(path, force=force) as stream:
        stream.write(data)


def move_to_free(temporary: Path, path: Path) -> None:
    """Move to where there is no file: a link fails if there is one, in one step with the check.

    The temporary file may stay under its old name too.

    Raises:
        OutputError: if there is a file.
        OSError: if it cannot be moved.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise occupied(path) from None
    except OSError:
        # Some file systems have no links (FAT, some network mounts): check and move are two steps there.
        if os.path.lexists(path):
            raise occupied(path) from None
        temporary.replace(path)


def occupied(path: Path) -> OutputError:
    """The refusal to replace what is at `path` already."""
    return OutputError(f"{path}: expected no file there, got one; --force (force=True) replaces it")


def unwritable(path: Path, error: OSError) -> OutputError:
    """The refusal that a failure to write at `path` becomes."""
    return OutputError(f"{path}: cannot be written: {error.strerror or error}")


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
