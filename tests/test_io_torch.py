"""Torch checkpoints: nothing stored in them runs, nested ones are chosen by key, views and ties are kept."""

import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from dwindle.errors import CheckpointError, UnsafeCheckpointError
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.records import Raw, Tied, to_storage


class Payload:
    """Would touch the file of the environment variable CANARY if it were ever unpickled."""

    def __reduce__(self):
        return os.system, ('touch "$CANARY"',)


def save(path, content, legacy=False):
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("form", ["pickle", "protocol 2", "zip", "legacy", "beside tensors"])
@pytest.mark.parametrize("name", ["x.pt", "x.bin", "x.safetensors", "x"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch, form, name):
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    path = tmp_path / name
    if form in ("pickle", "protocol 2"):
        path.write_bytes(pickle.dumps({"w": Payload()}, protocol=4 if form == "pickle" else 2))
    elif form == "beside tensors":
        save(path, {"w": torch.ones(2), "evil": Payload()})
    else:
        save(path, {"w": Payload()}, legacy=form == "legacy")
    with pytest.raises(UnsafeCheckpointError, match=r"may run code.*safetensors") as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "canary").exists()


def test_a_pickled_module_is_refused_by_its_class(tmp_path):
    with pytest.raises(UnsafeCheckpointError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(save(tmp_path / "x.pt", torch.nn.Linear(2, 2)))


def test_a_torchscript_archive_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(save(path, {}), "a") as archive:
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(UnsafeCheckpointError, match="TorchScript"):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_and_damaged_files(tmp_path, legacy):
    path = save(tmp_path / "x.pt", {"w": torch.arange(50.0)}, legacy)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 13), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as error:
            read_checkpoint(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_of_models(tmp_path, legacy):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    checkpoint = read_checkpoint(save(tmp_path / "x.pt", model.state_dict(), legacy))
    assert list(checkpoint.records) == list(model.state_dict())
    assert checkpoint.skipped == ()
    for name, tensor in model.state_dict().items():
        record = checkpoint.records[name]
        assert record.shape == tuple(tensor.shape)
        assert record.dtype == str(tensor.dtype).removeprefix("torch.")
        assert to_storage(record).tobytes() == tensor.numpy().tobytes()


def test_views_of_every_kind(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "transposed": base.T,
        "strided": base[::2, 1::2],
        "flipped": base.flip(1)[:, ::3],
        "channels last": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "expanded": torch.tensor([1.5]).expand(3, 4),
        "element": base[2, 3],
        "nothing": base[:0],
        "conjugate": torch.tensor([1 + 2j, 3 - 4j]).conj(),
        "negative": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        "parameter": torch.nn.Parameter(base + 1),
        "bfloat16": base.bfloat16().T,
        "float8": base.to(torch.float8_e4m3fn).T,
    }
    records = read_checkpoint(save(tmp_path / "x.pt", tensors)).records
    for name, tensor in tensors.items():
        plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
        expected = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert isinstance(records[name], Raw), name
        assert records[name].shape == tuple(tensor.shape)
        assert bytes(records[name].data) == expected, name


def test_only_the_same_elements_are_tied(tmp_path):
    base = torch.arange(6.0)
    tensors = {
        "a": base,
        "tied": base,
        "alias": base[:],
        "equal": base.clone(),
        "part": base[:3],
        "shaped": base.reshape(2, 3),
        "empty": base[:0],
        "empty too": base[:0],
    }
    records = read_checkpoint(save(tmp_path / "x.pt", tensors)).records
    ties = {name: record.to for name, record in records.items() if isinstance(record, Tied)}
    assert ties == {"tied": "a", "alias": "a"}
    again = tmp_path / "again.pt"
    write_checkpoint(again, records)
    state = torch.load(again, weights_only=True)
    assert state["a"] is state["tied"] or state["a"].data_ptr() == state["tied"].data_ptr()
    assert state["a"].data_ptr() != state["equal"].data_ptr()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())


NESTED = {
    "epoch": 3,
    "state_dict": OrderedDict(w=torch.ones(2), note="text"),
    "ema": {"v1.0": {"w": torch.zeros(2)}},
    "opt": {"state": {0: {"m": torch.ones(1)}}, "lr": 0.1},
}


def test_without_a_key_a_nested_checkpoint_names_its_candidates(tmp_path):
    path = save(tmp_path / "x.ckpt", NESTED)
    with pytest.raises(CheckpointError, match=r"--key.*: state_dict, ema\.v1\.0, opt\.state\.0$"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"at 'model'.*--key.*: state_dict"):
        read_checkpoint(path, key="model")
    with pytest.raises(CheckpointError, match=r"at 'epoch'"):
        read_checkpoint(path, key="epoch")
    with pytest.raises(CheckpointError, match=r"--key"):
        read_checkpoint(path, key="ema")


