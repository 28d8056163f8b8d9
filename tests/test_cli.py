import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import dwindle
import dwindle.data
from dwindle.cli.commands import COMMANDS
from dwindle.file import write
from dwindle.prune import prune
from dwindle.records import Shared

NAMES = [command.__name__ for command in COMMANDS]


@pytest.fixture(scope="module")
def tensors():
    generator = torch.Generator().manual_seed(1)
    return {
        "wide.weight": torch.randn(64, 80, generator=generator),
        "conv.weight": torch.randn(16, 32, 3, 3, generator=generator),
        "conv.bias": torch.randn(16, generator=generator),
        "steps": torch.tensor(7),
    }


@pytest.fixture
def checkpoint(tmp_path, tensors):
    save_file(tensors, tmp_path / "in.safetensors", metadata={"made": "here"})
    return tmp_path / "in.safetensors"


@pytest.fixture
def compressed(checkpoint, run):
    path = checkpoint.parent / "in.dwz"
    assert run("compress", checkpoint, "-o", path)[0] == 0
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example_and_json(run, name):
    status, out, err = run(name, "--help")
    assert (status, err) == (0, "")
    assert f"Example: dwindle {name}" in " ".join(out.split())
    assert "--json" in out


def test_the_program_has_help_and_a_version(run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(name in out for name in NAMES)
    assert run("--version") == (0, f"dwindle {dwindle.__version__}\n", "")


@pytest.mark.parametrize(
    "words", [["nothing"], ["compress"], ["inspect"], ["verify", "x", "--hurry"], ["--hurry"]]
)
def test_wrong_usage_has_status_2(run, words):
    status, _, err = run(*words)
    assert status == 2
    assert "Error" in err


def sources(tmp_path, tensors):
    """The same tensors in every form that is read, with the options each needs and what is skipped."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, (name, tensor) in enumerate(tensors.items()):
        save_file({name: tensor}, folder / f"{number}.safetensors")
    (folder / "config.json").write_text("{}")
    save_file(tensors, tmp_path / "plain.safetensors")
    torch.save(dict(tensors), tmp_path / "plain.pt")
    torch.save({"epoch": 3, "model": {"ema": {**tensors, "note": "x"}}}, tmp_path / "nested.pt")
    np.savez(tmp_path / "plain.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    return {
        "safetensors": (tmp_path / "plain.safetensors", [], []),
        "pt": (tmp_path / "plain.pt", [], []),
        "nested": (tmp_path / "nested.pt", ["--key", "model.ema"], ["epoch", "model.ema.note"]),
        "npz": (tmp_path / "plain.npz", [], []),
        "shards": (folder, [], ["config.json"]),
    }


@pytest.mark.parametrize("form", ["safetensors", "pt", "nested", "npz", "shards"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz"])
def test_every_form_goes_there_and_back(tmp_path, tensors, run, form, suffix):
    source, options, skipped = sources(tmp_path, tensors)[form]
    small, back = tmp_path / "x.dwz", tmp_path / f"back{suffix}"
    status, out, err = run("compress", source, "-o", small, *options)
    assert status == 0
    assert f"{small.stat().st_size:,} bytes" in out
    assert all(f"{name}: not a tensor, left out" in err for name in skipped)
    status, out, _ = run("inspect", small, "--compare")
    assert status == 0
    assert all(
        name in out for name in (*tensors, "huffman", "one dictionary", "fillers", "zip", "zstd", "xz")
    )
    assert run("verify", small)[0] == 0
    status, out, _ = run("verify", small, "--against", source, *options)
    assert status == 0
    assert "4 tensors, every checksum right" in out
    status, _, err = run("decompress", small, "-o", back)
    assert status == 0
    assert f"{back}: 4 tensors" in err
    status, out, _ = run("verify", small, "--against", back, "--json")
    assert status == 0
    assert all(distance["exact"] for distance in json.loads(out)["distances"])
    read = {".safetensors": load_file, ".pt": torch.load, ".npz": lambda p: dict(np.load(p))}[suffix](back)
    assert set(read) == set(tensors)
    assert np.array_equal(np.asarray(read["steps"]), tensors["steps"].numpy())
    np.testing.assert_allclose(np.asarray(read["conv.bias"]), tensors["conv.bias"].numpy(), rtol=2**-9)


def test_compress_prints_json(tmp_path, tensors, run):
    for form, (source, options, skipped) in sources(tmp_path, tensors).items():
        path = tmp_path / f"{form}.dwz"
        status, out, err = run("compress", source, "-o", path, *options, "--json")
        assert (status, err) == (0, "")
        found = json.loads(out)
        assert (found["source"], found["file"]) == (str(source), str(path))
        assert found["bytes"] == found["file_size"] == path.stat().st_size
        assert found["rate"] == found["original"] / found["bytes"]
        assert found["skipped"] == skipped
        assert found["notes"] == []
        assert sum(line["size"] for line in found["lines"]) == found["bytes"]
        assert {tensor["name"] for tensor in found["tensors"]} == set(tensors)


def test_inspect_verify_and_decompress_print_json(run, compressed, checkpoint, tensors, tmp_path):
    found = json.loads(run("inspect", compressed, "--json", "--compare")[1])
    assert found["metadata"] == {"made": "here"}
    assert found["bytes"] == compressed.stat().st_size
    assert {tensor["name"] for tensor in found["comparison"]["tensors"]} == {"wide.weight", "conv.weight"}
    assert "comparison" not in json.loads(run("inspect", compressed, "--json")[1])
    general = found["comparison"]["general"]["wide.weight"]
    assert general["original"] == tensors["wide.weight"].nbytes
    stored = {tensor["name"]: tensor["size"] for tensor in found["tensors"]}
    assert all(stored["wide.weight"] < general[kind] < general["original"] for kind in ("zip", "zstd", "xz"))
    found = json.loads(run("verify", compressed, "--against", checkpoint, "--json")[1])
    assert (found["ok"], found["tensors"], found["against"]) == (True, 4, str(checkpoint))
    by_name = {distance["name"]: distance for distance in found["distances"]}
    assert [by_name[name]["exact"] for name in tensors] == [False, False, False, True]
    assert by_name["wide.weight"]["snr_db"] > 25
    assert by_name["conv.bias"]["snr_db"] > 50
    found = json.loads(run("decompress", compressed, "-o", tmp_path / "x.npz", "--json")[1])
    assert found["bytes"] == (tmp_path / "x.npz").stat().st_size
    assert (found["tensors"], found["metadata_left_out"]) == (4, ["made"])


def test_decompress_says_what_metadata_it_leaves_out(run, compressed, tmp_path):
    for suffix in (".pt", ".npz"):
        status, _, err = run("decompress", compressed, "-o", tmp_path / f"x{suffix}")
        assert status == 0
        assert f"metadata left out, since {suffix} has no place for it: made" in err
    status, _, err = run("decompress", compressed, "-o", tmp_path / "x.safetensors")
    assert "left out" not in err
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.metadata() == {"made": "here"}


@pytest.mark.parametrize(
    "options",
    [
        ["--quality=20", "--bits=8"],
        ["--quality=nan"],
        ["--quality=101"],
        ["--quality=-3"],
        ["--codebook=float16"],
    ],
)
def test_settings_that_do_not_fit_have_status_2(run, checkpoint, tmp_path, options):
    status, _, err = run("compress", checkpoint, "-o", tmp_path / "x.dwz", *options)
    assert status == 2
    assert "expected" in err
    assert not (tmp_path / "x.dwz").exists()


def test_settings_of_compress(run, checkpoint, tmp_path):
    out = tmp_path / "x.dwz"

    def tensors(*options):
        status, printed, _ = run("compress", checkpoint, "-o", out, "--json", "--force", *options)
        assert status == 0
        return {tensor["name"]: tensor for tensor in json.loads(printed)["tensors"]}

    found = tensors("--prune", "conv=0.75,linear=0.5", "--bits", "conv=3,linear=none,wide.weight=5")
    assert (found["conv.weight"]["entries"], found["wide.weight"]["entries"]) == (8, 32)
    assert (found["conv.weight"]["survivors"], found["wide.weight"]["survivors"]) == (1152, 2560)
    assert tensors("--bits", "none")["wide.weight"]["coding"] == "coded"
    assert tensors("--bits", "*.weight=2,conv*=none")["conv.weight"]["coding"] == "coded"
    assert tensors("--min-elements", "5000")["conv.weight"]["coding"] == "coded"
    assert tensors("--prune", "0.9", "--bits", "8", "--coder", "csc")["wide.weight"]["coding"] == "csc, fixed"
    assert tensors("--prune", "0.9", "--bits", "8", "--gap-bits", "3")["wide.weight"]["coding"].startswith(
        "3-bit gaps"
    )
    for option in ("--init=optimal", "--init=forgy", "--dictionary=network", "--threads=2", "--seed=9"):
        tensors("--bits=3", option)


def test_target_size_is_met_as_closely_as_half_a_decibel_can(run, refused, checkpoint, tmp_path):
    def size(*options):
        path = tmp_path / "x.dwz"
        assert run("compress", checkpoint, "-o", path, "--force", *options)[0] == 0
        return path.stat().st_size

    found = size("--target-size", "5000")
    assert size("--quality", "0") < found <= 5000
    assert found in {size(f"--quality={half / 2}") for half in range(20, 48)}
    least = size("--quality=0")
    assert size("--target-size", least) == least
    assert size("--target-size", 10**9) == size("--quality=60")
    path = tmp_path / "none.dwz"
    assert f"at most 100 bytes, got {least} at the least" in refused(
        "compress", checkpoint, "-o", path, "--target-size=100"
    )
    assert not path.exists()


def test_entropy_constrained_is_smaller_at_low_quality(run, checkpoint, tmp_path):
    sizes = []
    for options in ((), ("--entropy-constrained",)):
        path = tmp_path / f"{len(sizes)}.dwz"
        assert run("compress", checkpoint, "-o", path, "--quality=3", *options)[0] == 0
        assert run("verify", path, "--against", checkpoint)[0] == 0
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.95 * sizes[0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--bits=0", "1 to 16 bits, got '0'"),
        ("--bits=17", "1 to 16 bits, got '17'"),
        ("--bits=x", "1 to 16 bits, got 'x'"),
        ("--bits=", "1 to 16 bits, got ''"),
        ("--bits=conv=4,", "key=value, got ''"),
        ("--bits=8,conv=4", "key=value, got '8'"),
        ("--prune=1.5", "a share from 0 to 1, got '1.5'"),
        ("--prune=nan", "a share from 0 to 1, got 'nan'"),
        ("--prune=-0.1", "a share from 0 to 1, got '-0.1'"),
        ("--prune=conv=much", "a share from 0 to 1, got 'much'"),
        ("--init=best", "one of linear, density, forgy, optimal, got best"),
        ("--coder=zip", "a coder among auto, context, rans, huffman, fixed, csr, csc, got zip"),
        ("--gap-bits=0", "gap bits of 1 to 16, got 0"),
        ("--gap-bits=17", "gap bits of 1 to 16, got 17"),
        ("--dictionary=each", "a dictionary per layer or network, got each"),
        ("--threads=0", "greater than or equal to 1"),
        ("--threads=-1", "greater than or equal to 1"),
        ("--seed=-1", "greater than or equal to 0"),
        ("--min-elements=-1", "greater than or equal to 0"),
    ],
)
def test_bad_options_of_compress_have_status_2(run, checkpoint, tmp_path, option, message, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, err = run("compress", checkpoint, "-o", tmp_path / "x.dwz", option)
    assert (status, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "x.dwz").exists()


def test_optimal_starts_have_at_most_10_bits(run, checkpoint, tmp_path):
    words = ("compress", checkpoint, "-o", tmp_path / "x.dwz", "--init", "optimal", "--bits")
    for bits in ("11", "conv=11,linear=3"):
        status, _, err = run(*words, bits)
        assert status == 2
        assert "at most 10 bits" in " ".join(err.split())
    assert run(*words, "conv=2,linear=none")[0] == 0


def test_unknown_tensors_are_refused_with_the_nearest(refused, checkpoint, tmp_path):
    line = refused("compress", checkpoint, "-o", tmp_path / "x.dwz", "--bits", "wide.wieght=3")
    assert line.startswith("wide.wieght: expected the name of a tensor to compress, such as wide.weight")


def test_inputs_that_cannot_be_read(refused, checkpoint, compressed, tmp_path):
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    for source, message in (
        (tmp_path / "missing.pt", "No such file"),
        (tmp_path / "text.safetensors", "expected"),
        (tmp_path / "text", "unknown format"),
        (tmp_path / "empty", "expected a folder of .safetensors shards"),
        (compressed, "compressed already"),
    ):
        line = refused("compress", source, "-o", tmp_path / "x.dwz")
        assert line.startswith(f"{source}: ")
        assert message in line
    assert "expected no key" in refused("compress", checkpoint, "-o", tmp_path / "x.dwz", "--key", "a")
    assert not (tmp_path / "x.dwz").exists()


def test_a_file_is_not_compressed_onto_itself(refused, checkpoint, compressed, tmp_path):
    before = checkpoint.read_bytes()
    (tmp_path / "link.dwz").symlink_to(checkpoint)
    for output in (checkpoint, tmp_path / "link.dwz"):
        assert "other than the input" in refused("compress", checkpoint, "-o", output, "--force")
    assert "other than the input" in refused("decompress", compressed, "-o", compressed, "--force")
    folder = tmp_path / "shards"
    folder.mkdir()
    os.link(checkpoint, folder / "one.safetensors")
    assert "other than the input" in refused("compress", folder, "-o", folder / "one.safetensors", "--force")
    assert checkpoint.read_bytes() == before


def test_existing_outputs_are_kept_unless_forced(run, refused, checkpoint, compressed, tmp_path):
    (tmp_path / "x.npz").write_bytes(b"precious")
    before = compressed.read_bytes()
    assert "--force" in refused("compress", checkpoint, "-o", compressed, "--bits", "2")
    assert "--force" in refused("decompress", compressed, "-o", tmp_path / "x.npz")
    assert (compressed.read_bytes(), (tmp_path / "x.npz").read_bytes()) == (before, b"precious")
    assert run("decompress", compressed, "-o", tmp_path / "x.npz", "--force")[0] == 0
    assert run("compress", checkpoint, "-o", compressed, "--bits", "2", "--force")[0] == 0
    assert compressed.read_bytes() != before


def test_outputs_that_cannot_be_written(refused, checkpoint, compressed, tmp_path):
    for command, source, name in (
        ("compress", checkpoint, "none/x.dwz"),
        ("compress", checkpoint, "."),
        ("decompress", compressed, "none/x.npz"),
        ("decompress", compressed, "x.onnx"),
        ("decompress", compressed, "x" * 300 + ".npz"),
    ):
        assert refused(command, source, "-o", tmp_path / name)


class Boom:
    """Pickled as a call that leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_checkpoint_that_needs_pickle_is_refused_and_nothing_runs(refused, tmp_path, compressed):
    torch.save({"w": torch.zeros(2), "boom": Boom(tmp_path / "ran")}, tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", w=np.array([Boom(tmp_path / "ran")], dtype=object))
    for source in (tmp_path / "x.pt", tmp_path / "x.npz"):
        assert "pickle" in refused("compress", source, "-o", tmp_path / "x.dwz")
        assert "pickle" in refused("verify", compressed, "--against", source)
    assert not (tmp_path / "ran").exists()


def test_nan_weights_are_noted(run, tensors, tmp_path):
    broken = copy.deepcopy(tensors)
    broken["wide.weight"][0, 0] = float("nan")
    save_file(broken, tmp_path / "x.safetensors")
    status, _, err = run("compress", tmp_path / "x.safetensors", "-o", tmp_path / "x.dwz")
    assert status == 0
    assert "wide.weight: kept exactly: 1 of 5120 weights are NaN" in err
    status, out, _ = run("verify", tmp_path / "x.dwz", "--against", tmp_path / "x.safetensors", "--json")
    assert status == 0
    json.loads(out, parse_constant=pytest.fail)  # NaN is no JSON


def test_damaged_files_have_status_2(refused, compressed, tmp_path):
    whole = compressed.read_bytes()
    (tmp_path / "text.dwz").write_text("hello")
    (tmp_path / "empty.dwz").write_bytes(b"")
    (tmp_path / "cut.dwz").write_bytes(whole[:-3])
    (tmp_path / "flipped.dwz").write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    for name in ("text", "empty", "cut", "flipped", "missing"):
        path = tmp_path / f"{name}.dwz"
        for words in (("inspect", path), ("verify", path), ("decompress", path, "-o", tmp_path / "x.npz")):
            assert refused(*words).startswith(f"{path}: ")
    assert refused("inspect", tmp_path)
    assert not (tmp_path / "x.npz").exists()


def test_a_mismatch_has_status_1(refused, compressed, tensors, tmp_path):
    for change, message in (
        ({"conv.bias": tensors["conv.bias"] + 1}, "conv.bias: expected every bit, got 16 of 16 changed"),
        ({"steps": torch.tensor(7, dtype=torch.int32)}, "steps: expected dtype int32, got int64"),
        ({"wide.weight": tensors["wide.weight"].t().contiguous()}, "wide.weight: expected shape (80, 64)"),
        ({"more": torch.zeros(1)}, "expected more, which is missing"),
    ):
        save_file(tensors | change, tmp_path / "other.safetensors")
        line = refused("verify", compressed, "--against", tmp_path / "other.safetensors", status=1)
        assert line.startswith(f"{compressed}: ")
        assert message in line


def test_files_that_decode_to_much_more_need_trust(refused, run, tmp_path):
    n = (1 << 28) // 4 + 1
    record = Shared("float32", (n,), np.ones(1, np.float32), np.zeros(n, np.uint8))
    write(tmp_path / "x.dwz", {"w": record})
    for command in ("inspect", "verify"):
        assert "--trust" in refused(command, tmp_path / "x.dwz")
        assert run(command, tmp_path / "x.dwz", "--trust")[0] == 0
    assert "--trust" in refused("decompress", tmp_path / "x.dwz", "-o", tmp_path / "x.npz")


def test_debug_shows_the_traceback_wherever_it_stands_and_changes_no_status(run):
    for words in (["--debug", "inspect", "missing.dwz"], ["inspect", "missing.dwz", "--debug"]):
        status, _, err = run(*words)
        assert status == 2
        assert err.startswith("Traceback")
        assert err.endswith("dwindle: missing.dwz: cannot be read: No such file or directory\n")


def test_what_is_pruned_and_not_shared_keeps_its_survivors(run, checkpoint, tmp_path):
    path = tmp_path / "x.dwz"
    assert run("compress", checkpoint, "-o", path, "--prune", "0.9", "--bits", "none", "--json")[0] == 0
    assert path.stat().st_size < checkpoint.stat().st_size / 2
    status, out, _ = run("verify", path, "--against", checkpoint, "--json")
    assert status == 0
    changed = [d["changed"] for d in json.loads(out)["distances"] if not d["exact"]]
    assert changed
    before, after = load_file(checkpoint), dwindle.load(path)
    for name, tensor in before.items():
        kept = after[name] != 0
        assert torch.equal(after[name][kept], tensor[kept])


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".npz"])
def test_outputs_are_not_named_after_other_formats(run, checkpoint, tmp_path, suffix):
    status, _, err = run("compress", checkpoint, "-o", tmp_path / f"small{suffix}")
    assert status == 2
    assert "small.dwz" in err
    assert not (tmp_path / f"small{suffix}").exists()


