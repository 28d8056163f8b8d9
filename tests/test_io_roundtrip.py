"""What is written is what is read, bit for bit, in every format, by us and by the formats' own libraries."""

import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dwindle import dtypes
from dwindle.errors import CheckpointError, OutputError
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.records import Raw, Shared, Tied, same, to_storage

SUFFIXES = [".safetensors", ".npz", ".pt"]
NO_FORM = {
    ".safetensors": {"complex128"},
    ".npz": {"bfloat16", "float8_e4m3fn", "float8_e5m2"},
    ".pt": set(),
}
SHAPES = [(), (0,), (1,), (5,), (2, 0, 3), (3, 2, 4), (1,) * 20]


def random_raw(dtype, shape, rng) -> Raw:
    """Any bits at all, NaN payloads and negative zeros among them; booleans are 0 and 1."""
    size = int(np.prod(shape, dtype=int)) * dtypes.itemsize(dtype)
    return Raw(dtype, shape, rng.integers(0, 2 if dtype == "bool" else 256, size, np.uint8).tobytes())


def assert_same(left, right):
    assert list(left) == list(right)
    for name, record in left.items():
        assert same(record, right[name]), name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_dtype_and_shape(tmp_path, suffix):
    rng = np.random.default_rng(1)
    records = {
        f"{dtype}{shape}": random_raw(dtype, shape, rng)
        for dtype in dtypes.STORAGE
        if dtype not in NO_FORM[suffix]
        for shape in SHAPES
    }
    path = tmp_path / f"x{suffix}"
    write_checkpoint(path, records)
    checkpoint = read_checkpoint(path)
    assert_same(records, checkpoint.records)
    assert checkpoint.skipped == ()
    for record in checkpoint.records.values():
        assert to_storage(record).flags.aligned


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_dtype_without_a_form_is_refused_by_name_and_leaves_no_file(tmp_path, suffix):
    for dtype in NO_FORM[suffix]:
        records = {"ok": Raw("int8", (1,), b"a"), "odd one": Raw(dtype, (0,), b"")}
        with pytest.raises(CheckpointError, match=f"'odd one'.*got {dtype}"):
            write_checkpoint(tmp_path / f"x{suffix}", records)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_special_values(tmp_path, suffix):
    words = np.array([0x7FC00001, 0xFF800001, 0x80000000, 0x7F800000, 1, 0xFFFFFFFF], "<u4")
    records = {"w": Raw("float32", (2, 3), words.tobytes())}
    path = tmp_path / f"x{suffix}"
    write_checkpoint(path, records)
    assert_same(records, read_checkpoint(path).records)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unusual_names(tmp_path, suffix):
    names = ["", " ", "größe.重み.🙂", "a/b", "../up", "x.npy", "a\nb", '"quoted\\', "__metadata", "a" * 3000]
    names += ["\0"] if suffix == ".safetensors" else []
    records = {name: Raw("int16", (1,), i.to_bytes(2, "little")) for i, name in enumerate(names)}
    path = tmp_path / f"x{suffix}"
    write_checkpoint(path, records)
    assert_same(records, read_checkpoint(path).records)


