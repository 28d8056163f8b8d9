"""What general compressors make of tensors."""

import lzma
import zlib

import numpy as np
import zstandard

from dwindle.code.general import PART, estimate
from dwindle.records import Raw, Shared, Tied


def test_small_tensors_are_compressed_whole():
    data = np.arange(3000, dtype="<f4").tobytes()
    found = estimate({"a": Raw("float32", (3000,), data)})["a"]
    assert found == {
        "original": 12000,
        "zip": len(zlib.compress(data, 6)),
        "zstd": len(zstandard.ZstdCompressor(3).compress(data)),
        "xz": len(lzma.compress(data, preset=6)),
    }


def test_large_ones_are_judged_by_their_beginning():
    values = np.random.default_rng(0).integers(0, 1 << 32, 3 * PART // 4, np.uint32).view("<f4")
    found = estimate({"a": Raw("float32", (3 * PART // 4,), values.tobytes())})["a"]
    assert found["original"] == 3 * PART
    assert all(abs(found[kind] / found["original"] - 1) < 0.01 for kind in ("zip", "zstd", "xz"))


def test_shared_tensors_count_as_their_values_and_ties_and_nothing_are_left_out():
    shared = Shared("bfloat16", (50, 2), np.array([0, 0x3F80], "<u2"), np.tile([0, 1], 50).astype(np.uint8))
    found = estimate({"a": shared, "b": Tied("a"), "c": Raw("bool", (0,), b"")})
    assert list(found) == ["a"]
    assert found["a"]["original"] == 200
    assert found["a"]["zstd"] < 40
