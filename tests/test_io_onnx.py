"""ONNX models: the same graph with the same elements again, of every type; a hostile file is refused."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from dwindle import dtypes
from dwindle.errors import CheckpointError, CorruptError, DwindleError, OutputError
from dwindle.file import Archive, write
from dwindle.io import extra, onnx_external, onnx_file, onnx_values, read_checkpoint, write_checkpoint
from dwindle.records import Raw, Shared, same

NUMBERS = {name: number for number, name in onnx_values.DTYPES.items()}
RANDOM = np.random.default_rng(5)
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 64])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 70])
CONDITION = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def named(array: np.ndarray, name: str) -> TensorProto:
    return numpy_helper.from_array(array, name)


def model_of(graph: onnx.GraphProto, **more: object) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 20), *more.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="a test", **more)


def bare(*tensors: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    """A model that need not run."""
    return model_of(helper.make_graph(list(nodes), "g", [], [], initializer=list(tensors)))


def branches() -> onnx.ModelProto:
    """A network with initializers in the branches of an If and the body of a Loop, and with Constants."""

    def branch(name: str, seed: int, nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [3, 70])
        initializers = [named(weights(70, 70, seed=seed), "v"), named(weights(70, seed=seed + 1), "b")]
        made = [
            helper.make_node("MatMul", ["h", "v"], ["m"]),
            helper.make_node("Add", ["m", "b"], [f"{name}_out" if not nodes else "a"]),
        ]
        return helper.make_graph([*made, *nodes], name, [], [out], initializer=initializers)

    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w_in_loop"], ["next"]),
            helper.make_node("Identity", ["going"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [3, 70]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [3, 70]),
        ],
        initializer=[named(weights(70, 70, seed=7), "w_in_loop")],
    )
    loop = [helper.make_node("Loop", ["times", "", "a"], ["else_out"], body=body)]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h0"]),
        helper.make_node("Constant", [], ["c"], value=named(weights(70, seed=8), "value")),
        helper.make_node("Constant", [], ["big"], value=named(weights(70, 70, seed=9), "value")),
        helper.make_node("Add", ["h0", "c"], ["h1"]),
        helper.make_node("MatMul", ["h1", "big"], ["h"]),
        helper.make_node(
            "If",
            ["flag"],
            ["y"],
            name="which",
            then_branch=branch("then", 1, []),
            else_branch=branch("else", 3, loop),
        ),
    ]
    times = TensorProto(name="times", data_type=TensorProto.INT64, int64_data=[2])
    graph = helper.make_graph(
        nodes, "main", [X, CONDITION], [Y], initializer=[named(weights(64, 70), "w"), times], doc_string="doc"
    )
    model = model_of(graph)
    helper.set_model_props(model, {"author": "somebody", "": "ü"})
    return model


def answers(model: onnx.ModelProto | Path) -> list[np.ndarray]:
    run = ReferenceEvaluator(model if isinstance(model, onnx.ModelProto) else str(model))
    x = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    return [run.run(None, {"x": x, "flag": np.array(flag)})[0] for flag in (True, False)]


def saved(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def there_and_back(folder: Path, model: onnx.ModelProto) -> bytes:
    """A model to a `.dwz` and back, losslessly."""
    checkpoint = read_checkpoint(saved(folder / "in.onnx", model))
    write(folder / "x.dwz", checkpoint.records, extras=checkpoint.extras, force=True)
    with Archive(folder / "x.dwz") as archive:
        write_checkpoint(folder / "out.onnx", archive.records, extras=archive.extras, force=True)
    return (folder / "out.onnx").read_bytes()


def test_a_network_with_subgraphs_losslessly(tmp_path, run):
    source = saved(tmp_path / "in.onnx", branches())
    onnx.checker.check_model(str(source), full_check=True)
    assert run("compress", source, "-o", tmp_path / "x.dwz", "--lossless")[0] == 0
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out.onnx")[0] == 0
    assert (tmp_path / "out.onnx").read_bytes() == source.read_bytes()
    assert onnx.load(tmp_path / "out.onnx") == onnx.load(source)
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    for before, after in zip(answers(source), answers(tmp_path / "out.onnx"), strict=True):
        assert np.array_equal(before, after)
    assert run("verify", tmp_path / "x.dwz", "--against", source)[0] == 0
    status, out, _ = run("diff", source, tmp_path / "x.dwz")
    assert (status, "8 of 8 tensors are the same" in out) == (0, True)
    status, out, _ = run("inspect", tmp_path / "x.dwz", "--json")
    assert status == 0
    assert {tensor["name"] for tensor in json.loads(out)["tensors"]} == set(read_checkpoint(source).records)


def test_a_network_with_subgraphs_compressed(tmp_path, run):
    source = saved(tmp_path / "in.onnx", branches())
    assert run("compress", source, "-o", tmp_path / "x.dwz", "--bits", "8")[0] == 0
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out.onnx")[0] == 0
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    for before, after in zip(answers(source), answers(tmp_path / "out.onnx"), strict=True):
        assert not np.array_equal(before, after)
        assert np.abs(before - after).max() < 0.02 * np.abs(before).max()
    status, out, _ = run("diff", source, tmp_path / "out.onnx", "--json")
    assert status == 1
    kinds = {tensor["name"]: tensor["kind"] for tensor in json.loads(out)["tensors"]}
    # Those of 4,096 elements and more, in the graph, its Constants and its subgraphs.
    changed = {
        "w",
        "big",
        "which.then_branch.v",
        "which.else_branch.v",
        "which.else_branch.else_out.body.w_in_loop",
    }
    assert {name for name, kind in kinds.items() if kind == "differs"} == changed
    options = ("--prune", "which.then_branch.v=0.9", "--bits", "which.then_branch.v=3", "--force")
    assert run("compress", source, "-o", tmp_path / "x.dwz", *options)[0] == 0
    with Archive(tmp_path / "x.dwz") as archive:
        pruned = archive.record("which.then_branch.v")
        assert isinstance(pruned, Shared)
        assert np.mean(pruned.indices == 0) >= 0.9 or len(np.unique(pruned.indices)) <= 8


def test_tensors_have_names_of_their_own(tmp_path):
    records = read_checkpoint(saved(tmp_path / "x.onnx", branches())).records
    assert list(records) == [
        "w",
        "times",
        "big",  # the other Constant is small, and stays in the graph
        "which.else_branch.v",
        "which.else_branch.b",
        "which.else_branch.else_out.body.w_in_loop",
        "which.then_branch.v",
        "which.then_branch.b",
    ]


def fields_of(dtype: str) -> list[str]:
    return ["raw_data", onnx_values.field(dtype)]


def message(name: str, dtype: str, shape: tuple[int, ...], field: str, data: bytes) -> TensorProto:
    """A tensor whose elements are in a field, made without the code that is tested."""
    tensor = TensorProto(name=name, data_type=NUMBERS[dtype], dims=shape)
    if field == "raw_data":
        tensor.raw_data = data
    elif field in ("float_data", "double_data"):
        number = {"float_data": 4, "double_data": 10}[field]
        length, size = b"", len(data)
        while size > 0x7F:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        if data:
            tensor.MergeFromString(bytes([number << 3 | 2]) + length + bytes([size]) + data)
    else:
        width = dtypes.itemsize(dtype)
        signed = dtype.startswith("int")
        pieces = (data[at : at + width] for at in range(0, len(data), width))
        getattr(tensor, field).extend(int.from_bytes(piece, "little", signed=signed) for piece in pieces)
    return tensor


def random_bytes(dtype: str, shape: tuple[int, ...]) -> bytes:
    size = int(np.prod(shape, dtype=int)) * dtypes.itemsize(dtype)
    return RANDOM.integers(0, 2 if dtype == "bool" else 256, size, np.uint8).tobytes()


SHAPES = [(), (0,), (1,), (5,), (2, 0, 3), (3, 2, 4), (1,) * 20, (40, 50)]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_type_in_every_field(tmp_path, dtype):
    data = {(field, shape): random_bytes(dtype, shape) for field in fields_of(dtype) for shape in SHAPES}
    tensors = [message(f"{f} {s}", dtype, s, f, d) for (f, s), d in data.items()]
    model = bare(*tensors)
    checkpoint = read_checkpoint(saved(tmp_path / "x.onnx", model))
    for field, shape in data:
        assert same(checkpoint.records[f"{field} {shape}"], Raw(dtype, shape, data[field, shape]))
    assert there_and_back(tmp_path, model) == model.SerializeToString(deterministic=True)


def test_our_dtypes_are_all_of_theirs_that_have_a_form():
    names = {number: name.lower() for name, number in TensorProto.DataType.items()}
    assert set(onnx_values.DTYPES.values()) == set(dtypes.STORAGE)
    ours = {
        "float8_e4m3fn": "float8e4m3fn",
        "float8_e5m2": "float8e5m2",
        "float32": "float",
        "float64": "double",
    }
    for number, name in onnx_values.DTYPES.items():
        assert names[number] == ours.get(name, name)


def test_every_bit_of_a_nan_survives(tmp_path):
    words = np.array([0x7FC00001, 0xFF800001, 0x7FA00000, 0x80000000, 0x7F800000, 1, 0xFFFFFFFF, 0], "<u4")
    doubles = np.array([0x7FF0000000000001, 0xFFF8000000000007, 1 << 63], "<u8")
    model = bare(
        message("f", "float32", (2, 4), "float_data", words.tobytes()),
        message("c", "complex64", (4,), "float_data", words.tobytes()),
        message("d", "float64", (3,), "double_data", doubles.tobytes()),
        message("h", "float16", (2,), "int32_data", np.array([0x7C01, 0xFE00], "<u2").tobytes()),
        message("b", "bfloat16", (2,), "int32_data", np.array([0x7F81, 0xFFC0], "<u2").tobytes()),
    )
    assert words.tobytes() in model.SerializeToString()
    assert there_and_back(tmp_path, model) == model.SerializeToString(deterministic=True)


@st.composite
def models(draw):
    names = draw(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=5, unique=True)
    )
    tensors = []
    for name in names:
        dtype = draw(st.sampled_from(sorted(NUMBERS)))
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
        tensor = message(
            f"n{name}", dtype, shape, draw(st.sampled_from(fields_of(dtype))), random_bytes(dtype, shape)
        )
        if draw(st.booleans()):
            tensor.doc_string = draw(st.sampled_from(["", "text"]))
        if draw(st.booleans()):
            tensor.data_location = TensorProto.DEFAULT
            tensor.external_data.add(key="offset", value="17")  # which says nothing of elements that are here
        tensors.append(tensor)
    at = draw(st.integers(0, len(tensors)))
    inner = helper.make_graph([], "inner", [], [], initializer=tensors[at:])
    large = message("value", "uint8", (2000,), "raw_data", bytes(2000))
    nodes = (
        helper.make_node(
            "Odd", [], draw(st.sampled_from([[], ["o"], [""]])), name=draw(st.sampled_from(["", "n"]))
        ),
        helper.make_node("If", [], [], body=inner, bodies=[inner, inner]),
        helper.make_node("Constant", [], ["n"], value=large),
        helper.make_node("Odd", [], [], values=[large, tensors[0] if tensors else large]),
    )
    return bare(*tensors[:at], nodes=nodes)


@given(models())
@settings(max_examples=60)
def test_any_model_comes_back_to_the_byte(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("any")
    assert there_and_back(folder, model) == model.SerializeToString(deterministic=True)
    records = read_checkpoint(folder / "in.onnx").records
    again = read_checkpoint(folder / "out.onnx").records
    assert list(records) == list(again)
    assert all(same(record, again[name]) for name, record in records.items())


def test_tensors_everywhere_in_a_model(tmp_path):
    """Functions and their defaults, training graphs, sparse initializers and attributes, lists of tensors."""
    large = message("t", "float32", (300,), "raw_data", bytes(1200))
    graph = helper.make_graph([], "init", [], [], initializer=[named(weights(2, 3), "w")])
    sparse = helper.make_sparse_tensor(named(weights(3), "s"), named(np.array([1, 5, 9]), ""), [4, 4])
    function = helper.make_function(
        "own",
        "F",
        ["a"],
        ["b"],
        [helper.make_node("Constant", [], ["b"], value=large)],
        [helper.make_opsetid("", 20)],
        attribute_protos=[helper.make_attribute("default", large)],
    )
    nodes = [
        helper.make_node("F", ["x"], ["y"], domain="own", lists=[large, large]),
        helper.make_node("Constant", [], ["z"], sparse_value=sparse),
        helper.make_node("Odd", [], ["z"], more=[sparse]),
    ]
    model = model_of(
        helper.make_graph(nodes, "g", [X], [Y], initializer=[], sparse_initializer=[sparse]),
        functions=[function],
    )
    training = model.training_info.add()
    training.initialization.CopyFrom(graph)
    training.algorithm.CopyFrom(graph)
    assert there_and_back(tmp_path, model) == model.SerializeToString(deterministic=True)
    assert list(read_checkpoint(tmp_path / "in.onnx").records) == [
        "s",
        "s.indices",
        "y.lists.0",
        "y.lists.1",
        "training_info.0.initialization.w",
        "training_info.0.algorithm.w",
        "own.F.default",
        "own.F.b",
    ]


def test_a_name_that_two_places_have(tmp_path):
    def inner(array: np.ndarray) -> onnx.GraphProto:
        return helper.make_graph([], "inner", [], [], initializer=[named(array, "w")])

    nodes = (
        helper.make_node("If", [], ["o"], name="n", g=inner(weights(2, seed=1))),
        helper.make_node("If", [], ["o"], name="n", g=inner(weights(3, seed=2))),
    )
    model = bare(named(weights(4, seed=3), "n.g.w"), nodes=nodes)
    assert there_and_back(tmp_path, model) == model.SerializeToString(deterministic=True)
    found = read_checkpoint(tmp_path / "in.onnx").records
    assert {name: record.shape for name, record in found.items()} == {
        "n.g.w": (4,),
        "n.g.w#2": (2,),
        "n.g.w#3": (3,),
    }


def test_many_places_of_one_name_take_no_longer_than_others(tmp_path):
    inner = helper.make_graph([], "inner", [], [], initializer=[tensor(dims=[1], raw_data=bytes(4))])
    model = bare(nodes=[helper.make_node("If", [], ["o"], name="n", g=inner)] * 20_000)
    start = time.process_time()
    assert len(read_checkpoint(saved(tmp_path / "x.onnx", model)).records) == 20_000
    assert time.process_time() - start < 20


def unknown() -> onnx.ModelProto:
    kinds = {
        "text": TensorProto(data_type=TensorProto.STRING, dims=[2], string_data=[b"a", b"\xff\0"]),
        "int4": TensorProto(data_type=TensorProto.INT4, dims=[3], raw_data=b"\x21\x03"),
        "fnuz": TensorProto(data_type=TensorProto.FLOAT8E4M3FNUZ, dims=[2], int32_data=[1, 255]),
        "future": TensorProto(data_type=99, dims=[2], raw_data=b"ab"),
        "none": TensorProto(),
        "pieces": TensorProto(
            data_type=1, dims=[1], segment=TensorProto.Segment(begin=0, end=1), float_data=[1]
        ),
    }
    for name, tensor in kinds.items():
        tensor.name = name
    node = helper.make_node("Constant", [], ["small"], value=kinds["text"])
    long = TensorProto(data_type=TensorProto.STRING, dims=[1], string_data=[b"a" * 2000])
    more = helper.make_node("Constant", [], ["long"], value=long)
    return bare(*kinds.values(), named(weights(64, 70), "w"), nodes=(node, more))


def test_types_without_a_form_stay_in_the_graph(tmp_path, run):
    model = unknown()
    assert there_and_back(tmp_path, model) == model.SerializeToString(deterministic=True)
    skipped = ["text", "int4", "fnuz", "future", "none", "pieces", "long"]
    checkpoint = read_checkpoint(tmp_path / "in.onnx")
    assert list(checkpoint.records) == ["w"]
    assert list(checkpoint.skipped) == list(checkpoint.kept) == skipped
    status, _, err = run("compress", tmp_path / "in.onnx", "-o", tmp_path / "y.dwz")
    assert status == 0
    assert all(f"{name}: of another type, kept in the graph" in err for name in skipped)
    assert "left out" not in err
    status, out, _ = run("compress", tmp_path / "in.onnx", "-o", tmp_path / "y.dwz", "--force", "--json")
    assert json.loads(out)["skipped"] == json.loads(out)["kept"] == skipped


def test_models_go_to_other_formats_but_not_from_them(tmp_path, run, refused):
    source = saved(tmp_path / "in.onnx", branches())
    assert run("compress", source, "-o", tmp_path / "x.dwz", "--lossless")[0] == 0
    for name in ("x.safetensors", "x.npz", "x.pt", "shards"):
        assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / name)[0] == 0
        assert run("diff", source, tmp_path / name)[0] == 0
    assert run("compress", tmp_path / "x.npz", "-o", tmp_path / "y.dwz")[0] == 0
    line = refused("decompress", tmp_path / "y.dwz", "-o", tmp_path / "y.onnx")
    assert line.startswith(f"{tmp_path / 'y.onnx'}: expected a file made from an ONNX model")
    assert line.endswith(f"got {tmp_path / 'y.dwz'}")
    assert not (tmp_path / "y.onnx").exists()


def test_what_a_model_is_told_by(tmp_path):
    for name in ("x.onnx", "x.bin", "x", "x.npz"):
        assert "w" in read_checkpoint(saved(tmp_path / name, branches())).records
    graph_first = branches().SerializeToString()
    model = onnx.ModelProto()
    model.ParseFromString(graph_first)
    model.ClearField("ir_version")
    (tmp_path / "last.onnx").write_bytes(model.SerializeToString() + b"\x08\x0a")
    assert "w" in read_checkpoint(tmp_path / "last.onnx").records
    with pytest.raises(CheckpointError, match="no key"):
        read_checkpoint(tmp_path / "x.onnx", key="a")


def test_without_onnx_one_line_says_so(tmp_path, refused, run, monkeypatch):
    source = saved(tmp_path / "in.onnx", branches())
    assert run("compress", source, "-o", tmp_path / "x.dwz")[0] == 0
    monkeypatch.setitem(sys.modules, "onnx", None)
    for words in (
        ("compress", source, "-o", tmp_path / "y.dwz"),
        ("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out.onnx"),
        ("verify", tmp_path / "x.dwz", "--against", source),
    ):
        assert "expected onnx to be installed (pip install 'dwindle[onnx]')" in refused(*words)
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out.safetensors")[0] == 0


def with_external(folder: Path, model: onnx.ModelProto, **options: object) -> Path:
    """A model saved with its larger tensors in another file."""
    folder.mkdir(exist_ok=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save(copy, folder / "in.onnx", save_as_external_data=True, size_threshold=0, **options)
    return folder / "in.onnx"


@pytest.mark.parametrize("together", [False, True])
def test_tensors_in_other_files_come_back_inside(tmp_path, run, together):
    model = branches()
    source = with_external(
        tmp_path / "a", model, all_tensors_to_one_file=together, location="all.data" if together else None
    )
    assert len(list((tmp_path / "a").iterdir())) > 1
    checkpoint = read_checkpoint(source)
    inside = read_checkpoint(saved(tmp_path / "inside.onnx", model)).records
    assert list(checkpoint.records) == list(inside)
    assert all(same(record, inside[name]) for name, record in checkpoint.records.items())
    assert isinstance(checkpoint.records["w"].data, memoryview)
    assert run("compress", source, "-o", tmp_path / "x.dwz", "--lossless")[0] == 0
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out.onnx")[0] == 0
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    for before, after in zip(answers(source), answers(tmp_path / "out.onnx"), strict=True):
        assert np.array_equal(before, after)
    back = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    loaded = onnx.load(source)
    for tensors in (back.graph.initializer, loaded.graph.initializer):
        for tensor in tensors:
            assert not tensor.external_data
            tensor.ClearField("data_location")  # which loading sets, and writing needs not
    assert list(back.graph.initializer) == list(loaded.graph.initializer)


def test_elements_of_other_types_in_other_files_stay_with_the_graph(tmp_path):
    source = with_external(tmp_path / "a", bare(*unknown().graph.initializer[1:2], named(weights(3, 3), "w")))
    checkpoint = read_checkpoint(source)
    assert checkpoint.kept == ("int4",)
    write_checkpoint(tmp_path / "out.onnx", checkpoint.records, extras=checkpoint.extras)
    assert onnx.load(tmp_path / "out.onnx").graph.initializer[0].raw_data == b"\x21\x03"


def test_a_model_that_is_too_long_for_a_message_keeps_its_data_beside(tmp_path, run, monkeypatch):
    source = saved(tmp_path / "in.onnx", branches())
    assert run("compress", source, "-o", tmp_path / "x.dwz", "--lossless")[0] == 0
    out, data = tmp_path / "out" / "m.onnx", tmp_path / "out" / "m.onnx.data"
    out.parent.mkdir()

    def decompress(*options: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(onnx_file, "MAX_MESSAGE", 40_000)
            return run("decompress", tmp_path / "x.dwz", "-o", out, *options)

    status, printed, _ = decompress("--json")
    assert status == 0
    assert json.loads(printed)["files"] == [str(out), str(data)]
    assert json.loads(printed)["bytes"] == out.stat().st_size + data.stat().st_size
    onnx.checker.check_model(str(out), full_check=True)
    for before, after in zip(answers(source), answers(out), strict=True):
        assert np.array_equal(before, after)
    small = onnx.load(out, load_external_data=False)
    assert {t.name for t in small.graph.initializer if t.data_location == TensorProto.EXTERNAL} == {"w"}
    assert all(
        int(e.value) % 4096 == 0
        for t in small.graph.initializer
        for e in t.external_data
        if e.key == "offset"
    )
    assert run("diff", source, out)[0] == 0
    # Replaced, a model takes its data with it, and never the data of the one that is being written.
    assert decompress("--force")[0] == 0
    assert {file.name for file in out.parent.iterdir()} == {"m.onnx", "m.onnx.1.data"}
    assert run("diff", source, out)[0] == 0
    (out.parent / "m.onnx.data").write_bytes(b"of another model")
    assert run("decompress", tmp_path / "x.dwz", "-o", out, "--force")[0] == 0
    assert out.read_bytes() == source.read_bytes()
    assert {file.name for file in out.parent.iterdir()} == {"m.onnx", "m.onnx.data"}


def test_data_of_nobody_is_kept(tmp_path, monkeypatch):
    checkpoint = read_checkpoint(saved(tmp_path / "in.onnx", branches()))
    (tmp_path / "out.onnx.data").write_bytes(b"theirs")
    (tmp_path / "out.onnx").write_bytes(b"no model")
    monkeypatch.setattr(onnx_file, "MAX_MESSAGE", 40_000)
    write_checkpoint(tmp_path / "out.onnx", checkpoint.records, extras=checkpoint.extras, force=True)
    assert (tmp_path / "out.onnx.data").read_bytes() == b"theirs"
    assert (tmp_path / "out.onnx.1.data").stat().st_size > 40_000


def test_a_graph_that_is_too_long_alone_is_refused(tmp_path, monkeypatch):
    checkpoint = read_checkpoint(saved(tmp_path / "in.onnx", branches()))
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(onnx_file, "MAX_MESSAGE", 5_000)
    with pytest.raises(OutputError, match=r"out\.onnx: expected a graph of at most 5000 bytes"):
        write_checkpoint(tmp_path / "out.onnx", checkpoint.records, extras=checkpoint.extras)
    with pytest.raises(CheckpointError, match=r"in\.onnx: expected a model of at most 5000 bytes"):
        read_checkpoint(tmp_path / "in.onnx")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("beside", [False, True])
def test_a_full_disk(tmp_path, beside):
    saved(tmp_path / "in.onnx", branches())
    (tmp_path / "out.onnx").write_bytes(b"old")
    code = (
        "import resource, sys\n"
        "from dwindle.errors import OutputError\n"
        "from dwindle.io import onnx_file, read_checkpoint, write_checkpoint\n"
        "found = read_checkpoint(sys.argv[1])\n"
        f"onnx_file.MAX_MESSAGE = {40_000 if beside else 1 << 30}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try: write_checkpoint(sys.argv[2], found.records, extras=found.extras, force=True)\n"
        "except OutputError as error: print(error); sys.exit(7)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert done.stdout.endswith("cannot be written: File too large\n")
    assert (tmp_path / "out.onnx").read_bytes() == b"old"
    assert {file.name for file in tmp_path.iterdir()} == {"in.onnx", "out.onnx"}


def test_a_model_that_cannot_be_written_leaves_no_data(tmp_path, monkeypatch):
    checkpoint = read_checkpoint(saved(tmp_path / "in.onnx", branches()))
    monkeypatch.setattr(onnx_file, "MAX_MESSAGE", 40_000)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_values, "put", fail)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "out.onnx", checkpoint.records, extras=checkpoint.extras)
    assert [file.name for file in tmp_path.iterdir()] == ["in.onnx"]


def tensor(**fields: object) -> TensorProto:
    return TensorProto(**{"name": "w", "data_type": 1, "dims": [2], **fields})


DEFECTS = {
    "too few bytes": (tensor(raw_data=b"abc"), "expected 8 bytes for float32[2], got 3"),
    "too many bytes": (tensor(raw_data=bytes(12)), "expected 8 bytes for float32[2], got 12"),
    "no bytes": (tensor(), "expected 8 bytes for float32[2], got 0"),
    "empty bytes": (tensor(raw_data=b""), "expected 8 bytes for float32[2], got 0"),
    "too few numbers": (tensor(float_data=[1]), "expected 8 bytes for float32[2], got 4"),
    "bytes for none": (tensor(dims=[0], raw_data=b"a"), "expected 0 bytes for float32[0], got 1"),
    "a negative dimension": (tensor(dims=[-2], raw_data=bytes(8)), "none negative, got [-2]"),
    "two negative dimensions": (tensor(dims=[-1, -2], raw_data=bytes(8)), "none negative"),
    "a huge dimension": (tensor(dims=[2**62], raw_data=bytes(8)), "at most 281474976710656 elements"),
    "a product over 64 bits": (tensor(dims=[2**40] * 4, raw_data=b""), "at most 281474976710656 elements"),
    "a huge dimension of none": (tensor(dims=[0, 2**62], raw_data=b""), "at most 281474976710656 elements"),
    "terabytes": (tensor(dims=[2**40], raw_data=bytes(8)), "expected 4398046511104 bytes"),
    "65 dimensions": (tensor(dims=[1] * 65, raw_data=bytes(4)), "at most 64 dimensions"),
    "many dimensions": (tensor(dims=[2] * 100_000, raw_data=bytes(8)), "got 100000 dimensions"),
    "two fields": (tensor(raw_data=bytes(8), float_data=[1, 2]), "got raw_data and float_data"),
    "another field": (tensor(int32_data=[1, 2]), "elements in raw_data or float_data, got int32_data"),
    "text as numbers": (tensor(string_data=[b"a", b"b"]), "got string_data"),
    "a byte over 255": (
        tensor(data_type=2, int32_data=[0, 256]),
        "numbers of uint8 in int32_data, got 0 to 256",
    ),
    "a byte under 0": (tensor(data_type=2, int32_data=[-1, 1]), "numbers of uint8"),
    "a truth of 2": (tensor(data_type=9, int32_data=[0, 2]), "numbers of bool"),
    "half a float of 17 bits": (tensor(data_type=10, int32_data=[0, 1 << 16]), "numbers of float16"),
    "a number over 32 bits": (tensor(data_type=12, uint64_data=[0, 1 << 32]), "numbers of uint32"),
    "a mark of ours": (
        tensor(raw_data=bytes(8), external_data=[onnx.StringStringEntryProto(key="dwz")]),
        "without the key 'dwz'",
    ),
}


@pytest.mark.parametrize("place", ["graph", "subgraph"])
@pytest.mark.parametrize("case", DEFECTS)
def test_a_tensor_that_does_not_fit_is_one_line(tmp_path, refused, case, place):
    bad, said = DEFECTS[case]
    good = named(weights(3), "first")
    if place == "graph":
        model, name = bare(good, bad), "'w'"
    else:
        inner = helper.make_graph([], "inner", [], [], initializer=[bad])
        model, name = bare(good, nodes=(helper.make_node("If", [], ["o"], body=inner),)), "'o.body.w'"
    source = saved(tmp_path / "x.onnx", model)
    line = refused("compress", source, "-o", tmp_path / "x.dwz")
    assert line.startswith(f"{source}: tensor {name}: expected ")
    assert said in line
    assert len(line) < len(str(source)) + 300
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]


def test_names_that_are_none(tmp_path, refused):
    twice = bare(named(weights(3), "w"), named(weights(4), "w"))
    assert "tensor 'w': expected one initializer" in refused(
        "compress", saved(tmp_path / "x.onnx", twice), "-o", tmp_path / "x.dwz"
    )
    message = bare(named(weights(3), "wwwww")).SerializeToString().replace(b"wwwww", b"ww\xff\xfew")
    (tmp_path / "x.onnx").write_bytes(message)
    assert "expected names in UTF-8" in refused("compress", tmp_path / "x.onnx", "-o", tmp_path / "x.dwz")
    nul = saved(tmp_path / "x.onnx", bare(named(weights(3), "\0w")))
    line = refused("compress", nul, "-o", tmp_path / "x.dwz")
    assert line.startswith(f"{nul}: ")
    assert "does not begin with NUL" in line


def external(**said: object) -> TensorProto:
    made = tensor(data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "data", "offset": 4, "length": 8, **said}.items():
        if value is not None:
            made.external_data.add(key=key, value=str(value))
    return made


ELSEWHERE = {
    "no location": (external(location=None), "a file in the model's folder, got ''"),
    "an empty location": (external(location=""), "a file in the model's folder, got ''"),
    "a parent": (external(location="../secret"), "a file in the model's folder, got '../secret'"),
    "a parent further down": (external(location="inner/../../secret"), "a file in the model's folder"),
    "an absolute path": (external(location="/secret"), "a file in the model's folder"),
    "a path on another system": (external(location="..\\secret"), "a file in the model's folder"),
    "a drive": (external(location="C:secret"), "a file in the model's folder"),
    "a NUL": (external(location="data\0"), "a file in the model's folder"),
    "a link out of the folder": (external(location="link"), "a link from 'link' out of it"),
    "a linked folder": (external(location="inner/secret"), "out of it"),
    "a link to itself": (external(location="circle"), "beside the model"),
    "a folder": (external(location="."), "expected a file at '.'"),
    "a pipe": (external(location="pipe"), "expected a file at 'pipe'"),
    "no such file": (external(location="none"), "'none' beside the model: No such file"),
    "a name too long": (external(location="n" * 300), "beside the model: File name too long"),
    "past the end": (external(offset=5), "bytes 5 to 13 of"),
    "far past the end": (external(offset=1 << 62), "got 12 bytes in all"),
    "an end that is far": (external(length=1 << 62), "got 12 bytes in all"),
    "too short": (external(length=7), "expected 8 bytes for float32[2], got 7"),
    "the rest, too long": (external(offset=None, length=None), "expected 8 bytes for float32[2], got 12"),
    "the rest, of nothing": (external(offset=99, length=None), "bytes 99 to 99"),
    "a negative offset": (external(offset=-4), "a whole number as offset, got '-4'"),
    "an offset that is no number": (external(offset="0x4"), "a whole number as offset"),
    "a number of many digits": (external(length="9" * 10_000), "a whole number as length"),
    "a superscript": (external(length="²"), "a whole number as length"),
    "elements here too": (external(location="data"), "in another file only"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_elements_that_are_not_in_the_folder(tmp_path, refused, case):
    bad, said = ELSEWHERE[case]
    if case == "elements here too":
        bad.raw_data = bytes(8)
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(12))
    (folder / "data").write_bytes(bytes(12))
    (folder / "link").symlink_to("../secret")
    (folder / "inner").symlink_to("..")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    source = saved(folder / "x.onnx", bare(bad))
    line = refused("compress", source, "-o", tmp_path / "x.dwz")
    assert line.startswith(f"{source}: tensor 'w': expected ")
    assert said in line
    assert len(line) < 2 * len(str(source)) + 300


def test_elements_in_the_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    values = np.array([1, 2, 3], "<f4").tobytes()
    (tmp_path / "inner" / "data").write_bytes(values)
    (tmp_path / "link").symlink_to("inner/data")
    for said in ({"location": "inner/data"}, {"location": "link", "length": None, "checksum": "x"}):
        record = read_checkpoint(saved(tmp_path / "x.onnx", bare(external(**said)))).records["w"]
        assert bytes(record.data) == values[4:]
    empty = external(location="link", offset=12, length=None)
    del empty.dims[:]
    empty.dims.append(0)
    assert read_checkpoint(saved(tmp_path / "x.onnx", bare(empty))).records["w"].shape == (0,)


def test_a_store_of_files_with_links_to_them(tmp_path):
    """As a cache of downloads keeps them: the model and its data are links to files of another folder."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs" / "456").write_bytes(bytes(12))
    saved(tmp_path / "blobs" / "123", bare(external()))
    (tmp_path / "snapshot" / "x.onnx").symlink_to("../blobs/123")
    (tmp_path / "snapshot" / "data").symlink_to("../blobs/456")
    assert bytes(read_checkpoint(tmp_path / "snapshot" / "x.onnx").records["w"].data) == bytes(8)


