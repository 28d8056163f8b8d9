import builtins
import copy
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

import dwindle
from dwindle import Coding, bind
from dwindle.errors import CheckpointError, NotDwzError, OutputError, TensorError
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.prune import get_mask, prune
from dwindle.records import Raw, Shared, Tied, same
from dwindle.share import get_codebook, share


class Net(nn.Module):
    """One tensor over the size that is shared by default, others under it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.wide = nn.Linear(36 * 4, 40)
        self.head = nn.Linear(40, 5)

    def forward(self, x):
        x = self.norm(self.conv(x))
        return self.head(torch.relu(self.wide(x.flatten(1))))


@pytest.fixture
def net():
    torch.manual_seed(11)
    net = Net()
    net(torch.randn(16, 1, 8, 8))
    return net.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def checkpoint(tmp_path, net):
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def records_of(path):
    with dwindle.open(path, max_bytes=None) as archive:
        return {name: archive.record(name) for name in archive}


def test_defaults_round_weights_to_levels_and_vectors_to_few_bits(tmp_path, net):
    state = copy.deepcopy(net.state_dict())
    result = dwindle.compress(net, tmp_path / "net.dwz")
    found, loaded = records_of(result.path), dwindle.load(result.path)
    shared = [name for name, record in found.items() if isinstance(record, Shared)]
    assert shared == ["wide.weight", "head.weight"]
    noise = sum(
        float((loaded[name] - state[name]).square().sum() / state[name].square().sum()) for name in shared
    )
    assert -10 * math.log10(noise) == pytest.approx(25, abs=0.7)
    for name in set(state) - set(shared):
        if name.endswith(("bias", "norm.weight", "running_mean", "running_var")):
            torch.testing.assert_close(loaded[name], state[name], rtol=2**-9, atol=0)
        else:
            assert torch.equal(loaded[name], state[name]), name
    rough = dwindle.compress(net, tmp_path / "rough.dwz", quality=10)
    assert rough.size < 0.8 * result.size


def test_bits_share_large_matrices_and_keep_the_rest(tmp_path, net):
    state = copy.deepcopy(net.state_dict())
    result = dwindle.compress(net, tmp_path / "net.dwz", bits=8)
    found = records_of(result.path)
    assert [name for name, record in found.items() if isinstance(record, Shared)] == ["wide.weight"]
    assert 200 < len(found["wide.weight"].codebook) <= 256
    loaded = dwindle.load(result.path)
    assert set(loaded) == set(state)
    for name, tensor in state.items():
        assert name == "wide.weight" or torch.equal(loaded[name], tensor), name
    assert result.size == result.path.stat().st_size == result.ledger.file_size
    assert result.rate == sum(t.numel() * t.element_size() for t in state.values()) / result.size
    assert result.notes == ()
    assert (result.score, result.reference_score) == (None, None)


def test_the_callers_model_is_unchanged(tmp_path, net, images):
    state, answer = copy.deepcopy(net.state_dict()), net(images)
    result = dwindle.compress(net, tmp_path / "x.dwz", sparsity=0.5, bits=2, min_elements=1)
    assert list(net.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(net(images), answer)
    assert not torch.equal(result.model(images), answer)
    assert get_mask(net, "wide.weight") is None


@pytest.mark.parametrize("tool", ["codebooks", "masks", "both", "none"])
def test_the_file_answers_as_the_compressed_model_in_memory(tmp_path, net, images, tool):
    result = dwindle.compress(
        net,
        tmp_path / "x.dwz",
        sparsity=0.7 if tool in ("masks", "both") else None,
        bits=4 if tool in ("codebooks", "both") else {},
        min_elements=1,
    )
    loaded = dwindle.load_into(Net(), result.path).eval()
    assert torch.equal(loaded(images), result.model.eval()(images))


def test_callbacks_train_after_each_stage_and_judge_what_the_file_holds(tmp_path, net, images):
    trained, judged = [], []

    def train(model):
        trained.append((get_mask(model, "wide.weight") is not None, get_codebook(model, "wide.weight")))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model(images).square().mean().backward()
        optimizer.step()

    def evaluate(model):
        judged.append((model, model(images)))
        return float(len(judged))

    path = tmp_path / "x.dwz"
    result = dwindle.compress(net, path, sparsity=0.5, bits=3, min_elements=1, train=train, evaluate=evaluate)
    assert [(mask, book is not None) for mask, book in trained] == [(True, False), (True, True)]
    assert (result.reference_score, result.score) == (1.0, 2.0)
    assert judged[0][0] is net
    loaded = dwindle.load_into(Net(), path).eval()
    assert torch.equal(judged[1][1], loaded(images))
    assert not any("parametrizations" in name for name in judged[1][0].state_dict())
    assert float((loaded.wide.weight == 0).float().mean()) >= 0.5


def test_masks_and_codebooks_a_model_has_are_kept(tmp_path, net):
    prune(net, sparsity={"wide.weight": 0.9})
    share(net, bits={"wide.weight": 2, "head.weight": 3})
    result = dwindle.compress(net, tmp_path / "x.dwz", bits=8)
    expected, found = bind.to_records(net), records_of(result.path)
    assert all(same(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("of_model", [True, False])
def test_nan_and_infinite_weights_are_kept_exactly_and_noted(tmp_path, net, of_model):
    with torch.no_grad():
        net.wide.weight.view(torch.int32)[3, 3] = 0x7FC12345
        net.conv.weight[0, 0, 0, 0] = float("-inf")
        net.head.bias[1] = float("nan")
    settings = {"sparsity": {"wide.weight": 0.5}, "bits": {"linear": 4, "conv.weight": 2, "head.bias": 1}}
    if of_model:
        result = dwindle.compress(net, tmp_path / "x.dwz", min_elements=1, **settings)
    else:
        save_file(net.state_dict(), tmp_path / "x.safetensors")
        result = dwindle.compress_checkpoint(
            tmp_path / "x.safetensors", tmp_path / "x.dwz", min_elements=1, **settings
        )
    assert {note.split(":")[0] for note in result.notes} == {"wide.weight", "conv.weight", "head.bias"}
    assert all("kept exactly: 1 of" in note for note in result.notes)
    found, expected = records_of(result.path), bind.to_records(net)
    for name in ("wide.weight", "conv.weight", "head.bias"):
        assert same(found[name], expected[name])
    assert isinstance(found["head.weight"], Shared)


def test_what_was_not_to_be_compressed_is_not_noted(tmp_path, net):
    with torch.no_grad():
        net.conv.weight[0] = float("nan")
    assert dwindle.compress(net, tmp_path / "x.dwz").notes == ()
    save_file(net.state_dict(), tmp_path / "x.safetensors")
    assert dwindle.compress_checkpoint(tmp_path / "x.safetensors", tmp_path / "y.dwz").notes == ()


@pytest.mark.parametrize("of_model", [True, False])
def test_weights_whose_squares_leave_float64_are_kept_exactly(tmp_path, of_model):
    layer = nn.Linear(64, 64).double()
    with torch.no_grad():
        layer.weight[0, 0] = -1e200
    save_file(layer.state_dict(), tmp_path / "x.safetensors")
    path = tmp_path / "x.dwz"
    make = (lambda: dwindle.compress(layer, path)) if of_model else None
    result = make() if make else dwindle.compress_checkpoint(tmp_path / "x.safetensors", path)
    assert result.notes == ("weight: kept exactly: 1 of 4096 weights are NaN, infinite or huge",)
    assert torch.equal(dwindle.load(path)["weight"], layer.weight)


def test_parametrizations_of_somebody_else_are_kept_exactly(tmp_path):
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(70, 70)), nn.Linear(70, 70))
    state = copy.deepcopy(model.state_dict())
    result = dwindle.compress(model, tmp_path / "x.dwz", bits=8, evaluate=lambda model: 0.0)
    assert result.notes == ("0.weight: kept exactly: parametrized by _SpectralNorm",)
    loaded = dwindle.load(tmp_path / "x.dwz")
    assert all(torch.equal(loaded[name], state[name]) for name in state if name != "1.weight")
    fresh = nn.Sequential(parametrizations.spectral_norm(nn.Linear(70, 70)), nn.Linear(70, 70))
    dwindle.load_into(fresh, tmp_path / "x.dwz")
    assert torch.equal(fresh[1].weight, loaded["1.weight"])


def test_parametrizations_of_somebody_else_are_not_rounded_either(tmp_path):
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(70, 70)), nn.Linear(70, 70))
    state = copy.deepcopy(model.state_dict())
    dwindle.compress(model, tmp_path / "x.dwz")
    loaded = dwindle.load(tmp_path / "x.dwz")
    changed = {name for name in state if not torch.equal(loaded[name], state[name])}
    assert changed == {"0.bias", "1.weight", "1.bias"}


@pytest.mark.parametrize("of_model", [True, False])
def test_what_was_shared_before_stays_as_it_is(tmp_path, net, checkpoint, of_model):
    with torch.no_grad():
        net.wide.weight.copy_((net.wide.weight * 400).round() / 7)
    assert len(net.wide.weight.unique()) < 100
    if of_model:
        dwindle.compress(net, tmp_path / "x.dwz")
    else:
        save_file(net.state_dict(), tmp_path / "x.safetensors")
        dwindle.compress_checkpoint(tmp_path / "x.safetensors", tmp_path / "x.dwz")
    assert torch.equal(dwindle.load(tmp_path / "x.dwz")["wide.weight"], net.wide.weight)


@pytest.mark.parametrize("quality", [-1, 101, float("nan"), float("inf")])
def test_a_quality_out_of_range_is_refused(tmp_path, net, checkpoint, quality):
    for call in (
        lambda: dwindle.compress(net, tmp_path / "x.dwz", quality=quality),
        lambda: dwindle.compress_checkpoint(checkpoint, tmp_path / "x.dwz", quality=quality),
    ):
        with pytest.raises(ValueError, match="expected a quality of 0 to 100 dB"):
            call()
    assert not (tmp_path / "x.dwz").exists()


def test_two_ways_to_share_at_once_are_refused(tmp_path, net, checkpoint):
    for call in (
        lambda: dwindle.compress(net, tmp_path / "x.dwz", bits=4, quality=20),
        lambda: dwindle.compress(net, tmp_path / "x.dwz", bits=4, entropy_constrained=True),
        lambda: dwindle.compress(
            net, tmp_path / "x.dwz", calibrate=[torch.ones(1)], entropy_constrained=True
        ),
        lambda: dwindle.compress(net, tmp_path / "x.dwz", lossless=True, entropy_constrained=True),
        lambda: dwindle.compress_checkpoint(checkpoint, tmp_path / "x.dwz", bits=4, quality=20),
        lambda: dwindle.compress_checkpoint(checkpoint, tmp_path / "x.dwz", bits=4, entropy_constrained=True),
        lambda: dwindle.compress_checkpoint(checkpoint, tmp_path / "x.dwz", target_size=999, quality=20),
        lambda: dwindle.compress_checkpoint(checkpoint, tmp_path / "x.dwz", target_size=999, lossless=True),
    ):
        with pytest.raises(ValueError, match=r"got both|got bits|got it with"):
            call()
    with pytest.raises(ValueError, match="1 byte or more, got 0"):
        dwindle.compress_checkpoint(checkpoint, tmp_path / "x.dwz", target_size=0)


@pytest.mark.parametrize("lossless", [False, True])
def test_hooks_of_torch_become_plain_zeros_unless_nothing_may_change(tmp_path, net, images, lossless):
    torch_prune.l1_unstructured(net.wide, "weight", 0.9)
    answer = net(images)
    result = dwindle.compress(net, tmp_path / "x.dwz", lossless=lossless)
    assert torch.equal(net(images), answer)
    loaded = dwindle.load(result.path)
    if lossless:
        assert result.notes == ()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in net.state_dict().items())
        return
    assert result.notes == ("wide.weight: pruned before by torch.nn.utils.prune",)
    assert "wide.weight_orig" not in loaded
    assert not loaded["wide.weight"][~net.wide.weight_mask.bool()].any()
    assert torch.allclose(dwindle.load_into(Net(), result.path).eval()(images), answer, atol=0.1)


def test_settings_by_name_and_type_of_layer(tmp_path, net):
    bits = {"conv": 3, "linear": 4, "head.weight": None}
    result = dwindle.compress(
        net, tmp_path / "x.dwz", sparsity={"wide.weight": 0.25}, bits=bits, min_elements=1
    )
    found = records_of(result.path)
    assert len(found["conv.weight"].codebook) == 8
    assert len(found["wide.weight"].codebook) == 16
    assert isinstance(found["head.weight"], Raw)
    weight = dwindle.load(result.path)["wide.weight"]
    assert int((weight == 0).sum()) == weight.numel() // 4


def test_settings_of_a_checkpoint_by_name_pattern_and_type(tmp_path, checkpoint):
    path = tmp_path / "x.dwz"
    bits = {"conv": 3, "*.weight": 4, "h*.weight": 2, "wide.bias": 1, "norm.weight": None}
    dwindle.compress_checkpoint(checkpoint, path, bits=bits, min_elements=1, sparsity={"linear": 0.5})
    found = records_of(path)
    sizes = {name: len(r.codebook) for name, r in found.items() if isinstance(r, Shared)}
    assert sizes == {"conv.weight": 16, "wide.weight": 16, "head.weight": 4, "wide.bias": 2}
    loaded = dwindle.load(path)
    assert int((loaded["head.weight"] == 0).sum()) == 100
    assert int((loaded["conv.weight"] == 0).sum()) == 0


@pytest.mark.parametrize("setting", ["sparsity", "bits"])
def test_unknown_names_are_refused_with_the_nearest(tmp_path, net, checkpoint, setting):
    value = {"hed.weight": 0.5 if setting == "sparsity" else 3}
    for call in (
        lambda: dwindle.compress(net, tmp_path / "x.dwz", **{setting: value}),
        lambda: dwindle.compress_checkpoint(checkpoint, tmp_path / "x.dwz", **{setting: value}),
    ):
        with pytest.raises(TensorError, match=r"^hed\.weight: .*such as head\.weight"):
            call()
    assert not (tmp_path / "x.dwz").exists()


def test_the_second_name_of_a_tied_tensor_may_be_named(tmp_path):
    layer = nn.Linear(30, 20, bias=False)
    model = nn.ModuleDict({"a": layer, "b": layer})
    torch.save(model.state_dict(), tmp_path / "x.pt")
    dwindle.compress(model, tmp_path / "model.dwz", bits={"b.weight": 2})
    dwindle.compress_checkpoint(tmp_path / "x.pt", tmp_path / "file.dwz", bits={"b.weight": 2})
    for path in (tmp_path / "model.dwz", tmp_path / "file.dwz"):
        found = records_of(path)
        assert len(found["a.weight"].codebook) == 4
        assert found["b.weight"] == Tied("a.weight")
        loaded = dwindle.load(path)
        assert loaded["a.weight"] is loaded["b.weight"]


def odd_tensors():
    return {
        "complex": torch.randn(70, 70, dtype=torch.complex64),
        "whole": torch.arange(5000).reshape(50, 100),
        "one": torch.tensor([[3.5]]),
        "empty": torch.zeros(0, 7),
        "scalar": torch.tensor(-2.25),
        "constant": torch.full((80, 80), 1.5),
        "zeros": torch.zeros(80, 80),
        "half": torch.randn(70, 70).half(),
        "brain": torch.randn(70, 70).bfloat16(),
        "double": torch.randn(70, 70).double(),
        "tiny": torch.full((70, 70), 1e-45),
        "eight": torch.randn(70, 70).to(torch.float8_e4m3fn),
    }


@pytest.mark.parametrize("min_elements", [4096, 0])
def test_odd_tensors_survive(tmp_path, min_elements):
    torch.manual_seed(2)
    tensors = odd_tensors()
    torch.save(tensors, tmp_path / "x.pt")
    path = tmp_path / "x.dwz"
    dwindle.compress_checkpoint(tmp_path / "x.pt", path, min_elements=min_elements)
    loaded = dwindle.load(path)
    for name, tensor in tensors.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        if name not in ("half", "brain", "double"):
            assert torch.equal(loaded[name], tensor), name
    found = records_of(path)
    assert all(isinstance(found[name], Shared) for name in ("constant", "zeros", "half", "brain", "double"))
    assert all(isinstance(found[name], Raw) for name in ("complex", "whole", "scalar", "eight"))


def test_scalars_vectors_and_empty_tensors_may_be_named(tmp_path):
    tensors = odd_tensors() | {"vector": torch.tensor([1.0, 0.0, -0.0, 2.0])}
    torch.save(tensors, tmp_path / "x.pt")
    named = ("scalar", "empty", "one", "vector")
    bits, sparsity = dict.fromkeys(named, 1), dict.fromkeys(named, 0.0)
    dwindle.compress_checkpoint(tmp_path / "x.pt", tmp_path / "x.dwz", bits=bits, sparsity=sparsity)
    found = records_of(tmp_path / "x.dwz")
    assert all(isinstance(found[name], Shared) for name in named)
    loaded = dwindle.load(tmp_path / "x.dwz")
    for name in ("scalar", "empty", "one"):
        assert torch.equal(loaded[name], tensors[name])
    assert loaded["vector"].tolist() == [1.5, 0, 0, 1.5]


def test_everything_pruned_and_nothing_shared(tmp_path, checkpoint):
    dwindle.compress_checkpoint(checkpoint, tmp_path / "x.dwz", sparsity=1.0, bits={})
    dwindle.compress_checkpoint(checkpoint, tmp_path / "y.dwz", sparsity=1.0)
    for path in (tmp_path / "x.dwz", tmp_path / "y.dwz"):
        loaded = dwindle.load(path)
        assert not loaded["wide.weight"].any()
        assert loaded["head.weight"].any()


def test_all_coders_and_dictionaries_hold_the_same_tensors(tmp_path, net):
    made = {}
    for coder, dictionary in itertools.product(("huffman", "fixed", "csr", "csc"), ("layer", "network")):
        path = tmp_path / f"{coder}-{dictionary}.dwz"
        coding = Coding(coder, dictionary=dictionary)
        dwindle.compress(net, path, sparsity=0.8, bits=3, min_elements=1, coding=coding)
        made[path.stem] = dwindle.load(path)
    first = made["huffman-layer"]
    for other in made.values():
        assert all(torch.equal(first[name], other[name]) for name in first)
    sizes = {path.stem: path.stat().st_size for path in tmp_path.glob("*.dwz")}
    assert len({sizes[name] for name in ("huffman-layer", "fixed-layer", "csr-layer", "csc-layer")}) == 4


def test_the_same_input_gives_the_same_bytes_whatever_the_threads(tmp_path, checkpoint):
    content = set()
    for number, threads in enumerate((1, 3, None, 1)):
        path = tmp_path / f"{number}.dwz"
        dwindle.compress_checkpoint(
            checkpoint, path, sparsity=0.5, bits=8, init="forgy", seed=7, min_elements=1, threads=threads
        )
        content.add(path.read_bytes())
    assert len(content) == 1
    dwindle.compress_checkpoint(
        checkpoint, tmp_path / "s.dwz", sparsity=0.5, bits=8, init="forgy", seed=8, min_elements=1
    )
    assert (tmp_path / "s.dwz").read_bytes() not in content


def test_model_and_checkpoint_come_to_the_same_tensors(tmp_path, net, checkpoint):
    dwindle.compress(net, tmp_path / "a.dwz", sparsity={"wide.weight": 0.5})
    dwindle.compress_checkpoint(checkpoint, tmp_path / "b.dwz", sparsity={"wide.weight": 0.5})
    left, right = records_of(tmp_path / "a.dwz"), records_of(tmp_path / "b.dwz")
    assert left.keys() == right.keys()
    assert all(same(left[name], right[name]) for name in left)


def test_metadata_is_kept_and_must_be_text(tmp_path, net):
    dwindle.compress(net, tmp_path / "x.dwz", metadata={"epoch": "3"})
    with dwindle.open(tmp_path / "x.dwz") as archive:
        assert archive.metadata == {"epoch": "3"}
    with pytest.raises(TypeError, match="epoch"):
        dwindle.compress(net, tmp_path / "y.dwz", metadata={"epoch": 3})


def test_existing_outputs_are_kept_unless_forced(tmp_path, net, checkpoint):
    path = tmp_path / "x.dwz"
    path.write_bytes(b"precious")
    called = []
    with pytest.raises(OutputError, match="expected no file there"):
        dwindle.compress(net, path, evaluate=called.append)
    with pytest.raises(OutputError, match="expected no file there"):
        dwindle.compress_checkpoint(checkpoint, path)
    assert path.read_bytes() == b"precious"
    assert not called
    dwindle.compress(net, path, force=True)
    assert dwindle.load(path)


def test_a_bad_model_is_refused_before_anything_is_trained(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.LazyLinear(2)})
    called = []
    with pytest.raises(TensorError, match=r"^b\.bias: expected a dense tensor with data"):
        dwindle.compress(model, tmp_path / "x.dwz", train=called.append, evaluate=called.append)
    assert not called


def test_an_output_onto_the_input_is_refused_under_any_name(tmp_path, checkpoint):
    before = checkpoint.read_bytes()
    (tmp_path / "link").symlink_to(checkpoint)
    os.link(checkpoint, tmp_path / "hard")
    for name in ("net.safetensors", "link", "hard", "../" + tmp_path.name + "/net.safetensors"):
        with pytest.raises(OutputError, match="other than the input"):
            dwindle.compress_checkpoint(checkpoint, tmp_path / name, force=True)
    assert checkpoint.read_bytes() == before


def test_a_folder_of_shards(tmp_path, net):
    folder = tmp_path / "shards"
    folder.mkdir()
    state = net.state_dict()
    names = sorted(state)
    save_file({name: state[name] for name in names[::2]}, folder / "a.safetensors")
    save_file({name: state[name] for name in names[1::2]}, folder / "b.safetensors")
    (folder / "config.json").write_text("{}")
    before = (folder / "a.safetensors").read_bytes()
    with pytest.raises(OutputError, match="other than the input"):
        dwindle.compress_checkpoint(folder, folder / "a.safetensors", force=True)
    with pytest.raises(OutputError, match="other than the input"):
        dwindle.compress_checkpoint(folder, folder, force=True)
    assert (folder / "a.safetensors").read_bytes() == before
    result = dwindle.compress_checkpoint(folder, folder / "x.dwz")
    assert result.skipped == ("config.json",)
    assert set(dwindle.load(folder / "x.dwz")) == set(state)
    dwindle.compress_checkpoint(folder, folder / "x.dwz", force=True)


def test_a_compressed_file_is_not_compressed_again(tmp_path, net):
    dwindle.compress(net, tmp_path / "x.dwz")
    with pytest.raises(CheckpointError, match="compressed already"):
        dwindle.compress_checkpoint(tmp_path / "x.dwz", tmp_path / "y.dwz")


@pytest.mark.parametrize("name", ["none/x.dwz", "file/x.dwz", "x" * 300])
def test_outputs_that_cannot_be_written(tmp_path, net, name):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be written|expected an existing folder"):
        dwindle.compress(net, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, tmp_path_factory, checkpoint):
    code = f"""
