import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from dwindle.train import cosine, fit_epoch


class Recorder(nn.Module):
    """A line through the examples that notes which it saw."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.line.weight)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.flatten().tolist())
        return self.line(x)


def run(model, x, y, *, lr=0.1, seed=0, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    return fit_epoch(model, x, y, optimizer, generator=generator, loss=functional.mse_loss, **options)


def column(n):
    return torch.arange(n, dtype=torch.float32).reshape(n, 1)


@pytest.mark.parametrize(("n", "batch", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (1, 4, [1])])
def test_every_example_once(n, batch, sizes):
    model = Recorder()
    run(model, column(n), column(n), lr=0.0, batch=batch)
    assert [len(seen) for seen in model.seen] == sizes
    assert sorted(itertools.chain(*model.seen)) == list(range(n))


def test_order_is_drawn_from_the_generator():
    def order(seed):
        model = Recorder()
        run(model, column(50), column(50), lr=0.0, batch=50, seed=seed)
        return model.seen[0]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != sorted(order(1))


def test_one_step_is_gradient_descent():
    model = Recorder()
    # Loss (w x - y)^2 with w = 0, x = 2, y = 3: 9, and its gradient 2 (0 - 3) 2 = -12.
    loss = run(model, torch.tensor([[2.0]]), torch.tensor([[3.0]]), lr=0.5, batch=1)
    assert loss == 9.0
    assert model.line.weight.item() == 6.0


def test_mean_loss_weighs_batches_by_their_size():
    x = torch.zeros(3, 1)
    y = torch.tensor([[1.0], [1.0], [1.0]])
    assert run(Recorder(), x, y, batch=2) == 1.0
    y = torch.tensor([[0.0], [3.0], [6.0]])
    assert run(Recorder(), x, y, batch=2) == pytest.approx(15.0)


def test_prepare_is_applied_and_the_model_trains():
    model = Recorder().eval()
    images = torch.full((4, 1), 255, dtype=torch.uint8)
    run(model, images, torch.ones(4, 1), batch=4, prepare=lambda x: x.float() / 255)
    assert model.seen == [[1.0] * 4]
    assert model.training
    assert model.line.weight.item() > 0


def test_rates_reach_every_group():
    rates = []
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    optimizer = torch.optim.SGD([{"params": m.parameters()} for m in model], lr=7.0)
    optimizer.register_step_pre_hook(lambda o, a, k: rates.append([g["lr"] for g in o.param_groups]))
    fit_epoch(
        model,
        column(4),
        column(4),
        optimizer,
        batch=1,
        generator=torch.Generator(),
        loss=functional.mse_loss,
        lr=lambda part: part / 100,
    )
    assert rates == [[0.0, 0.0], [0.0025] * 2, [0.005] * 2, [0.0075] * 2]


def test_default_loss_learns_classes():
    torch.manual_seed(0)
    labels = torch.arange(200) % 2
    x = torch.randn(200, 2) * 0.1 + labels[:, None] * torch.tensor([1.0, -1.0])
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    generator = torch.Generator().manual_seed(0)
    losses = [fit_epoch(model, x, labels, optimizer, batch=10, generator=generator) for _ in range(3)]
    assert losses[2] < losses[0]
    assert (model(x).argmax(1) == labels).all()


@pytest.mark.parametrize(
    ("x", "y", "batch", "message"),
    [
        (column(0), column(0), 1, "at least one, got 0 and 0"),
        (column(3), column(2), 1, "got 3 and 2"),
        (column(3), column(3), 0, "a batch of at least 1, got 0"),
    ],
)
def test_refused(x, y, batch, message):
    with pytest.raises(ValueError, match=message):
        run(Recorder(), x, y, batch=batch)


def test_cosine_falls_from_first_to_last_and_joins_between_epochs():
    epochs = [cosine(0.1, 0.01, epoch=e, epochs=4) for e in range(4)]
    assert epochs[0](0.0) == pytest.approx(0.1)
    assert epochs[3](1.0) == pytest.approx(0.01)
    assert epochs[1](1.0) == pytest.approx(epochs[2](0.0)) == pytest.approx(0.055)
    rates = [rate(part / 8) for rate in epochs for part in range(8)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("epoch", [-1, 3])
def test_cosine_outside_the_phase(epoch):
    with pytest.raises(ValueError, match=f"expected an epoch within 0 to 2, got {epoch}"):
        cosine(1.0, 0.0, epoch=epoch, epochs=3)
