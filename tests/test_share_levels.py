"""Uniform levels, and vectors of few significant bits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dwindle import dtypes
from dwindle.errors import TensorError
from dwindle.rounding import NORM, bits_of_rounding, is_taken_over, round_significant, significant_bits
from dwindle.share import Signal, get_codebook, share_levels, step_sizes
from dwindle.share.levels import from_levels, round_step, to_levels
from dwindle.share.vectors import coarsen_statistics, round_vectors, vectors


@given(
    st.lists(st.integers(-300, 300), max_size=40),
    st.floats(1e-6, 1e3),
    st.sampled_from(("float64", "float32", "float16", "bfloat16")),
)
def test_levels_come_back_from_codebook_and_indices(levels, step, dtype):
    levels = np.array(levels, np.int32)
    codebook, indices = from_levels(levels, step, dtype)
    assert len(codebook) <= 601
    assert 0 in codebook
    assert (np.diff(codebook) >= 0).all()
    assert np.isfinite(codebook).all()
    stored = dtypes.to_float(dtypes.from_float(codebook, dtype), dtype)
    np.testing.assert_array_equal(stored, codebook)
    wanted = levels * step
    relative = {"float64": 1e-15, "float32": 1e-7, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    inside = np.abs(wanted) < 60_000
    np.testing.assert_allclose(
        codebook[indices][inside], wanted[inside], rtol=relative, atol=4e-8 if dtype == "float16" else 0
    )


def test_too_many_levels_are_refused():
    with pytest.raises(ValueError, match="65535 apart"):
        from_levels(np.array([-1, 65535], np.int32), 1.0, "float32")


def test_a_step_keeps_a_few_bits():
    rng = np.random.default_rng(0)
    for step in np.exp(rng.normal(size=100)):
        short = round_step(float(step))
        assert abs(short / step - 1) < 1 / 63
        assert np.float32(short * 65535) == short * 65535


def test_quality_is_the_ratio_of_signal_to_noise():
    rng = np.random.default_rng(0)
    weights = {
        "big": rng.normal(0, 3, (200, 500)).astype(np.float32),
        "small": rng.normal(0, 0.01, (100, 50)).astype(np.float32),
    }
    for quality in (20.0, 30.0):
        steps = step_sizes({name: Signal.of(array) for name, array in weights.items()}, quality)
        noise = {
            name: np.mean((to_levels(array, steps[name]) * steps[name] - array) ** 2) / np.mean(array**2)
            for name, array in weights.items()
        }
        assert -10 * np.log10(sum(noise.values())) == pytest.approx(quality, abs=0.4)
        assert noise["big"] / noise["small"] == pytest.approx(20, rel=0.1)


def test_pruned_weights_and_outliers_do_not_make_a_step_wide():
    weights = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    plain = step_sizes({"w": Signal.of(weights)}, 20)["w"]
    sparse = np.concatenate([weights, np.zeros(90_000, np.float32)])
    assert step_sizes({"w": Signal.of(sparse)}, 20)["w"] == plain
    assert step_sizes({"w": Signal.of(np.append(weights, np.float32(2000)))}, 20)["w"] < 1.3 * plain


@pytest.mark.parametrize("weights", [np.zeros(0), np.zeros((3, 3)), np.ones(1), np.full(7, -1e-30)])
def test_steps_of_odd_tensors(weights):
    step = step_sizes({"w": Signal.of(weights.astype(np.float32))}, 25)["w"]
    assert step > 0
    levels = to_levels(weights, step)
    assert np.array_equal(levels == 0, weights == 0)


def test_not_finite_weights_have_no_step():
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(TensorError, match="expected finite weights"):
            Signal.of(np.array([1, bad]))


def test_a_model_computes_with_its_levels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5).to(torch.bfloat16))
    before = [layer.weight.detach().clone() for layer in model]
    share_levels(model, {"0.weight": 0.0625, "1.weight": 0.03125})
    for layer, weight, step in zip(model, before, (0.0625, 0.03125), strict=True):
        levels = layer.weight.float() / step
        np.testing.assert_array_equal(levels.detach(), levels.detach().round())
        assert (layer.weight.float() - weight.float()).abs().max() <= step / 2
        assert get_codebook(layer, "weight") is not None


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("2.weight", 0.0, "such as 1.weight"),
        ("0.weight", float("nan"), "finite"),
        ("0.weight", 1e5, "32767 steps"),
    ],
)
def test_levels_that_cannot_be_leave_the_model_alone(name, value, error):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].weight.data[1, 1] = value
    with pytest.raises(TensorError, match=error):
        share_levels(model, {"1.weight": 0.1, name: 0.1})
    assert get_codebook(model, "1.weight") is None


@given(st.lists(st.floats(width=32), max_size=30), st.integers(1, 24))
def test_significant_bits(values, bits):
    values = np.array(values, np.float32)
    values[np.isnan(values)] = np.uint32(0xFF812345).view(np.float32)
    rounded = round_significant(values, bits)
    finite = np.isfinite(values)
    # NaN with its payload and sign, too.
    np.testing.assert_array_equal(rounded.view(np.uint32)[~finite], values.view(np.uint32)[~finite])
    assert np.isfinite(rounded[finite]).all()
    assert (np.abs(rounded[finite] - values[finite]) <= np.abs(values[finite]) * 0.5**bits).all()
    assert bits < 5 or not len(values) or bits_of_rounding(values, rounded) in range(5, bits + 1)
    if bits == 24:
        np.testing.assert_array_equal(rounded, values)


def test_vectors_of_a_model_are_rounded_and_nothing_else():
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    model[0].register_buffer("frequencies", torch.rand(6))
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(1, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    round_vectors(model, [name for name, _ in vectors(model)], 3)
    for name, tensor in model.state_dict().items():
        if name in ("0.weight", "0.frequencies", "1.num_batches_tracked"):
            assert torch.equal(tensor, before[name])
        else:
            assert torch.equal(tensor * 4, (tensor * 4).round())
            assert not torch.equal(tensor, before[name])


def test_better_quality_keeps_more_bits():
    found = [significant_bits(quality) for quality in range(-40, 300, 5)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (5, 24)
    assert significant_bits(25) == 9
    assert significant_bits(25, calibrated=True) == 10


def normed():
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Linear(8, 40), nn.BatchNorm1d(40, eps=1e-3), nn.Linear(40, 40), nn.BatchNorm1d(40)
    )
    for norm in (model[1], model[3]):
        norm.running_mean.normal_()
        norm.running_var.exponential_().mul_(0.01)
        norm.running_var[3] = 0.0
        nn.init.normal_(norm.weight, 1, 0.2)
        nn.init.normal_(norm.bias)
    return model.eval()


def test_norms_with_coarse_statistics_compute_the_same():
    model, x = normed(), torch.randn(30, 8)
    before, state = model(x), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    coarsen_statistics(model, [name for name, _ in vectors(model)])
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
    for number in (1, 3):
        mean, variance = model[number].running_mean.numpy(), model[number].running_var.numpy()
        np.testing.assert_array_equal(round_significant(state[f"{number}.running_mean"].numpy(), 3), mean)
        np.testing.assert_array_equal(round_significant(state[f"{number}.running_var"].numpy(), 3), variance)
        old = [state[f"{number}.{part}"].numpy() for part in NORM]
        new = [model.state_dict()[f"{number}.{part}"].numpy() for part in NORM]
        assert is_taken_over(old, new)
        assert is_taken_over(old, [*(round_significant(values, 7) for values in new[:2]), *new[2:]])
        assert not is_taken_over(old, [*old[:2], *new[2:]])
        assert not is_taken_over(old, [new[0], new[1] + 0.2, *new[2:]])
        assert not is_taken_over(old, [*new[:3], np.float32(1.1) * new[3]])
        assert not is_taken_over(old, [*new[:2], old[2], new[3]])


def test_norms_are_left_where_they_are_not_all_ours():
    model = normed()
    names = [name for name, _ in vectors(model)]
    model[1].weight = model[3].weight
    coarsen_statistics(model, names)
    plain = nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.BatchNorm1d(4, track_running_stats=False))
    coarsen_statistics(plain, [name for name, _ in vectors(plain)])
    tiny = nn.BatchNorm1d(2, eps=0.0)
    tiny.running_var.zero_()
    coarsen_statistics(tiny, NORM)
    kept = normed()
    coarsen_statistics(kept, [name for name in names if name != "1.bias"])
    first = normed()
    assert torch.equal(model[1].running_mean, first[1].running_mean)
    assert torch.equal(kept[1].running_mean, first[1].running_mean)
    assert not torch.equal(kept[3].running_mean, first[3].running_mean)
    assert torch.equal(tiny.weight, torch.ones(2))
