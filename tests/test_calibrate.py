"""Levels by what each tensor matters to a model's outputs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import dwindle
from dwindle import Calibration, chains
from dwindle.calibrate import Measured
from dwindle.calibrate.feedback import factor, round_with_feedback
from dwindle.calibrate.observe import Observer
from dwindle.calibrate.outputs import divergence, forward, mean_divergence
from dwindle.errors import CalibrationError
from dwindle.prune import prune
from dwindle.share import Signal, get_codebook, share_levels, step_sizes


class Net(nn.Module):
    """Convolutions plain, grouped and depthwise, with paddings; a layer used twice; a tied one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding="valid", bias=False)
        self.depth = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.grouped = nn.Conv2d(8, 16, (1, 3), groups=2, padding=(0, 1), dilation=(1, 1))
        self.norm = nn.BatchNorm2d(16)
        self.twice = nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)
        self.line = nn.Conv1d(16, 16, 3, padding=1)
        self.tied = nn.Linear(16, 16)
        self.tied.weight = self.twice.weight

    def forward(self, x):
        x = self.norm(F.relu(self.grouped(F.relu(self.depth(self.stem(x))))))
        x = self.line(x.flatten(2)).mean(2)
        return self.head(self.tied(F.relu(self.twice(x))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [torch.randn(8, 3, 9, 9) for _ in range(10)]


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 70), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_rounding_with_feedback_is_what_its_definition_says(groups, rows, width, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(groups, rows, width, generator=generator, dtype=torch.float64)
    weights[:, :, ::7] = 0
    inputs = torch.randn(groups, width, 2 * width, generator=generator, dtype=torch.float64)
    moments = inputs @ inputs.transpose(1, 2) / (2 * width)
    upper = factor(moments, 0.1)
    damped = moments + 0.1 * torch.eye(width) * torch.diagonal(moments, dim1=1, dim2=2).mean(1)[:, None, None]
    torch.testing.assert_close(upper.transpose(1, 2) @ upper, torch.linalg.inv(damped))
    levels = round_with_feedback(weights, upper, 0.3)
    # Column by column, each time the best the rest of the row can do about the error: no factor needed.
    for group in range(groups):
        inverse, left = torch.linalg.inv(damped[group]), weights[group].clone()
        for j in range(width):
            level = torch.round(left[:, j] / 0.3) * (weights[group, :, j] != 0)
            assert torch.equal(level.int(), levels[group, :, j])
            error = (left[:, j] - level * 0.3) / inverse[j, j]
            left -= error[:, None] * inverse[j]
            inverse = inverse - inverse[:, j : j + 1] @ inverse[j : j + 1] / inverse[j, j]
            inverse[j, j] = 1.0


def test_feedback_leaves_less_error_than_rounding():
    torch.manual_seed(0)
    mixed = torch.randn(40, 40, dtype=torch.float64)
    moments = (mixed @ mixed.T / 40)[None]
    weights = torch.randn(1, 30, 40, dtype=torch.float64)
    found = round_with_feedback(weights, factor(moments, 1e-3), 0.5) * 0.5 - weights
    plain = torch.round(weights / 0.5) * 0.5 - weights
    cost = [float(((off @ moments) * off).sum()) for off in (found, plain)]
    assert cost[0] < 0.6 * cost[1]


def test_moments_are_those_of_what_each_weight_is_given(net, batches):
    observer = Observer(net, dict.fromkeys(chains.weights(net)))
    x = batches[0]
    with observer:
        forward(net, x).square().sum().backward()
    stem = F.unfold(x, 3, stride=2).transpose(1, 2).reshape(-1, 27).double()
    found = observer.moments["stem.weight"]
    assert found.positions == len(stem)
    torch.testing.assert_close(found.inputs[0], stem.T @ stem, rtol=1e-5, atol=1e-3)
    # What goes into a weight, times the weight, is what comes out of the layer.
    with torch.no_grad():
        after_stem = net.stem(x)
        for name, layer, inputs in (
            ("depth.weight", net.depth, after_stem),
            ("grouped.weight", net.grouped, F.relu(net.depth(after_stem))),
        ):
            out = F.conv2d(
                inputs, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
            )
            weight = layer.weight.detach().double().reshape(layer.groups, -1, layer.weight[0].numel())
            energy = ((weight @ observer.moments[name].inputs) * weight).sum(2).flatten()
            torch.testing.assert_close(energy, out.double().square().sum((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert set(observer.moments) == set(chains.weights(net))
    # Twice under its first name, once for each use.
    assert observer.moments["twice.weight"].positions == 16
    assert all(float(moments.gradients.sum()) > 0 for moments in observer.moments.values())


def test_gradients_are_those_of_the_outputs(net, batches):
    observer = Observer(net, {"head.weight": None})
    with observer:
        out = forward(net, batches[0])
    out.retain_grad()
    out.exp().sum().backward()
    torch.testing.assert_close(
        observer.moments["head.weight"].gradients, out.grad.double().square().sum(0), rtol=1e-6, atol=0
    )


def test_divergence_of_classes_is_that_of_kullback_and_leibler():
    torch.manual_seed(0)
    left, right = torch.randn(5, 4), torch.randn(5, 4)
    p, q = (F.softmax(out, 1).double().numpy() for out in (left, right))
    np.testing.assert_allclose(divergence(left, right, "classes"), (p * np.log(p / q)).sum(1), rtol=1e-5)
    assert float(divergence(left, left, "values").sum()) == 0
    assert float(divergence(left, 2 * left, "values").mean()) == pytest.approx(4 / 2, rel=1e-5)


@pytest.mark.parametrize("outputs", ["classes", "values"])
def test_calibrated_levels_keep_outputs_better_at_the_same_bits(net, batches, outputs):
    names, tests = list(chains.weights(net)), [torch.randn(200, 3, 9, 9)]
    references = [forward(net, tests[0]).detach()]

    def lost(model):
        return mean_divergence(model.eval(), tests, references, outputs)

    plain, tuned = Net().eval(), Net().eval()
    for model in (plain, tuned):
        model.load_state_dict(net.state_dict())
    owners = chains.weights(plain)
    share_levels(
        plain, step_sizes({name: Signal.of(chains.effective(*owners[name]).numpy()) for name in names}, 8)
    )
    found = Measured(tuned, names, Calibration(batches, outputs)).round(tuned, 8)
    assert set(found) == set(names)
    assert all(tensor.curvature > 0 for tensor in found.values())
    assert any(tensor.ratio != 1 for tensor in found.values())
    bits = []
    for model in (plain, tuned):
        books = [get_codebook(model, name) for name in names]
        bits.append(sum(len(book.indices) * np.log2(len(book.centroids)) for book in books))
    assert bits[1] < 1.25 * bits[0]
    assert lost(tuned) < 0.8 * lost(plain)


def test_masks_stay_and_modules_nobody_knows_get_plain_steps(tmp_path, batches):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.randn(27, 12))
            self.head = nn.Linear(12, 5)

        def forward(self, x):
            return self.head(x[:, :, :3, :3].flatten(1) @ self.scale)

    torch.manual_seed(0)
    model = Odd()
    prune(model, sparsity={"head.weight": 0.5})
    result = dwindle.compress(model, tmp_path / "x.dwz", calibrate=batches, quality=20)
    loaded = dwindle.load_into(Odd(), tmp_path / "x.dwz")
    assert torch.equal(loaded.head.weight == 0, model.head.weight == 0)
    assert torch.equal(result.model(batches[0]), loaded(batches[0]))
    assert not torch.equal(loaded.scale, model.scale)
    torch.testing.assert_close(loaded.scale, model.scale, atol=0.2, rtol=0)


def test_the_callers_model_is_left_as_it_is(tmp_path, net, batches):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.train()
    result = dwindle.compress(net, tmp_path / "x.dwz", calibrate=Calibration(batches[:3], check=False))
    assert net.training
    assert result.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_frozen_model_is_calibrated_too(tmp_path, net, batches):
    dwindle.compress(net, tmp_path / "a.dwz", calibrate=batches)
    dwindle.compress(net.requires_grad_(False), tmp_path / "b.dwz", calibrate=batches)
    assert (tmp_path / "a.dwz").read_bytes() == (tmp_path / "b.dwz").read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("feedback", [True, False])
def test_other_dtypes_are_calibrated(net, batches, dtype, feedback):
    net = net.to(dtype)
    given = [batch.to(dtype) for batch in batches]
    found = Measured(net, list(chains.weights(net)), Calibration(given, feedback=feedback)).round(net, 20)
    assert all(tensor.curvature > 0 for tensor in found.values())
    assert forward(net, given[0]).dtype == dtype


@pytest.mark.parametrize("quality", [0, 100])
def test_every_quality_can_be_had(net, batches, quality):
    with torch.no_grad():
        net.head.weight[0, 0] = 1e6
    before = net.head.weight.detach().clone()
    Measured(net, list(chains.weights(net)), Calibration(batches)).round(net, quality)
    if quality == 100:
        torch.testing.assert_close(net.head.weight, before, rtol=1e-3, atol=100)
    assert net.head.weight.isfinite().all()


def test_outputs_that_cannot_be_compared_are_refused(tmp_path, net, batches):
    batches[3][0, 0, 0, 0] = float("nan")
    with pytest.raises(CalibrationError, match="batch 3: expected finite outputs"):
        dwindle.compress(net, tmp_path / "x.dwz", calibrate=Calibration(batches, check=False))
    with pytest.raises(ValueError, match="expected batches with rows"):
        dwindle.compress(net, tmp_path / "x.dwz", calibrate=[torch.zeros(0, 3, 9, 9)])
    assert not (tmp_path / "x.dwz").exists()


def test_the_same_seed_gives_the_same_bytes(tmp_path, net, batches):
    for name in "ab":
        dwindle.compress(net, tmp_path / name, calibrate=batches)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_batches_come_in_many_forms(batches):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(27, 4)

        def forward(self, x, scale=1.0):
            return {"hidden": x, "logits": self.head(x.flatten(1) * scale)}

    model, x = Pair(), torch.randn(6, 3, 3, 3)
    expected = forward(model, x)
    assert expected.shape == (6, 4)
    for batch in ((x,), [x, 1.0], {"x": x}):
        assert torch.equal(forward(model, batch), expected)
    with pytest.raises(TypeError, match="expected a float tensor"):
        forward(nn.Identity(), torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one batch"):
        Measured(model, ["head.weight"], Calibration([]))


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("check", [True, False])
def test_weights_whose_inputs_are_always_zero(tmp_path, feedback, check):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10)).eval()
    with torch.no_grad():
        model[0].bias.fill_(-100)
    how = Calibration([*torch.randn(100, 20).split(20)], feedback=feedback, check=check)
    result = dwindle.compress(model, tmp_path / "x.dwz", calibrate=how, quality=8)
    with torch.no_grad():
        assert torch.allclose(result.model(torch.randn(5, 20)), model[2].bias, atol=0.01)
