"""Files back to tensors and models: memory of their own, ties, damage."""

import pytest
import torch
from torch import nn

import dwindle
from dwindle.errors import ChecksumError
from dwindle.file import Archive
from dwindle.records import Tied, followed, same


def net():
    return nn.Sequential(nn.Linear(60, 50), nn.Linear(50, 60))


def test_loaded_tensors_are_apart_and_can_be_written_to(tmp_path):
    state = {"one": torch.randn(40, 50), "tiny": torch.randn(3), "flag": torch.tensor(True)}
    model = nn.Module()
    for name, tensor in state.items():
        model.register_buffer(name, tensor)
        model.register_buffer(name + "_again", tensor.clone())  # stored once
    dwindle.compress(model, tmp_path / "x.dwz", lossless=True)
    loaded = dwindle.load(tmp_path / "x.dwz")
    for name, tensor in state.items():
        loaded[name].zero_()
        assert torch.equal(loaded[name + "_again"], tensor)


def test_tied_names_share_a_tensor(tmp_path):
    model = net()
    model[1].weight = nn.Parameter(torch.randn(60, 50))
    model.add_module("2", model[1])
    dwindle.compress(model, tmp_path / "x.dwz", lossless=True)
    loaded = dwindle.load(tmp_path / "x.dwz")
    assert loaded["2.weight"] is loaded["1.weight"]
    assert set(loaded) == set(model.state_dict())


@pytest.mark.parametrize("read", [dwindle.load, lambda path: dwindle.load_into(net(), path)])
def test_damage_names_file_and_tensor(tmp_path, read):
    path = tmp_path / "x.dwz"
    dwindle.compress(net(), path, lossless=True)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError, match=r"x\.dwz: 1\.weight: expected"):
        read(path)


def test_records_come_in_the_order_they_are_asked_for(tmp_path):
    model = net()
    model[1].weight = nn.Parameter(torch.randn(60, 50))
    model.add_module("2", model[1])
    dwindle.compress(model, tmp_path / "x.dwz", lossless=True)
    with Archive(tmp_path / "x.dwz") as archive:
        names = list(archive)[::-1]
        walked = list(archive.records.walk([*names, names[0]]))
        assert [name for name, _ in walked] == [*names, names[0]]
        assert all(same(record, archive.record(name)) for name, record in walked)
        assert any(isinstance(record, Tied) for _, record in walked)
        for name, record in followed(archive.records, names):
            assert same(record, archive.resolved(name))
        with pytest.raises(KeyError):
            list(archive.walk(["none"]))
