import pytest
import torch
from torch.nn import functional as F

from dwindle import bind, models
from dwindle.errors import CheckpointError, RecipeError
from dwindle.io import read_checkpoint
from dwindle.models.vgg import STAGES

LENETS = ("lenet-300-100", "lenet-5")

SHAPES = {
    "lenet-300-100": {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)},
    "lenet-5": {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)},
}
PARAMETERS = {"lenet-300-100": 266_610, "lenet-5": 431_080}


def test_names():
    assert models.NAMES == ("lenet-300-100", "lenet-5", "alexnet", "vgg-16", "resnet-50")
    assert {name for name, data in models.DATA.items() if data == "mnist"} == set(LENETS)


@pytest.mark.parametrize("name", LENETS)
def test_tensors_are_those_of_the_paper(name):
    state = models.build(name).state_dict()
    expected = {}
    for module, shape in SHAPES[name].items():
        expected |= {f"{module}.weight": shape, f"{module}.bias": shape[:1]}
    assert {key: tuple(value.shape) for key, value in state.items()} == expected
    assert sum(value.numel() for value in state.values()) == PARAMETERS[name]


@pytest.mark.parametrize("name", LENETS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_logits_of_a_batch(name, count):
    assert models.build(name)(torch.rand(count, 1, 28, 28)).shape == (count, 10)


@pytest.mark.parametrize("name", LENETS)
def test_dropout_acts_in_training_only_and_its_rate_can_be_set(name):
    torch.manual_seed(0)
    model = models.build(name, dropout=0.5)
    x = torch.rand(2, 1, 28, 28)
    assert not torch.equal(model(x), model(x))
    model.drop1.p = model.drop2.p = 0.0
    still = model(x)
    assert torch.equal(still, model(x))
    model.drop1.p = model.drop2.p = 0.5
    assert torch.equal(still, model.eval()(x))


def test_weights_come_from_the_global_seed():
    def first():
        torch.manual_seed(3)
        return models.build("lenet-5").conv1.weight

    assert torch.equal(first(), first())


def test_unknown_name():
    with pytest.raises(RecipeError, match=r"expected one of lenet-300-100, lenet-5, .*, got 'lenet'"):
        models.build("lenet")


# Names and shapes of torchvision's published weights.
ALEXNET = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
    "classifier.1": (4096, 9216),
    "classifier.4": (4096, 4096),
    "classifier.6": (1000, 4096),
}
VGG_CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG_16 = {
    f"features.{place}": (outputs, inputs, 3, 3)
    for place, inputs, outputs in zip(VGG_PLACES, VGG_CHANNELS, VGG_CHANNELS[1:], strict=False)
} | {"classifier.0": (4096, 25088), "classifier.3": (4096, 4096), "classifier.6": (1000, 4096)}


def resnet_50():
    def norm(name, channels):
        parts = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
        return {f"{name}.{part}": shape for part, shape in parts.items()} | {
            f"{name}.num_batches_tracked": ()
        }

    found = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    inputs = 64
    for layer, inner, blocks in ((1, 64, 3), (2, 128, 4), (3, 256, 6), (4, 512, 3)):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            found |= {f"{at}.conv1.weight": (inner, inputs, 1, 1)} | norm(f"{at}.bn1", inner)
            found |= {f"{at}.conv2.weight": (inner, inner, 3, 3)} | norm(f"{at}.bn2", inner)
            found |= {f"{at}.conv3.weight": (4 * inner, inner, 1, 1)} | norm(f"{at}.bn3", 4 * inner)
            if block == 0:
                found[f"{at}.downsample.0.weight"] = (4 * inner, inputs, 1, 1)
                found |= norm(f"{at}.downsample.1", 4 * inner)
            inputs = 4 * inner
    return found | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}


