"""An output file is either the old one or the whole new one, and every refusal is one line that names it."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dwindle.atomic import check_output, write_bytes, writing
from dwindle.errors import OutputError


def one_line(error: pytest.ExceptionInfo[OutputError], path: Path) -> None:
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text


def test_writes_the_whole_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.bin"
    with writing(path) as stream:
        stream.write(b"ab")
        assert not path.exists()
        stream.write(b"cd")
    assert path.read_bytes() == b"abcd"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("x"), KeyboardInterrupt(), OSError(28, "No space left on device")]
)
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_error_in_the_block_keeps_the_old_file_and_leaves_no_temporary(tmp_path, error, old):
    path = tmp_path / "out.bin"
    if old is not None:
        path.write_bytes(old)
    expected = OutputError if isinstance(error, OSError) else type(error)

    def write():
        with writing(path) as stream:
            stream.write(b"new" * 100_000)
            raise error

    with pytest.raises(expected):
        write()
    assert list(tmp_path.iterdir()) == ([] if old is None else [path])
    if old is not None:
        assert path.read_bytes() == old


def test_a_kill_in_the_block_keeps_the_old_file(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    code = (
        "import os, signal, sys; from pathlib import Path; from dwindle.atomic import writing\n"
        "with writing(Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'new' * 100_000); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_an_output_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from dwindle.atomic import write_bytes; from dwindle.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_bytes(Path(sys.argv[1]), bytes(100_000))\n"
        "except OutputError as error: print(error); sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert str(path) in done.stdout
    assert done.stdout.count("\n") == 1
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# Tests may run as root, whom no permission stops: these places cannot be written by anyone.
UNWRITABLE = {
    "no such folder": lambda tmp: tmp / "none" / "out.bin",
    "under a file": lambda tmp: tmp / "file" / "out.bin",
    "a folder": lambda tmp: tmp / "folder",
    "name too long": lambda tmp: tmp / ("n" * 300),
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("place", UNWRITABLE)
def test_unwritable_places(tmp_path, place, force):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    path = UNWRITABLE[place](tmp_path)
    with pytest.raises(OutputError) as error:
        check_output(path, force=force)
    one_line(error, path)
    with pytest.raises(OutputError) as error:
        write_bytes(path, b"new", force=force)
    one_line(error, path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("é" * 127)
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_an_existing_file_is_kept_unless_forced(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="--force") as error:
        check_output(path)
    one_line(error, path)
    with pytest.raises(OutputError, match="--force") as error:
        write_bytes(path, b"new", force=False)
    one_line(error, path)
    assert path.read_bytes() == b"old"
    check_output(path, force=True)
    write_bytes(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_during_the_block_is_kept_without_force(tmp_path):
    path = tmp_path / "out.bin"
    check_output(path)

    def write():
        with writing(path, force=False) as stream:
            stream.write(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(OutputError, match="--force"):
        write()
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_file_system_without_links(tmp_path, monkeypatch, old):
    def no_link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    path = tmp_path / "out.bin"
    if old is None:
        write_bytes(path, b"new", force=False)
        assert path.read_bytes() == b"new"
    else:
        path.write_bytes(old)
        with pytest.raises(OutputError, match="--force"):
            write_bytes(path, b"new", force=False)
        assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("alias", ["itself", "symlink", "hardlink", "detour"])
def test_the_input_is_refused_as_output_under_any_name(tmp_path, alias):
    source = tmp_path / "in.bin"
    source.write_bytes(b"in")
    path = {"itself": source, "detour": tmp_path / "x" / ".." / "in.bin"}.get(alias, tmp_path / "alias")
    (tmp_path / "x").mkdir()
    if alias == "symlink":
        path.symlink_to(source)
    if alias == "hardlink":
        path.hardlink_to(source)
    with pytest.raises(OutputError, match="same file") as error:
        check_output(path, force=True, inputs=(tmp_path / "other", source))
    one_line(error, path)
    check_output(path, force=True, inputs=(tmp_path / "other",))


def test_a_dangling_link_counts_as_existing(tmp_path):
    path = tmp_path / "out.bin"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="--force"):
        check_output(path)
    with pytest.raises(OutputError, match="--force"):
        write_bytes(path, b"new", force=False)
    write_bytes(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path, mask):
    old = os.umask(mask)
    try:
        write_bytes(tmp_path / "out.bin", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out.bin").stat().st_mode) == 0o666 & ~mask


def test_a_relative_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_output(Path("out.bin"))
    write_bytes(Path("out.bin"), b"new", force=False)
    assert (tmp_path / "out.bin").read_bytes() == b"new"


def test_a_file_that_is_replaced_leaves_its_permissions(tmp_path):
    path = tmp_path / "x"
    write_bytes(path, b"old")
    path.chmod(0o600)
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_devices_and_pipes_are_no_outputs(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="a device or a pipe") as error:
        check_output(tmp_path / "pipe", force=True)
    one_line(error, tmp_path / "pipe")
