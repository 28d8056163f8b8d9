"""Gaps and fillers against plain Python, and what fillers cost against all placements and the paper."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.code import gaps
from dwindle.errors import CorruptError

maps = st.tuples(
    st.lists(st.sampled_from([0, 0, 0, 0, 1, 2, 3]), max_size=300), st.sampled_from([np.uint8, np.uint16])
).map(lambda drawn: np.array(*drawn))


def index_map(size, survivors, symbol=1):
    indices = np.zeros(size, np.uint8)
    indices[survivors] = symbol
    return indices


def plain_split(indices, zero, width):
    stored, symbols, last = [], [], -1
    for position, symbol in enumerate(indices.tolist()):
        if symbol == zero:
            continue
        while position - last > 1 << width:
            stored.append((1 << width) - 1)
            symbols.append(zero)
            last += 1 << width
        stored.append(position - last - 1)
        symbols.append(symbol)
        last = position
    return stored, symbols


def test_the_example_of_the_paper():
    """Figure 2: with 3 bits, survivors at 1, 4 and 15 need a filler zero at 12."""
    indices = index_map(16, [1, 4, 15], [1, 2, 3])
    stored, symbols = gaps.split(indices, 0, 3)
    assert (np.cumsum(stored + 1) - 1).tolist() == [1, 4, 12, 15]
    assert symbols.tolist() == [1, 2, 0, 3]
    out = np.full(16, 9, np.uint8)
    gaps.join(stored, symbols, 0, out)
    assert np.array_equal(out, indices)


@given(maps, st.integers(0, 3), st.integers(1, 16))
@settings(deadline=None)
def test_any_map_at_any_width(indices, zero, width):
    stored, symbols = gaps.split(indices, zero, width)
    assert (stored.tolist(), symbols.tolist()) == plain_split(indices, zero, width)
    assert symbols.dtype == indices.dtype
    out = np.full_like(indices, 77)
    gaps.join(stored, symbols, zero, out)
    assert np.array_equal(out, indices)
    counts = gaps.gap_counts(gaps.distance_counts(indices, zero), width)
    assert np.array_equal(counts, np.bincount(stored, minlength=1 << width))


@pytest.mark.parametrize("width", gaps.WIDTHS)
def test_distances_about_each_width(width):
    step = 1 << width
    for distance in (step - 1, step, step + 1, 2 * step, 2 * step + 1):
        indices = index_map(distance + 3, [distance - 1, distance])
        stored, symbols = gaps.split(indices, 0, width)
        fillers = (distance - 1) // step
        assert stored.tolist() == [step - 1] * fillers + [(distance - 1) % step, 0]
        assert symbols.tolist() == [0] * fillers + [1, 1]
        out = np.empty_like(indices)
        gaps.join(stored, symbols, 0, out)
        assert np.array_equal(out, indices)


def test_distances():
    counts = gaps.distance_counts(index_map(10, [0, 1, 4]), 0)
    assert counts.tolist() == [0, 2, 0, 1]
    assert gaps.distance_counts(index_map(10, [0, 1, 4]), 0, 3).tolist() == [0, 2, 1]
    assert gaps.distance_counts(index_map(3, []), 0).tolist() == [0]
    assert gaps.distance_counts(np.zeros(0, np.uint8), 0).tolist() == [0]


@pytest.mark.parametrize("width", [0, 17])
def test_widths_out_of_range(width):
    with pytest.raises(ValueError, match="1 to 16 bits"):
        gaps.split(index_map(4, [1]), 0, width)


def test_places_past_the_end():
    out = np.empty(4, np.uint8)
    symbols = np.ones(2, np.uint8)
    gaps.join(np.array([0, 2], np.uint16), symbols, 0, out)
    assert out.tolist() == [1, 0, 0, 1]
    with pytest.raises(CorruptError, match="within 4 elements"):
        gaps.join(np.array([0, 3], np.uint16), symbols, 0, out)
    with pytest.raises(CorruptError, match="within 0 elements"):
        gaps.join(np.array([0], np.uint16), symbols[:1], 0, out[:0])
    with pytest.raises(ValueError, match="as many symbols as gaps"):
        gaps.join(np.array([0], np.uint16), symbols, 0, out)


@pytest.mark.parametrize(("size", "survivors"), [(9, 1), (9, 2), (10, 3), (8, 8), (11, 4)])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_best_and_worst_are_those_of_all_placements(size, survivors, width):
    actual = []
    for places in combinations(range(size), survivors):
        indices = index_map(size, list(places))
        cost = gaps.filler_cost(gaps.distance_counts(indices, 0), size, width)
        assert cost.actual == plain_split(indices, 0, width)[1].count(0)
        actual.append(cost.actual)
        assert (cost.best, cost.worst) == gaps_bounds(size, survivors, width)
    assert (min(actual), max(actual)) == (cost.best, cost.worst)


def gaps_bounds(size, survivors, width):
    return 0, (size - survivors) // (1 << width)


@pytest.mark.parametrize(("density", "width", "share"), [(0.08, 5, 0.075), (0.09, 4, 0.28), (0.04, 5, 0.37)])
def test_expected_fillers_of_the_paper(density, width, share):
    size = 1 << 20
    places = np.random.default_rng(width).random(size) < density
    distances = gaps.distance_counts(places.astype(np.uint8), 0)
    survivors = int(distances.sum())
    cost = gaps.filler_cost(distances, size, width)
    assert cost.expected / survivors == pytest.approx(share, abs=0.005)
    assert cost.actual / survivors == pytest.approx(cost.expected / survivors, abs=0.01)
    assert cost.best <= cost.actual <= cost.worst


def test_filler_cost_without_survivors_or_zeros():
    nothing = gaps.filler_cost(gaps.distance_counts(index_map(9, []), 0), 9, 2)
    assert (nothing.actual, nothing.best, nothing.worst, nothing.expected) == (0, 0, 0, 0.0)
    full = gaps.filler_cost(gaps.distance_counts(np.ones(9, np.uint8), 0), 9, 2)
    assert (full.actual, full.best, full.worst, full.expected) == (0, 0, 0, 0.0)
