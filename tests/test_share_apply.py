"""Sharing whole models: bits by type, by name and by budget."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from dwindle.errors import TensorError
from dwindle.prune import prune
from dwindle.share import PAPER_BITS, get_codebook, sharable, share
from dwindle.share.allocate import points


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 5),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(8 * 16, 20),
        nn.LayerNorm([20]),
        nn.Linear(20, 10),
        nn.Embedding(7, 5),
    )


def bits_of(report):
    return {row.name: row.bits for row in report.tensors}


def test_the_papers_bits_are_the_default():
    model = network()
    before = {name: getattr(*owner).detach().clone() for name, owner in sharable(model).items()}
    report = share(model)
    assert bits_of(report) == {"0.weight": 8, "3.weight": 5, "5.weight": 5, "6.weight": 8}
    for row in report.tensors:
        weight = getattr(*sharable(model)[row.name]).detach()
        assert row.elements == row.survivors == weight.numel()
        assert row.entries == len(weight.unique()) <= 1 << row.bits
        error = (weight - before[row.name]).double().square().mean()
        assert row.mse == pytest.approx(error.item(), rel=1e-6, abs=1e-18)
    total = sum(row.mse * row.elements for row in report.tensors) / report.elements
    assert report.mse == pytest.approx(total)
    assert json.loads(json.dumps(report.to_json()))["tensors"][1]["name"] == "3.weight"


def test_survivors_after_pruning():
    model = network()
    prune(model, sparsity={"3.weight": 0.9})
    report = share(model, bits={"linear": 4})
    row = report.tensors[0]
    assert (row.name, row.survivors, row.entries) == ("3.weight", 256, 16)
    assert (model[3].weight != 0).sum() == 256
    assert report.tensors[1].survivors == 200


def test_names_count_more_than_types():
    model = network()
    report = share(model, bits={"linear": 4, "5.weight": 2, "1.weight": 1, "6.weight": None})
    assert bits_of(report) == {"1.weight": 1, "3.weight": 4, "5.weight": 2}
    assert get_codebook(model, "0.weight") is None
    assert bits_of(share(network(), bits=PAPER_BITS | {"3.weight": None})) == {
        "0.weight": 8,
        "5.weight": 5,
        "6.weight": 8,
    }


def test_small_tensors_can_be_left_alone():
    model = network()
    assert bits_of(share(model, bits=6, min_elements=201)) == {"3.weight": 6}
    assert bits_of(share(model, bits={"linear": 6, "5.weight": 3}, min_elements=10**6)) == {"5.weight": 3}


def test_attention_and_recurrent_layers():
    model = nn.ModuleDict({"attend": nn.MultiheadAttention(8, 2), "remember": nn.LSTM(8, 4)})
    attention = {"attend.in_proj_weight": 5, "attend.out_proj.weight": 5}
    recurrent = {"remember.weight_hh_l0": 8, "remember.weight_ih_l0": 8}
    assert bits_of(share(model)) == attention | recurrent
    inputs = torch.randn(3, 1, 8)
    model["attend"](inputs, inputs, inputs)[0].sum().backward()
    assert get_codebook(model, "attend.in_proj_weight").centroids.grad.any()


def test_budget():
    sizes = []
    for budget in (700, 1400, 2500):
        model = network()
        arrays = {name: getattr(*owner).detach().numpy() for name, owner in sharable(model).items()}
        chosen = bits_of(share(model, budget=budget, bits={"conv": 1, "linear": 1}))
        assert set(chosen) == {"0.weight", "3.weight", "5.weight"}
        sizes.append(sum(points(arrays[name], [bits])[0].nbytes for name, bits in chosen.items()))
        assert sizes[-1] <= budget
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    with pytest.raises(ValueError, match="expected a budget of at least"):
        share(network(), budget=5)


def test_a_budget_goes_to_what_is_sensitive():
    model = network()
    even = bits_of(share(model, budget=1400, bits={"conv": 1, "linear": 1}))
    shapes = {name: dict(network().named_parameters())[name].shape for name in even}
    known = {name: torch.ones(shape) for name, shape in shapes.items()}
    first, *_, last = even
    same = share(network(), budget=1400, bits={"conv": 1, "linear": 1}, sensitivity=known)
    assert bits_of(same) == even
    known[last] *= 1e4
    model = network()
    uneven = bits_of(share(model, budget=1400, bits={"conv": 1, "linear": 1}, sensitivity=known))
    assert uneven[last] > even[last]
    assert uneven[first] <= even[first]
    # Of one tensor alone something is known: next to nothing.
    for value in (0.0, 1e-30):
        some = {last: torch.full(shapes[last], value)}
        report = share(network(), budget=1400, bits={"conv": 1, "linear": 1}, sensitivity=some)
        assert bits_of(report) == even


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_budget_by_a_sensitivity_that_is_none_is_refused(value):
    model = network()
    wrong = {"5.weight": torch.full((10, 20), value)}
    with pytest.raises(TensorError, match=r"5\.weight: expected finite weights of 0 or more"):
        share(model, budget=1400, bits={"conv": 1, "linear": 1}, sensitivity=wrong)
    with pytest.raises(TensorError, match=r"5\.weight: expected a sensitivity of shape \[10, 20\]"):
        share(model, budget=1400, bits={"linear": 1}, sensitivity={"5.weight": torch.ones(3)})
    assert all(get_codebook(model, name) is None for name in sharable(model))


@pytest.mark.parametrize("init", ["linear", "density", "forgy", "optimal"])
def test_every_start(init):
    first, second = network(), network()
    report = share(first, init=init, seed=1, bits=3)
    assert share(second, init=init, seed=1, bits=3) == report
    assert torch.equal(first[3].weight, second[3].weight)
    assert all(row.entries <= 8 for row in report.tensors)


def test_an_error_leaves_the_model_as_it_was():
    model = network()
    with torch.no_grad():
        model[5].weight[0, 0] = np.nan
    with pytest.raises(TensorError, match=r"5\.weight: expected finite values"):
        share(model)
    with pytest.raises(TensorError, match=r"5\.weight: expected finite values"):
        share(model, budget=10_000)
    assert all(get_codebook(model, name) is None for name in sharable(model))


def test_refuses():
    model = network()
    with pytest.raises(
        TensorError, match=r"3.wieght: expected the name of a layer type or tensor.*3\.weight"
    ):
        share(model, bits={"3.wieght": 4})
    for bits in (0, 17, {"conv": 20}):
        with pytest.raises(ValueError, match=r"0\.weight: expected 1 to 16 bits"):
            share(model, bits=bits)
    model.register_parameter("steps", nn.Parameter(torch.ones(3, dtype=torch.int32), requires_grad=False))
    with pytest.raises(TensorError, match="steps: expected a tensor of float64"):
        share(model, bits={"steps": 4})
    assert share(nn.ReLU()).tensors == ()
    assert share(nn.ReLU()).mse == 0.0
