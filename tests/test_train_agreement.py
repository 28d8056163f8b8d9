import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dwindle.errors import TensorError
from dwindle.train import agreement, compare, error, paired_interval, predict


def logits(n=60, classes=8, seed=0):
    before = np.random.default_rng(seed).normal(size=(n, classes)).astype(np.float32) * 2
    after = before + np.random.default_rng(seed + 1).normal(size=(n, classes)).astype(np.float32)
    labels = np.random.default_rng(seed + 2).integers(0, classes, n)
    labels[::2] = before.argmax(1)[::2]
    return before, after, labels


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_figures_are_those_of_plain_numpy():
    before, after, labels = logits()
    found = agreement(*map(torch.from_numpy, (before, after, labels)))
    answers = before.argmax(1), after.argmax(1)
    assert found.before.tolist() == answers[0].tolist()
    assert found.after.tolist() == answers[1].tolist()
    assert found.same == pytest.approx(100 * (answers[0] == answers[1]).mean())
    assert 0 < found.same < 100
    p, q = softmax(before), softmax(after)
    assert found.divergence == pytest.approx(np.mean(np.sum(p * np.log(p / q), 1)), rel=1e-12)
    for top, k in ((found.top1, 1), (found.top5, 5)):
        right = [(np.argsort(-x, 1)[:, :k] == labels[:, None]).any(1) for x in (before, after)]
        assert (top.before, top.after) == pytest.approx([100 * r.mean() for r in right])
        n = len(labels) + 2
        gained = (np.sum(right[1] & ~right[0]) + 1) / n
        lost = (np.sum(right[0] & ~right[1]) + 1) / n
        middle, reach = gained - lost, 1.959964 * np.sqrt((gained + lost - (gained - lost) ** 2) / n)
        assert top.interval == pytest.approx((100 * (middle - reach), 100 * (middle + reach)), rel=1e-6)
    assert found.top1.after < found.top1.before < found.top5.before
    json = found.to_json()
    assert json["examples"] == 60
    assert json["top1"]["before"] == found.top1.before


def test_a_network_agrees_with_itself():
    before, _, labels = map(torch.from_numpy, logits())
    found = agreement(before, before, labels)
    assert (found.same, found.divergence) == (100.0, 0.0)
    low, high = found.top1.interval
    assert low == -high < 0  # few examples do not prove that nothing changes


def test_divergence_is_of_the_second_from_the_first():
    before, after = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, np.log(3)]])
    assert agreement(before, after, None).divergence == pytest.approx(0.5 * np.log(4 / 3))
    assert agreement(after, before, None).divergence == pytest.approx(0.25 * np.log(0.5) + 0.75 * np.log(1.5))
    assert agreement(torch.tensor([[-3e38, 3e38]]), torch.tensor([[-3e38, 3e38]]), None).divergence == 0


def test_of_equal_logits_the_first_counts_as_in_predict():
    before = torch.zeros(8, 8)
    found = agreement(before, before, torch.arange(8))
    assert found.top1.before == pytest.approx(100 / 8)
    assert found.top5.before == pytest.approx(100 * 5 / 8)


def test_without_labels_there_is_no_accuracy():
    before, after, _ = map(torch.from_numpy, logits())
    found = agreement(before, after, None)
    assert (found.top1, found.top5, found.to_json()["top1"]) == (None, None, None)
    assert found.same < 100


@pytest.mark.parametrize("batch", [1, 7, 60, 1000])
def test_networks_are_compared_batch_by_batch(batch):
    torch.manual_seed(0)
    before, after = nn.Linear(5, 8), nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.9))
    after[0].load_state_dict(before.state_dict())
    with torch.no_grad():
        after[0].weight.add_(torch.randn(8, 5))
    inputs, labels = torch.randn(60, 5), torch.randint(0, 8, (60,))
    seen = []

    def prepare(x):
        seen.append(len(x))
        return x * 2

    before.eval()
    found = compare(before, after, inputs, labels, batch=batch, prepare=prepare)
    assert sum(seen) == 60
    assert max(seen) == min(batch, 60)
    assert (before.training, after.training) == (False, True)
    expected = agreement(before(inputs * 2).detach(), after.eval()(inputs * 2).detach(), labels)
    assert found.to_json()["top1"] == expected.to_json()["top1"]
    assert found.to_json()["top5"] == expected.to_json()["top5"]
    assert found.divergence == pytest.approx(expected.divergence, rel=1e-5)
    answers = predict(after, inputs, prepare=prepare, batch=batch)
    assert torch.equal(found.after, answers)
    assert 100 - error(answers, labels) == pytest.approx(found.top1.after)


def test_modes_are_put_back_after_a_failure():
    before, after = nn.Linear(5, 3), nn.Linear(4, 3)
    with pytest.raises(RuntimeError):
        compare(before, after, torch.zeros(2, 5), None)
    assert before.training
    assert after.training


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_outputs_that_are_no_numbers_are_refused(bad):
    good = torch.zeros(2, 3)
    broken = good.clone()
    broken[1, 2] = bad
    with pytest.raises(TensorError, match="outputs of the first network: expected finite numbers"):
        agreement(broken, good, None)
    with pytest.raises(TensorError, match="outputs of the second network: expected finite numbers"):
        agreement(good, broken, None)


def test_shapes_that_do_not_fit_are_refused():
    two, three = torch.zeros(2, 3), torch.zeros(3, 3)
    for arguments in ((two, three, None), (two, two, torch.zeros(3).long()), (two[0], two[0], None)):
        with pytest.raises(ValueError, match="expected logits of one shape"):
            agreement(*arguments)
    with pytest.raises(ValueError, match="expected at least one example"):
        agreement(two[:0], two[:0], None)
    network = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="expected as many labels as inputs, got 3 and 2"):
        compare(network, network, two, torch.zeros(3).long())
    with pytest.raises(ValueError, match="expected at least one example"):
        compare(network, network, two[:0], None)


def test_the_interval_by_hand():
    # 1 gained and 7 lost of 21: (2 - 8) / 23, with a deviation of sqrt((10/23 - (6/23)^2) / 23).
    low, high = paired_interval(1, 7, 21)
    assert (low, high) == pytest.approx((-0.508, -0.013), abs=5e-4)


@given(st.integers(1, 500), st.data())
def test_the_interval_turns_round_with_the_counts(n, data):
    gained = data.draw(st.integers(0, n))
    lost = data.draw(st.integers(0, n - gained))
    low, high = paired_interval(gained, lost, n)
    assert -1 <= low < high <= 1
    assert paired_interval(lost, gained, n) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("n", "gain", "loss"), [(50, 0.02, 0.02), (50, 0.1, 0.3), (500, 0.01, 0.02)])
def test_the_interval_holds_the_truth_as_often_as_it_says(n, gain, loss):
    random = np.random.default_rng(0)
    draws = random.multinomial(n, [gain, loss, 1 - gain - loss], size=2000)
    inside = [low <= gain - loss <= high for low, high in (paired_interval(g, k, n) for g, k, _ in draws)]
    # Conservative where hardly anything changes; three deviations of 2,000 draws below 95 % otherwise.
    assert np.mean(inside) >= 0.935


@pytest.mark.parametrize("counts", [(-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(ValueError, match="expected counts within"):
        paired_interval(*counts)
