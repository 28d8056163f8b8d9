import copy
import tomllib

import pytest
import torch

from dwindle.code.plan import Coding
from dwindle.errors import RecipeError
from dwindle.models import build
from dwindle.prune.apply import by_tensor
from dwindle.recipe import packaged_recipes, parse_recipe, read_recipe
from dwindle.report import PAPER
from dwindle.share.apply import bits_by_tensor

TEXT = """
name = "small"
model = "lenet-5"

[reference]
epochs = 1
lr = 0.1

[prune]
sparsity = { "fc1.weight" = 0.5 }
epochs = 1
lr = 1

[share]
bits = { conv = 8, "fc1.weight" = 5 }
epochs = 0
lr = 0.01

[code]
gap_bits = 5
"""
GOOD = tomllib.loads(TEXT)


def changed(section, **values):
    content = copy.deepcopy(GOOD)
    (content.setdefault(section, {}) if section else content).update(values)
    return content


def refusal(content):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(content, "x.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


LENETS = ["lenet-300-100-paper", "lenet-5-paper"]
LARGE = ["alexnet-paper", "resnet-50", "vgg-16-paper"]


def test_the_packaged_recipes():
    assert packaged_recipes() == sorted(LENETS + LARGE)


def test_the_recipes_of_the_lenets_are_the_papers():
    for name in LENETS:
        recipe = read_recipe(name)
        assert recipe == read_recipe(f"{name}.toml")
        assert (recipe.name, recipe.model) == (name, name.removesuffix("-paper"))
        assert recipe.code.coding == Coding("huffman", 5, "layer")
        assert recipe.prune is not None
    assert read_recipe("lenet-300-100-paper").share.bits == {"linear": 6}
    assert read_recipe("lenet-5-paper").share.bits == {"conv": 8, "linear": 5}


@pytest.mark.parametrize("name", LARGE)
def test_recipes_of_networks_for_imagenet_start_from_a_checkpoint(name):
    recipe = read_recipe(name)
    assert (recipe.name, recipe.model) == (name, name.removesuffix("-paper"))
    assert (recipe.data, recipe.reference) == ("images", None)
    assert recipe.share.bits == {"conv": 8, "linear": 5}
    assert all(
        section.shift == 16 for section in (recipe.prune, recipe.share)
    )  # Krizhevsky et al.: 256 - 224
    with torch.device("meta"):
        model = build(recipe.model)
    weights = [key for key, parameter in model.named_parameters() if parameter.ndim > 1]
    left = [key for key in weights if key not in recipe.prune.sparsity]
    assert left == (["conv1.weight"] if name == "resnet-50" else [])
    assert by_tensor(model, recipe.prune.sparsity) == recipe.prune.sparsity
    assert set(bits_by_tensor(model, recipe.share.bits)) == set(weights)


@pytest.mark.parametrize(("name", "gap_bits"), [("alexnet", 4), ("vgg-16", 5)])
def test_recipes_of_the_paper_have_its_densities_and_bits(name, gap_bits):
    recipe, paper = read_recipe(f"{name}-paper"), PAPER[name]
    assert list(recipe.prune.sparsity) == list(paper.layers)
    for key, row in paper.layers.items():
        assert 100 * (1 - recipe.prune.sparsity[key]) == pytest.approx(row.density)
        kind = "linear" if "classifier" in key else "conv"
        assert (recipe.share.bits[kind], recipe.code.gap_bits) == (row.index_bits[0], row.gap_bits[0])
    assert recipe.code.coding == Coding("huffman", gap_bits, "layer")


def test_data_and_preprocessing_fit_the_network():
    message = refusal(GOOD | {"model": "alexnet"})
    assert message.startswith('x.toml: expected data = "images" for alexnet, got "mnist"')
    assert "for lenet-5" in refusal(GOOD | {"data": "images"})
    message = refusal(GOOD | {"preprocessing": "caffe"})
    assert message.startswith('x.toml: expected preprocessing with data = "images" only, got caffe')
    images = {key: value for key, value in GOOD.items() if key != "prune"} | {
        "model": "alexnet",
        "data": "images",
    }
    assert parse_recipe(images | {"preprocessing": "caffe"}, "x").preprocessing == "caffe"
    message = refusal(images | {"preprocessing": "cafe"})
    assert (
        message == "x.toml: preprocessing: expected one of torchvision, caffe, efficientnet-lite, got 'cafe'"
    )


def test_runs_of_before_are_described_as_before():
    # What a run's folder says of its recipe: what differs from an old run stops its resuming.
    described = read_recipe("lenet-5-paper").model_dump(mode="json")
    assert described.pop("preprocessing") is None
    sections = {"name", "model", "data", "seed", "validation", "reference", "prune", "share", "code"}
    assert set(described) == sections
    training = {"epochs", "lr", "final_lr", "momentum", "weight_decay", "batch", "shift"}
    assert set(described["reference"]) == training | {"dropout"}


def test_a_file_is_read_with_defaults(tmp_path):
    (tmp_path / "small.toml").write_text(TEXT)
    recipe = read_recipe(tmp_path / "small.toml")
    assert recipe == parse_recipe(GOOD, "elsewhere")
    assert (recipe.seed, recipe.prune.lr, recipe.reference.batch) == (0, 1.0, 128)
    assert (recipe.share.init, recipe.code.coder, recipe.prune.schedule) == ("linear", "huffman", "gradual")


def test_sections_may_be_left_out():
    content = {key: GOOD[key] for key in ("name", "model", "reference")}
    recipe = parse_recipe(content, "x")
    assert (recipe.prune, recipe.share) == (None, None)
    assert recipe.code.coding == Coding("huffman")


@pytest.mark.parametrize(
    ("section", "key", "near"),
    [
        (None, "modle", "model"),
        (None, "prunning", "prune"),
        ("reference", "epoch", "epochs"),
        ("reference", "drop_out", "dropout"),
        ("prune", "spars", "sparsity"),
        ("share", "bit", "bits"),
        ("share", "inits", "init"),
        ("code", "gapbits", "gap_bits"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(section, key, near):
    place = f"{section}.{key}" if section else key
    assert refusal(changed(section, **{key: 1})) == (
        f"x.toml: {place}: expected a known key such as {near}, got another"
    )


@pytest.mark.parametrize(
    ("section", "values", "start"),
    [
        (
            None,
            {"model": "lenet-7"},
            "model: expected one of lenet-300-100, lenet-5, alexnet, vgg-16, resnet-50, got 'lenet-7'",
        ),
        (None, {"model": 5}, "model: input should be a valid string, got 5"),
        (None, {"data": "cifar"}, "data: input should be 'mnist' or 'images', got 'cifar'"),
        (None, {"seed": -1}, "seed: input should be greater than or equal to 0, got -1"),
        (None, {"seed": 1 << 63}, "seed: input should be less than"),
        (None, {"seed": 1.5}, "seed: input should be a valid integer, got 1.5"),
        (None, {"seed": True}, "seed: input should be a valid integer, got True"),
        (None, {"validation": 60000}, "validation: input should be less than 60000"),
        (None, {"reference": 3}, "reference: input should be a valid dictionary"),
        ("reference", {"epochs": -1}, "reference.epochs: input should be greater than or equal to 0"),
        ("reference", {"epochs": "3"}, "reference.epochs: input should be a valid integer, got '3'"),
        ("reference", {"lr": 0}, "reference.lr: input should be greater than 0"),
        ("reference", {"lr": float("nan")}, "reference.lr: input should be a finite number, got nan"),
        ("reference", {"lr": float("inf")}, "reference.lr: input should be a finite number, got inf"),
        ("reference", {"momentum": 1.5}, "reference.momentum: input should be less than or equal to 1"),
        ("reference", {"batch": 0}, "reference.batch: input should be greater than or equal to 1"),
        ("reference", {"dropout": 1.0}, "reference.dropout: input should be less than 1"),
        ("prune", {"sparsity": {}}, "prune.sparsity: dictionary should have at least 1 item"),
        ("prune", {"sparsity": 0.5}, "prune.sparsity: input should be a valid dictionary, got 0.5"),
        ("prune", {"sparsity": {"w": 1.5}}, "prune.sparsity.w: input should be less than or equal to 1"),
        ("prune", {"rounds": 0}, "prune.rounds: input should be greater than or equal to 1, got 0"),
        ("prune", {"schedule": "fast"}, "prune.schedule: input should be 'gradual' or 'iterative'"),
        (
            "share",
            {"bits": {"conv": 17}},
            "share.bits.conv: input should be less than or equal to 16, got 17",
        ),
        ("share", {"bits": {"conv": 0}}, "share.bits.conv: input should be greater than or equal to 1"),
        (
            "share",
            {"init": "random"},
            "share.init: input should be 'linear', 'density', 'forgy' or 'optimal'",
        ),
        (
            "code",
            {"coder": "zip"},
            "code.coder: input should be 'auto', 'context', 'rans', 'huffman', 'fixed', 'csr' or 'csc'",
        ),
        ("code", {"gap_bits": 17}, "code.gap_bits: input should be less than or equal to 16"),
        ("code", {"dictionary": "all"}, "code.dictionary: input should be 'layer' or 'network'"),
    ],
)
def test_wrong_types_and_ranges_are_refused(section, values, start):
    assert refusal(changed(section, **values)).startswith(f"x.toml: {start}")


def test_optimal_starts_have_at_most_10_bits():
    assert parse_recipe(changed("share", init="optimal", bits={"conv": 10}), "x").share.init == "optimal"
    message = refusal(changed("share", init="optimal", bits={"conv": 11}))
    assert message.startswith('x.toml: share: expected at most 10 bits with init = "optimal"')


@pytest.mark.parametrize("key", ["name", "model"])
def test_missing_keys_are_named(key):
    content = {k: v for k, v in GOOD.items() if k != key}
    assert refusal(content) == f"x.toml: {key}: field required"


@pytest.mark.parametrize(
    "data",
    [b"name = ", b"\xff\xfe", b"name = 'a'\nname = 'b'", b"\x00", b"x = " + b"[" * 100_000],
    ids=["cut", "not utf-8", "twice", "nul", "deep"],
)
def test_files_that_are_no_toml_are_refused(tmp_path, data):
    (tmp_path / "x.toml").write_bytes(data)
    with pytest.raises(RecipeError, match=r"x\.toml: expected a recipe in TOML, got"):
        read_recipe(tmp_path / "x.toml")


@pytest.mark.parametrize("name", ["lenet-6-paper", "elsewhere/lenet-5-paper", "missing.toml", ""])
def test_a_recipe_that_is_not_there_is_refused_with_those_there_are(name):
    with pytest.raises(
        RecipeError,
        match=r"expected a TOML file or one of alexnet-paper, lenet-300-100-paper, lenet-5-paper, ",
    ):
        read_recipe(name)


def test_a_file_counts_more_than_a_packaged_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lenet-5-paper").write_text(TEXT)
    assert read_recipe("lenet-5-paper").name == "small"