def test_data_that_shrinks_is_an_error_of_ours(tmp_path):
    (tmp_path / "data").write_bytes(bytes(12))
    checkpoint = read_checkpoint(saved(tmp_path / "x.onnx", bare(external())))
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(CheckpointError, match="data: tensor 'w': expected it where it was"):
        checkpoint.records["w"]


def test_garbage_is_one_line(tmp_path, refused):
    for data in (
        b"",
        b"\x08",
        b"hello",
        bytes(100),
        b"\xff" * 100,
        b"\x08\x0a\x12\x05ab",
        b"\x3a\x00",
        b"\x08\x00\x3a\x00",
    ):
        (tmp_path / "x.onnx").write_bytes(data)
        line = refused("compress", tmp_path / "x.onnx", "-o", tmp_path / "x.dwz")
        assert line.startswith(f"{tmp_path / 'x.onnx'}: expected an ONNX model")
    deep = b"\x3a\x00"
    for _ in range(3000):  # a graph in a node's attribute, and so on
        for tag in (0x32, 0x2A, 0x0A):
            size, length = len(deep), b""
            while size > 0x7F:
                length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
            deep = bytes([tag]) + length + bytes([size]) + deep
        if len(deep) > 20_000:
            break
    (tmp_path / "x.onnx").write_bytes(deep)
    assert refused("compress", tmp_path / "x.onnx", "-o", tmp_path / "x.dwz")


