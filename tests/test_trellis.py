"""Levels along a trellis: the paths themselves, their code, and what they are worth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

import dwindle
import strategies as make
from dwindle.code import entropy, trellis
from dwindle.code.plan import ADAPTIVE_NANOSECONDS, Coding
from dwindle.errors import CorruptError
from dwindle.file import ledger, write
from dwindle.records import BLOCK, Shared
from dwindle.share import Signal
from dwindle.share.levels import from_levels, to_levels
from dwindle.share.trellis import ELEMENTS, ROWS, column_to_path, path_step, suits, to_path


def weights(shape, spread=3.0, seed=0):
    return np.random.default_rng(seed).normal(0, spread, shape).astype(np.float32)


def codebook_of(levels):
    """Indices of levels, the entry that is 0.0, and how many entries there are."""
    values, indices = from_levels(levels, 1.0, "float32")
    return indices, int(np.flatnonzero(values == 0)[0]), len(values)


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=5))
def test_no_path_is_nearer(column):
    found = to_path(np.array(column)[:, None], 1.0)[:, 0]
    choices = itertools.product(*[range(-4, 5) if weight else [0] for weight in column])
    paths = np.array([make.along_trellis(np.array(numbers)[:, None])[:, 0] for numbers in choices])
    errors = np.square(paths - np.array(column)).sum(1)
    assert found.tolist() in paths.tolist()
    assert np.square(found - np.array(column)).sum() == pytest.approx(errors.min(), abs=1e-9)


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=9),
        elements=st.floats(-50, 50, width=32),
    ),
    st.sampled_from([0.25, 1.0, 300.0]),
)
def test_paths_follow_the_trellis_and_keep_zeros(array, step):
    levels = to_path(array, step)
    assert levels.shape == array.shape
    assert (levels[array == 0] == 0).all()
    assert trellis.number_counts(levels.reshape(-1), array.shape, 0) is not None
    assert (np.abs(levels * step - array) <= 2 * step * (1 + 1e-6)).all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (2, 0, 4)])
def test_hardly_anything_has_paths_too(shape):
    assert to_path(np.ones(shape, np.float32), 0.5).tolist() == np.full(shape, 2).tolist()


def test_strides_do_not_matter_nor_does_taking_one_column():
    wide = weights((40, 60))
    levels = to_path(wide, 0.7)
    assert np.array_equal(to_path(np.asfortranarray(wide), 0.7), levels)
    assert np.array_equal(to_path(np.repeat(wide, 2, 1)[:, ::2], 0.7), levels)
    column = column_to_path(wide[:, 7] / np.float64(0.7), 7, 60)
    assert np.array_equal(column, levels[:, 7])


@pytest.mark.parametrize("shape", [(1300, 1001), (3, BLOCK // 2 + 5)])
def test_paths_begin_anew_at_every_block(shape):
    levels = to_path(weights(shape), 1.0)
    indices, zero, entries = codebook_of(levels)
    assert trellis.number_counts(indices, shape, zero) is not None
    for start in range(0, len(indices), BLOCK):
        part = indices[start : start + BLOCK]
        out = np.empty_like(part)
        trellis.decode(memoryview(trellis.encode(part, start, shape, zero)), out, start, shape, entries, zero)
        assert np.array_equal(out, part)


def test_numbers_are_counted_by_kind_of_state():
    numbers = np.array([[1, 0], [1, -2], [0, 3]])
    levels = make.along_trellis(numbers)
    # From 0 by an odd number to 4, by another one to 6; and from 0 by even ones to 0.
    assert levels.tolist() == [[2, 0], [2, -4], [0, 6]]
    counts = trellis.number_counts(levels.reshape(-1), (3, 2), 0)
    assert counts.sum(0).tolist() == [0, 1, 0, 2, 2, 0, 1]
    assert counts[1].sum() == 0
    # States 0, 4, 6, 7, 21 and 28.
    odd = make.along_trellis(np.ones((6, 1), int))
    assert odd[:, 0].tolist() == [2, 2, 2, 1, 1, 2]


@pytest.mark.parametrize("change", [1, -1])
def test_one_level_off_is_noticed(change):
    levels = to_path(weights((30, 20), 8.0), 1.0)
    row = 12 + int(np.argmax(np.abs(levels[12:, 3]) > 1))
    levels[row, 3] += change
    assert trellis.number_counts(levels.reshape(-1), (30, 20), 0) is None


def test_no_trellis_without_a_zero_or_elements_or_in_too_long_rows():
    assert trellis.number_counts(np.zeros(4, np.uint8), (2, 2), None) is None
    assert trellis.number_counts(np.zeros(0, np.uint8), (0, 2), 0) is None
    long = np.zeros(2 * (trellis.COLUMNS + 1), np.uint8)
    assert trellis.number_counts(long, (2, trellis.COLUMNS + 1), 0) is None
    with pytest.raises(CorruptError, match="rows of at most"):
        trellis.decode(memoryview(b"\1"), long, 0, (2, trellis.COLUMNS + 1), 1, 0)
    with pytest.raises(CorruptError, match=r"an entry of 0\.0"):
        trellis.decode(memoryview(b"\1"), long[:4], 0, (2, 2), 1, None)


@given(st.binary(max_size=60), st.integers(0, 3))
def test_any_bytes_are_a_block_or_an_error(data, tokens):
    out = np.zeros(60, np.uint8)
    try:
        trellis.decode(memoryview(bytes([tokens]) + data), out, 0, (12, 5), 9, 4)
    except CorruptError:
        return
    assert int(out.max()) < 9


@pytest.mark.parametrize("spread", [2.0, 3.0, 12.0])
def test_a_twentieth_fewer_bytes_for_the_same_error(spread):
    """What Ungerboeck's code of 32 states is known to gain, 1.2 dB of 1.53, is 0.2 bits a weight."""
    array = weights((600, 200), spread)
    levels, path = to_levels(array, 1.0), to_path(array, 0.579)
    gained = np.log2(np.square(levels - array).mean() / np.square(path * 0.579 - array).mean()) / 2
    plain = entropy.entropy_bytes(np.bincount(levels.reshape(-1) - levels.min())) * 8 / array.size
    indices, zero, _ = codebook_of(path)
    coded = len(trellis.encode(indices, 0, array.shape, zero)) * 8 / array.size
    assert 0.16 < plain + gained - coded < 0.22


