import gzip
import importlib
import io
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dwindle import data
from dwindle.errors import DataError

room = importlib.import_module("dwindle.data.mnist")  # the package has a function of the same name

REPOSITORY = Path(__file__).parents[1] / "data" / "mnist"
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture
def folder(tmp_path):
    """A copy of the data set, to be damaged."""
    target = tmp_path / "copy" / "mnist"
    target.mkdir(parents=True)
    for name in FILES:
        (target / f"{name}.gz").write_bytes((REPOSITORY / f"{name}.gz").read_bytes())
    return target


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """An installed package: no variable, no source tree, an empty cache."""
    monkeypatch.delenv("DWINDLE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "source_tree", lambda: None)
    return tmp_path / "cache" / "dwindle" / "mnist"


class Mirrors:
    """Stands in for the network: what each URL answers, and which were asked."""

    def __init__(self, monkeypatch, answer):
        self.asked = []
        self.answer = answer
        monkeypatch.setattr(urllib.request, "urlopen", self.open)

    def open(self, url, timeout):
        self.asked.append(url)
        answer = self.answer(url)
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)


def served(url):
    return (REPOSITORY / url.rpartition("/")[2]).read_bytes()


def test_the_whole_set_from_the_repository(monkeypatch):
    monkeypatch.delenv("DWINDLE_DATA", raising=False)
    digits = data.mnist()
    assert digits.train_images.shape == (60000, 28, 28)
    assert digits.test_images.shape == (10000, 28, 28)
    assert digits.train_images.dtype == digits.test_images.dtype == torch.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == torch.int64
    assert digits.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert digits.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert torch.bincount(digits.test_labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    # The first row and column of every digit's frame are background; its middle is not.
    assert digits.test_images[:, 0].max() == 0
    assert digits.test_images[:, 14, 14].float().mean() > 50


def test_unpacked_files_are_read(folder):
    for name in FILES:
        packed = folder / f"{name}.gz"
        (folder / name).write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert torch.equal(data.mnist(folder).test_images, data.mnist(str(REPOSITORY)).test_images)


@pytest.mark.parametrize("name", FILES)
def test_explicit_folder_that_lacks_a_file(folder, name):
    (folder / f"{name}.gz").unlink()
    with pytest.raises(DataError, match=rf"{name}\.gz: expected this MNIST file.*got none"):
        data.mnist(folder)


def test_explicit_folder_that_is_none(tmp_path):
    with pytest.raises(DataError, match="got none"):
        data.mnist(tmp_path / "nowhere")


def test_file_cut_short(folder):
    path = folder / f"{FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: expected a whole gzip file"):
        data.mnist(folder)


def test_file_that_is_not_gzip(folder):
    (folder / f"{FILES[1]}.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: expected a whole gzip file"):
        data.mnist(folder)


def test_one_bit_wrong_in_an_unpacked_file(folder):
    packed = folder / f"{FILES[3]}.gz"
    content = bytearray(gzip.decompress(packed.read_bytes()))
    content[5000] ^= 1
    packed.unlink()
    (folder / FILES[3]).write_bytes(content)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte: expected MD5 27ae3e4e.* unpacked, got"):
        data.mnist(folder)


def test_sound_gzip_of_something_else(folder):
    (folder / f"{FILES[3]}.gz").write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(DataError, match="expected MD5 27ae3e4e"):
        data.mnist(folder)


def test_variable_comes_before_the_repository(folder, monkeypatch):
    monkeypatch.setenv("DWINDLE_DATA", str(folder.parent))
    (folder / f"{FILES[2]}.gz").unlink()
    with pytest.raises(DataError, match=r"copy.mnist.t10k-images-idx3-ubyte\.gz"):
        data.mnist()


def test_variable_without_an_mnist_folder_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("DWINDLE_DATA", str(tmp_path))
    assert len(data.mnist().test_labels) == 10000