def with_biases(weights):
    return {
        f"{name}.{part}": shape if part == "weight" else shape[:1]
        for name, shape in weights.items()
        for part in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [
        ("alexnet", 61_100_840, with_biases(ALEXNET)),
        ("vgg-16", 138_357_544, with_biases(VGG_16)),
        ("resnet-50", 25_557_032, resnet_50()),
    ],
)
def test_tensors_are_those_of_the_published_weights(name, parameters, tensors):
    with torch.device("meta"):
        model = models.build(name)
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == tensors
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def pictures(side=64):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_alexnet_computes_what_its_layers_say():
    torch.manual_seed(0)
    model = models.AlexNet(classes=7).eval()
    w = model.state_dict()
    x = pictures()
    for place, settings in ((0, {"stride": 4, "padding": 2}), (3, {"padding": 2}), (6, {"padding": 1})):
        x = F.relu(F.conv2d(x, w[f"features.{place}.weight"], w[f"features.{place}.bias"], **settings))
        x = F.max_pool2d(x, 3, 2) if place < 6 else x
    for place in (8, 10):
        x = F.relu(F.conv2d(x, w[f"features.{place}.weight"], w[f"features.{place}.bias"], padding=1))
    x = F.adaptive_avg_pool2d(F.max_pool2d(x, 3, 2), 6).flatten(1)
    for place in (1, 4):
        x = F.relu(F.linear(x, w[f"classifier.{place}.weight"], w[f"classifier.{place}.bias"]))
    x = F.linear(x, w["classifier.6.weight"], w["classifier.6.bias"])
    assert x.shape == (2, 7)
    torch.testing.assert_close(model(pictures()), x)


@torch.no_grad()
def test_vgg_computes_what_its_layers_say():
    with torch.device("meta"):
        model = models.VGG16()
    assert [type(layer).__name__ for layer in model.classifier] == ["Linear", "ReLU", "Dropout"] * 2 + [
        "Linear"
    ]
    # Its convolutions alone: the rest of the network is half a gigabyte.
    features = model.features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in features.parameters():
        parameter.normal_(std=0.1, generator=generator)
    state, x, place = features.state_dict(), pictures(), 0
    for _, count in STAGES:
        for _ in range(count):
            x = F.relu(F.conv2d(x, state[f"{place}.weight"], state[f"{place}.bias"], padding=1))
            place += 2
        x, place = F.max_pool2d(x, 2), place + 1
    assert x.shape == (2, 512, 2, 2)
    torch.testing.assert_close(features(pictures()), x)


@torch.no_grad()
def test_resnet_computes_what_its_layers_say():
    torch.manual_seed(0)
    model = models.ResNet50(classes=7).eval()
    for name, buffer in model.named_buffers():  # statistics that normalization must use
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    w = model.state_dict()

    def norm(x, name):
        parts = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    x = F.relu(norm(F.conv2d(pictures(), w["conv1.weight"], stride=2, padding=3), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for layer, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = F.relu(norm(F.conv2d(x, w[f"{at}.conv1.weight"]), f"{at}.bn1"))
            y = F.relu(norm(F.conv2d(y, w[f"{at}.conv2.weight"], stride=stride, padding=1), f"{at}.bn2"))
            y = norm(F.conv2d(y, w[f"{at}.conv3.weight"]), f"{at}.bn3")
            if block == 0:
                way = F.conv2d(x, w[f"{at}.downsample.0.weight"], stride=stride)
                x = norm(way, f"{at}.downsample.1")
            x = F.relu(x + y)
    expected = F.linear(x.mean((2, 3)), w["fc.weight"], w["fc.bias"])
    torch.testing.assert_close(model(pictures()), expected)


def test_dropout_of_the_large_networks_is_their_own_unless_asked():
    with torch.device("meta"):
        for name in ("alexnet", "vgg-16"):
            for asked, rate in ((None, 0.5), (0.25, 0.25), (0.0, 0.0)):
                dropouts = [m.p for m in models.build(name, dropout=asked).modules() if hasattr(m, "p")]
                assert dropouts == [rate, rate]
        models.build("resnet-50", dropout=0.0)
    with pytest.raises(
        RecipeError, match=r"resnet-50: expected no dropout, since the network has none, got 0\.5"
    ):
        models.build("resnet-50", dropout=0.5)


@pytest.mark.parametrize("counted", [True, False])
def test_weights_saved_by_torch_are_read_with_or_without_counted_batches(tmp_path, counted):
    torch.manual_seed(0)
    saved = models.build("resnet-50").state_dict()
    kept = {name: tensor for name, tensor in saved.items() if counted or "num_batches" not in name}
    assert len(saved) - len(kept) == (0 if counted else 53)
    torch.save(kept, tmp_path / "resnet50.pth")
    model = models.build("resnet-50")
    bind.load_records(model, read_checkpoint(tmp_path / "resnet50.pth").records, "resnet50.pth")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    del kept["bn1.running_mean"]
    torch.save(kept, tmp_path / "resnet50.pth")
    with pytest.raises(CheckpointError, match=r"but it lacks bn1\.running_mean"):
        bind.load_records(model, read_checkpoint(tmp_path / "resnet50.pth").records, "resnet50.pth")
