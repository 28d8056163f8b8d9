"""Tensors, owners and chains: names without parametrizations, ties, copies that don't break each other."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.nn.utils.parametrizations import weight_norm

from dwindle import chains
from dwindle.errors import TensorError


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_names_do_not_change_with_parametrizations():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
    names = [full for full, _, _ in chains.named_tensors(model)]
    assert names == ["0.bias", "0.weight", "2.weight"]
    chains.append(model[0], "weight", Double())
    weight_norm(model[2])
    assert [full for full, _, _ in chains.named_tensors(model)] == names


def test_owners_finds_ties_and_shared_modules():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = nn.ModuleDict({"a": first, "b": second, "again": first})
    for name in ("a.weight", "b.weight", "again.weight"):
        assert chains.owners(model, name) == [(first, "weight"), (second, "weight")]
    chains.append(first, "weight", Double())
    assert chains.owners(model, "b.weight") == [(first, "weight"), (second, "weight")]


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_compute_train_and_copy_with_parametrizations(kind):
    torch.manual_seed(1)
    layer = kind(3, 4, num_layers=2, bidirectional=True)
    inputs = torch.randn(5, 2, 3)
    plain = layer(inputs)[0]
    doubled = copy.deepcopy(layer)
    with torch.no_grad():
        doubled.weight_hh_l1 *= 2
    part = Double()
    chains.append(layer, "weight_hh_l1", part)
    again = copy.deepcopy(layer)
    for model in (layer, again, copy.deepcopy(again)):
        assert torch.equal(model(inputs)[0], doubled(inputs)[0])
    again(inputs)[0].sum().backward()
    assert again.parametrizations.weight_hh_l1.original.grad.any()
    assert copy.deepcopy([again, again])[0] is not again
    pair = copy.deepcopy([again, again])
    assert pair[0] is pair[1]
    chains.detach(layer, "weight_hh_l1", part)
    assert torch.equal(layer(inputs)[0], plain)
    assert torch.equal(again(inputs)[0], doubled(inputs)[0])


def test_duplicate_copies_what_torch_left_behind():
    layer = nn.Linear(3, 2)
    torch_prune.l1_unstructured(layer, "weight", 2)
    twin = chains.duplicate(layer)
    inputs = torch.randn(4, 3)
    assert torch.equal(twin(inputs), layer(inputs))
    assert twin.weight_orig is not layer.weight_orig
    with pytest.raises(RuntimeError):
        copy.deepcopy(layer)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(TensorError, match=r"^fc1\.wieght: expected .* such as fc1\.weight, got"):
        chains.owners(nn.ModuleDict({"fc1": nn.Linear(1, 1)}), "fc1.wieght")
    with pytest.raises(TensorError, match="of which there are none"):
        chains.owners(nn.ReLU(), "weight")


def test_append_and_detach_leave_the_same_parameter():
    layer = nn.Linear(2, 2)
    weight, kind = layer.weight, type(layer)
    one, two, three = Double(), Double(), Double()
    for part in (one, two, three):
        chains.append(layer, "weight", part)
    assert chains.chain(layer, "weight") == [one, two, three]
    assert torch.equal(layer.weight, 8 * weight)
    chains.detach(layer, "weight", two)
    assert chains.chain(layer, "weight") == [one, three]
    assert torch.equal(layer.weight, 4 * weight)
    chains.detach(layer, "weight", one)
    chains.detach(layer, "weight", three)
    assert layer.weight is weight
    assert type(layer) is kind
    assert chains.chain(layer, "weight") == []


def test_a_copy_can_be_changed_without_breaking_the_original():
    layer = nn.Linear(2, 2)
    part = Double()
    chains.append(layer, "weight", part)
    removed, added = copy.deepcopy(layer), copy.deepcopy(layer)
    chains.detach(removed, "weight", chains.chain(removed, "weight")[0])
    chains.append(added, "bias", Double())
    source = layer.parametrizations.weight.original
    assert torch.equal(layer.weight, 2 * source)
    assert torch.equal(removed.weight, source)
    assert torch.equal(added.bias, 2 * layer.bias)
    assert isinstance(layer.bias, nn.Parameter)