def test_the_state_of_a_pruned_model_is_refused(refused, tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(8, 8))
    prune(net, sparsity=0.5)
    torch.save(net.state_dict(), tmp_path / "x.pt")
    line = refused("compress", tmp_path / "x.pt", "-o", tmp_path / "x.dwz")
    assert "0.parametrizations.weight.0.mask: expected plain tensors" in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "expected enough memory, got too little: Unable to"),
        (OSError(28, "No space left on device", "/x"), "/x: No space left on device"),
        (RecursionError("too\ndeep"), "unexpected RecursionError: too deep; --debug shows where"),
        (KeyError("w"), "unexpected KeyError: 'w'; --debug shows where"),
    ],
)
def test_what_nobody_expected_is_one_line_too(refused, compressed, monkeypatch, error, line):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("dwindle.file.ledger", fail)
    assert refused("inspect", compressed).startswith(line)


def test_names_are_printed_as_they_are(run, tmp_path):
    names = ["[/bold]w", ":smile:", "[red]", "ünïcode", "line\nbreak", "esc\x1b[31m", ""]
    save_file({name: torch.zeros(3) for name in names}, tmp_path / "x.safetensors")
    status, out, _ = run("compress", tmp_path / "x.safetensors", "-o", tmp_path / "x.dwz")
    assert status == 0
    assert all(name in out for name in names[:4])
    assert "\x1b" not in out
    assert r"'line\nbreak'" in out
    assert r"'esc\x1b[31m'" in out
    status, _, _ = run("verify", tmp_path / "x.dwz", "--against", tmp_path / "x.safetensors")
    assert status == 0


