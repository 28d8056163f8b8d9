"""The benchmarks' tables of facts."""

import math

import pytest
import torch
from benchmarks.networks import NETWORKS

from dwindle.models import build


@pytest.mark.parametrize(("name", "parameters"), [("alexnet", 60_965_224), ("vgg-16", 138_357_544)])
def test_shapes_add_up_to_the_known_number_of_parameters(name, parameters):
    assert NETWORKS[name].parameters == parameters


@pytest.mark.parametrize(("name", "first"), [("alexnet", 5), ("vgg-16", 0)])
def test_shapes_are_those_of_the_models(name, first):
    with torch.device("meta"):
        weights = [tuple(p.shape) for p in build(name).parameters() if p.ndim > 1]
    shapes = [layer.shape for layer in NETWORKS[name].layers]
    assert len(shapes) == len(weights)
    assert shapes[first:] == weights[first:]  # the convolutions of Caffe's AlexNet are others


# The paper's own totals: percent of the weights left, and of the bytes after sharing and after coding.
@pytest.mark.parametrize(("name", "density"), [("alexnet", 11), ("vgg-16", 7.5)])
def test_rows_of_the_paper_add_up_to_its_totals(name, density):
    network = NETWORKS[name]
    sizes = {layer: math.prod(layer.shape) for layer in network.layers}

    def mean(attribute):
        return sum(getattr(layer.paper, attribute) * n for layer, n in sizes.items()) / sum(sizes.values())

    assert mean("density") == pytest.approx(density, abs=0.5)
    assert mean("shared") == pytest.approx(network.paper.total[1], rel=0.1)
    assert mean("coded") == pytest.approx(network.paper.total[2], rel=0.1)
