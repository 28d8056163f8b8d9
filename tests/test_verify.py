from pathlib import Path

import numpy as np
import pytest

from dwindle import Archive, dtypes
from dwindle.errors import VerificationError
from dwindle.file import write
from dwindle.records import Raw, Shared, Tied, to_storage
from dwindle.rounding import NORM, STATISTICS, round_significant
from dwindle.verify import distances

NAN, INF = float("nan"), float("inf")
SOURCE = Path("original.safetensors")


def raw(values, dtype="float32"):
    bits = (
        dtypes.from_float(np.asarray(values), dtype)
        if dtype in dtypes.SHAREABLE
        else np.asarray(values, dtypes.STORAGE[dtype])
    )
    return Raw(dtype, bits.shape, np.ascontiguousarray(bits).tobytes())


def shared(codebook, indices, shape, dtype="float32"):
    return Shared(dtype, shape, dtypes.from_float(np.array(codebook), dtype), np.array(indices, np.uint8))


@pytest.fixture
def compare(tmp_path):
    def compare(stored, original):
        path = tmp_path / "x.dwz"
        write(path, stored, force=True)
        with Archive(path) as archive:
            return {distance.name: distance for distance in distances(archive, original, SOURCE)}

    return compare


def test_equal_tensors_are_exact(compare):
    stored = {"w": raw([1.0, 2.0]), "n": raw(np.arange(4), "int64"), "t": Tied("w"), "z": raw(3.0)}
    stored["nan"] = raw([NAN, INF])
    stored["book"] = shared([1.0, 2.0], [0, 1, 1, 0], (2, 2))
    original = stored | {"t": raw([1.0, 2.0]), "book": raw([[1.0, 2.0], [2.0, 1.0]])}
    found = compare(stored, original)
    assert all(d.exact and (d.changed, d.largest, d.rms, d.snr_db) == (0, 0, 0, None) for d in found.values())
    assert found["z"].elements == 1


@pytest.mark.parametrize("dtype", dtypes.SHAREABLE)
def test_distances_are_those_of_an_oracle(compare, dtype):
    generator = np.random.default_rng(1)
    n = (1 << 20) + 1000 if dtype == "float32" else 5000
    codebook = np.linspace(-1, 1, 16)
    indices = generator.integers(0, 16, n)
    stored = shared(codebook, indices, (n,), dtype)
    original = raw(codebook[indices] + generator.normal(0, 0.01, n), dtype)
    found = compare({"w": stored}, {"w": original})["w"]
    was, now = (
        dtypes.to_float(to_storage(record), dtype).astype(np.float64) for record in (original, stored)
    )
    assert (found.exact, found.elements) == (False, n)
    assert found.changed == np.count_nonzero(was != now)
    assert found.largest == np.abs(was - now).max()
    assert found.rms == pytest.approx(np.sqrt(np.mean((was - now) ** 2)))
    assert found.snr_db == pytest.approx(10 * np.log10(np.sum(was**2) / np.sum((was - now) ** 2)))


def test_a_negative_zero_stored_as_zero_changes_a_bit_but_no_value(compare):
    found = compare({"w": shared([0.0], [0, 0], (2,))}, {"w": raw([0.0, -0.0])})["w"]
    assert (found.exact, found.changed, found.largest, found.snr_db) == (False, 1, 0.0, None)


def test_infinite_values_kept_beside_others_that_changed(compare):
    stored = shared([INF, 1.0], [0, 1, 1], (3,))
    found = compare({"w": stored}, {"w": raw([INF, 1.5, 1.0])})["w"]
    assert (found.changed, found.largest) == (1, 0.5)
    assert found.snr_db == pytest.approx(10 * np.log10(3.25 / 0.25))


@pytest.mark.parametrize(
    ("before", "after"), [(NAN, 2.0), (INF, 2.0), (1.0, NAN), (1.0, INF), (NAN, INF), (INF, NAN), (INF, -INF)]
)
def test_nan_and_infinity_that_changed_or_appeared_fail(compare, before, after):
    stored = shared([after, 5.0], [0, 1], (2,))
    with pytest.raises(
        VerificationError, match=r"w: expected NaN and infinite values exactly, got 1 changed"
    ):
        compare({"w": stored}, {"w": raw([before, 5.0])})


@pytest.mark.parametrize(
    ("original", "message"),
    [
        ({}, r"x\.dwz: expected no w; 1 names differ from original\.safetensors"),
        ({"w": raw([1.0]), "v": raw([1.0])}, "expected v, which is missing; 1 names differ"),
        ({"v": raw([1.0])}, "expected v, which is missing; 2 names differ"),
        ({"w": raw([[1.0]])}, r"w: expected shape \(1, 1\), got \(1,\)"),
        ({"w": raw(1.0)}, r"w: expected shape \(\), got \(1,\)"),
        ({"w": raw([1.0], "float16")}, "w: expected dtype float16, got float32"),
        ({"w": raw([1], "int32")}, "w: expected dtype int32, got float32"),
        ({"w": raw([1.5])}, "w: expected every bit, got 1 of 1 changed"),
    ],
)
def test_mismatches_fail(compare, original, message):
    with pytest.raises(VerificationError, match=message):
        compare({"w": raw([1.0])}, original)


def test_exact_tensors_must_be_equal_to_the_bit(compare):
    with pytest.raises(VerificationError, match="expected every bit, got 1 of 2 changed"):
        compare({"w": raw([0.0, 1.0])}, {"w": raw([-0.0, 1.0])})
    with pytest.raises(VerificationError, match="got 1 of 2 changed"):
        compare(
            {"w": raw(np.array([1j, 2], np.complex64), "complex64")},
            {"w": raw(np.array([1j, 3], np.complex64), "complex64")},
        )


def test_ties_are_compared_with_what_they_stand_for(compare):
    stored = {"a": raw([1.0]), "b": Tied("a")}
    assert compare(stored, {"a": raw([1.0]), "b": raw([1.0])})["b"].exact
    assert compare({"a": raw([1.0]), "b": raw([1.0])}, stored)["b"].exact
    with pytest.raises(VerificationError, match="b: expected every bit"):
        compare(stored, {"a": raw([1.0]), "b": raw([2.0])})


def test_empty_tensors_and_empty_archives(compare):
    assert compare({}, {}) == {}
    assert compare({"e": shared([], [], (0, 3))}, {"e": raw(np.zeros((0, 3)))})["e"].exact


def test_norms_with_coarse_statistics_are_no_damage(compare):
    random = np.random.default_rng(3)
    scale, shift, mean = (random.normal(size=50).astype(np.float32) for _ in range(3))
    variance = random.exponential(size=50).astype(np.float32)
    coarse = [round_significant(values, STATISTICS) for values in (mean, variance)]
    deviation = np.sqrt(variance + 1e-5)
    new = [
        round_significant(scale * np.sqrt(coarse[1] + np.float32(1e-5)) / deviation, 8),
        round_significant(shift + scale * (coarse[0] - mean) / deviation, 8),
    ]
    for path in ("bn.", ""):
        names = [path + part for part in NORM]
        before = dict(zip(names, map(raw, (scale, shift, mean, variance)), strict=True))
        after = dict(zip(names, map(raw, (*new, *coarse)), strict=True))
        found = compare(after, before)
        assert not any(distance.exact for distance in found.values())
        with pytest.raises(VerificationError, match="expected every bit"):
            compare(after | {names[1]: raw(new[1] + np.float32(0.2))}, before)
        with pytest.raises(VerificationError, match="expected every bit"):
            compare({names[2]: after[names[2]]}, {names[2]: before[names[2]]})