def test_which_tensors_have_paths():
    full = Signal(ELEMENTS, 1.0, 4.0)
    assert suits((ROWS, ELEMENTS // ROWS), full)
    assert not suits((ROWS // 2, ELEMENTS // ROWS * 2), full)
    assert not suits((ROWS, ELEMENTS // ROWS - 1), full)
    assert not suits((ELEMENTS,), full)
    assert not suits((ROWS, ELEMENTS // ROWS), Signal(ELEMENTS // 2 - 1, 1.0, 4.0))
    assert not suits((0, 10), Signal(0, 0.0, 0.0))
    assert path_step((10_000, 1), Signal(10_000, 1.0, 4.0), 1.0) == pytest.approx(0.685, rel=0.02)
    assert path_step((32, 32), full, 1.0) == pytest.approx(0.685 / math.sqrt(1.25), rel=0.02)
    assert path_step((32, 32), Signal(1024, 1.0, 30_000.0), 1.0) is None


def test_which_codings_allow_them():
    most = int(1e9 / ADAPTIVE_NANOSECONDS["trellis"])
    assert Coding().allows_trellis(most)
    assert not Coding().allows_trellis(most + 1)
    assert Coding(decode_seconds=2).allows_trellis(most + 1)
    assert Coding("context").allows_trellis(most + 1)
    assert not any(Coding(coder).allows_trellis(1) for coder in ("rans", "huffman", "fixed", "csr", "csc"))
    assert not Coding(gap_bits=4).allows_trellis(1)
    assert not Coding(dictionary="network").allows_trellis(1)


def net():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Flatten(), nn.Linear(64 * 36, 120))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    return model


def arrangements(result):
    with dwindle.open(result.path) as archive:
        return {
            name: entry.plan.arrangement for name, entry in archive.header.entries.items() if "weight" in name
        }


def error(model, loaded):
    pairs = [(model.state_dict()[name], loaded[name]) for name in ("0.weight", "2.weight")]
    return sum(float((after - before).square().sum() / before.square().sum()) for before, after in pairs)


def test_files_of_the_same_quality_are_smaller(tmp_path):
    model = net()
    free = dwindle.compress(model, tmp_path / "free.dwz", coding=Coding("rans"), quality=20)
    path = dwindle.compress(model, tmp_path / "path.dwz", quality=20)
    assert set(arrangements(path).values()) == {"trellis"}
    assert set(arrangements(free).values()) == {"dense"}
    assert path.size < 0.96 * free.size
    errors = error(model, dwindle.load(path.path)), error(model, dwindle.load(free.path))
    assert errors[0] == pytest.approx(errors[1], rel=0.1)
    again = dwindle.load_into(net(), path.path)
    assert torch.equal(again(torch.ones(1, 3, 8, 8)), path.model(torch.ones(1, 3, 8, 8)))


def test_training_on_leaves_indices_on_the_trellis(tmp_path):
    def train(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)

    result = dwindle.compress(net(), tmp_path / "a.dwz", quality=15, train=train)
    assert set(arrangements(result).values()) == {"trellis"}


def test_calibrated_levels_follow_it_too(tmp_path):
    batches = [torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    free = dwindle.compress(net(), tmp_path / "a.dwz", calibrate=batches, coding=Coding("rans"), quality=12)
    path = dwindle.compress(net(), tmp_path / "b.dwz", calibrate=batches, quality=12)
    assert arrangements(path)["2.weight"] == "trellis"
    assert path.size < free.size
    before = net()(batches[0]).log_softmax(1)

    def divergence(result):
        after = dwindle.load_into(net(), result.path)(batches[0]).log_softmax(1)
        return (before.exp() * (before - after)).sum(1).mean().item()

    assert divergence(path) < 0.9 * divergence(free)


def test_a_checkpoint_is_rounded_along_it(tmp_path):
    torch.save(net().state_dict(), tmp_path / "net.pt")
    result = dwindle.compress_checkpoint(tmp_path / "net.pt", tmp_path / "a.dwz", quality=20)
    assert set(arrangements(result).values()) == {"trellis"}
    other = dwindle.load(dwindle.compress(net(), tmp_path / "b.dwz", quality=20).path)
    assert all(torch.equal(dwindle.load(result.path)[name], tensor) for name, tensor in other.items())


def test_the_ledger_knows_its_entropy(tmp_path):
    record = make.on_trellis((60, 40), 9)
    write(tmp_path / "a.dwz", {"w": record})
    with dwindle.open(tmp_path / "a.dwz") as archive:
        line = next(line for line in ledger(archive).lines if line.part == "indices")
        counts = trellis.number_counts(
            record.indices, record.shape, int(np.flatnonzero(record.codebook == 0)[0])
        )
    assert line.bound == pytest.approx(sum(map(entropy.entropy_bytes, counts)))
    assert isinstance(record, Shared)
    assert line.bound < line.size < 1.1 * line.bound
