import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dwindle.data import PREPROCESSINGS, Preprocessing, image_examples, images
from dwindle.data import decode as decoding
from dwindle.data.decode import decode
from dwindle.errors import DataError

PLAIN = Preprocessing(mean=(0.0, 0.0, 0.0), short_side=8, crop=4)


def noise(height, width, seed=0, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array, mode=None, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **settings)
    return path


@pytest.fixture
def numbered(tmp_path):
    """Five pictures named by class, written in another order than that of their names."""
    for label in (8, 0, 4, 2, 6):
        save(tmp_path / f"{label:04}.png", noise(8, 10, label))
    (tmp_path / "README.txt").write_text("no picture")
    save(tmp_path / ".0003.png", noise(8, 8))
    return tmp_path


def test_a_flat_folder_is_in_order_and_labelled_by_name(numbered):
    found = images(numbered, PLAIN, classes=9)
    assert [path.name for path in found.paths] == ["0000.png", "0002.png", "0004.png", "0006.png", "0008.png"]
    assert found.labels.tolist() == [0, 2, 4, 6, 8]
    assert found.labels.dtype == torch.int64
    batches = list(found.batches(2))
    assert [len(x) for x, _ in batches] == [2, 2, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 2, 4, 6, 8]
    for at, x in enumerate(torch.cat([x for x, _ in batches])):
        expected = noise(8, 10, 2 * at)[2:6, 3:7].transpose(2, 0, 1)  # resizing has nothing to do
        assert x.dtype == torch.float32
        assert (x.numpy() == expected).all()


def test_the_halves_of_a_split_share_nothing(numbered):
    calibration, evaluation = images(numbered, PLAIN).split()
    assert calibration.labels.tolist() == [0, 4, 8]
    assert evaluation.labels.tolist() == [2, 6]
    assert not set(calibration.paths) & set(evaluation.paths)
    assert [path.stem for path in evaluation.paths] == ["0002", "0006"]


def test_pictures_are_decoded_when_asked_for(numbered):
    (numbered / "0008.png").write_bytes(b"no picture")
    batches = images(numbered, PLAIN).batches(2)
    assert len(next(batches)[0]) == len(next(batches)[0]) == 2
    with pytest.raises(
        DataError, match=r"0008\.png: expected a picture \(BMP, .*\), got: none that is known"
    ):
        next(batches)


def test_class_folders_are_numbered_by_place_or_by_name(tmp_path):
    for at, name in enumerate(("n02", "n01", "n10")):
        save(tmp_path / "names" / name / "deeper" / "x.JPEG", noise(8, 8, at))
        save(tmp_path / "names" / name / "a.png", noise(8, 8, at))
    (tmp_path / "names" / "n05").mkdir()  # a class without pictures keeps its number
    found = images(tmp_path / "names", PLAIN, classes=4)
    assert found.labels.tolist() == [0, 0, 1, 1, 3, 3]
    assert [path.parent.name for path in found.paths[:2]] == ["n01", "deeper"]
    with pytest.raises(
        DataError, match="names: expected 1000 class folders, got 4; name the folders by class"
    ):
        images(tmp_path / "names", PLAIN, classes=1000)
    for number in ("2", "10", "007"):
        save(tmp_path / "numbers" / number / "x.png", noise(8, 8))
    assert images(tmp_path / "numbers", PLAIN, classes=1000).labels.tolist() == [7, 10, 2]
    with pytest.raises(DataError, match=r"10: expected a class number of 0 to 9, got 10"):
        images(tmp_path / "numbers", PLAIN, classes=10)


def test_pictures_without_numbers_have_no_labels(numbered):
    save(numbered / "holiday.png", noise(8, 8))
    found = images(numbered, PLAIN)
    assert found.labels is None
    assert [labels for _, labels in found.batches()] == [None]
    assert found.split()[0].labels is None
    with pytest.raises(DataError, match=r"expected pictures named by class number, got holiday\.png"):
        found.known_labels()