def test_truncated_anywhere_or_flipped_anywhere(tmp_path):
    model = bare(
        tensor(float_data=[1, 2]),
        tensor(name="v", raw_data=bytes(8)),
        nodes=(helper.make_node("If", ["a"], ["b"], body=unknown().graph),),
    )
    data = model.SerializeToString(deterministic=True)
    path = tmp_path / "x.onnx"
    kept = {"w", "v", "b.body.w"}
    for at in range(len(data)):
        if at < 250 or at % 211 == 0:
            path.write_bytes(data[:at])
            # A message cut between two of its fields is a message; one cut within its graph is none.
            with contextlib.suppress(CheckpointError):
                assert set(read_checkpoint(path).records) == kept
            flipped = bytearray(data)
            flipped[at] ^= 0xFF
            path.write_bytes(flipped)
            with contextlib.suppress(CheckpointError):
                checkpoint = read_checkpoint(path)
                write_checkpoint(
                    tmp_path / "y.onnx", checkpoint.records, extras=checkpoint.extras, force=True
                )
                parsed = onnx.ModelProto()
                parsed.ParseFromString(bytes(flipped))
                assert (tmp_path / "y.onnx").read_bytes() == parsed.SerializeToString(deterministic=True)


def graph_of(model: onnx.ModelProto) -> bytes:
    return extra.pack(model.SerializeToString())


