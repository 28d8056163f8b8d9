import pytest
import torch

from dwindle import models
from dwindle.errors import RecipeError

SHAPES = {
    "lenet-300-100": {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)},
    "lenet-5": {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)},
}
PARAMETERS = {"lenet-300-100": 266_610, "lenet-5": 431_080}


def test_names():
    assert models.NAMES == ("lenet-300-100", "lenet-5")


@pytest.mark.parametrize("name", models.NAMES)
def test_tensors_are_those_of_the_paper(name):
    state = models.build(name).state_dict()
    expected = {}
    for module, shape in SHAPES[name].items():
        expected |= {f"{module}.weight": shape, f"{module}.bias": shape[:1]}
    assert {key: tuple(value.shape) for key, value in state.items()} == expected
    assert sum(value.numel() for value in state.values()) == PARAMETERS[name]


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_logits_of_a_batch(name, count):
    assert models.build(name)(torch.rand(count, 1, 28, 28)).shape == (count, 10)


@pytest.mark.parametrize("name", models.NAMES)
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
    with pytest.raises(RecipeError, match=r"expected one of lenet-300-100, lenet-5, got 'lenet'"):
        models.build("lenet")