def test_names_a_format_cannot_hold(tmp_path):
    record = Raw("int8", (1,), b"a")
    with pytest.raises(CheckpointError, match="__metadata__"):
        write_checkpoint(tmp_path / "x.safetensors", {"__metadata__": record})
    for name in ("a\0b", "n" * 70_000):
        with pytest.raises(CheckpointError, match="name"):
            write_checkpoint(tmp_path / "x.npz", {name: record})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shared_is_expanded_and_ties_are_kept_or_written_twice(tmp_path, suffix):
    shared = Shared("float32", (2, 2), np.array([-0.0, np.nan], "<f4"), np.array([0, 1, 1, 0], np.uint8))
    records = {"late": Tied("w"), "w": shared, "raw": Raw("int8", (), b"a"), "raw2": Tied("raw")}
    path = tmp_path / f"x{suffix}"
    write_checkpoint(path, records)
    read = read_checkpoint(path).records
    assert list(read) == list(records)
    expanded = Raw("float32", (2, 2), to_storage(shared).tobytes())
    assert same(read["late"], expanded)
    if suffix == ".pt":
        assert read["w"] == Tied("late")
        assert read["raw2"] == Tied("raw")
    else:
        assert same(read["w"], expanded)
        assert same(read["raw2"], records["raw"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_tensors_at_all(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    write_checkpoint(path, {})
    assert read_checkpoint(path).records == {}


def test_metadata_is_kept_by_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    metadata = {"format": "pt", "": "ü\n\0"}
    write_checkpoint(path, {}, metadata)
    assert read_checkpoint(path).metadata == metadata


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_records_give_the_same_bytes(tmp_path, suffix):
    rng = np.random.default_rng(2)
    records = {"b": random_raw("float32", (3,), rng), "a": random_raw("int8", (5,), rng), "c": Tied("b")}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_checkpoint(tmp_path / folder / f"x{suffix}", records)
    assert (tmp_path / "one" / f"x{suffix}").read_bytes() == (tmp_path / "two" / f"x{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_existing_output_is_kept_unless_forced(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="--force"):
        write_checkpoint(path, {})
    assert path.read_bytes() == b"old"
    write_checkpoint(path, {}, force=True)
    assert read_checkpoint(path).records == {}


def test_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(OutputError, match="got 'x"):
        write_checkpoint(tmp_path / "x.tflite", {})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"old")
    code = (
        "import resource, sys\n"
        "from dwindle.errors import OutputError; from dwindle.io import write_checkpoint\n"
        "from dwindle.records import Raw\n"
        "if sys.argv[1].endswith('.pt'): import torch\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try: write_checkpoint(sys.argv[1], {'w': Raw('uint8', (200_000,), bytes(200_000))}, force=True)\n"
        "except OutputError as error: print(error); sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_safetensors_library_reads_what_we_write(tmp_path):
    rng = np.random.default_rng(3)
    path = tmp_path / "x.safetensors"
    known = [dtype for dtype in dtypes.STORAGE if dtype != "complex128"]
    records = {f"{dtype} {shape}": random_raw(dtype, shape, rng) for dtype in known for shape in SHAPES}
    write_checkpoint(path, records, {"format": "pt"})
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert sorted(file.keys()) == sorted(records)
        for name, record in records.items():
            tensor = file.get_tensor(name)
            assert tensor.dtype == getattr(torch, record.dtype)
            assert tuple(tensor.shape) == record.shape
            assert tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == record.data


def test_we_read_what_the_safetensors_library_writes(tmp_path):
    path = tmp_path / "x.safetensors"
    rng = np.random.default_rng(4)
    known = [dtype for dtype in dtypes.STORAGE if dtype != "complex128"]
    records = {f"{dtype} {shape}": random_raw(dtype, shape, rng) for dtype in known for shape in SHAPES}
    tensors = {}
    for name, record in records.items():
        tensors[name] = torch.empty(record.shape, dtype=getattr(torch, record.dtype))
        if record.data:
            tensors[name].reshape(-1).view(torch.uint8).numpy()[:] = np.frombuffer(record.data, np.uint8)
    safetensors.torch.save_file(tensors, path, {"k": "v"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.metadata == {"k": "v"}
    assert_same(records, {name: checkpoint.records[name] for name in records})
    assert len(checkpoint.records) == len(records)


@pytest.mark.parametrize("compressed", [False, True])
def test_we_read_what_numpy_writes_and_numpy_what_we_write(tmp_path, compressed):
    path, again = tmp_path / "x.npz", tmp_path / "y.npz"
    arrays = {
        "c": np.arange(6, dtype="<f4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype="<f8").reshape(2, 3)),
        "big endian": np.arange(6, dtype=">i4").reshape(3, 2).T,
        "strided": np.arange(10, dtype=np.int16)[::3],
        "scalar": np.float16(-0.0),
        "empty": np.zeros((0, 4), np.complex128),
        "flag": np.array([True, False]),
    }
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    checkpoint = read_checkpoint(path)
    write_checkpoint(again, checkpoint.records)
    with np.load(again, allow_pickle=False) as back:
        assert back.files == list(arrays)
        for name, array in arrays.items():
            assert back[name].dtype == array.dtype.newbyteorder("<")
            assert back[name].shape == array.shape
            assert back[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


@settings(max_examples=30, deadline=None)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
        hnp.arrays(
            st.sampled_from([d for n, d in dtypes.STORAGE.items() if d.name == n and n != "complex128"]),
            hnp.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=5),
        ),
        max_size=5,
    ),
    suffix=st.sampled_from(SUFFIXES),
)
def test_any_arrays(tmp_path_factory, tensors, suffix):
    names = {storage: name for name, storage in dtypes.STORAGE.items() if storage.name == name}
    records = {
        n: Raw(names[a.dtype], a.shape, a.tobytes()) for n, a in tensors.items() if n != "__metadata__"
    }
    path = tmp_path_factory.mktemp("any") / f"x{suffix}"
    write_checkpoint(path, records)
    assert_same(records, read_checkpoint(path).records)