def test_cache_is_filled_once(alone, monkeypatch):
    mirrors = Mirrors(monkeypatch, served)
    first = data.mnist()
    assert mirrors.asked == [f"{room.MIRRORS[0]}{name}.gz" for name in FILES]
    assert sorted(path.name for path in alone.iterdir()) == sorted(f"{name}.gz" for name in FILES)
    again = data.mnist()
    assert len(mirrors.asked) == 4
    assert torch.equal(first.train_labels, again.train_labels)


def test_a_mirror_that_fails_or_lies_is_passed_over(alone, monkeypatch):
    def answer(url):
        if url.startswith(room.MIRRORS[0]):
            return urllib.error.URLError("no route")
        return b"<html>" if url.startswith(room.MIRRORS[1]) else served(url)

    mirrors = Mirrors(monkeypatch, answer)
    assert len(data.mnist().train_labels) == 60000
    assert mirrors.asked[:3] == [f"{mirror}{FILES[0]}.gz" for mirror in room.MIRRORS]


def test_damaged_cache_is_mended(alone, monkeypatch):
    mirrors = Mirrors(monkeypatch, served)
    data.mnist()
    (alone / f"{FILES[1]}.gz").write_bytes(b"")
    data.mnist()
    assert mirrors.asked[4:] == [f"{room.MIRRORS[0]}{FILES[1]}.gz"]
    assert (alone / f"{FILES[1]}.gz").read_bytes() == (REPOSITORY / f"{FILES[1]}.gz").read_bytes()


def test_no_network(alone, monkeypatch):
    Mirrors(monkeypatch, lambda url: urllib.error.URLError("no route"))
    with pytest.raises(DataError, match=r"from one of 3 mirrors, got .*no route.*set DWINDLE_DATA") as caught:
        data.mnist()
    assert "\n" not in str(caught.value)
    assert not alone.exists()


def test_home_cache_without_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert room.cache_folder() == tmp_path / ".cache" / "dwindle" / "mnist"


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 2**32))
def test_split_is_a_partition(a, b, seed):
    held_out, count = sorted((a, b))
    train, held = data.split(count, held_out, seed=seed)
    assert (len(train), len(held)) == (count - held_out, held_out)
    assert torch.equal(torch.cat([train, held]).sort().values, torch.arange(count))
    assert torch.equal(held, data.split(count, held_out, seed=seed)[1])


def test_split_depends_on_the_seed():
    assert not torch.equal(data.split(60000, 5000, seed=0)[1], data.split(60000, 5000, seed=1)[1])


@pytest.mark.parametrize("held_out", [-1, 11])
def test_split_out_of_range(held_out):
    with pytest.raises(ValueError, match=f"expected held_out within 0 to 10, got {held_out}"):
        data.split(10, held_out)


def test_pixels():
    images = torch.tensor([[[0, 255], [51, 1]]], dtype=torch.uint8)
    x = data.pixels(images)
    assert x.shape == (1, 1, 2, 2)
    assert x.dtype == torch.float32
    assert x.flatten().tolist() == torch.tensor([0, 1, 0.2, 1 / 255]).tolist()
    assert images.flatten().tolist() == [0, 255, 51, 1]


def test_shift_moves_each_image_whole():
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(400, 7, 9, dtype=torch.uint8)
    images[:, 3, 4] = 200
    moved = data.shift(images, 2, generator)
    assert moved.dtype == torch.uint8
    where = moved.nonzero()
    assert where[:, 0].tolist() == list(range(400))
    assert sorted(set(map(tuple, where[:, 1:].tolist()))) == [
        (r, c) for r in range(1, 6) for c in range(2, 7)
    ]


def test_shift_fills_with_background():
    full = torch.ones(50, 4, 4, dtype=torch.uint8)
    moved = data.shift(full, 1, torch.Generator().manual_seed(0))
    assert set(moved.sum((1, 2)).tolist()) == {9, 12, 16}
    assert full.min() == 1


def test_shift_by_nothing_and_of_nothing():
    images = torch.ones(2, 3, 3)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert data.shift(images, 0, generator) is images
    assert torch.equal(generator.get_state(), before)
    assert data.shift(torch.zeros(0, 3, 3), 1, generator).shape == (0, 3, 3)
    with pytest.raises(ValueError, match="at least 0 pixels, got -1"):
        data.shift(images, -1, generator)
