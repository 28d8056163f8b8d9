"""The section of values and the text of headers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle import dtypes
from dwindle.code import text, values
from dwindle.errors import CorruptError

quick = settings(max_examples=60, deadline=None)
RANDOM = np.random.default_rng(0)


@st.composite
def items(draw):
    found = []
    for _ in range(draw(st.integers(0, 6))):
        dtype, n = draw(st.sampled_from(sorted(dtypes.STORAGE))), draw(st.integers(0, 40))
        random = np.random.default_rng(draw(st.integers(0, 99)))
        data = random.bytes(n * dtypes.itemsize(dtype))
        if draw(st.booleans()):
            data = data[: dtypes.itemsize(dtype)] * n
        found.append((dtype, n, draw(st.sampled_from(["bias", "codebook", "x"])), data))
    return found


def back(found):
    outlines = [item[:3] for item in found]
    data = values.encode(found)
    assert values.decode(memoryview(data), outlines) == [item[3] for item in found]
    assert sum(values.spans(memoryview(data), outlines)) == (len(data) if found else 0)
    return data


@given(items())
@quick
def test_any_items_come_back(found):
    assert len(back(found)) <= sum(len(item[3]) for item in found) * 1.1 + 60 * len(found) + 8


def floats(array, group="bias"):
    array = np.asarray(array, "<f4")
    return "float32", len(array), group, array.tobytes()


@pytest.mark.parametrize(
    ("found", "most"),
    [
        ([floats(np.zeros(1000))], 20),
        ([floats(np.ones(500))] * 3, 30),
        ([floats(np.arange(-100, 100) * 0.25, "codebook")], 60),
        ([floats(np.float16(RANDOM.normal(size=900)))], 900 * 2.1),
        ([floats(np.sort(RANDOM.normal(size=256)), "codebook") for _ in range(8)], 8 * 256 * 2.8),
        ([floats(RANDOM.normal(size=4000))], 4000 * 3.4),
        ([("int64", 512, "position_ids", np.arange(512).tobytes())], 40),
        ([("int64", 1, "num_batches_tracked", (12345).to_bytes(8, "little"))] * 49, 40),
    ],
)
def test_what_is_regular_costs_little(found, most):
    assert len(back(found)) <= most


@given(st.binary(max_size=80), items())
@quick
def test_any_bytes_are_refused_or_decode(data, found):
    try:
        decoded = values.decode(memoryview(data), [item[:3] for item in found])
    except CorruptError:
        return
    assert [len(item) for item in decoded] == [len(item[3]) for item in found]


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="expected 2 elements"):
        values.encode([("float32", 2, "x", b"1234")])


@given(st.binary(max_size=400))
@quick
def test_any_text_comes_back(data):
    coded = text.encode(data)
    assert text.decode(memoryview(coded), len(data)) == data
    assert len(coded) <= len(data) + 1
    half = len(data) // 2
    assert sum(text.spans(memoryview(coded), [half, len(data) - half])) == len(coded)


def test_usual_names_cost_little():
    names = [f"layers.{i}.attention.{part}.weight" for i in range(12) for part in ("query", "key", "value")]
    data = "\n".join(names).encode()
    assert len(text.encode(data)) < 0.08 * len(data)
    assert len(text.encode(b"\x0afc1.weight\x08fc1.bias\x0afc2.weight\x08fc2.bias")) < 16


@given(st.binary(max_size=60), st.integers(0, 300))
@quick
def test_any_bytes_are_refused_or_text(data, size):
    try:
        assert len(text.decode(memoryview(data), size)) == size
    except CorruptError:
        return


def test_names_are_part_of_the_format():
    """The reference decoder has them too; golden files fail where they differ."""
    assert len(text.PRIMER) == 1918
