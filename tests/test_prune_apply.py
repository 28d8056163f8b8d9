"""Pruning whole models: targets, scopes, monotone, reports, errors that change nothing."""

import copy
import json

import pytest
import torch
from torch import nn

from dwindle.errors import TensorError
from dwindle.prune import get_mask, prunable, prune, prune_iteratively, set_mask


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2)
    )


def weights(model):
    return {name: getattr(*owner).detach().clone() for name, owner in prunable(model).items()}


def masks(model):
    return {name: get_mask(*owner) for name, owner in prunable(model).items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_one_sparsity_for_every_layer():
    model, old = network(), weights(network())
    report = prune(model, sparsity=0.75)
    for row, (name, mask) in zip(report.tensors, masks(model).items(), strict=True):
        assert (row.name, row.elements, row.before) == (name, mask.numel(), mask.numel())
        assert row.kept == int(mask.sum())
        assert row.removed == round(0.75 * row.elements)
        assert old[name].abs()[mask].min() >= old[name].abs()[~mask].max()
        assert torch.equal(weights(model)[name], torch.where(mask, old[name], 0.0))
    assert report.elements == 36 + 128 + 16
    assert (report.removed, report.kept) == (135, 45)
    assert report.sparsity == 0.75
    assert not any("parametrizations.bias" in name for name, _ in model.named_parameters())
    assert isinstance(model[1].weight, nn.Parameter)


def test_sparsities_by_name_leave_the_rest_alone():
    model = network()
    report = prune(model, sparsity={"5.weight": 0.5, "4.weight": None})
    assert [row.removed for row in report.tensors] == [0, 0, 8]
    assert [mask is None for mask in masks(model).values()] == [True, True, False]


def test_quality_is_in_standard_deviations():
    model, old = network(), weights(network())
    prune(model, quality={"4.weight": 1.0})
    std = old["4.weight"].std(correction=0)
    assert torch.equal(get_mask(model, "4.weight"), old["4.weight"].abs() >= std)
    prune(model, quality=0.5)
    assert torch.equal(
        get_mask(model, "5.weight"), old["5.weight"].abs() >= 0.5 * old["5.weight"].std(correction=0)
    )


def test_global_scope_has_one_threshold():
    model, old = network(), weights(network())
    report = prune(model, sparsity=0.6, scope="global")
    assert report.removed == round(0.6 * 180)
    kept = torch.cat([old[name].abs()[mask] for name, mask in masks(model).items()])
    gone = torch.cat([old[name].abs()[~mask] for name, mask in masks(model).items()])
    assert kept.min() >= gone.max()
    assert len({row.removed / row.elements for row in report.tensors}) > 1


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruned_weights_never_come_back(scope):
    model = network()
    prune(model, sparsity=0.5, scope=scope)
    before = copy.deepcopy(masks(model))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    report = prune(model, sparsity=0.8, scope=scope)
    for name, mask in masks(model).items():
        assert not (mask & ~before[name]).any()
    assert report.sparsity == pytest.approx(0.8, abs=0.01)
    after = copy.deepcopy(masks(model))
    assert prune(model, sparsity=0.1, scope=scope).removed == 0
    assert same(masks(model), after)


def test_a_tie_is_counted_once_and_found_by_either_name():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    report = prune(model, sparsity={"1.weight": 0.5})
    assert [(row.name, row.elements, row.kept) for row in report.tensors] == [("0.weight", 16, 8)]
    assert torch.equal(get_mask(model, "0.weight"), get_mask(model, "1.weight"))


def test_everything_pruned_still_runs_and_trains():
    model = network()
    report = prune(model, sparsity=1.0)
    assert (report.kept, report.sparsity) == (0, 1.0)
    model(torch.randn(2, 1, 4, 4)).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_a_model_without_weights():
    report = prune(nn.ReLU(), sparsity=0.9, scope="global")
    assert (report.tensors, report.elements, report.sparsity) == ((), 0, 0.0)


def test_an_empty_weight():
    model = nn.Module()
    model.register_parameter("weight", nn.Parameter(torch.ones(0, 3)))
    assert prune(model, sparsity=0.5).tensors[0].sparsity == 0.0


@pytest.mark.parametrize("how", [{"sparsity": 0.5}, {"quality": 1.0}, {"sparsity": 0.5, "scope": "global"}])
def test_nan_is_refused_by_name_and_nothing_changes(how):
    model = network()
    with torch.no_grad():
        model[5].weight[0, 0] = float("nan")
    with pytest.raises(TensorError, match=r"^5\.weight: expected finite weights"):
        prune(model, **how)
    assert all(mask is None for mask in masks(model).values())


@pytest.mark.parametrize("name", ["6.weight", "5.bias", "1.weight"])
def test_a_name_that_is_not_prunable(name):
    with pytest.raises(TensorError, match=rf"^{name}: expected the name of a prunable tensor of the model"):
        prune(network(), sparsity={name: 0.5})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "got neither"),
        ({"sparsity": 0.5, "quality": 0.0}, "got both"),
        ({"sparsity": 1.5}, "expected a sparsity of 0 to 1, got 1.5"),
        ({"quality": -1.0}, "expected a finite quality"),
        ({"quality": 1.0, "scope": "global"}, "expected one sparsity"),
        ({"sparsity": {}, "scope": "global"}, "expected one sparsity"),
        ({"sparsity": 0.5, "scope": "tensor"}, "expected the scope layer or global, got tensor"),
    ],
)
def test_impossible_arguments(arguments, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        prune(model, **arguments)
    assert all(mask is None for mask in masks(model).values())


def test_the_report_is_json():
    model = network()
    set_mask(model, "5.weight", torch.zeros(2, 8, dtype=torch.bool))
    data = json.loads(json.dumps(prune(model, sparsity={"4.weight": 0.25}).to_json()))
    assert data["elements"] == 180
    assert data["kept"] == 36 + 96
    row = {"name": "4.weight", "elements": 128, "before": 128, "kept": 96, "sparsity": 0.25}
    assert data["tensors"][1] == row
    assert data["tensors"][2]["sparsity"] == 1.0


def test_iterating_prunes_and_trains_in_turn():
    model, seen = network(), []

    def train(trained):
        assert trained is model
        seen.append(int(get_mask(model, "4.weight").sum()))
        with torch.no_grad():
            model[4].parametrizations.weight.original.mul_(-2)

    reports = prune_iteratively(model, [0.5, {"4.weight": 0.75}], train)
    assert seen == [64, 32]
    assert [row.removed for row in reports[1].tensors] == [0, 32, 0]
    mask = get_mask(model, "4.weight")
    assert torch.equal(model[4].weight, torch.where(mask, 4 * network()[4].weight, 0.0))


def test_an_empty_schedule_does_nothing():
    assert prune_iteratively(network(), [], lambda model: pytest.fail("trained")) == []
