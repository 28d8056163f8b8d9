"""A folder of files that belong together: a kill or a full disk leaves the old ones or the new, no mixture.

The files are written to a hidden folder first. What follows depends on what there is at the path:

- nothing: the hidden folder, which lies beside it, is renamed;
- a folder without files of the kind: they are moved into it, and the one that lists them goes first, so that
  until the last one is there, the list names one that is missing;
- a folder with files of the kind: links to its other files are added to the hidden folder, which lies beside
  it, and the two change places in one step. Where the system has no such step there are two, and a kill
  between them leaves the old folder under a hidden name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from dwindle import atomic
from dwindle.errors import OutputError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def check(path: Path, *, ours: Callable[[str], bool], force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse a folder before any work is done.

    Args:
        path: the folder to write, which need not exist.
        ours: whether a name is that of a file of the kind, which takes `force` to replace.
        force: replace such files.
        inputs: files that are being read; none of them may be replaced.

    Raises:
        OutputError: if there is a file at `path`, its parent is no folder, it has files of the kind and they
            may not be replaced: without `force`, where one is an input, where there are other folders in it,
            or where it is the current one.
    """
    try:
        if not path.is_dir():
            if os.path.lexists(path):
                raise OutputError(f"{path}: expected a folder to write to, got a file")
            if not path.parent.is_dir():
                raise OutputError(f"{path}: expected an existing folder, got {path.parent}, which is none")
            return
        found = sorted(entry.name for entry in path.iterdir() if ours(entry.name))
        if not found:
            return
        if not force:
            raise OutputError(
                f"{path}: expected a folder without {found[0]}; --force (force=True) replaces such files"
            )
        for source in inputs:
            if ours(source.name) and source.parent.samefile(path):
                raise OutputError(f"{path}: expected a folder without {source.name}, which is still needed")
        # The whole folder changes places with a new one, to which only files can be linked.
        inner = sorted(e.name for e in path.iterdir() if _is_inner(e) and not atomic.is_temporary(e.name))
        if inner:
            raise OutputError(f"{path}: expected no folder beside files to replace, got {inner[0]}")
        if path.samefile(Path.cwd()):
            raise OutputError(f"{path}: expected another folder than the current one to replace files in")
    except OSError as error:
        raise atomic.unwritable(path, error) from error


@contextlib.contextmanager
def writing(
    path: Path, *, ours: Callable[[str], bool], guard: str, keep: bool, force: bool
) -> Iterator[Path]:
    """Give a hidden folder whose files take their places in `path` only when the block ends without an error.

    All are synced before. Any OSError in the block counts as a failure to write.

    Args:
        path: the folder to write; what it holds besides files of the kind stays.
        ours: see `check`.
        guard: the name of the file that lists the others; the block must write it.
        keep: whether it stays once all files are there.
        force: replace the files of the kind that are there.

    Raises:
        OutputError: see `check`; or if the folder cannot be written.
    """
    check(path, ours=ours, force=force)
    try:
        target = path.resolve() if path.is_dir() else path
        old = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else []
        replacing = force and any(map(ours, old))
        adding = target.is_dir() and not replacing
        temporary = atomic.temporary_for(target / target.name if adding else target)
        temporary.mkdir()
        try:
            yield temporary
            _sync(temporary)
            if adding:
                _move_into(target, temporary, guard, keep)
            else:
                if not keep:
                    (temporary / guard).unlink()
                if replacing:
                    # The only folders in it are those that a kill left behind.
                    others = [n for n in old if not ours(n) and not _is_inner(target / n)]
                    _replace(target, temporary, others)
                else:
                    temporary.rename(target)
                atomic.sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if replacing:
            _remove(temporary, old)
    except OSError as error:
        raise atomic.unwritable(path, error) from error


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("r+b") as stream:
            os.fsync(stream.fileno())
    atomic.sync_folder(folder)


def _move_into(target: Path, temporary: Path, guard: str, keep: bool) -> None:
    """Move all files to a folder that has none of their names, the guard first."""
    names = [guard, *sorted(file.name for file in temporary.iterdir() if file.name != guard)]
    moved: list[Path] = []
    try:
        for name in names:
            atomic.move_to_free(temporary / name, target / name)
            moved.append(target / name)
            if name == guard:
                atomic.sync_folder(target)
        atomic.sync_folder(target)
    except Exception:
        for file in reversed(moved):
            file.unlink()
        raise
    if not keep:
        (target / guard).unlink()
    shutil.rmtree(temporary, ignore_errors=True)


def _replace(target: Path, temporary: Path, others: list[str]) -> None:
    """Let the two folders change places; `others`, files of the old one, are in the new one too."""
    for name in others:
        try:
            os.link(target / name, temporary / name, follow_symlinks=False)
        except OSError:  # some file systems have no links
            shutil.copy2(target / name, temporary / name, follow_symlinks=False)
    shutil.copymode(target, temporary)
    atomic.sync_folder(temporary)
    if not _exchange(target, temporary):
        aside = atomic.temporary_for(target)
        target.rename(aside)
        try:
            temporary.rename(target)
        except OSError:
            aside.rename(target)
            raise
        aside.rename(temporary)


def _exchange(left: Path, right: Path) -> bool:
    """Let two folders change places in one step, where the system can."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    places = _AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right)
    return int(libc.renameat2(*places, _RENAME_EXCHANGE)) == 0


def _remove(folder: Path, names: list[str]) -> None:
    """Remove the replaced folder, unless something was added to it meanwhile."""
    with contextlib.suppress(OSError):
        for name in names:
            if _is_inner(folder / name):  # left behind by a kill, or it would have been refused
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink()
        folder.rmdir()


def _is_inner(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