def test_a_key_chooses_and_the_rest_is_listed(tmp_path):
    path = save(tmp_path / "x.ckpt", NESTED)
    checkpoint = read_checkpoint(path, key="state_dict")
    assert list(checkpoint.records) == ["w"]
    assert checkpoint.skipped == ("epoch", "ema", "opt", "state_dict.note")
    checkpoint = read_checkpoint(path, key="ema.v1.0")
    assert to_storage(checkpoint.records["w"]).tolist() == [0, 0]
    assert checkpoint.skipped == ("epoch", "state_dict", "opt")
    checkpoint = read_checkpoint(path, key="opt.state.0")
    assert list(checkpoint.records) == ["m"]
    assert checkpoint.skipped == ("epoch", "state_dict", "ema", "opt.lr")


def test_what_is_no_tensor_is_listed(tmp_path):
    content = {"w": torch.ones(1), "epoch": 3, "more": {"v": torch.ones(1)}, 7: None}
    checkpoint = read_checkpoint(save(tmp_path / "x.pt", content))
    assert list(checkpoint.records) == ["w"]
    assert checkpoint.skipped == ("epoch", "more", "7")


BAD_CONTENT = {
    "a list": ([torch.ones(1)], "got list"),
    "a tensor": (torch.ones(1), "got Tensor"),
    "no tensor": ({"a": 1, "b": {}}, "2 entries without any tensor"),
    "a name that is a number": ({1: torch.ones(1)}, "names that are text, got 1"),
    "half a surrogate as name": ({"\ud800": torch.ones(1)}, "valid Unicode"),
    "sparse": ({"w": torch.eye(2).to_sparse()}, "'w'.*dense.*sparse"),
    "meta": ({"w": torch.empty(2, device="meta")}, "'w'.*dense.*meta"),
    "unknown dtype": ({"w": torch.zeros(2, dtype=torch.float8_e5m2fnuz)}, "'w'.*float8_e5m2fnuz"),
    "nested in itself": ((lambda d: d.update(d=d, e={"d": d}) or d)({}), "without any tensor"),
    "out of proportion": ({"w": torch.ones(1).expand(1 << 40)}, "16 times the file"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_content_that_is_no_checkpoint(tmp_path, case):
    content, match = BAD_CONTENT[case]
    path = save(tmp_path / "x.pt", content)
    with pytest.raises(CheckpointError, match=match) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def rezip(path, edit=lambda name, data: data, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, edit(name, data))
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_that_another_tool_packed_again(tmp_path, compression):
    """torch maps a compressed archive without noticing and gives out its compressed bytes as weights."""
    weights = torch.arange(1000.0).double()
    path = rezip(save(tmp_path / "x.pt", {"w": weights}), compression=compression)
    array = to_storage(read_checkpoint(path).records["w"])
    assert array.flags.aligned
    assert np.array_equal(array, weights.numpy())


def test_sizes_in_the_pickle_that_are_not_true(tmp_path):
    huge = b"\x8a\x05\x00\x00\x00\x00\x10"  # 2**36 as a pickled integer, in place of 100
    for old in (b"Kd\x85", b"Kdt"):

        def edit(name, data, old=old):
            return data.replace(old, huge + old[2:]) if name.endswith("data.pkl") else data

        path = rezip(save(tmp_path / "x.pt", {"w": torch.arange(100.0)}), edit)
        if old == b"Kd\x85":
            with pytest.raises(CheckpointError):
                read_checkpoint(path)
        else:  # the storage is said to be larger than it is: the tensor lies within it all the same
            assert to_storage(read_checkpoint(path).records["w"]).tolist() == list(range(100))


def test_tensors_are_views_of_the_file(tmp_path):
    path = save(tmp_path / "x.pt", {"w": torch.zeros(30_000_000, dtype=torch.uint8)})
    code = (
        "import resource, sys\n"
        "from dwindle.io import read_checkpoint; import dwindle.io.torch_file\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "record = read_checkpoint(sys.argv[1]).records['w']\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(record.data))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    grown, size = map(int, done.stdout.split())
    assert size == 30_000_000
    assert grown < 20_000  # in KB


def test_without_torch_the_error_says_so(tmp_path, monkeypatch):
    path = save(tmp_path / "x.pt", {"w": torch.ones(1)})
    monkeypatch.setitem(sys.modules, "dwindle.io.torch_file", None)
    monkeypatch.delattr("dwindle.io.torch_file")
    with pytest.raises(CheckpointError, match="torch to be installed"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="torch to be installed"):
        write_checkpoint(tmp_path / "y.pt", {})
