"""The authors' `.net` files: read to the bit, written byte for byte, refused in one line."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

from dwindle.checkpoints import compress_checkpoint
from dwindle.errors import CheckpointError
from dwindle.file import Archive
from dwindle.io import prototxt, read_checkpoint, write_checkpoint
from dwindle.records import Raw, Shared, same

PROTOTXT = """
name: "Small" # a comment
input: 'data'
input_dim: 1 input_dim: 3
input_dim: 9
input_dim: 9
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool" type: "Pooling" bottom: "conv1" top: "pool"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "a" type: "Convolution" bottom: "pool" top: "a"
  convolution_param { num_output: 2 kernel_size: 1 group: 2 } }
layer { name: "b" type: "Convolution" bottom: "pool" top: "b"
  convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }
layer { name: "both" type: "Concat" bottom: "a" bottom: "b" top: "both" }
layer { name: "fc6" type: "InnerProduct" bottom: "both" top: "fc6" inner_product_param { num_output: 7 } }
layer { name: "loss" type: "Softmax" bottom: "fc6" top: "loss" }
"""
SHAPES = {"conv1": (4, 3, 3, 3), "a": (2, 2, 1, 1), "b": (3, 4, 3, 3), "fc6": (7, 5 * 4 * 4)}


def tensors(seed=0):
    random = np.random.default_rng(seed)
    records = {}
    for name, shape in SHAPES.items():
        entries, n = (16 if name.startswith("fc") else 256), int(np.prod(shape))
        codebook = random.normal(size=entries).astype("<f4")
        codebook[0] = 0
        indices = np.where(random.random(n) < 0.1, random.integers(1, entries, n), 0).astype(np.uint8)
        records[f"{name}.weight"] = Shared("float32", shape, codebook, indices)
        bias = random.normal(size=shape[0]).astype("<f4").tobytes()
        records[f"{name}.bias"] = Raw("float32", shape[:1], bias)
    return records


@pytest.fixture
def layers(tmp_path):
    path = tmp_path / "deploy.prototxt"
    path.write_text(PROTOTXT)
    return path


def test_shapes_follow_from_the_prototxt(layers):
    assert {layer.name: layer.shape for layer in prototxt.read(layers)} == SHAPES


def test_the_older_way_to_write_layers(tmp_path):
    path = tmp_path / "old.prototxt"
    path.write_text(
        'input: "x" input_shape { dim: 1 dim: 2 dim: 5 dim: 6 } '
        'layers { name: "c" type: CONVOLUTION bottom: "x" top: "c" '
        "convolution_param { num_output: 3 kernel_h: 1 kernel_w: 2 stride: 2 } }"
        ' layers { name: "i" type: INNER_PRODUCT bottom: "c" top: "i" inner_product_param { num_output: 2 } }'
    )
    found = {layer.name: layer.shape for layer in prototxt.read(path)}
    assert found == {"c": (3, 2, 1, 2), "i": (2, 3 * 3 * 3)}


def test_round_trip_byte_for_byte(tmp_path, layers):
    write_checkpoint(tmp_path / "a.net", tensors())
    checkpoint = read_checkpoint(tmp_path / "a.net", layers=layers)
    assert all(same(checkpoint.records[name], record) for name, record in tensors().items())
    compress_checkpoint(tmp_path / "a.net", tmp_path / "a.dwz", layers=layers)
    with Archive(tmp_path / "a.dwz") as archive:
        write_checkpoint(tmp_path / "b.net", archive.records)
    assert (tmp_path / "b.net").read_bytes() == (tmp_path / "a.net").read_bytes()


def test_a_quality_that_is_asked_for_rounds_biases(tmp_path, layers):
    write_checkpoint(tmp_path / "a.net", tensors())
    compress_checkpoint(tmp_path / "a.net", tmp_path / "a.dwz", layers=layers, quality=20)
    with Archive(tmp_path / "a.dwz") as archive:
        kept = {name: same(archive.record(name), record) for name, record in tensors().items()}
    assert kept == {name: name.endswith("weight") for name in kept}


def test_the_layout_by_hand(tmp_path):
    """One layer of 4-bit indices: survivors at 1, 4 and 40, so two fillers between."""
    (tmp_path / "d.prototxt").write_text(
        'input: "x" input_dim: 1 input_dim: 50 input_dim: 1 input_dim: 1 '
        'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } }'
    )
    codebook = np.arange(16, dtype="<f4")
    bias = np.array([2.5], "<f4").tobytes()
    data = (5).to_bytes(4, "little") + codebook.tobytes() + bias + bytes([0x21, 0x00, 0x03])
    data += bytes([0x21, 0xFF, 0x03])
    (tmp_path / "a.net").write_bytes(data)
    weight = read_checkpoint(tmp_path / "a.net", layers=tmp_path / "d.prototxt").records["fc.weight"]
    assert {int(i): int(weight.indices[i]) for i in np.flatnonzero(weight.indices)} == {1: 1, 4: 2, 40: 3}
    write_checkpoint(tmp_path / "b.net", {"fc.weight": weight, "fc.bias": Raw("float32", (1,), bias)})
    assert (tmp_path / "b.net").read_bytes() == data


def test_truncated_anywhere_and_longer_is_one_line(tmp_path, layers):
    write_checkpoint(tmp_path / "a.net", tensors())
    data = (tmp_path / "a.net").read_bytes()
    for size in [*range(0, 40), *range(40, len(data), 97), len(data) - 1]:
        (tmp_path / "cut.net").write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"cut\.net: expected \d+ bytes for"):
            read_checkpoint(tmp_path / "cut.net", layers=layers)
    (tmp_path / "long.net").write_bytes(data + b"\0")
    with pytest.raises(CheckpointError, match="bytes for the layers of"):
        read_checkpoint(tmp_path / "long.net", layers=layers)


def test_any_flipped_byte_is_refused_or_read(tmp_path, layers):
    write_checkpoint(tmp_path / "a.net", tensors())
    data = (tmp_path / "a.net").read_bytes()
    for at in range(0, len(data), 31):
        flipped = bytearray(data)
        flipped[at] ^= 0xFF
        (tmp_path / "x.net").write_bytes(flipped)
        with contextlib.suppress(CheckpointError):
            read_checkpoint(tmp_path / "x.net", layers=layers)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer {", "closing brace"),
        ("}", "name of a field"),
        ("name", "a value"),
        ('name: "x', "a word or a string"),
        ("layer { " * 50, "at most 32"),
        ('layer { name: "c" type: "Convolution" bottom: "no" top: "c" }', "a known size"),
        (PROTOTXT.replace("num_output: 4", "num_output: 0"), "num_output of 1 or more"),
        (PROTOTXT.replace("kernel_size: 2", "kernel_size: x"), "kernel_size of 1 or more"),
        (PROTOTXT.replace("stride: 2", "stride: 0"), "stride of 1 or more"),
        (PROTOTXT.replace("kernel_size: 2", "kernel_size: -2"), "kernel_size of 1 or more"),
        (PROTOTXT.replace("kernel_size: 2", "kernel_size: 2 pad: 1" + 400 * "0"), "pad of 0 or more"),
        (PROTOTXT.replace("group: 2", "group: 3"), "in 3 groups"),
    ],
)
def test_a_broken_prototxt_is_one_line(tmp_path, text, said):
    (tmp_path / "d.prototxt").write_text(text)
    (tmp_path / "a.net").write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(tmp_path / "a.net", layers=tmp_path / "d.prototxt")


def test_what_has_no_form_in_a_net_is_refused(tmp_path):
    good = tensors()
    for name, record, said in [
        ("b.bias", Raw("float32", (9,), bytes(36)), "a float32 bias for each output"),
        ("b.weight", Raw("float32", (3,), bytes(12)), "a codebook of 256"),
        ("extra", Raw("float32", (3,), bytes(12)), "only weights and biases"),
    ]:
        with pytest.raises(CheckpointError, match=said):
            write_checkpoint(tmp_path / "a.net", good | {name: record})
        assert not list(tmp_path.iterdir())


def test_layers_go_with_net_files_only(tmp_path, layers):
    write_checkpoint(tmp_path / "a.net", tensors())
    with pytest.raises(CheckpointError, match="--layers"):
        read_checkpoint(tmp_path / "a.net")
    write_checkpoint(tmp_path / "a.npz", {"x": Raw("int8", (), b"1")})
    with pytest.raises(CheckpointError, match="--layers"):
        read_checkpoint(tmp_path / "a.npz", layers=layers)


@pytest.mark.skipif("DWINDLE_DATA" not in os.environ, reason="DWINDLE_DATA names no folder with songhan/")
def test_the_authors_squeezenet(tmp_path):
    folder = Path(os.environ["DWINDLE_DATA"]) / "songhan"
    original = folder / "compressed_SqueezeNet.net"
    made = compress_checkpoint(original, tmp_path / "a.dwz", layers=folder / "SqueezeNet_deploy.prototxt")
    assert made.size <= 530_000
    with Archive(tmp_path / "a.dwz") as archive:
        write_checkpoint(tmp_path / "b.net", archive.records)
    assert (tmp_path / "b.net").read_bytes() == original.read_bytes()
