import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from dwindle import bind, records
from dwindle.errors import CheckpointError, TensorError
from dwindle.prune import get_mask, prune, set_mask
from dwindle.records import Raw, Shared, Tied
from dwindle.share import get_codebook, set_codebook, share


class Net(nn.Module):
    """Every kind of state: weights, statistics, an integer buffer, one that is not persistent."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.register_buffer("steps", torch.tensor([1, -(2**40)]))
        self.register_buffer("flag", torch.tensor(True))
        self.register_buffer("scratch", torch.ones(5), persistent=False)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


class Tying(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 6)
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.embedding(x))


@pytest.fixture
def net():
    torch.manual_seed(3)
    net = Net()
    net(torch.randn(8, 2, 5, 5))  # statistics that are not those of a fresh model
    return net.eval()


def bits_of(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same_state(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert (left[name].dtype, left[name].shape) == (right[name].dtype, right[name].shape), name
        assert bits_of(left[name]) == bits_of(right[name]), name


def reload(model, fresh):
    """What went through records into a fresh model."""
    bind.load_records(fresh, bind.to_records(model), "here")
    return fresh


def test_a_plain_model_comes_back_bit_for_bit(net):
    found = bind.to_records(net)
    assert set(found) == set(net.state_dict())
    assert "scratch" not in found
    assert all(isinstance(record, Raw) for record in found.values())
    assert (found["steps"].dtype, found["flag"].shape) == ("int64", ())
    assert float(net.norm.running_var[0]) != 1
    same_state(bind.from_records(found), net.state_dict())
    same_state(reload(net, Net()).state_dict(), net.state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_dtypes_come_back_plain_masked_and_shared(net, dtype):
    net = net.to(dtype)
    same_state(reload(net, Net().to(dtype)).state_dict(), net.state_dict())
    prune(net, sparsity=0.5)
    share(net, bits=2)
    found = bind.to_records(net)
    assert isinstance(found["conv.weight"], Shared)
    assert found["conv.weight"].dtype == str(dtype).removeprefix("torch.")
    loaded = reload(net, Net().to(dtype))
    assert bits_of(loaded.conv.weight) == bits_of(net.conv.weight)
    assert bits_of(loaded.norm.running_mean) == bits_of(net.norm.running_mean)


def test_nan_and_negative_zero_come_back(net):
    with torch.no_grad():
        net.head.weight[0, :3] = torch.tensor([float("nan"), float("-inf"), -0.0])
        net.head.weight.view(torch.int32)[1, 0] = 0x7FC12345  # a NaN with a payload
    same_state(reload(net, Net()).state_dict(), net.state_dict())


def test_masks_are_applied(net):
    before = net.conv.weight.detach().clone()
    prune(net, sparsity={"conv.weight": 0.75})
    found = bind.to_records(net)
    assert isinstance(found["conv.weight"], Shared)
    kept = get_mask(net, "conv.weight")
    expected = torch.where(kept, before, 0.0)
    assert bits_of(bind.from_records(found)["conv.weight"]) == bits_of(expected)
    assert not any("parametrizations" in name for name in found)


def test_codebooks_become_shared_records(net):
    share(net, bits={"head.weight": 2})
    record = bind.to_records(net)["head.weight"]
    assert isinstance(record, Shared)
    book = get_codebook(net, "head.weight")
    assert record.codebook.tobytes() == book.centroids.detach().numpy().tobytes()
    assert np.array_equal(record.indices, book.indices.numpy())
    assert bits_of(reload(net, Net()).head.weight) == bits_of(net.head.weight)


def test_a_codebook_of_more_than_256_entries_has_16_bit_indices():
    layer = nn.Linear(40, 30)
    values = torch.linspace(-1, 1, 300)
    set_codebook(layer, "weight", values, torch.arange(1200) % 300)
    record = bind.to_records(layer)["weight"]
    assert record.indices.dtype == np.uint16
    assert bits_of(bind.from_records({"weight": record})["weight"]) == bits_of(layer.weight)


def test_a_negative_zero_entry_is_stored_as_the_model_computes_it():
    layer = nn.Linear(2, 2)
    set_codebook(layer, "weight", torch.tensor([-0.0, 1.0]), torch.tensor([0, 1, 1, 0]))
    record = bind.to_records(layer)["weight"]
    assert records.zero_entry(record) == 0
    assert bits_of(bind.from_records({"weight": record})["weight"]) == bits_of(layer.weight)


@pytest.mark.parametrize("zero", [False, True])
def test_a_mask_behind_a_codebook_sends_weights_to_zero(zero):
    layer = nn.Linear(4, 2)
    values = torch.tensor([0.0 if zero else -3.0, 1.0, 2.0])
    set_codebook(layer, "weight", values, torch.tensor([0, 1, 2, 1, 1, 2, 0, 2]))
    mask = torch.tensor([[True, False, True, True], [True, True, False, False]])
    set_mask(layer, "weight", mask)
    record = bind.to_records(layer)["weight"]
    assert len(record.codebook) == (3 if zero else 4)
    assert bits_of(bind.from_records({"weight": record})["weight"]) == bits_of(layer.weight)
    assert (layer.weight[~mask] == 0).all()


def test_a_mask_behind_a_codebook_of_256_entries_widens_the_indices():
    layer = nn.Linear(16, 16)
    set_codebook(layer, "weight", torch.linspace(1, 2, 256), torch.arange(256))
    mask = torch.ones(16, 16, dtype=torch.bool)
    mask[3, 4] = False
    set_mask(layer, "weight", mask)
    record = bind.to_records(layer)["weight"]
    assert (len(record.codebook), record.indices.dtype) == (257, np.uint16)
    assert bits_of(bind.from_records({"weight": record})["weight"]) == bits_of(layer.weight)


def test_no_room_for_a_zero_entry_is_an_error_by_name():
    layer = nn.Sequential(nn.Linear(256, 256))
    set_codebook(layer, "0.weight", torch.arange(1, 65537).float(), torch.arange(65536))
    mask = torch.ones(256, 256, dtype=torch.bool)
    mask[0, 0] = False
    set_mask(layer, "0.weight", mask)
    with pytest.raises(TensorError, match=r"^0\.weight: expected at most 65536 values"):
        bind.to_records(layer)


def test_shared_then_pruned_then_shared_again(net):
    share(net, bits={"head.weight": 3})
    prune(net, sparsity={"head.weight": 0.5})
    share(net, bits={"head.weight": 1})
    record = bind.to_records(net)["head.weight"]
    assert len(record.codebook) == 2
    assert int((record.indices == records.zero_entry(record)).sum()) >= 6
    assert bits_of(reload(net, Net()).head.weight) == bits_of(net.head.weight)


@pytest.mark.parametrize("stages", [(), ("prune",), ("share",), ("prune", "share"), ("share", "prune")])
def test_tied_weights_stay_tied(stages):
    torch.manual_seed(0)
    model = Tying()
    for stage in stages:
        if stage == "prune":
            prune(model, sparsity=0.5)
        else:
            share(model, bits=2)
    found = bind.to_records(model)
    assert list(found) == ["embedding.weight", "head.weight"]
    assert found["head.weight"] == Tied("embedding.weight")
    state = bind.from_records(found)
    assert state["head.weight"] is state["embedding.weight"]
    loaded = reload(model, Tying())
    assert loaded.head.weight is loaded.embedding.weight
    x = torch.arange(12)
    assert torch.equal(loaded(x), model(x))


def test_one_module_under_two_names_is_tied():
    layer = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": layer, "b": layer})
    found = bind.to_records(model)
    assert found["b.weight"] == Tied("a.weight")
    assert found["b.bias"] == Tied("a.bias")


def test_a_tied_buffer_is_stored_once():
    model = nn.Module()
    model.register_buffer("a", torch.arange(3))
    model.register_buffer("b", model.a)
    assert bind.to_records(model)["b"] == Tied("a")


def foreign(which):
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2))
    wrap = {"weight_norm": parametrizations.weight_norm, "spectral_norm": parametrizations.spectral_norm}
    wrap[which](model[0])
    return model


@pytest.mark.parametrize("which", ["weight_norm", "spectral_norm"])
def test_parametrizations_of_somebody_else_are_kept_as_what_they_are_made_of(which):
    model = foreign(which)
    share(model, bits={"1.weight": 1})
    state = copy.deepcopy(model.state_dict())
    found = bind.to_records(model)
    assert isinstance(found["1.weight"], Shared)
    same_state(model.state_dict(), state)  # computing a spectral norm would change its buffers
    for name in state:
        if name.startswith("0."):
            assert bits_of(bind.from_records(found)[name]) == bits_of(state[name])
    loaded = reload(model, foreign(which))
    x = torch.randn(3, 6)
    assert torch.equal(loaded.eval()(x), model.eval()(x))


@pytest.mark.parametrize("which", ["weight_norm", "spectral_norm"])
def test_unparametrized_leaves_parametrizations_of_somebody_else(which):
    model = foreign(which).eval()
    share(model, bits={"1.weight": 1})
    plain = bind.unparametrized(model)
    assert type(plain[1]) is nn.Linear
    assert set(plain.state_dict()) == set(foreign(which).state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(plain(x), model(x))
    assert get_codebook(model, "1.weight") is not None


def test_extra_state_is_refused_by_name():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"version": 1}

        def set_extra_state(self, state):
            pass

    with pytest.raises(TensorError, match=r"^inner: expected a module that keeps tensors only"):
        bind.to_records(nn.ModuleDict({"inner": Extra(2, 2)}))
    with pytest.raises(TensorError, match=r"^Extra: "):
        bind.to_records(Extra(2, 2))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.LazyLinear(3), "bias: expected a dense tensor with data, got an uninitialized one"),
        (
            nn.Linear(2, 2, device="meta"),
            "bias: expected a dense tensor with data, got torch.strided on meta",
        ),
    ],
)
def test_tensors_without_data_are_refused_by_name(model, message):
    with pytest.raises(TensorError) as caught:
        bind.to_records(model)
    assert str(caught.value) == message


def test_sparse_buffers_and_odd_dtypes_are_refused_by_name():
    model = nn.Module()
    model.register_buffer("table", torch.eye(3).to_sparse())
    with pytest.raises(TensorError, match=r"^table: expected a dense tensor with data, got torch.sparse_coo"):
        bind.to_records(model)
    model = nn.Module()
    model.register_buffer("odd", torch.zeros(2, dtype=torch.float8_e4m3fnuz))
    with pytest.raises(TensorError, match=r"^odd: expected a dtype out of .*got float8_e4m3fnuz$"):
        bind.to_records(model)


def test_empty_scalar_and_transposed_tensors():
    model = nn.Module()
    model.register_buffer("empty", torch.zeros(0, 3))
    model.register_buffer("scalar", torch.tensor(2.5 + 1j))
    model.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
    found = bind.to_records(model)
    assert (found["empty"].shape, found["scalar"].shape, found["turned"].shape) == ((0, 3), (), (3, 2))
    state = bind.from_records(found)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not bind.to_records(nn.Module())


def test_what_is_done_to_a_copy_does_not_show_in_the_model(net):
    prune(net, sparsity=0.5)
    share(net, bits=1)
    state, value = copy.deepcopy(net.state_dict()), bits_of(net.conv.weight)
    bind.to_records(net)
    plain = bind.unparametrized(net)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    same_state(net.state_dict(), state)
    assert bits_of(net.conv.weight) == value
    assert get_mask(net, "conv.weight") is not None
    assert get_codebook(net, "conv.weight") is not None
    assert set(plain.state_dict()) == set(Net().state_dict())


@pytest.mark.parametrize("make", [Net, Tying])
@pytest.mark.parametrize("stages", [("prune",), ("share",), ("prune", "share"), ("share", "prune")])
def test_a_saved_state_is_attached_to_a_fresh_model(make, stages):
    model = make()
    for stage in stages:
        if stage == "prune":
            prune(model, sparsity=0.4)
        else:
            share(model, bits=3)
    model = copy.deepcopy(model)
    state = model.state_dict()
    fresh = make()
    bind.attach(fresh, state)
    fresh.load_state_dict(state)
    same_state(fresh.state_dict(), state)
    assert list(fresh.state_dict()) == list(state)
    assert list(dict(fresh.named_parameters())) == list(dict(model.named_parameters()))
    left, right = bind.to_records(fresh), bind.to_records(model)
    assert left.keys() == right.keys()
    assert all(records.same(left[name], right[name]) for name in left)


def test_attaching_keeps_the_order_an_optimizer_goes_by():
    model = nn.Linear(4, 4)
    prune(model, sparsity=0.5)  # the weight is parametrized before the bias
    share(model, bits={"bias": 1, "weight": 1})
    fresh = nn.Linear(4, 4)
    bind.attach(fresh, model.state_dict())
    names = [name for name, _ in model.named_parameters()]
    assert [name for name, _ in fresh.named_parameters()] == names
    assert names.index("parametrizations.weight.1.centroids") < names.index(
        "parametrizations.bias.0.centroids"
    )


def test_attach_refuses_parametrizations_that_are_not_its_own():
    with pytest.raises(CheckpointError, match=r"^0\.weight: expected masks and codebooks"):
        bind.attach(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2)), foreign("weight_norm").state_dict())


def test_attach_leaves_names_that_only_look_like_parametrizations():
    model = nn.ModuleDict({"myparametrizations": nn.Linear(2, 2)})
    bind.attach(model, model.state_dict())
    assert type(model["myparametrizations"]) is nn.Linear


def test_loading_refuses_what_does_not_fit(net):
    found = bind.to_records(net)
    for change, message in (
        ({"head.bias": None}, r"^x: expected the model's tensors, but it lacks head\.bias$"),
        ({"more": found["steps"]}, r"^x: expected the model's tensors, but it has also more$"),
        ({"head.bias": found["norm.bias"]}, r"^x: head\.bias: expected \[3\], got \[4\]$"),
        (
            {"head.bias": Raw("complex64", (3,), bytes(24))},
            r"^x: head\.bias: expected torch\.float32, got complex64$",
        ),
        ({"steps": Raw("float32", (2,), bytes(8))}, r"^x: steps: expected torch\.int64, got float32$"),
    ):
        changed = {name: record for name, record in (found | change).items() if record is not None}
        fresh = Net()
        before = copy.deepcopy(fresh.state_dict())
        with pytest.raises(CheckpointError, match=message):
            bind.load_records(fresh, changed, "x")
        same_state(fresh.state_dict(), before)


def test_loading_into_a_pruned_model_is_refused(net):
    found = bind.to_records(net)
    prune(net, sparsity={"conv.weight": 0.5})
    with pytest.raises(CheckpointError, match=r"^x: expected a model without masks.*conv\.weight"):
        bind.load_records(net, found, "x")


def test_loading_keeps_the_models_dtype_and_materializes_lazy_layers(net):
    half = Net().half()
    bind.load_records(half, bind.to_records(net), "x")
    assert half.conv.weight.dtype == torch.float16
    assert torch.equal(half.conv.weight, net.conv.weight.half())
    layer, lazy = nn.Linear(3, 2), nn.LazyLinear(2)
    bind.load_records(lazy, bind.to_records(layer), "x")
    assert torch.equal(lazy.weight, layer.weight)