def test_a_closed_pipe_ends_quietly(tmp_path):
    save_file({f"w{number}": torch.zeros(1) for number in range(5000)}, tmp_path / "x.safetensors")
    dwindle.compress_checkpoint(tmp_path / "x.safetensors", tmp_path / "x.dwz")
    command = [sys.executable, "-c", "from dwindle.cli import main; main()", "inspect", tmp_path / "x.dwz"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_an_interrupt_ends_quietly(monkeypatch, run, compressed):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("dwindle.file.ledger", interrupt)
    status, _, err = run("inspect", compressed)
    assert status == 128 + signal.SIGINT
    assert "Traceback" not in err


def test_the_base_is_never_the_output(refused, run, checkpoint, tensors, tmp_path):
    base, tuned = tmp_path / "base.safetensors", tmp_path / "tuned.dwz"
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, base)
    before = base.read_bytes()
    words = ("--base", base, "--force")
    assert "other than the input" in refused("compress", checkpoint, "-o", base, "--lossless", *words)
    assert run("compress", checkpoint, "-o", tuned, "--lossless", "--base", base)[0] == 0
    assert "other than the input" in refused("decompress", tuned, "-o", base, *words)
    assert "still needed" in refused("decompress", tuned, "-o", f"{tmp_path}/", *words)
    assert base.read_bytes() == before
    assert run("decompress", tuned, "-o", tmp_path / "back.safetensors", "--base", base)[0] == 0
    # A base that no shard can take the place of may lie in the folder.
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save(load_file(base), folder / "base.pt")
    assert run("decompress", tuned, "-o", f"{folder}/", "--base", folder / "base.pt")[0] == 0
    assert (folder / "base.pt").exists()


