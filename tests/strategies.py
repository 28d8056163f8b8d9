"""Hypothesis strategies for records, and plain makers of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dwindle import dtypes
from dwindle.code.plan import CODERS, Coding
from dwindle.records import Raw, Record, Shared, Tied, index_dtype

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)
names = st.one_of(
    st.sampled_from(["fc1.weight", "fc1.bias", "fc2.weight", "größe", "重み", "a\nb", ""]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name[:1] != "\0"),
)
metadata = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), names, max_size=3)
codings = st.builds(
    Coding,
    coder=st.sampled_from(CODERS),
    gap_bits=st.one_of(st.none(), st.integers(1, 16)),
    dictionary=st.sampled_from(["layer", "network"]),
)


@st.composite
def raws(draw: Any) -> Raw:
    """Exact tensors of every dtype."""
    dtype, shape = draw(st.sampled_from(sorted(dtypes.STORAGE))), draw(shapes)
    size = math.prod(shape) * dtypes.itemsize(dtype)
    return Raw(dtype, shape, np.random.default_rng(draw(st.integers(0, 99))).bytes(size))


@st.composite
def shareds(draw: Any) -> Shared:
    """Codebooks with and without zeros, repeats, NaN and unused entries; any share of zeros; trellises."""
    dtype, shape = draw(st.sampled_from(dtypes.SHAREABLE)), draw(shapes)
    if draw(st.integers(0, 4)) == 0:
        return on_trellis(shape, draw(st.integers(1, 40)), seed=draw(st.integers(0, 99)), dtype=dtype)
    entries = draw(st.sampled_from([1, 2, 3, 5, 16, 32, 255, 256, 257, 700]))
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    storage = dtypes.STORAGE[dtype]
    codebook = np.frombuffer(random.bytes(entries * storage.itemsize), storage).copy()
    zero = draw(st.one_of(st.none(), st.integers(0, entries - 1)))
    indices = random.integers(0, draw(st.integers(1, entries)), math.prod(shape))
    if zero is not None:
        codebook[zero] = 0
        indices[random.random(len(indices)) >= draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]))] = zero
    if draw(st.booleans()):
        codebook[-1] = codebook[0]
    return Shared(dtype, shape, codebook, indices.astype(index_dtype(entries)))


@st.composite
def archives(draw: Any) -> dict[str, Record]:
    """Records by name, some of them ties."""
    records: dict[str, Record] = draw(st.dictionaries(names, st.one_of(raws(), shareds()), max_size=5))
    owners = list(records)
    if owners:
        for name in draw(st.lists(names.filter(lambda n: n not in owners), max_size=2, unique=True)):
            records[name] = Tied(draw(st.sampled_from(owners)))
    return {name: records[name] for name in draw(st.permutations(list(records)))}


def pruned(
    shape: tuple[int, ...], entries: int = 32, density: float = 0.1, *, seed: int = 0, dtype: str = "float32"
) -> Shared:
    """A pruned and shared tensor as the pipeline makes them: entry 0 is 0.0, survivors at random places."""
    random = np.random.default_rng(seed)
    codebook = dtypes.from_float(np.linspace(-1.0, 1.5, entries).astype(np.float32), dtype).copy()
    codebook[0] = 0
    weights = np.exp(-np.abs(np.linspace(-4, 4, entries - 1)))
    symbols = random.choice(np.arange(1, entries), math.prod(shape), p=weights / weights.sum())
    kept = random.random(math.prod(shape)) < density
    return Shared(dtype, shape, codebook, np.where(kept, symbols, 0).astype(index_dtype(entries)))


def shared(indices: Any, codebook: Any, shape: tuple[int, ...] | None = None) -> Shared:
    """A float32 record of literal values."""
    values = np.asarray(codebook, "<f4")
    flat = np.asarray(indices, index_dtype(len(values))).reshape(-1)
    return Shared("float32", (len(flat),) if shape is None else shape, values, flat)


def along_trellis(numbers: Any) -> Any:
    """Levels whose numbers these are, down each column of a matrix: format.md, 8.3, step by step."""
    levels = np.zeros(numbers.shape, np.int64)
    for column in range(numbers.shape[1]):
        state = 0
        for row in range(numbers.shape[0]):
            number = int(numbers[row, column])
            sign = (number > 0) - (number < 0)
            levels[row, column] = 2 * number - sign * (state % 2)
            state = state // 2 ^ (18 if state % 2 else 0) ^ (4 if number % 2 else 0)
    return levels


def on_trellis(shape: tuple[int, ...], most: int, *, seed: int = 0, dtype: str = "float32") -> Shared:
    """A tensor whose levels follow a trellis, with numbers from -most to most, the small ones likelier."""
    random = np.random.default_rng(seed)
    rows = shape[0] if len(shape) > 1 else 1
    numbers = random.binomial(2 * most, 0.5, (rows, math.prod(shape) // max(rows, 1))) - most
    levels = along_trellis(numbers).reshape(-1)
    low, high = min(levels.min(initial=0), 0), max(levels.max(initial=0), 0)
    codebook = dtypes.from_float(np.arange(low, high + 1) * np.float32(0.125), dtype).copy()
    return Shared(dtype, shape, codebook, (levels - low).astype(index_dtype(len(codebook))))