def marked(
    name: str = "w", dims: tuple[int, ...] = (2,), value: str | None = None, data_type: int = 1
) -> TensorProto:
    made = TensorProto(name=name, dims=dims, data_type=data_type, raw_data=b"")
    made.external_data.add(key="dwz", value=value)
    return made


GRAPHS = {
    "no extra": (b"", "more bytes"),
    "no text": (b"\x05\x07", "plain or coded"),
    "no message": (extra.pack(b"\xff\xff"), "an ONNX model"),
    "no model": (extra.pack(b""), "without a graph"),
    "no place": (graph_of(bare()), "tensor 'w': expected a place in the graph, got none"),
    "a place too many": (
        graph_of(bare(marked(), marked("v"))),
        "tensor 'v': expected one of this name, got none",
    ),
    "two places": (
        graph_of(bare(marked(), marked("v", value="w"))),
        "tensor 'w': expected one of this name, got it twice",
    ),
    "another name": (graph_of(bare(marked(value="v"))), "tensor 'v': expected one of this name"),
    "another shape": (graph_of(bare(marked(dims=(1, 2)))), "('float32', (1, 2)) as in the graph"),
    "a negative shape": (graph_of(bare(marked(dims=(-1, -2)))), "none negative"),
    "another type": (graph_of(bare(marked(data_type=6))), "('int32', (2,)) as in the graph"),
    "no type of ours": (graph_of(bare(marked(data_type=8))), "None as in the graph"),
    "a name twice": (graph_of(bare(marked(), marked())), "expected one initializer"),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_a_hostile_graph_is_one_line_and_no_model(tmp_path, refused, case):
    data, said = GRAPHS[case]
    write(tmp_path / "x.dwz", {"w": Raw("float32", (2,), bytes(8))}, extras={"onnx": data})
    line = refused("decompress", tmp_path / "x.dwz", "-o", tmp_path / "x.onnx")
    assert line.startswith(f"{tmp_path / 'x.dwz'}: onnx: ")
    assert said in line
    assert [file.name for file in tmp_path.iterdir()] == ["x.dwz"]


def test_elements_a_hostile_graph_has_already_are_replaced(tmp_path):
    record = Raw("float32", (2,), b"abcdefgh")
    for field, value in (("raw_data", b"more"), ("float_data", [1.0] * 5), ("string_data", [b"x"])):
        place = marked()
        if field != "raw_data":
            place.ClearField("raw_data")
            getattr(place, field).extend(value)
        else:
            place.raw_data = value
        write_checkpoint(
            tmp_path / "x.onnx", {"w": record}, extras={"onnx": graph_of(bare(place))}, force=True
        )
        assert same(read_checkpoint(tmp_path / "x.onnx").records["w"], record)


@given(st.binary(max_size=60))
@settings(max_examples=60)
def test_any_bytes_are_a_graph_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "x.onnx"
    for found in (data, extra.pack(data)):
        with contextlib.suppress(DwindleError):
            write_checkpoint(path, {}, extras={"onnx": found}, force=True)


def test_errors_without_a_source_name_the_extra(tmp_path):
    with pytest.raises(CorruptError, match=r"^extras: onnx: expected an ONNX model"):
        write_checkpoint(tmp_path / "x.onnx", {}, extras={"onnx": extra.pack(b"\xff")})
    names = onnx_external.names(tmp_path / "x.onnx")
    assert [next(names).name for _ in range(3)] == ["x.onnx.data", "x.onnx.1.data", "x.onnx.2.data"]


def test_data_that_another_model_may_need_is_kept(tmp_path, monkeypatch):
    checkpoint = read_checkpoint(saved(tmp_path / "in.onnx", branches()))
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(onnx_file, "MAX_MESSAGE", 40_000)
    write_checkpoint(folder / "a.onnx", checkpoint.records, extras=checkpoint.extras)
    (folder / "b.onnx").write_bytes((folder / "a.onnx").read_bytes())
    write_checkpoint(folder / "a.onnx", checkpoint.records, extras=checkpoint.extras, force=True)
    records = read_checkpoint(folder / "b.onnx").records
    assert all(same(records[name], record) for name, record in checkpoint.records.items())


def test_data_beside_a_model_is_never_the_output(tmp_path, refused):
    source = with_external(tmp_path, branches(), all_tensors_to_one_file=True, location="all.data")
    before = (tmp_path / "all.data").read_bytes()
    said = refused("compress", source, "-o", tmp_path / "all.data", "--force")
    assert "other than the input" in said
    assert (tmp_path / "all.data").read_bytes() == before