def test_lossless_is_not_asked_for_with_what_changes_tensors(run, checkpoint, tmp_path):
    for words in (("--prune", "0.5"), ("--bits", "4"), ("--quality", "20")):
        status, _, err = run("compress", checkpoint, "-o", tmp_path / "x.dwz", "--lossless", *words)
        assert status == 2
        assert "--lossless" in err
        assert not (tmp_path / "x.dwz").exists()


def test_what_is_nested_can_be_compared(run, tensors, tmp_path):
    torch.save({"state": tensors, "epoch": 3}, tmp_path / "in.pt")
    assert (
        run("compress", tmp_path / "in.pt", "--key", "state", "-o", tmp_path / "x.dwz", "--lossless")[0] == 0
    )
    assert run("diff", tmp_path / "in.pt", tmp_path / "x.dwz", "--key", "state")[0] == 0
    for words in (("--key", "state"), ("--layers", tmp_path / "x.prototxt")):
        status, _, err = run("diff", tmp_path / "x.dwz", tmp_path / "x.dwz", *words)
        assert (status, words[0] in err) == (2, True)


def test_a_failed_verification_is_json_too(run, checkpoint, compressed, tensors, tmp_path):
    save_file(tensors | {"steps": torch.tensor(8)}, tmp_path / "other.safetensors")
    status, out, err = run("verify", compressed, "--against", tmp_path / "other.safetensors", "--json")
    assert status == 1
    assert "steps: expected every bit" in err
    found = json.loads(out)
    assert found["ok"] is False
    assert "steps: expected every bit" in found["error"]
