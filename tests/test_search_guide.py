"""Distillation inside a user's own training."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dwindle.search.guide import TEMPERATURE, WEIGHT, guided


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.Dropout(0.5), nn.Linear(20, 4))


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.fixture
def pair():
    model, original = net(0).eval(), net(1).eval()
    # Near to each other, so that no row reaches the greatest pull.
    with torch.no_grad():
        for a, b in zip(model.parameters(), original.parameters(), strict=True):
            a.copy_(b + 0.01 * torch.randn(b.shape))
    return model, original


def test_it_is_the_gradient_of_the_distillation_loss(pair):
    model, original = pair
    x, labels = torch.randn(9, 6), torch.randint(0, 4, (9,))
    own = F.cross_entropy(model(x), labels)
    soft = [(scores / TEMPERATURE).log_softmax(1) for scores in (model(x), original(x).detach())]
    far = F.kl_div(*soft, reduction="batchmean", log_target=True)
    expected = gradients(model, own + WEIGHT * TEMPERATURE**2 * far)
    with guided(model, original):
        found = gradients(model, F.cross_entropy(model(x), labels))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert any(
        not torch.allclose(a, b)
        for a, b in zip(found, gradients(model, F.cross_entropy(model(x), labels)), strict=True)
    )


def test_no_row_draws_harder_than_a_wrong_label():
    scores = torch.tensor([[30.0, 0, 0], [0.1, 0, 0]], requires_grad=True)
    model, original = nn.Identity(), nn.Linear(3, 3)
    with torch.no_grad():
        original.weight.copy_(torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]))
        original.bias.zero_()
    with guided(model, original):
        (model(scores) * 0).sum().backward()
    norms = scores.grad.norm(dim=1)
    assert norms[0] == pytest.approx(1 / 2)
    assert 0 < norms[1] < 1 / 4


@pytest.mark.parametrize(
    "outputs",
    [torch.randn(5, 1), torch.randn(5, 3, 4), torch.randn(5), {"logits": torch.randn(5, 3)}],
    ids=["one column", "three dimensions", "a vector", "a mapping"],
)
def test_other_outputs_are_left_alone(outputs):
    class Given(nn.Module):
        def forward(self, x):
            return {k: v * x for k, v in outputs.items()} if isinstance(outputs, dict) else outputs * x

    x = torch.ones((), requires_grad=True)
    model = Given()
    with guided(model, Given()):
        out = model(x)
    total = out["logits"] if isinstance(out, dict) else out
    total.sum().backward()
    assert x.grad == pytest.approx(float((outputs["logits"] if isinstance(outputs, dict) else outputs).sum()))


def test_outputs_of_another_shape_or_not_finite_add_nothing(pair):
    model, _ = pair
    x = torch.randn(4, 6)
    plain = gradients(model, model(x).sum())

    def broken(x):
        return torch.full((4, 4), float("nan"))

    for forward in (lambda x: torch.zeros(4, 7), broken):
        original = nn.Identity()
        original.forward = forward
        with guided(model, original):
            found = gradients(model, model(x).sum())
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


def test_nothing_stays_behind(pair):
    model, original = pair
    x = torch.randn(4, 6)
    plain = gradients(model, model(x).sum())
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)

    def train():
        model(x).sum().backward()
        with torch.no_grad():
            model(x)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"), guided(model, original):
        train()
    assert torch.equal(torch.rand(3), expected)
    assert not model._forward_hooks
    assert all(torch.equal(a, b) for a, b in zip(gradients(model, model(x).sum()), plain, strict=True))
    assert all(parameter.grad is None for parameter in original.parameters())
    with guided(model, None):
        assert not model._forward_hooks


def test_it_brings_a_student_to_its_teacher():
    teacher, x = net(2).eval(), torch.randn(200, 6)
    student = nn.Linear(6, 4)

    def far():
        soft = [scores.log_softmax(1) for scores in (student(x), teacher(x))]
        return F.kl_div(*soft, reduction="batchmean", log_target=True).item()

    before = far()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    with guided(student, teacher):
        for _ in range(100):
            optimizer.zero_grad()
            (student(x) * 0).sum().backward()
            optimizer.step()
    assert far() < 0.2 * before