def test_folders_that_are_no_data_set_are_refused(tmp_path, numbered):
    with pytest.raises(DataError, match="missing: cannot be read: No such file"):
        images(tmp_path / "missing", PLAIN)
    with pytest.raises(DataError, match=r"0008\.png: expected a class number of 0 to 7, got 8"):
        images(numbered, PLAIN, classes=8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: expected pictures \(\.bmp, .*\), got none"):
        images(tmp_path / "empty", PLAIN)
    save(numbered / "n01" / "x.png", noise(8, 8))
    with pytest.raises(DataError, match=r"expected pictures or folders of pictures, got both"):
        images(numbered, PLAIN)


def test_named_preprocessings():
    pixels = noise(256, 300)
    picture = Image.fromarray(pixels)
    cut = pixels[16:240, 38:262].astype(np.float64)
    lite = PREPROCESSINGS["efficientnet-lite"].apply(picture)
    assert (lite.numpy() == ((cut - 127) / 128).transpose(2, 0, 1)).all()
    torchvision = PREPROCESSINGS["torchvision"].apply(picture).numpy()
    expected = (cut / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(torchvision, expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)
    caffe = PREPROCESSINGS["caffe"].apply(picture).numpy()
    assert (caffe == (cut[:, :, ::-1] - [104, 117, 123]).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(30, 20), (20, 33), (6, 5)])
def test_the_short_side_is_resized_and_the_centre_cut_out(resample, height, width):
    how = Preprocessing(mean=(0.0, 0.0, 0.0), short_side=10, crop=7, resample=resample)
    picture = Image.fromarray(noise(height, width))
    size = (10, int(10 * height / width)) if width < height else (int(10 * width / height), 10)
    assert how.resized(width, height) == size
    whole = np.asarray(picture.resize(size, getattr(Image.Resampling, resample.upper())))
    top, left = (round((side - 7) / 2) for side in whole.shape[:2])
    expected = whole[top : top + 7, left : left + 7].transpose(2, 0, 1)
    assert (how.apply(picture).numpy() == expected).all()
    moved = how.apply(picture, right=-1, down=1, mirror=True).numpy()
    assert (moved == whole[top + 1 : top + 8, left - 1 : left + 6, :][:, ::-1].transpose(2, 0, 1)).all()
    corner = how.apply(picture, right=999, down=-999).numpy()
    assert (corner == whole[:7, -7:].transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 0}, "a crop of 1 to 256"),
        ({"crop": 257}, "a crop of 1 to 256"),
        ({"std": (1.0, 0.0, 1.0)}, "3 positive deviations"),
        ({"mean": (1.0,)}, "3 means"),
        ({"channels": "GBR"}, "one of RGB, BGR, got 'GBR'"),
        ({"white": 2}, "one of 1, 255, got 2"),
        ({"resample": "nearest"}, "one of bilinear, bicubic"),
    ],
)
def test_impossible_preprocessing_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{"mean": (0.0, 0.0, 0.0), **settings})


def test_random_crops_come_from_the_generator(numbered):
    found = images(numbered, PLAIN)
    places = torch.arange(5).repeat(8)
    first, again, other = (
        found.load(places, shift=2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    seen = set()
    for at, x in enumerate(first.numpy()):
        pixels = noise(8, 10, 2 * (at % 5)).astype(np.float32)
        where = [
            (right, down, mirror)
            for right in range(-2, 3)
            for down in range(-2, 3)
            for mirror in (1, -1)
            if (x == pixels[2 + down : 6 + down, 3 + right : 7 + right][:, ::mirror].transpose(2, 0, 1)).all()
        ]
        assert len(where) == 1
        seen |= set(where)
    assert {mirror for _, _, mirror in seen} == {1, -1}
    assert len({right for right, _, _ in seen}) == len({down for _, down, _ in seen}) == 5


def test_grey_palette_and_one_bit_pictures(tmp_path):
    grey = noise(5, 6, channels=1)
    for name, mode in (("grey.png", None), ("grey.jpg", None)):
        found = np.asarray(
            decode(save(tmp_path / name, grey, mode, **({"quality": 100} if "jpg" in name else {})))
        )
        assert found.shape == (5, 6, 3)
        assert (found == found[:, :, :1]).all()
        assert np.abs(found[:, :, 0].astype(int) - grey).max() <= (3 if "jpg" in name else 0)
    palette = Image.fromarray(noise(5, 6)).quantize(16)
    palette.save(tmp_path / "palette.png")
    assert (np.asarray(decode(tmp_path / "palette.png")) == np.asarray(palette.convert("RGB"))).all()
    bits = Image.fromarray((grey > 128) * np.uint8(255)).convert("1")
    bits.save(tmp_path / "bits.png")
    assert set(np.unique(np.asarray(decode(tmp_path / "bits.png")))) == {0, 255}


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_of_sixteen_bits_the_upper_eight_are_taken(tmp_path, suffix):
    deep = np.arange(0, 65536, 257, dtype=np.uint16)[:240].reshape(15, 16)
    Image.fromarray(deep).save(tmp_path / f"x.{suffix}")
    found = np.asarray(decode(tmp_path / f"x.{suffix}"))
    assert (found == (deep >> 8)[:, :, None]).all()


def test_numbers_that_are_no_brightness_are_refused(tmp_path):
    Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"f\.tif: expected brightness of 8 or 16 bits, got floating-point"):
        decode(tmp_path / "f.tif")
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(DataError, match=r"i\.tif: expected brightness of 8 or 16 bits, got 0 to 70000"):
        decode(tmp_path / "i.tif")


def test_cmyk_is_converted(tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, :, 0] = 255  # cyan alone
    Image.fromarray(ink, "CMYK").save(tmp_path / "x.jpg", quality=100)
    red, green, blue = np.asarray(decode(tmp_path / "x.jpg"))[4, 4].astype(int)
    assert red < 10
    assert min(green, blue) > 245


def test_transparent_pixels_lie_on_white(tmp_path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0] = (10, 20, 30, 255)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = np.asarray(decode(tmp_path / "x.png"))
    assert (found[0] == (10, 20, 30)).all()
    assert (found[1] == 255).all()
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=1)
    assert np.asarray(decode(tmp_path / "p.png")).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, orientation):
    pixels = noise(4, 6)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "x.png", pixels, exif=exif)
    assert (np.asarray(decode(tmp_path / "x.png")) == upright).all()


