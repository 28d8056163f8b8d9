"""The benchmarks' tables of facts."""

import math

import pytest
from benchmarks.networks import NETWORKS


@pytest.mark.parametrize(("name", "parameters"), [("alexnet", 60_965_224), ("vgg-16", 138_357_544)])
def test_shapes_add_up_to_the_known_number_of_parameters(name, parameters):
    assert NETWORKS[name].parameters == parameters


# The paper's own totals: percent of the weights left, and of the bytes after sharing and after coding.
@pytest.mark.parametrize(("name", "density"), [("alexnet", 11), ("vgg-16", 7.5)])
def test_rows_of_the_paper_add_up_to_its_totals(name, density):
    network = NETWORKS[name]
    sizes = {layer: math.prod(layer.shape) for layer in network.layers}

    def mean(attribute):
        return sum(getattr(layer, attribute) * n for layer, n in sizes.items()) / sum(sizes.values())

    assert mean("density") == pytest.approx(density, abs=0.5)
    assert mean("shared") == pytest.approx(network.shared, rel=0.1)
    assert mean("coded") == pytest.approx(network.coded, rel=0.1)
