"""Schedules, and what changes when survivors are trained again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dwindle.errors import TensorError
from dwindle.prune import (
    RETRAIN_LR_ALEXNET,
    RETRAIN_LR_LENET,
    correct_dropout,
    cubic,
    dropout_rates,
    fraction_for,
    iterative,
    per_tensor,
    prune,
    retrain_dropout,
)

SHARE = st.floats(0, 1)
ROUNDS = st.integers(1, 30)


def test_iterative_removes_a_fraction_of_what_remains():
    assert iterative(0.5, 3) == [0.5, 0.75, 0.875]
    assert iterative(0.5, 2, initial=0.5) == [0.75, 0.875]
    assert iterative(0.0, 2) == [0.0, 0.0]
    assert iterative(1.0, 2) == [1.0, 1.0]


def test_cubic_is_the_formula():
    assert cubic(0.8, 4) == pytest.approx([0.8 * (1 - r**3) for r in (0.75, 0.5, 0.25, 0.0)])
    assert cubic(0.9, 2, initial=0.5) == pytest.approx([0.85, 0.9])
    assert cubic(0.9, 1) == [0.9]


@given(SHARE, SHARE, ROUNDS)
def test_schedules_rise_to_their_end(one, two, rounds):
    initial, final = sorted((one, two))
    schedule = cubic(final, rounds, initial=initial)
    assert len(schedule) == rounds
    assert schedule[-1] == final
    assert all(0 <= share <= 1 for share in schedule)
    assert all(a <= b + 1e-12 for a, b in zip([initial, *schedule], schedule, strict=False))


@given(SHARE, SHARE, ROUNDS)
def test_fraction_for_ends_where_it_should(one, two, rounds):
    initial, final = sorted((one, two))
    if initial == 1:
        with pytest.raises(ValueError, match="expected a final sparsity"):
            fraction_for(final, rounds, initial=initial)
        return
    schedule = iterative(fraction_for(final, rounds, initial=initial), rounds, initial=initial)
    assert schedule[-1] == pytest.approx(final, abs=1e-9)


@pytest.mark.parametrize("call", [cubic, iterative, fraction_for])
def test_impossible_schedules(call):
    with pytest.raises(ValueError, match="expected 1 round or more, got 0"):
        call(0.5, 0)
    with pytest.raises(ValueError, match=r"to be 0 to 1, got 1\.5"):
        call(1.5, 3)
    with pytest.raises(ValueError, match="expected initial to be 0 to 1"):
        call(0.5, 3, initial=-0.1)


def test_schedules_do_not_fall():
    for call in (cubic, fraction_for):
        with pytest.raises(ValueError, match=r"expected a final sparsity of at least 0\.6"):
            call(0.5, 3, initial=0.6)


def test_per_tensor_turns_columns_into_rounds():
    assert per_tensor({"a": [0.1, 0.2], "b": [0.3, 0.4]}) == [{"a": 0.1, "b": 0.3}, {"a": 0.2, "b": 0.4}]
    assert per_tensor({}) == []
    with pytest.raises(ValueError, match=r"one length, got lengths \[1, 2\]"):
        per_tensor({"a": [0.1], "b": [0.3, 0.4]})


def test_the_papers_learning_rates():
    assert (RETRAIN_LR_LENET, RETRAIN_LR_ALEXNET) == (0.1, 0.01)


def test_retrain_dropout_is_the_formula():
    assert retrain_dropout(0.5, 100, 25) == 0.25
    assert retrain_dropout(0.5, 100, 100) == 0.5
    assert retrain_dropout(0.5, 100, 0) == 0.0
    assert retrain_dropout(0.5, 0, 0) == 0.5
    with pytest.raises(ValueError, match="expected a dropout rate"):
        retrain_dropout(1.5, 10, 5)
    with pytest.raises(ValueError, match="expected 0 to 10 survivors, got 11"):
        retrain_dropout(0.5, 10, 11)


def alexnet_tail():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Dropout(0.2), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4), nn.AlphaDropout(0.4)
    )


def test_dropout_follows_the_layer_it_thins_out():
    model = alexnet_tail()
    original = dropout_rates(model)
    assert original == {"0": 0.2, "3": 0.5, "5": 0.4}
    prune(model, sparsity={"1.weight": 0.75, "4.weight": 0.5})
    expected = {"0": 0.1, "3": 0.25, "5": pytest.approx(0.4 * 0.5**0.5)}
    for _ in range(2):
        assert correct_dropout(model, original) == expected
        assert dropout_rates(model) == expected
    named = correct_dropout(model, original, layers={"3": "4.weight"})
    assert named["3"] == pytest.approx(0.5 * 0.5**0.5)


def test_dropout_of_an_unpruned_or_weightless_model_stays():
    model = alexnet_tail()
    assert correct_dropout(model, dropout_rates(model)) == dropout_rates(alexnet_tail())
    bare = nn.Sequential(nn.Dropout(0.3))
    assert correct_dropout(bare, {"0": 0.3}) == {"0": 0.3}


def test_dropout_names_are_checked_before_anything_changes():
    model = alexnet_tail()
    prune(model, sparsity=0.5)
    with pytest.raises(TensorError, match=r"^1: expected a dropout module"):
        correct_dropout(model, {"0": 0.2, "1": 0.5})
    with pytest.raises(TensorError, match=r"^9\.weight: expected the name of a prunable tensor"):
        correct_dropout(model, {"0": 0.2, "3": 0.5}, layers={"3": "9.weight"})
    assert dropout_rates(model) == dropout_rates(alexnet_tail())