def test_every_file_cut_short_is_refused_by_name(tmp_path):
    for suffix in ("png", "jpg", "bmp", "tif", "webp", "gif", "ppm"):
        whole = save(tmp_path / f"whole.{suffix}", noise(40, 40)).read_bytes()
        assert np.asarray(decode(tmp_path / f"whole.{suffix}")).shape == (40, 40, 3)
        for length in range(0, len(whole) // 2, max(len(whole) // 40, 1)):
            (tmp_path / f"cut.{suffix}").write_bytes(whole[:length])
            with pytest.raises(DataError, match=rf"cut\.{suffix}: expected "):
                decode(tmp_path / f"cut.{suffix}")


def png_of_size(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [10_001, 100_000])
def test_decompression_bombs_are_refused_by_name(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_of_size(side, side))
    with pytest.raises(DataError, match=r"bomb\.png: expected at most 100000000 pixels, got"):
        decode(tmp_path / "bomb.png")


def test_a_picture_that_grows_too_large_by_resizing_is_refused(tmp_path):
    save(tmp_path / "0.png", np.zeros((1, 70_000), np.uint8))
    long = images(tmp_path, Preprocessing(mean=(0.0, 0.0, 0.0), short_side=64, crop=64))
    with pytest.raises(DataError, match=r"0\.png: expected at most 100000000 pixels, got 4480000 x 64"):
        long.load(torch.tensor([0]))


def test_formats_that_need_other_programs_are_not_tried(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(DataError, match=r"x\.png: expected a picture"):
        decode(tmp_path / "x.png")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"missing\.png: cannot be read: No such file"):
        decode(tmp_path / "missing.png")


def test_errors_of_ours_are_not_wrapped(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 20)
    with pytest.raises(DataError, match=r"^.*x\.png: expected at most 20 pixels, got 6 x 5$"):
        decode(save(tmp_path / "x.png", noise(5, 6)))


def test_examples_of_one_folder_are_split_by_place(numbered):
    data = image_examples(numbered, PLAIN, 9)
    assert data.train_labels.tolist() == [0, 4, 8]
    assert data.test_labels.tolist() == [2, 6]
    assert (data.prepare(data.test_inputs)[1].numpy() == noise(8, 10, 6)[2:6, 3:7].transpose(2, 0, 1)).all()
    still = data.augment(data.train_inputs, 0, torch.Generator())
    assert torch.equal(still, data.prepare(data.train_inputs))
    assert not torch.equal(data.augment(data.train_inputs, 2, torch.Generator().manual_seed(0)), still)


def test_examples_of_two_folders(tmp_path):
    for part, labels in (("train", (1, 2)), ("val", (3,))):
        for label in labels:
            save(tmp_path / part / f"{label}.png", noise(8, 8, label))
    data = image_examples(tmp_path, PLAIN, 4)
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([1, 2], [3])
    assert (data.prepare(data.test_inputs)[0].numpy() == noise(8, 8, 3)[2:6, 2:6].transpose(2, 0, 1)).all()
    for path in [*(tmp_path / "train").iterdir()]:
        path.unlink()
    (tmp_path / "train").rmdir()
    data = image_examples(tmp_path, PLAIN, 4)
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([], [3])


def test_one_picture_is_no_data_set_to_train_and_test_on(tmp_path):
    save(tmp_path / "0.png", noise(8, 8))
    with pytest.raises(DataError, match="expected at least 2 pictures, got 1"):
        image_examples(tmp_path, PLAIN)
    save(tmp_path / "x.png", noise(8, 8))
    with pytest.raises(DataError, match=r"named by class number, got x\.png"):
        image_examples(tmp_path, PLAIN)


SAMPLE = Path(os.environ.get("DWINDLE_DATA") or ".") / "imagenet-sample"


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs DWINDLE_DATA with imagenet-sample/, 500 photographs")
def test_a_folder_of_photographs():
    found = images(SAMPLE, PREPROCESSINGS["efficientnet-lite"], classes=1000)
    assert found.labels.tolist() == list(range(0, 1000, 2))
    for x, labels in found.every(0, 25).batches(8):
        assert x.shape == (len(labels), 3, 224, 224)
        levels = x * 128 + 127
        assert torch.equal(levels, levels.round().clamp(0, 255))
        assert (levels.flatten(1).std(1) > 10).all()