import resource, signal
from dwindle import compress_checkpoint
from dwindle.errors import OutputError
compress_checkpoint({str(checkpoint)!r}, {str(tmp_path_factory.mktemp("warm") / "x.dwz")!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    compress_checkpoint({str(checkpoint)!r}, {str(tmp_path / "x.dwz")!r})
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "x.dwz: cannot be written: File too large" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_load_refuses_what_is_no_file_of_ours(tmp_path, checkpoint):
    with pytest.raises(NotDwzError, match=r"net\.safetensors: expected a \.dwz"):
        dwindle.load(checkpoint)


def test_loaded_tensors_have_memory_of_their_own(tmp_path, net):
    dwindle.compress(net, tmp_path / "x.dwz", bits=8)
    loaded = dwindle.load(tmp_path / "x.dwz")
    loaded["head.bias"].add_(1)
    assert torch.equal(dwindle.load(tmp_path / "x.dwz")["head.bias"], net.head.bias)


def test_load_into_refuses_another_model_and_leaves_it_alone(tmp_path, net):
    dwindle.compress(net, tmp_path / "x.dwz")
    for other, message in (
        (nn.Linear(2, 2), "but it lacks bias"),
        (nn.ModuleDict({**dict(Net().named_children()), "more": nn.Linear(1, 1)}), "but it lacks more.bias"),
        (nn.ModuleDict(dict(list(Net().named_children())[:3])), "but it has also head.bias"),
        (
            nn.ModuleDict(dict(Net().named_children()) | {"head": nn.Linear(40, 6)}),
            r"head\.weight: expected \[6, 40\], got \[5, 40\]",
        ),
    ):
        before = copy.deepcopy(other.state_dict())
        with pytest.raises(CheckpointError, match=message):
            dwindle.load_into(other, tmp_path / "x.dwz")
        assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_decompressed_checkpoints_compress_to_the_same_tensors(tmp_path, checkpoint):
    dwindle.compress_checkpoint(checkpoint, tmp_path / "x.dwz", bits=8)
    with dwindle.open(tmp_path / "x.dwz") as archive:
        write_checkpoint(tmp_path / "y.safetensors", {name: archive.record(name) for name in archive})
    dwindle.compress_checkpoint(tmp_path / "y.safetensors", tmp_path / "y.dwz", bits=8)
    left, right = dwindle.load(tmp_path / "x.dwz"), dwindle.load(tmp_path / "y.dwz")
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert len(read_checkpoint(tmp_path / "y.safetensors").records) == len(left)


def test_the_public_names():
    assert dwindle.open is dwindle.Archive
    assert dwindle.open is not builtins.open
    assert all(getattr(dwindle, name) is not None for name in dwindle.__all__)
    with pytest.raises(AttributeError, match="module 'dwindle' has no attribute 'opne'"):
        _ = dwindle.opne


def test_an_open_archive_is_a_mapping_of_arrays(tmp_path, net):
    dwindle.compress(net, tmp_path / "x.dwz", bits=8)
    with dwindle.open(tmp_path / "x.dwz") as archive:
        assert set(archive.keys()) == set(net.state_dict())
        assert np.array_equal(archive["head.weight"], net.head.weight.detach().numpy())
        with pytest.raises(KeyError):
            archive["nothing"]


def test_a_codebook_takes_no_entry_beyond_its_type_and_leaves_survivors(tmp_path):
    values = {"a": torch.randn(100, 100), "b": torch.randn(50, 100)}
    save_file(values, tmp_path / "x.safetensors")
    bits, sparsity = {"a": 4}, {"b": 0.5}
    dwindle.compress_checkpoint(
        tmp_path / "x.safetensors", tmp_path / "x.dwz", bits=bits, sparsity=sparsity, codebook="float16"
    )
    kept = dwindle.load(tmp_path / "x.dwz")["b"]
    assert torch.equal(kept[kept != 0], values["b"][kept != 0])
    assert torch.count_nonzero(kept) == 2500
    values["a"][0] = 1e5
    save_file(values, tmp_path / "x.safetensors")
    for codebook, error, said in (
        ("float16", TensorError, "a: expected codebook"),
        ("half", ValueError, "half"),
    ):
        with pytest.raises(error, match=said):
            dwindle.compress_checkpoint(
                tmp_path / "x.safetensors", tmp_path / "y.dwz", bits=bits, codebook=codebook
            )


def test_settings_that_fit_nothing_are_refused(tmp_path):
    save_file({"a.weight": torch.randn(80, 80), "a.bias": torch.randn(80)}, tmp_path / "x.safetensors")
    for setting, said in (
        ({"*.bias": 0.5}, "fits vectors only"),
        ({"a.weight": 0.5, "*.bias": 0.5}, "fits vectors only"),
        ({"conv": 0.5}, "conv: expected a tensor"),
        ({"conv": 0.5, "a.weight": None}, "conv: expected a tensor"),
    ):
        with pytest.raises(TensorError, match=said):
            dwindle.compress_checkpoint(tmp_path / "x.safetensors", tmp_path / "x.dwz", sparsity=setting)
    assert not (tmp_path / "x.dwz").exists()
    left = {"linear": 0.5, "*.bias": None}
    assert dwindle.compress_checkpoint(tmp_path / "x.safetensors", tmp_path / "x.dwz", sparsity=left).size


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got str; compress_checkpoint"):
        dwindle.compress("model.safetensors", tmp_path / "x.dwz")
    assert "compress_checkpoint" in dir(dwindle)
