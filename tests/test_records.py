"""Records refuse what cannot be a tensor, and compare and expand bit for bit."""

import numpy as np
import pytest

from dwindle import dtypes, records
from dwindle.records import Raw, Shared, Tied


def shared(codebook, indices, dtype="float32", shape=None) -> Shared:
    codebook = np.asarray(codebook, dtypes.STORAGE[dtype])
    indices = np.asarray(indices, records.index_dtype(len(codebook)))
    return Shared(dtype, (indices.size,) if shape is None else shape, codebook, indices)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
@pytest.mark.parametrize("dtype", dtypes.STORAGE)
def test_raw_expands_to_its_own_bytes(dtype, shape):
    count = int(np.prod(shape, dtype=int))
    data = np.random.default_rng(0).integers(0, 2, count * dtypes.itemsize(dtype), np.uint8).tobytes()
    record = Raw(dtype, shape, data)
    array = records.to_storage(record)
    assert array.shape == shape
    assert array.dtype == dtypes.STORAGE[dtype]
    assert array.tobytes() == data
    assert records.elements(record) == count
    assert records.nbytes(record) == len(data)


@pytest.mark.parametrize("size", [0, 7, 9])
def test_raw_of_wrong_length(size):
    with pytest.raises(ValueError, match=r"expected 8 bytes for float32\[2\]"):
        Raw("float32", (2,), bytes(size))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"dtype": "int8"}, "got int8"),
        ({"codebook": np.zeros(2, "<f8")}, "codebook"),
        ({"codebook": np.zeros((2, 1), "<f4")}, "codebook"),
        ({"codebook": np.zeros(65537, "<f4"), "indices": np.zeros(3, np.uint16)}, "at most 65536"),
        ({"indices": np.zeros(3, np.int64)}, "uint8"),
        ({"indices": np.zeros(3, np.uint16)}, "uint8"),
        ({"indices": np.zeros(2, np.uint8)}, "expected 3 indices"),
        ({"indices": np.zeros((3, 1), np.uint8)}, "expected 3 indices"),
        ({"indices": np.array([0, 1, 2], np.uint8)}, "indices under 2, got 2"),
        ({"codebook": np.zeros(0, "<f4")}, "indices under 0"),
    ],
)
def test_shared_that_is_not_consistent(fields, match):
    good = {
        "dtype": "float32",
        "shape": (3,),
        "codebook": np.zeros(2, "<f4"),
        "indices": np.zeros(3, np.uint8),
    }
    Shared(**good)
    with pytest.raises(ValueError, match=match):
        Shared(**(good | fields))


def test_index_width_follows_the_codebook():
    assert records.index_dtype(256) == np.uint8
    assert records.index_dtype(257) == np.uint16
    assert records.to_storage(shared(np.arange(257), [256, 0])).tolist() == [256.0, 0.0]


def test_shared_expands_to_its_shape():
    record = shared([1.0, -0.0], [0, 1, 1, 0, 0, 0], shape=(2, 3))
    assert records.to_storage(record).tobytes() == np.array([1, -0.0, -0.0, 1, 1, 1], "<f4").tobytes()
    assert records.to_storage(record).shape == (2, 3)
    assert records.to_storage(shared([5.0], [0], shape=())) == 5.0
    assert records.to_storage(shared([], [], shape=(4, 0))).shape == (4, 0)


@pytest.mark.parametrize(("entries", "dtype"), [(256, "float32"), (300, "float64"), (5, "bfloat16")])
def test_large_tensors_expand_entry_by_entry(entries, dtype):
    indices = np.random.default_rng(0).integers(0, entries, 600_001)
    record = shared(np.arange(entries), indices, dtype)
    np.testing.assert_array_equal(records.to_storage(record), record.codebook[indices])


def test_zero_entry_is_the_first_plus_zero_only():
    assert records.zero_entry(shared([1.0, -0.0, 0.0, 0.0], [0])) == 2
    assert records.zero_entry(shared([1.0, -0.0], [0])) is None
    assert records.zero_entry(shared([0x8000, 0], [0], "bfloat16")) == 1
    assert records.zero_entry(shared([], [])) is None


def test_same_sees_every_bit():
    nan = np.array([np.nan, 1], "<f4").tobytes()
    other = bytearray(nan)
    other[0] ^= 1
    assert records.same(Raw("float32", (2,), nan), Raw("float32", (2,), memoryview(nan)))
    assert not records.same(Raw("float32", (2,), nan), Raw("float32", (2,), bytes(other)))
    assert not records.same(Raw("float32", (2,), nan), Raw("float32", (2, 1), nan))
    assert not records.same(Raw("float32", (2,), nan), Raw("int32", (2,), nan))
    left = shared([0.0, np.nan], [0, 1])
    assert records.same(left, shared([0.0, np.nan], [0, 1]))
    assert not records.same(left, shared([-0.0, np.nan], [0, 1]))
    assert not records.same(left, shared([0.0, np.nan], [0, 0]))
    assert not records.same(left, Raw("float32", (2,), records.to_storage(left).tobytes()))
    assert records.same(Tied("a"), Tied("a"))
    assert not records.same(Tied("a"), Tied("b"))
    assert not records.same(Tied("a"), left)
    assert not records.same(left, Tied("a"))


def test_ties_are_followed_once_and_counted_once():
    owner = Raw("int8", (3,), b"abc")
    archive = {"a": owner, "b": Tied("a"), "c": Tied("b"), "d": shared([1.0], [0, 0])}
    assert records.resolve(archive, "a") is owner
    assert records.resolve(archive, "b") is owner
    with pytest.raises(ValueError, match="itself a tie"):
        records.resolve(archive, "c")
    assert records.original_bytes(archive) == 3 + 8
    assert records.original_bytes({}) == 0


@pytest.mark.parametrize("dtype", dtypes.SHAREABLE)
@pytest.mark.parametrize("shape", [(), (0,), (30, 40)])
def test_distinct_keeps_every_bit(dtype, shape):
    rng = np.random.default_rng(2)
    bits = rng.integers(0, 256, (int(np.prod(shape, dtype=int)), dtypes.itemsize(dtype)), np.uint8)
    bits[rng.random(len(bits)) < 0.8] = 0
    raw = Raw(dtype, shape, bits.tobytes())
    made = records.distinct(raw)
    assert isinstance(made, Shared)
    assert records.to_storage(made).tobytes() == raw.data
    assert len(made.codebook) <= 1 + np.count_nonzero(bits.any(axis=1))


def test_distinct_has_room_for_65535_survivors():
    values = np.arange(1 << 16, dtype="<f4")
    assert len(records.distinct(Raw("float32", values.shape, values.tobytes())).codebook) == 1 << 16
    more = values + 1
    assert records.distinct(Raw("float32", more.shape, more.tobytes())) is None


def test_bytes_are_compared_to_the_last_one_and_in_length():
    data = np.random.default_rng(0).bytes((1 << 18) + 3)
    for at in (0, (1 << 18) - 1, 1 << 18, (1 << 18) + 2):
        other = bytearray(data)
        other[at] ^= 1
        assert not records.same_bytes(data, memoryview(bytes(other)))
    assert records.same_bytes(memoryview(data), data)
    assert records.same_bytes(b"", memoryview(b""))
    assert not records.same_bytes(data, data[:-1])
    assert not records.same_bytes(data[: 1 << 18], data)
