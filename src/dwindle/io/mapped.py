"""Part of a file as a tensor's bytes: mapped, so that it takes no memory until it is read."""

from __future__ import annotations

import mmap
from pathlib import Path

from dwindle.errors import CheckpointError


def mapped(path: Path, begin: int, end: int, alignment: int, what: str) -> bytes | memoryview:
    """The bytes of a file from `begin` up to `end`.

    Args:
        path: the file; keep it unchanged while the bytes are in use.
        begin: the first byte.
        end: the byte after the last.
        alignment: copy the bytes where `begin` is no multiple of it.
        what: whose bytes they are, for the error.

    Raises:
        CheckpointError: if the file is gone, or shorter than it was.
    """
    if begin == end:
        return b""
    page = begin - begin % mmap.ALLOCATIONGRANULARITY
    try:
        with path.open("rb") as stream:
            found = mmap.mmap(stream.fileno(), end - page, offset=page, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {what}: expected it where it was: {error}") from error
    view = memoryview(found)[begin - page :]
    return view if begin % alignment == 0 else bytes(view)
