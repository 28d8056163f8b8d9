"""The parts of a search: goals, the grid of one setting, thresholds, sharing, averages."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from dwindle import chains
from dwindle.compression import Step
from dwindle.prune import get_mask, prune
from dwindle.search.setting import Setting, search_setting
from dwindle.search.sharing import averaged, round_books, share_at
from dwindle.search.thresholds import analyse, prune_to
from dwindle.search.trainee import blend
from dwindle.search.trial import Goal
from dwindle.share import get_codebook, share


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


@torch.no_grad()
def energy(model, name):
    return float(model.get_parameter(name).square().sum())


def scored(model, costs):
    """What a judge says whose score falls with the energy missing from each tensor, by its price."""
    full = {name: energy(model, name) for name in costs}

    def judge(label, other):
        judge.labels.append(label)
        lost = {
            name: full[name] - float(chains.effective(*chains.weights(other)[name]).square().sum())
            for name in costs
        }
        return -sum(cost * lost[name] / full[name] for name, cost in costs.items())

    judge.labels = []
    return judge


def pair(width=30):
    torch.manual_seed(0)
    layers = {name: nn.Linear(width, width, bias=False) for name in "ab"}
    return nn.ModuleDict(layers)


@pytest.mark.parametrize(("cost", "expected"), [(1.0, 1.0), (2.0, 1.0), (40.0, None)])
def test_tensors_that_matter_far_more_get_lower_thresholds(cost, expected):
    model, names = pair(), ["a.weight", "b.weight"]
    judge = scored(model, {"a.weight": 1.0, "b.weight": cost})
    bounds = {"harmless": 0.02 * (1 + cost), "visible": 0.2 * (1 + cost)}
    found = analyse(model, names, judge, reference=0.0, **bounds)
    ratio = found.scale["b.weight"] / found.scale["a.weight"]
    assert ratio == 1.0 if expected else 0.05 < ratio < 0.6
    assert 0 < found.survivors < 1800
    assert len(judge.labels) == len(set(judge.labels)) <= 9
    assert get_mask(model, "a.weight") is None


def test_pruning_to_a_number_leaves_what_matters_and_what_was_gone():
    model = pair()
    prune(model, sparsity={"a.weight": 0.5})
    gone = ~get_mask(model, "a.weight")
    assert prune_to(model, {"a.weight": 1.0, "b.weight": 0.25}, 700) == 700
    left = {name: int(get_mask(model, f"{name}.weight").sum()) for name in "ab"}
    assert sum(left.values()) == 700
    assert left["b"] > left["a"]
    assert not get_mask(model, "a.weight")[gone].any()
    magnitudes = torch.cat([model[n].weight.flatten().abs() / (1.0 if n == "a" else 0.25) for n in "ab"])
    assert int((magnitudes > 0).sum()) == 700
    assert prune_to(model, {"a.weight": 1.0, "b.weight": 1.0}, 10**6) == 700


def test_sharing_spends_about_the_bits_asked_for():
    model = pair(100)
    with torch.no_grad():
        model["b"].weight *= 10
    names = ["a.weight", "b.weight"]
    share_at(model, names, 3, dict.fromkeys(names, 1.0))
    entries = {name: len(get_codebook(model, name).centroids) for name in names}
    assert entries["b.weight"] > entries["a.weight"]
    assert entries["b.weight"] <= 16
    kept = [get_codebook(model, name) for name in names]
    share_at(model, names, 6, dict.fromkeys(names, 1.0))
    assert [get_codebook(model, name) for name in names] == kept


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
    assert torch.allclose(after, before, rtol=2**-8)


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
