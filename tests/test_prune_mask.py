"""Masks as part of the model: training, copying, saving, ties, codebooks behind and before them."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from dwindle import chains
from dwindle.errors import TensorError
from dwindle.prune import Mask, get_mask, prunable, set_mask
from dwindle.prune.mask import masked
from dwindle.share import set_codebook


class Entries(nn.Module):
    """Stand-in for a codebook: values of its own, whatever the original is."""

    def __init__(self, values):
        super().__init__()
        self.centroids = nn.Parameter(values.reshape(-1).clone())
        self.shape = values.shape

    def forward(self, weight):
        return self.centroids.view(self.shape)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def train(model, optimizer, steps=3):
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 6)).square().sum().backward()
        optimizer.step()


def half(weight):
    torch.manual_seed(2)
    return torch.rand(weight.shape) > 0.5


def is_plus_zero(values):
    return bool((values.contiguous().view(torch.int32) == 0).all())


def test_prunable_takes_weights_and_nothing_else():
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(2, 2),
            "conv1": nn.Conv1d(1, 2, 3),
            "conv2": nn.Conv2d(1, 2, 3),
            "conv3": nn.ConvTranspose3d(1, 2, 3),
            "embed": nn.Embedding(3, 2),
            "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True),
            "norm": nn.LayerNorm((2, 2)),
            "batch": nn.BatchNorm2d(2),
            "lstm": nn.LSTM(2, 2),
            "lazy": nn.LazyLinear(2),
            "drop": nn.Dropout(),
        }
    )
    model.register_parameter("scalar", nn.Parameter(torch.tensor(1.0)))
    model.register_parameter("matrix", nn.Parameter(torch.ones(2, 2)))
    model.register_parameter("complex", nn.Parameter(torch.ones(2, 2, dtype=torch.complex64)))
    model.register_parameter("frozen", nn.Parameter(torch.ones(2, 2), requires_grad=False))
    assert list(prunable(model)) == [
        "frozen",
        "matrix",
        "linear.weight",
        "conv1.weight",
        "conv2.weight",
        "conv3.weight",
        "embed.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "lstm.weight_hh_l0",
        "lstm.weight_ih_l0",
    ]
    assert prunable(model)["linear.weight"] == (model["linear"], "weight")


def test_prunable_is_the_same_with_masks():
    model = network()
    plain = prunable(model)
    set_mask(model, "0.weight", half(model[0].weight))
    assert prunable(model) == plain


def test_survivors_keep_their_values_and_the_rest_is_plus_zero():
    layer = nn.Linear(6, 5)
    parameter, old, mask = layer.weight, layer.weight.detach().clone(), half(layer.weight)
    set_mask(layer, "weight", mask)
    assert torch.equal(layer.weight[mask], old[mask])
    assert is_plus_zero(layer.weight[~mask])
    assert layer.parametrizations.weight.original is parameter
    assert is_plus_zero(parameter[~mask])
    assert torch.equal(get_mask(layer, "weight"), mask)
    assert get_mask(layer, "bias") is None


def test_infinite_values_under_the_mask_do_no_harm():
    layer = nn.Linear(2, 1)
    set_mask(layer, "weight", torch.tensor([[True, False]]))
    with torch.no_grad():
        layer.parametrizations.weight.original[0, 1] = float("inf")
    layer(torch.ones(1, 2)).sum().backward()
    assert torch.isfinite(layer.weight).all()
    assert layer.parametrizations.weight.original.grad.tolist() == [[1.0, 0.0]]


def test_the_mask_is_copied_in():
    layer, mask = nn.Linear(2, 2), torch.ones(2, 2, dtype=torch.bool)
    set_mask(layer, "weight", mask)
    mask.fill_(False)
    assert get_mask(layer, "weight").all()


def test_masks_intersect_and_never_stack():
    layer = nn.Linear(2, 2)
    set_mask(layer, "weight", torch.tensor([[True, False], [True, True]]))
    set_mask(layer, "weight", torch.tensor([[True, True], [False, True]]))
    assert get_mask(layer, "weight").tolist() == [[True, False], [False, True]]
    assert [type(link) for link in layer.parametrizations.weight] == [Mask]
    assert is_plus_zero(layer.parametrizations.weight.original[~get_mask(layer, "weight")])


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.1),
        lambda parameters: torch.optim.AdamW(parameters, 0.1),
    ],
)
def test_training_moves_survivors_and_revives_nothing(optimizer):
    model = network()
    steps = optimizer(model.parameters())
    train(model, steps)
    mask = half(model[0].weight)
    set_mask(model, "0.weight", mask)
    before = model[0].weight.detach().clone()
    train(model, steps)
    assert is_plus_zero(model[0].weight[~mask])
    assert (model[0].weight[mask] != before[mask]).all()


def test_assigning_a_weight_keeps_the_mask():
    layer, mask = nn.Linear(6, 5), half(torch.empty(5, 6))
    set_mask(layer, "weight", mask)
    layer.weight = torch.ones(5, 6)
    assert torch.equal(layer.weight, mask.float())


def test_deepcopy_trains_apart():
    model = network()
    set_mask(model, "0.weight", half(model[0].weight))
    twin = copy.deepcopy(model)
    before = model[0].weight.detach().clone()
    train(twin, torch.optim.SGD(twin.parameters(), 0.1))
    set_mask(twin, "0.weight", torch.zeros(5, 6, dtype=torch.bool))
    set_mask(twin, "2.weight", half(twin[2].weight))
    assert torch.equal(model[0].weight, before)
    assert torch.equal(get_mask(model, "0.weight"), half(before))
    assert not twin[0].weight.any()
    assert get_mask(model, "2.weight") is None


def test_state_dict_round_trip():
    model, other = network(), network()
    mask = half(model[0].weight)
    set_mask(model, "0.weight", mask)
    train(model, torch.optim.SGD(model.parameters(), 0.1))
    set_mask(other, "0.weight", torch.ones(5, 6, dtype=torch.bool))
    other.load_state_dict(model.state_dict())
    assert torch.equal(get_mask(other, "0.weight"), mask)
    x = torch.randn(2, 6)
    assert torch.equal(model(x), other(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_mask_follows_its_model_to_another_dtype(dtype):
    model = network()
    set_mask(model, "0.weight", half(model[0].weight))
    model.to(dtype)
    assert model[0].weight.dtype == dtype
    assert get_mask(model, "0.weight").dtype == torch.bool
    assert model(torch.ones(1, 6, dtype=dtype)).dtype == dtype


def tied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize("name", ["0.weight", "2.weight"])
def test_every_owner_of_a_tied_weight_is_masked(name):
    model = tied()
    assert list(prunable(model)) == ["0.weight"]
    mask = half(model[0].weight)
    set_mask(model, name, mask)
    assert chains.chain(model[0], "weight") == chains.chain(model[2], "weight")
    for _ in range(2):
        train(model, torch.optim.SGD(model.parameters(), 0.1))
        assert torch.equal(model[0].weight, model[2].weight)
        assert is_plus_zero(model[0].weight[~mask])
        assert model[0].parametrizations.weight.original is model[2].parametrizations.weight.original
        model = copy.deepcopy(model)
        assert chains.chain(model[0], "weight") == chains.chain(model[2], "weight")
    set_mask(model, name, torch.zeros(6, 6, dtype=torch.bool))
    assert not model[0].weight.any()
    assert not model[2].weight.any()
    assert len(list(model.parameters())) == 3


def test_a_tie_masked_in_one_place_only_is_mended():
    model, mask = tied(), torch.eye(6, dtype=torch.bool)
    set_mask(model[0], "weight", mask)
    set_mask(model[2], "weight", half(mask))
    set_mask(model, "0.weight", torch.ones(6, 6, dtype=torch.bool))
    assert torch.equal(get_mask(model, "0.weight"), mask & half(mask))
    assert torch.equal(get_mask(model, "2.weight"), mask & half(mask))
    assert chains.chain(model[0], "weight") == chains.chain(model[2], "weight")


def test_a_mask_goes_behind_a_codebook():
    layer = nn.Linear(2, 2)
    chains.append(layer, "weight", Entries(torch.tensor([[1.0, 2.0], [3.0, 4.0]])))
    set_mask(layer, "weight", torch.tensor([[True, False], [True, True]]))
    assert [type(link) for link in chains.chain(layer, "weight")] == [Entries, Mask]
    assert layer.weight.tolist() == [[1.0, 0.0], [3.0, 4.0]]


def test_pruning_again_after_sharing_moves_the_mask_last():
    layer = nn.Linear(2, 2)
    set_mask(layer, "weight", torch.tensor([[True, False], [True, True]]))
    entries = Entries(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    chains.append(layer, "weight", entries)
    set_mask(layer, "weight", torch.tensor([[True, True], [False, True]]))
    assert [type(link) for link in chains.chain(layer, "weight")] == [Entries, Mask]
    assert layer.weight.tolist() == [[1.0, 0.0], [0.0, 4.0]]
    layer.weight.sum().backward()
    assert entries.centroids.grad.tolist() == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("shape", [(1, 1), (0, 3), (3, 0)])
def test_all_pruned_and_empty_weights(shape):
    model = nn.Module()
    model.register_parameter("weight", nn.Parameter(torch.ones(shape)))
    set_mask(model, "weight", torch.zeros(shape, dtype=torch.bool))
    model.weight.sum().backward()
    assert model.weight.shape == shape
    assert not model.weight.any()
    assert not model.parametrizations.weight.original.grad.any()


def test_non_contiguous_weight_and_mask():
    layer = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
    mask = (torch.arange(24).view(2, 2, 2, 3) % 2 == 0).permute(3, 0, 1, 2)
    old = layer.weight.detach().clone()
    set_mask(layer, "weight", mask)
    assert torch.equal(layer.weight, torch.where(mask, old, 0.0))


def test_masks_that_do_not_fit_are_refused():
    model = nn.ModuleDict({"fc": nn.Linear(2, 2)})
    with pytest.raises(TensorError, match=r"^fc\.weight: expected a mask of shape \[2, 2\] as torch\.bool"):
        set_mask(model, "fc.weight", torch.ones(4, dtype=torch.bool))
    with pytest.raises(TensorError, match=r"^fc\.weight: .* got \[2, 2\] as torch\.float32"):
        set_mask(model, "fc.weight", torch.ones(2, 2))
    with pytest.raises(TensorError, match=r"^fc\.w: expected the name of a tensor"):
        set_mask(model, "fc.w", torch.ones(2, 2, dtype=torch.bool))
    assert not parametrize.is_parametrized(model["fc"])


@pytest.mark.parametrize("before", [False, True])
def test_masked_lasts_as_long_as_its_block(before):
    model = tied()
    if before:
        set_mask(model, "0.weight", half(model[0].weight))
    state = {name: (id(value), value.clone()) for name, value in model.named_parameters()}
    values = model[0].weight.detach().clone()
    only = torch.eye(6, dtype=torch.bool)

    def body():
        with masked(model, "2.weight", only):
            assert torch.equal(model[0].weight, torch.where(only, values, 0.0))
            assert torch.equal(model[2].weight, model[0].weight)
            raise KeyError

    with pytest.raises(KeyError):
        body()
    assert list(state) == [name for name, _ in model.named_parameters()]
    for name, value in model.named_parameters():
        assert id(value) == state[name][0]
        assert torch.equal(value, state[name][1])
    assert torch.equal(model[2].weight, values)


def test_prune_share_prune_share_keeps_what_is_gone_at_zero():
    model = network()
    for round_ in (1, 2):
        gone = torch.arange(30).view(5, 6) < 10 * round_
        set_mask(model, "0.weight", ~gone)
        indices = torch.where(gone, 0, torch.arange(30).view(5, 6) % 3 + 1)
        set_codebook(model, "0.weight", torch.tensor([0.0, -1.0, 0.5, 2.0]), indices)
        twin = copy.deepcopy(model)
        set_mask(twin, "0.weight", torch.arange(30).view(5, 6) % 2 == 0)
        for each in (model, twin):
            train(each, torch.optim.Adam(each.parameters(), 0.1))
            assert is_plus_zero(each[0].weight[gone])
            assert (each[0].weight[~gone & get_mask(each, "0.weight")] != 0).all()
        assert is_plus_zero(twin[0].weight.view(-1)[1::2])
