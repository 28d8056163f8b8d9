"""The sensitivity scan, and masks made permanent."""

import json

import pytest
import torch
from torch import nn

from dwindle import chains
from dwindle.errors import TensorError
from dwindle.prune import (
    Sensitivity,
    by_sparsity,
    get_mask,
    make_permanent,
    prunable,
    prune,
    scan_sensitivity,
    set_mask,
)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(), nn.Linear(6, 6), nn.Linear(6, 6))
    model[3].weight = model[2].weight
    model[1].eval()
    return model


def snapshot(model):
    state = [(name, id(value), value.detach().clone()) for name, value in model.named_parameters()]
    return (
        state,
        [module.training for module in model.modules()],
        [type(module) for module in model.modules()],
    )


def assert_unchanged(model, before):
    after = snapshot(model)
    assert after[1:] == before[1:]
    assert [row[:2] for row in after[0]] == [row[:2] for row in before[0]]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(after[0], before[0], strict=True))


def density(model):
    """A score that shows exactly what is pruned: survivors, weighted apart for each tensor."""
    model.eval()
    return int(model[0].weight.count_nonzero()) + 1000 * int(model[3].weight.count_nonzero())


@pytest.mark.parametrize("pruned", [False, True])
def test_the_scan_prunes_one_tensor_at_a_time_and_restores_it(pruned):
    model = network()
    if pruned:
        prune(model, sparsity=0.25)
    left = {"0.weight": 18 if pruned else 24, "2.weight": 27 if pruned else 36}
    before = snapshot(model)
    scan = scan_sensitivity(model, density, sparsities=(0.0, 0.5, 1.0))
    assert_unchanged(model, before)
    assert scan.sparsities == (0.0, 0.5, 1.0)
    assert scan.baseline == left["0.weight"] + 1000 * left["2.weight"]
    assert scan.scores == {
        "0.weight": tuple(float(n + 1000 * left["2.weight"]) for n in (left["0.weight"], 12, 0)),
        "2.weight": tuple(float(left["0.weight"] + 1000 * n) for n in (left["2.weight"], 18, 0)),
    }


def test_the_scan_removes_the_smallest():
    model = network()
    weight = model[0].weight.detach().clone()
    seen = []
    scan_sensitivity(
        model,
        lambda m: float(seen.append(m[0].weight.detach().clone()) or 0),
        sparsities=(0.5,),
        names=["0.weight"],
    )
    assert len(seen) == 2
    assert torch.equal(seen[1], torch.where(by_sparsity(weight, 0.5), weight, 0.0))


def test_an_error_in_evaluate_leaves_the_model_as_it_was():
    model = network()
    before = snapshot(model)

    def evaluate(m):
        m.eval()
        if chains.chain(m[0], "weight"):
            raise KeyError
        return 1.0

    with pytest.raises(KeyError):
        scan_sensitivity(model, evaluate)
    assert_unchanged(model, before)


def test_bad_input_is_refused_before_anything_is_evaluated():
    def evaluate(_):
        pytest.fail("evaluated")

    with pytest.raises(TensorError, match=r"^0\.bias: expected the name of a prunable tensor"):
        scan_sensitivity(network(), evaluate, names=["0.bias"])
    model = network()
    with torch.no_grad():
        model[3].weight[0, 0] = float("inf")
    with pytest.raises(TensorError, match=r"^2\.weight: expected finite weights"):
        scan_sensitivity(model, evaluate)
    with pytest.raises(ValueError, match="expected a sparsity of 0 to 1"):
        scan_sensitivity(network(), lambda _: 1.0, sparsities=(2.0,))


def test_within_stops_where_the_score_first_falls():
    nan = float("nan")
    scores = {"a": (0.9, 0.89, 0.5), "b": (0.5, 0.9, 0.9), "c": (0.9, nan, 0.9), "d": (0.9, 0.9, 0.9)}
    scan = Sensitivity((0.1, 0.5, 0.9), 0.9, scores)
    assert scan.within(0.015) == {"a": 0.5, "b": 0.0, "c": 0.1, "d": 0.9}
    assert json.loads(json.dumps(Sensitivity((0.1,), 0.9, {"a": (0.8,)}).to_json())) == {
        "sparsities": [0.1],
        "baseline": 0.9,
        "scores": {"a": [0.8]},
    }


def test_permanent_masks_leave_zeros_in_plain_parameters():
    model = network()
    kinds = [type(module) for module in model.modules()]
    parameters = {id(value) for value in model.parameters()}
    prune(model, sparsity=0.5)
    values = {name: getattr(*owner).detach().clone() for name, owner in prunable(model).items()}
    with torch.no_grad():
        model[0].parametrizations.weight.original.add_(100 * ~get_mask(model, "0.weight"))
    assert make_permanent(model) == ["0.weight", "2.weight", "3.weight"]
    assert [type(module) for module in model.modules()] == kinds
    assert {id(value) for value in model.parameters()} == parameters
    assert model[2].weight is model[3].weight
    for name, owner in prunable(model).items():
        assert torch.equal(getattr(*owner), values[name])
        assert get_mask(*owner) is None
    assert make_permanent(model) == []


class Frozen(nn.Module):
    def forward(self, weight):
        return weight


def test_permanent_refuses_longer_chains_and_changes_nothing():
    model = network()
    prune(model, sparsity=0.5)
    chains.append(model[2], "weight", Frozen())
    with pytest.raises(TensorError, match=r"^2\.weight: expected no .* got Mask, Frozen$"):
        make_permanent(model)
    assert get_mask(model, "0.weight") is not None
    set_mask(model, "0.weight", torch.zeros(6, 4, dtype=torch.bool))
    assert not model[0].weight.any()
