"""Repair without labels: moments matched on the way, and a short distillation."""

import copy

import pytest
import torch
from torch import nn

import dwindle
from dwindle.calibrate.outputs import divergence
from dwindle.calibrate.repair import distill, match_moments
from dwindle.errors import CalibrationError
from dwindle.share import share_levels


def network(norm):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, bias=not norm)] + [nn.BatchNorm2d(8)] * norm + [nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for _ in range(50):
            model.train()(torch.randn(20, 3, 8, 8) + 1)
    return model.eval()


def roughly(model, step=0.15):
    rough = copy.deepcopy(model)
    names = [name for name, weight in model.named_parameters() if weight.ndim > 1]
    share_levels(rough, dict.fromkeys(names, step))
    return rough


def distance(model, other, inputs):
    with torch.no_grad():
        return float(divergence(model(inputs), other(inputs), "classes").mean())


@pytest.mark.parametrize("norm", [True, False])
def test_moments_come_back(norm):
    model, inputs = network(norm), torch.randn(200, 3, 8, 8) + 1
    rough = roughly(model)
    before = distance(model, rough, inputs)
    match_moments(rough, model, [*inputs.split(50)])
    assert distance(model, rough, inputs) < 0.8 * before
    with torch.no_grad():
        # The last layer's means are those of the original: what came before was corrected on the way.
        assert torch.allclose(rough(inputs).mean(0), model(inputs).mean(0), atol=0.02)


def test_a_network_like_its_original_stays():
    model = network(True)
    same, inputs = copy.deepcopy(model), torch.randn(20, 3, 8, 8)
    match_moments(same, model, [inputs])
    for name, tensor in model.state_dict().items():
        assert torch.allclose(tensor, same.state_dict()[name], atol=1e-6), name


def test_a_norm_makes_of_stretched_inputs_what_it_made_before():
    torch.manual_seed(1)
    original = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6)).eval()
    with torch.no_grad():
        original[1].running_mean.normal_()
        original[1].running_var.uniform_(0.5, 2)
        original[1].weight.normal_()
    moved = copy.deepcopy(original)
    with torch.no_grad():
        moved[0].weight *= 1.5
    inputs = torch.randn(500, 4) + 2
    match_moments(moved, original, [inputs])
    assert torch.allclose(moved(inputs), original(inputs), atol=1e-4)


def test_channels_without_spread_break_nothing():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    with torch.no_grad():
        model[0].weight.zero_()
    other = copy.deepcopy(model)
    match_moments(other, model, [torch.randn(10, 4)])
    assert all(tensor.isfinite().all() for tensor in other.state_dict().values())


def test_distillation_brings_outputs_nearer_and_moves_no_weight_between_values():
    model, inputs = network(True), torch.randn(200, 3, 8, 8) + 1
    rough = roughly(model)
    before, lines = distance(model, rough, inputs), []
    indices = {name: buffer.clone() for name, buffer in rough.named_buffers() if name.endswith("indices")}
    assert indices
    distill(rough, model, [*inputs.split(20)], epochs=30, outputs="classes", progress=lines.append)
    assert distance(model, rough, inputs) < 0.95 * before
    assert len(lines) == 30
    assert all(torch.equal(buffer, dict(rough.named_buffers())[name]) for name, buffer in indices.items())


def test_fewer_than_no_passes():
    with pytest.raises(ValueError, match="0 or more passes, got -1"):
        dwindle.Calibration([], distillation=-1)


@pytest.mark.parametrize("how", [{"moments": True}, {"distillation": 2}])
def test_compress_with_repair(tmp_path, how):
    model, inputs = network(True), torch.randn(60, 3, 8, 8) + 1
    before = copy.deepcopy(model.state_dict())
    plain = dwindle.compress(
        model, tmp_path / "a.dwz", quality=6, calibrate=dwindle.Calibration([*inputs.split(20)])
    )
    result = dwindle.compress(
        model, tmp_path / "b.dwz", quality=6, calibrate=dwindle.Calibration([*inputs.split(20)], **how)
    )
    fresh = network(True)
    dwindle.load_into(fresh, tmp_path / "b.dwz")
    assert torch.equal(fresh(inputs), result.model(inputs))
    assert not torch.equal(plain.model(inputs), result.model(inputs))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    # Values that were trained are short again.
    assert abs(result.size - plain.size) < 0.15 * plain.size


class Twice(nn.Module):
    """The same norm and layer on two paths with inputs of their own."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.last = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(12, 4)

    def forward(self, x):
        return self.last(torch.cat([self.norm(self.layer(x)), self.norm(self.layer(3 * x + 5))], 1))


def test_a_module_that_is_called_twice_is_compared_call_by_call():
    torch.manual_seed(0)
    model, inputs = Twice().eval(), torch.randn(100, 6)
    same = copy.deepcopy(model)
    match_moments(same, model, [inputs])
    assert torch.allclose(same(inputs), model(inputs), atol=1e-5)
    with torch.no_grad():
        same.layer.bias += 1  # the same error in both calls
    match_moments(same, model, [inputs])
    assert torch.allclose(same(inputs), model(inputs), atol=1e-4)


def test_inputs_without_a_batch():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(0), nn.Linear(3 * 16, 4)).eval()
    moved, inputs = copy.deepcopy(model), torch.randn(1, 6, 6)
    with torch.no_grad():
        moved[0].bias += 1
    match_moments(moved, model, [inputs])
    assert torch.allclose(moved(inputs), model(inputs), atol=1e-5)


def test_a_frozen_network_has_nothing_to_distill():
    model = network(True).requires_grad_(False)
    with pytest.raises(CalibrationError, match="require gradients, got none"):
        distill(copy.deepcopy(model), model, [torch.randn(2, 3, 8, 8)], epochs=1, outputs="classes")


def test_distillation_where_gradients_are_off():
    model = network(True)
    rough = roughly(model)
    with torch.no_grad():
        distill(rough, model, [torch.randn(20, 3, 8, 8)], epochs=1, outputs="classes")


def test_codebooks_by_bits_are_repaired_too(tmp_path):
    model, inputs = network(True), torch.randn(60, 3, 8, 8) + 1
    outputs = []
    for moments in (False, True):
        how = dwindle.Calibration([*inputs.split(20)], moments=moments)
        result = dwindle.compress(
            model, tmp_path / "x.dwz", bits=2, min_elements=1, calibrate=how, force=True
        )
        outputs.append(distance(model, result.model, inputs))
    assert outputs[1] < outputs[0]
