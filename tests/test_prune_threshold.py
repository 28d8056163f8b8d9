"""Thresholds against an oracle that sorts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.errors import TensorError
from dwindle.prune import by_quality, by_sparsity, global_threshold, threshold

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SHARES = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
# Few distinct values, so that ties are common, and the extremes of a float.
VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -3.0, 1e-40, 65504.0]) | st.floats(-8, 8, width=16)


def oracle(weights, sparsity, masks):
    """Keep-masks by a stable sort: removed before, then by magnitude, then by position."""
    magnitude = torch.cat([w.double().abs().reshape(-1) for w in weights])
    before = torch.cat([m.reshape(-1) for m in masks])
    order = torch.where(before, magnitude, -1.0).argsort(stable=True)
    kept = before.clone()
    kept[order[: round(sparsity * len(order))]] = False
    return [k.view(w.shape) for k, w in zip(kept.split([w.numel() for w in weights]), weights, strict=True)]


@st.composite
def tensors(draw):
    values = draw(st.lists(VALUES, max_size=40))
    mask = draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    dtype = draw(st.sampled_from(DTYPES))
    return torch.tensor(values, dtype=torch.float64).to(dtype), torch.tensor(mask, dtype=torch.bool)


@settings(max_examples=150, deadline=None)
@given(tensors(), SHARES, st.booleans())
def test_by_sparsity_is_the_sort_oracle(pair, sparsity, masked):
    weight, mask = pair
    mask = mask if masked else torch.ones_like(mask)
    kept = by_sparsity(weight, sparsity, mask=mask if masked else None)
    assert torch.equal(kept, oracle([weight], sparsity, [mask])[0])
    assert int((~kept).sum()) == max(round(sparsity * weight.numel()), int((~mask).sum()))


@settings(max_examples=100, deadline=None)
@given(st.lists(tensors(), max_size=4), SHARES)
def test_global_threshold_is_the_sort_oracle(pairs, sparsity):
    weights, masks = [w for w, _ in pairs], [m for _, m in pairs]
    result = global_threshold(weights, sparsity, masks=masks)
    if not pairs:
        assert result == []
        return
    for kept, expected in zip(result, oracle(weights, sparsity, masks), strict=True):
        assert torch.equal(kept, expected)


@settings(max_examples=100, deadline=None)
@given(tensors(), st.just(0.0) | st.floats(0.01, 3))
def test_by_quality_is_the_definition(pair, quality):
    weight, mask = pair
    kept = by_quality(weight, quality, mask=mask)
    survivors = weight[mask].double().numpy()
    limit = quality * survivors.std() if len(survivors) else 0.0
    expected = mask.numpy() & (np.abs(weight.double().numpy()) >= limit)
    # The comparison itself is in the weight's precision, so the threshold is rounded to it.
    near = (np.abs(np.abs(weight.double().numpy()) - limit) <= 1e-6 * limit + 1e-44) & (limit > 0)
    assert np.array_equal(kept.numpy()[~near], expected[~near])
    assert not (kept & ~mask).any()


@settings(max_examples=50, deadline=None)
@given(tensors(), SHARES, SHARES)
def test_sparser_masks_are_subsets(pair, one, two):
    low, high = (by_sparsity(pair[0], share) for share in sorted((one, two)))
    assert not (high & ~low).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_join_seamlessly(monkeypatch, dtype):
    torch.manual_seed(1)
    weight = torch.randn(7, 11).to(dtype).round(decimals=1)
    mask = torch.rand(7, 11) > 0.3
    whole = by_sparsity(weight, 0.6, mask=mask), by_quality(weight, 0.7, mask=mask)
    monkeypatch.setattr(threshold, "_BLOCK", 5)
    assert torch.equal(by_sparsity(weight, 0.6, mask=mask), whole[0])
    assert torch.equal(by_quality(weight, 0.7, mask=mask), whole[1])


def test_a_tensor_of_several_blocks():
    torch.manual_seed(2)
    weight = torch.randn(threshold._BLOCK * 2 + 3)
    kept = by_sparsity(weight, 0.9)
    assert torch.equal(kept, oracle([weight], 0.9, [torch.ones_like(kept)])[0])


def test_ties_go_by_position():
    weight = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    assert by_sparsity(weight, 0.5).tolist() == [[False, False], [True, True]]
    first, second = global_threshold([weight, weight], 0.625)
    assert not first.any()
    assert second.tolist() == [[False, True], [True, True]]


def test_a_surviving_zero_goes_after_what_is_gone():
    kept = by_sparsity(torch.zeros(4), 0.5, mask=torch.tensor([True, True, True, False]))
    assert kept.tolist() == [False, True, True, False]


def test_non_contiguous_weights():
    torch.manual_seed(3)
    weight = torch.randn(6, 8)
    view = weight.t()[::2]
    assert torch.equal(by_sparsity(view, 0.5), by_sparsity(view.contiguous(), 0.5))
    assert torch.equal(by_quality(view, 1.0), by_quality(view.contiguous(), 1.0))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (0,), (0, 3)])
def test_tiny_tensors(shape):
    weight = torch.full(shape, 2.0)
    for kept in (by_sparsity(weight, 0.0), by_quality(weight, 5.0)):
        assert kept.shape == weight.shape
        assert kept.dtype == torch.bool
        assert kept.all()
    assert not by_sparsity(weight, 1.0).any()
    assert not by_quality(weight, 5.0, mask=torch.zeros(shape, dtype=torch.bool)).any()


def test_a_constant_tensor_has_no_deviation():
    assert by_quality(torch.full((3, 3), 0.1), 2.0).all()
    assert int(by_sparsity(torch.full((3, 3), 0.1), 0.5).sum()) == 5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_non_finite_weights_are_refused_by_name(bad, dtype):
    weight = torch.ones(3, 3, dtype=dtype)
    weight[1, 1] = bad
    with pytest.raises(TensorError, match=r"^fc9\.weight: expected finite weights"):
        by_sparsity(weight, 0.0, name="fc9.weight")
    with pytest.raises(TensorError, match=r"^fc9\.weight: expected finite weights"):
        by_quality(weight, 0.0, name="fc9.weight")
    with pytest.raises(TensorError, match=r"^b: expected finite weights"):
        global_threshold([torch.ones(2), weight], 0.5, names=["a", "b"])


def test_integers_are_refused_by_name():
    with pytest.raises(TensorError, match=r"^idx: expected a float tensor, got torch\.int64"):
        by_sparsity(torch.ones(2, dtype=torch.int64), 0.5, name="idx")


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_impossible_sparsities(share):
    with pytest.raises(ValueError, match="expected a sparsity of 0 to 1"):
        by_sparsity(torch.ones(2), share)


@pytest.mark.parametrize("quality", [-1.0, float("nan"), float("inf")])
def test_impossible_qualities(quality):
    with pytest.raises(ValueError, match="expected a finite quality"):
        by_quality(torch.ones(2), quality)
