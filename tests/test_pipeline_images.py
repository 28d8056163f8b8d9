import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dwindle import Archive, models
from dwindle.data import PREPROCESSINGS, Preprocessing, image_examples
from dwindle.errors import DataError, RecipeError
from dwindle.models import registry
from dwindle.outcome import measure
from dwindle.pipeline import run_recipe
from dwindle.recipe import parse_recipe

PREPROCESSING = Preprocessing(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0), short_side=12, crop=8)
CONTENT = {
    "name": "small",
    "model": "alexnet",
    "data": "images",
    "prune": {"sparsity": {"classifier.1.weight": 0.8}, "epochs": 1, "lr": 0.01, "batch": 4, "shift": 2},
    "share": {"bits": {"conv": 4, "linear": 3}, "epochs": 1, "lr": 0.001, "batch": 4},
}


class Small(nn.Module):
    """A network for pictures that tests can afford."""

    def __init__(self, dropout=0.5):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(6)
        )
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(144, 1000))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A checkpoint as `torch.save` leaves it, of a network that takes AlexNet's place."""
    monkeypatch.setitem(registry._NETWORKS, "alexnet", registry._Network(Small, "images"))
    torch.manual_seed(1)
    torch.save(models.build("alexnet").state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures of every second class."""
    (tmp_path / "pictures").mkdir()
    for label in range(0, 40, 2):
        pixels = np.random.default_rng(label).integers(0, 256, (14, 12 + label, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{label:04}.png")
    return tmp_path / "pictures"


def test_a_run_takes_weights_and_pictures_and_measures_both_networks(tmp_path, weights, folder):
    recipe = parse_recipe(CONTENT, "small.toml")
    data = image_examples(folder, PREPROCESSING)
    lines = []
    model = run_recipe(recipe, tmp_path / "run", data, reference=weights, log=lines.append)
    assert [line.split(":")[0] for line in lines] == ["prune 1/1", "share 1/1"]
    outcome = measure(recipe, tmp_path / "run", data, model)
    assert outcome.same_predictions
    assert outcome.agreement.examples == 10
    assert outcome.agreement.top1.before == pytest.approx(100 - outcome.reference_error)
    assert outcome.agreement.top1.after == pytest.approx(100 - outcome.test_error)
    assert (outcome.confusion_before, outcome.confusion_after) == (None, None)
    assert len(outcome.changed) == round(10 * (1 - outcome.agreement.same / 100))
    json.dumps(outcome.to_json())
    with Archive(tmp_path / "run" / "model.dwz") as archive:
        assert archive.metadata == {"model": "alexnet"}
        assert (archive["classifier.1.weight"] == 0).mean() == pytest.approx(0.8)
    # The same again, stopped after pruning: what it draws for its pictures is part of its state.
    again = parse_recipe({key: value for key, value in CONTENT.items() if key != "share"}, "small.toml")
    run_recipe(again, tmp_path / "again", data, reference=weights)
    resumed = json.loads((tmp_path / "again" / "recipe.json").read_text())
    resumed["share"] = recipe.model_dump(mode="json")["share"]
    (tmp_path / "again" / "recipe.json").write_text(json.dumps(resumed))
    torch.manual_seed(9)
    lines.clear()
    run_recipe(recipe, tmp_path / "again", data, reference=weights, log=lines.append)
    assert [line.split(":")[0] for line in lines] == ["resuming prune after 1 epochs", "share 1/1"]
    assert (tmp_path / "again" / "model.dwz").read_bytes() == (tmp_path / "run" / "model.dwz").read_bytes()


def test_only_even_places_are_trained_on(tmp_path, weights, folder):
    recipe = parse_recipe(CONTENT, "small.toml")
    for at, path in enumerate(sorted(folder.iterdir())):
        if at % 2:
            path.write_bytes(b"damaged")
    data = image_examples(folder, PREPROCESSING)
    model = run_recipe(recipe, tmp_path / "run", data, reference=weights)
    with pytest.raises(DataError, match=r"0002\.png: expected a picture"):
        measure(recipe, tmp_path / "run", data, model)


def test_without_a_checkpoint_or_pictures_to_train_on_nothing_begins(tmp_path, weights, folder):
    recipe = parse_recipe(CONTENT, "small.toml")
    data = image_examples(folder, PREPROCESSING)
    with pytest.raises(RecipeError, match=r"small: expected a checkpoint of alexnet \(--reference\), since"):
        run_recipe(recipe, tmp_path / "run", data)
    folder.rename(tmp_path / "val")
    data = image_examples(tmp_path, PREPROCESSING)
    with pytest.raises(RecipeError, match="expected training examples besides those held out, got 0 of 0"):
        run_recipe(recipe, tmp_path / "run", data, reference=weights)
    assert not (tmp_path / "run").exists()


def test_the_commands_take_pictures(run, refused, tmp_path, weights, folder, monkeypatch):
    monkeypatch.setitem(PREPROCESSINGS, "torchvision", PREPROCESSING)
    lines = ['name = "small"', 'model = "alexnet"', 'data = "images"', "[share]", "bits = { linear = 2 }"]
    (tmp_path / "small.toml").write_text("\n".join([*lines, "epochs = 1", "lr = 0.01"]))
    train = ("train", tmp_path / "small.toml", "-o", tmp_path / "run", "--data", folder)
    status, out, err = run(*train, "--reference", weights, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["agreement"]["examples"] == 10
    assert found["confusion_before"] is None
    assert not list((tmp_path / "run").glob("*.png"))
    status, out, _ = run(*train, "--reference", weights)
    assert status == 0
    assert "of 10 test pictures changed their answer" in out
    assert "top-5 accuracy" in out

    status, out, _ = run(
        "evaluate", tmp_path / "run" / "model.dwz", "--data", folder, "--against", weights, "--json"
    )
    assert status == 0
    evaluated = json.loads(out)
    assert evaluated["test_error"] == found["test_error"]
    assert evaluated["agreement"] == found["agreement"]
    status, out, _ = run("evaluate", weights, "--model", "alexnet", "--data", folder, "--against", weights)
    assert status == 0
    assert "of 10 test pictures wrong" in out
    assert "same answer on 100.00 %, mean divergence 0 nats" in out
    other = ("evaluate", weights, "--model", "alexnet", "--data", folder, "--preprocessing")
    monkeypatch.setitem(PREPROCESSINGS, "caffe", Preprocessing(mean=(0.0, 0.0, 0.0), short_side=9, crop=8))
    assert run(*other, "caffe")[0] == 0
    assert run(*other, "coffee")[0] == 2

    status, out, _ = run(
        "sensitivity",
        "--model",
        "alexnet",
        "--reference",
        weights,
        "--data",
        folder,
        "--json",
        "-o",
        tmp_path,
    )
    assert status == 0
    assert (json.loads(out)["pictures"], set(json.loads(out)["errors"])) == (
        10,
        {"features.0.weight", "classifier.1.weight"},
    )

    assert "alexnet: expected a folder of pictures (--data), got none" in refused(
        "evaluate", weights, "--model", "alexnet"
    )
    assert "expected a checkpoint of alexnet (--reference)" in refused(
        *train[:2], "-o", tmp_path / "x", *train[4:]
    )
    assert run("demo", "--model", "alexnet")[0] == 2
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    message = refused(*train, "--force", "--reference", tmp_path / "other.safetensors")
    assert "other.safetensors: expected the model's tensors, but it lacks classifier.1.bias" in message
