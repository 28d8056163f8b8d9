import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dwindle
import dwindle.data
from dwindle.data import Mnist
from dwindle.models import build

TINY = """
name = "tiny"
model = "lenet-300-100"
[reference]
epochs = 1
lr = 0.05
[prune]
sparsity = { "fc1.weight" = 0.9 }
epochs = 1
lr = 0.01
[share]
bits = { linear = 3 }
epochs = 0
lr = 0.01
"""


@pytest.fixture
def digits(monkeypatch):
    """MNIST, but small and meaningless."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (6000, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (6000,), generator=generator)
    data = Mnist(images[:5500], labels[:5500], images[5500:], labels[5500:])
    monkeypatch.setattr(dwindle.data, "mnist", lambda root=None: data)


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path / "tiny.toml"


def test_train_and_evaluate(run, refused, digits, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("train", recipe, "--seed", "2", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    folder = Path("runs") / "tiny-2"
    assert found["file"] == str(folder / "model.dwz")
    assert found["bytes"] == (folder / "model.dwz").stat().st_size
    assert found["rate"] == 266610 * 4 / found["bytes"]
    assert (found["seed"], found["same_predictions"], found["recipe"]) == (2, True, "tiny")
    assert [row["name"] for row in found["layers"]] == ["fc1.weight", "fc2.weight", "fc3.weight", "all"]
    assert {"reference_error", "test_error", "pruned_error", "versions"} <= set(found)
    assert json.loads((folder / "result.json").read_text()) == found
    figures = {f"confusion-{what}.png" for what in ("before", "after", "difference")}
    assert figures <= {path.name for path in folder.iterdir()}

    status, out, err = run("train", recipe, "-o", folder, "--seed", "2")
    assert status == 0
    assert "resuming prune after 1 epochs" in err
    assert "of 500 test digits changed" in out
    assert f"{found['bytes']:,}" in out

    expected = {"file": str(folder / "model.dwz"), "model": "lenet-300-100", "bytes": found["bytes"]}
    status, out, _ = run("evaluate", folder / "model.dwz", "--json")
    assert json.loads(out) == expected | {"test_error": found["test_error"]}
    status, out, _ = run("evaluate", folder / "reference.safetensors", "--model", "lenet-300-100")
    assert status == 0
    assert f"{found['reference_error']:.2f} % of 500 test digits wrong" in out

    assert "differs in seed" in refused("train", recipe, "-o", folder)
    assert "expected --model" in refused("evaluate", folder / "reference.safetensors")
    assert "expected the model's tensors" in refused("evaluate", folder / "model.dwz", "--model", "lenet-5")
    assert "No such file" in refused("evaluate", "missing.dwz")


def test_demo_compresses_the_reference_network(run, digits, tmp_path, monkeypatch):
    save_file(build("lenet-300-100").state_dict(), tmp_path / "reference.safetensors")
    recipe = dwindle_recipe(tmp_path)
    monkeypatch.setattr(
        "dwindle.models.reference_checkpoint", lambda name: tmp_path / "reference.safetensors"
    )
    monkeypatch.setattr("dwindle.recipe.read_recipe", lambda name: recipe)
    status, out, err = run("demo", "-o", tmp_path / "demo", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert {"file", "bytes", "rate", "reference_error", "test_error"} <= set(found)
    assert Path(found["file"]).stat().st_size == found["bytes"]
    before = Path(found["file"]).read_bytes()
    status, out, err = run("demo", "-o", tmp_path / "demo")
    assert status == 0
    assert "resuming" not in err
    assert Path(found["file"]).read_bytes() == before
    assert "the paper's figures" in out


def dwindle_recipe(folder):
    from dwindle.recipe import read_recipe

    (folder / "tiny.toml").write_text(TINY)
    return read_recipe(folder / "tiny.toml")


def test_demo_leaves_files_that_are_not_its_own(run, digits, refused, tmp_path, monkeypatch):
    (tmp_path / "model.dwz").write_bytes(b"precious")
    assert "in a folder without a run" in refused("demo", "-o", tmp_path)
    assert (tmp_path / "model.dwz").read_bytes() == b"precious"


def test_sensitivity_writes_a_table_and_a_figure(run, digits, tmp_path):
    save_file(build("lenet-300-100").state_dict(), tmp_path / "x.safetensors")
    words = ("sensitivity", "-o", tmp_path / "new" / "out", "--reference", tmp_path / "x.safetensors")
    status, out, _ = run(*words, "--json")
    assert status == 0
    found = json.loads(out)
    assert set(found["errors"]) == {"fc1.weight", "fc2.weight", "fc3.weight"}
    assert all(len(line) == len(found["sparsities"]) for line in found["errors"].values())
    written = {path.name: path for path in (tmp_path / "new" / "out").iterdir()}
    assert set(written) == {"sensitivity-lenet-300-100.json", "sensitivity-lenet-300-100.png"}
    assert json.loads(written["sensitivity-lenet-300-100.json"].read_text()) == found
    assert written["sensitivity-lenet-300-100.png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "nowhere"], "expected a TOML file or one of"),
        (["train", "RECIPE", "--reference", "missing.pt"], "missing.pt: "),
        (["train", "RECIPE", "--data", "missing"], "missing"),
        (["train", "RECIPE", "-o", "RECIPE"], "cannot be written"),
        (["evaluate", "missing.dwz"], "No such file"),
        (["sensitivity", "-o", "x", "--reference", "missing.pt"], "missing.pt: "),
    ],
)
def test_bad_input_of_the_training_commands_is_one_line(
    refused, recipe, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*(str(recipe) if word == "RECIPE" else word for word in words))


@pytest.mark.parametrize(
    "words",
    [
        ["train", "lenet-5-paper", "--threads", "0"],
        ["train", "lenet-5-paper", "--seed", "-1"],
        ["train", "lenet-5-paper", "--device", "toaster"],
        ["demo", "--model", "lenet-6"],
        ["evaluate", "x", "--model", "lenet-6"],
        ["sensitivity", "-o", "x", "--model", "lenet-6"],
    ],
)
def test_bad_options_of_the_training_commands(run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
