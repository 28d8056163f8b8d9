"""The parts of a search: goals, the grid of one setting, thresholds, sharing, averages."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dwindle import chains
from dwindle.compression import Step
from dwindle.prune import get_mask, prune, set_mask
from dwindle.search.saliency import Saliency
from dwindle.search.setting import Setting, search_setting
from dwindle.search.sharing import averaged, round_books, share_at
from dwindle.search.targets import choose
from dwindle.search.trainee import blend
from dwindle.search.trial import Goal, Trial
from dwindle.search.work import Work
from dwindle.share import get_codebook, share
from dwindle.share.allocate import entropy


def step(size, score, holds=True):
    return Step({}, size, score, holds)


def test_under_a_bound_the_smallest_is_best_and_the_highest_score_nearest():
    goal = Goal(reference=0.9, max_drop=0.1)
    assert goal.holds(10**9, 0.8)
    assert not goal.holds(1, 0.79)
    assert not goal.holds(1, float("nan"))
    assert not goal.holds(1, None)
    assert goal.better(step(10, 0.8), step(11, 0.9))
    assert goal.nearer(step(11, 0.7), step(10, 0.6))
    assert goal.nearer(step(11, 0.1), step(10, float("nan")))
    assert goal.excess(step(1, 0.7)) == pytest.approx(math.log(2))
    assert goal.excess(step(1, 0.95)) < 0 < goal.excess(step(1, float("nan"), holds=False))


def test_under_a_limit_the_highest_score_is_best_and_the_smallest_nearest():
    goal = Goal(limit=100)
    assert goal.holds(100, None)
    assert not goal.holds(101, 1.0)
    assert goal.better(step(90, 0.9), step(80, 0.8))
    assert goal.better(step(80, 0.9), step(90, 0.9))
    assert goal.better(step(90, 0.1), step(95, None))
    assert goal.better(step(95, None), step(90, None))
    assert goal.nearer(step(110, 0.1), step(120, 0.9))


class Fake:
    """Stands in for a trial: a drop that falls tenfold in 10 dB, a size that rises evenly."""

    def __init__(self, goal, drop=0.5, jitter=0.0):
        self.goal, self.drop, self.jitter = goal, drop, jitter
        self.steps, self.evaluate, self.asked = [], print, 0

    def measure(self, model, setting, *, vectors, scored):
        place = setting["dB"]
        size = 100 + round(20 * place)
        self.asked += scored
        noise = self.jitter * math.sin(37 * place)
        score = 0.9 - self.drop * 10 ** (-place / 10) * (1 + noise) if scored else None
        self.steps.append(Step(setting, size, score, self.goal.holds(size, score)))
        return self.steps[-1]

    def save(self, position, models):
        pass


def search(fake, first=25.0):
    search_setting(fake, Setting("dB", lambda value: None, lambda value: 8, 0.0, 60.0, first, 0.5))
    return fake


@pytest.mark.parametrize("first", [0.0, 25.0, 60.0])
@pytest.mark.parametrize("max_drop", [0.3, 0.05, 0.01, 0.001, 0.00002])
def test_the_lowest_quality_that_holds_is_found_in_few_evaluations(max_drop, first):
    fake = search(Fake(Goal(0.9, max_drop), jitter=0.2), first)
    holding = [s.setting["dB"] for s in fake.steps if s.holds]
    places = [place / 2 for place in range(121)]
    every = Fake(Goal(0.9, max_drop), jitter=0.2)
    for place in places:
        every.measure(None, {"dB": place}, vectors=8, scored=True)
    best = min(holding)
    assert not every.steps[places.index(best) - 1].holds
    assert fake.asked == len({s.setting["dB"] for s in fake.steps}) <= 9


@pytest.mark.parametrize("limit", [100, 101, 130, 457, 800, 1299, 1300, 5000])
def test_the_highest_quality_that_fits_is_found_with_one_evaluation(limit):
    fake = search(Fake(Goal(limit=limit)))
    assert fake.asked == 1
    best = max(s.setting["dB"] for s in fake.steps if s.holds)
    assert best == min(max(math.floor((limit - 100) / 10) / 2, 0), 60)
    assert fake.steps[-1].setting["dB"] == best


def test_nothing_that_holds_ends_at_the_end_of_the_grid():
    fake = search(Fake(Goal(0.9, 0.01), drop=1e9))
    assert not any(s.holds for s in fake.steps)
    assert fake.steps[-1].setting["dB"] == 60
    fake = search(Fake(Goal(limit=50)))
    assert not any(s.holds for s in fake.steps)
    assert fake.steps[-1].setting["dB"] == 0
    assert fake.asked == 0


def test_everything_that_holds_ends_at_the_other():
    fake = search(Fake(Goal(0.9, 0.01), drop=0.0))
    assert min(s.setting["dB"] for s in fake.steps) == 0


def pair(width=30):
    torch.manual_seed(0)
    layers = {name: nn.Linear(width, width, bias=False) for name in "ab"}
    return nn.ModuleDict(layers)


def learn(model, inputs, targets, saliency=None, batches=1):
    """Squared gradients of some batches."""
    saliency = saliency or Saliency()
    with saliency.watching(model, list(chains.weights(model))):
        for x, y in zip(inputs.chunk(batches), targets.chunk(batches), strict=True):
            functional.mse_loss(model(x), y).backward()
    return saliency


def stack():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30, bias=False), nn.ReLU(), nn.Linear(30, 5, bias=False))


def test_squared_gradients_of_each_batch_are_added_and_earlier_passes_fade():
    model = stack()
    inputs, targets = torch.randn(12, 20), torch.randn(12, 5)
    inputs[:, 3] = 0
    expected = torch.zeros(30, 20)
    for x, y in zip(inputs.chunk(3), targets.chunk(3), strict=True):
        model.zero_grad()
        functional.mse_loss(model(x), y).backward()
        expected += model[0].weight.grad.square()
    saliency = learn(model, inputs, targets, batches=3)
    assert torch.allclose(saliency.squares["0.weight"], expected)
    assert not saliency.squares["0.weight"][:, 3].any()
    learn(model, 0 * inputs, 0 * targets, saliency)
    assert torch.allclose(saliency.squares["0.weight"], expected / 2)
    assert not model[0].weight._backward_hooks


def test_what_costs_least_is_removed_first_and_what_was_gone_stays_gone():
    model = stack()
    inputs = torch.randn(50, 20)
    inputs[:, 3] = 0
    with torch.no_grad():
        model[0].weight[:, 3] = 10.0
    prune(model, sparsity={"2.weight": 0.2})
    gone = ~get_mask(model, "2.weight")
    saliency = learn(model, inputs, torch.randn(50, 5))
    assert saliency.left(model) == 720
    weights = {name: model[int(name[0])].weight.detach().clone() for name in saliency.squares}
    assert saliency.prune_to(model, 300) == 300
    assert not get_mask(model, "0.weight")[:, 3].any()
    assert not get_mask(model, "2.weight")[gone].any()
    kept, removed = [], []
    for name, square in saliency.squares.items():
        costs = square * weights[name].square()
        mask = get_mask(model, name)
        kept.append(costs[mask])
        removed.append(costs[~mask & ~gone] if name == "2.weight" else costs[~mask])
    assert float(torch.cat(kept).min()) >= float(torch.cat(removed).max()) > 0
    assert saliency.prune_to(model, 10**6) == 300


def test_tensors_with_codebooks_and_frozen_ones_are_not_pruned():
    model = stack()
    share(model, bits={"0.weight": 3})
    model[2].weight.requires_grad_(False)
    saliency = learn(model, torch.randn(5, 20), torch.randn(5, 5))
    assert not saliency.squares
    assert saliency.importance(model, ["0.weight", "2.weight"]) == {"0.weight": 1.0, "2.weight": 1.0}


def test_without_gradients_magnitudes_count():
    model = stack()
    saliency = Saliency()
    with saliency.watching(model, ["0.weight", "2.weight"]):
        pass
    saliency.prune_to(model, 100)
    magnitudes = [layer.weight[layer.weight != 0].detach().abs() for layer in (model[0], model[2])]
    assert sum(map(len, magnitudes)) == 100
    plain = stack()
    weights = torch.cat([plain[0].weight.flatten(), plain[2].weight.flatten()]).detach()
    assert float(torch.cat(magnitudes).min()) == float(weights.abs().sort().values[-100])


def test_gradients_that_overflow_count_as_nothing():
    model = stack()
    saliency = Saliency()
    with saliency.watching(model, ["0.weight"]):
        (model(torch.full((1, 20), 1e38)) * 1e38).sum().backward()
    assert torch.isfinite(saliency.squares["0.weight"]).all()


def test_importance_is_relative_and_of_survivors():
    model = stack()
    saliency = Saliency({"0.weight": torch.ones(30, 20), "2.weight": torch.full((5, 30), 3.0)}, stale=False)
    assert saliency.importance(model, ["0.weight", "2.weight"]) == {"0.weight": 0.5, "2.weight": 1.5}
    saliency.squares["0.weight"][0] = 1e9
    prune_first = torch.ones(30, 20, dtype=torch.bool)
    prune_first[0] = False
    set_mask(model, "0.weight", prune_first)
    assert saliency.importance(model, ["0.weight", "2.weight"]) == {"0.weight": 0.5, "2.weight": 1.5}


def test_sharing_spends_about_the_bits_asked_for():
    # The second, ten times as wide, gets the same step, and so more entries.
    model = nn.ModuleDict({"a": nn.Linear(200, 100, bias=False), "b": nn.Linear(50, 100, bias=False)})
    with torch.no_grad():
        model["a"].weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
        model["b"].weight.normal_(std=1.0, generator=torch.Generator().manual_seed(1))
    names = ["a.weight", "b.weight"]
    for bits in (5, 3.5):
        small = copy.deepcopy(model)
        share_at(small, names, bits, dict.fromkeys(names, 1.0))
        books = [get_codebook(small, name) for name in names]
        taken = [entropy(np.bincount(book.indices.numpy().ravel())) for book in books]
        assert sum(taken) / 25_000 == pytest.approx(bits, abs=0.2)
        assert len(books[1].centroids) > 3 * len(books[0].centroids)
    share_at(small, names, 8, dict.fromkeys(names, 1.0))
    assert [get_codebook(small, name) for name in names] == books


def test_what_matters_more_is_shared_more_finely():
    model = stack()
    names = ["0.weight", "2.weight"]
    errors = []
    for factor in (1.0, 100.0):
        small = copy.deepcopy(model)
        share_at(small, names, 3, {"0.weight": 1.0, "2.weight": factor})
        errors.append([float((small[i].weight - model[i].weight).detach().square().mean()) for i in (0, 2)])
    assert errors[1][0] > errors[0][0]
    assert errors[1][1] < errors[0][1] / 4


@pytest.mark.parametrize("fill", [0.0, 1e-30, 3.0])
def test_constant_tensors_and_outliers_are_shared_too(fill):
    model = nn.ModuleDict({"a": nn.Linear(4, 3, bias=False), "b": nn.Linear(9, 5, bias=False)})
    with torch.no_grad():
        model["a"].weight.fill_(fill)
        model["b"].weight.normal_(generator=torch.Generator().manual_seed(0))
        model["b"].weight[0, 0] = 1e9
    names = ["a.weight", "b.weight"]
    share_at(model, names, 3, {"a.weight": 1e-6, "b.weight": 1.0})
    assert float(model["a"].weight.detach().unique()) == pytest.approx(fill, rel=0.5, abs=1e-12)
    assert float(model["b"].weight.detach()[0, 0]) == pytest.approx(1e9, rel=0.01)


def test_a_shared_weight_moves_as_its_weights_would_on_average():
    torch.manual_seed(4)
    layer = nn.Linear(50, 50, bias=False)
    dense = copy.deepcopy(layer)
    share(layer, bits={"weight": 2})
    with torch.no_grad():
        dense.weight.copy_(layer.weight)
    inputs, targets = torch.randn(40, 50), torch.randn(40, 50)
    functional.mse_loss(dense(inputs), targets).backward()
    book = get_codebook(layer, "weight")
    with averaged(layer, ["weight"]):
        functional.mse_loss(layer(inputs), targets).backward()
    for entry in range(4):
        mine = dense.weight.grad.flatten()[book.indices == entry]
        assert book.centroids.grad[entry] == pytest.approx(float(mine.mean()), rel=1e-4)
    book.centroids.grad = None
    functional.mse_loss(layer(inputs), targets).backward()
    assert book.centroids.grad[0] == pytest.approx(
        float(dense.weight.grad.flatten()[book.indices == 0].sum()), rel=1e-3
    )


def test_codebooks_of_the_search_are_rounded_and_those_found_are_not():
    base = pair()
    share(base, bits={"a.weight": 3})
    model = copy.deepcopy(base)
    share(model, bits={"b.weight": 3})
    before = get_codebook(model, "b.weight").centroids.detach().clone()
    round_books(model, base, ["a.weight", "b.weight"])
    assert torch.equal(get_codebook(model, "a.weight").centroids, get_codebook(base, "a.weight").centroids)
    after = get_codebook(model, "b.weight").centroids.detach()
    assert not torch.equal(after, before)
    assert torch.equal(after, after.bfloat16().float())
    assert torch.allclose(after, before, rtol=2**-7)


def test_averaging_keeps_masks_and_counts():
    first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    prune(first, sparsity={"0.weight": 0.5})
    second = copy.deepcopy(first)
    with torch.no_grad():
        for value in second.parameters():
            value += 1
    second(torch.randn(8, 4))
    mean = copy.deepcopy(first)
    blend(mean, second, 0.25)
    assert torch.equal(mean[0].weight == 0, first[0].weight == 0)
    assert torch.allclose(mean[0].bias, first[0].bias + 0.25)
    assert mean[1].num_batches_tracked == 1


def test_what_was_not_scored_is_no_result_where_scores_are_asked_for(tmp_path):
    model = nn.Linear(20, 20).eval()
    for evaluate in (lambda small: 0.5, None):
        work = Work(tmp_path / str(evaluate is None), {})
        trial = Trial(choose(model), Goal(limit=10**6), evaluate, work)
        for scored in (False, True):
            trial.measure(model, {}, scored=scored)
            assert (trial.best is None) == (evaluate is not None and not scored)
        assert trial.steps[trial.best].score == (None if evaluate is None else 0.5)
