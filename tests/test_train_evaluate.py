import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dwindle.train import Change, changes, confusion_matrix, error, predict

classes = st.integers(0, 4)


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_predict_is_the_largest_logit(batch):
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    logits[3] = 0  # the first of equals
    assert predict(nn.Identity(), logits, batch=batch).tolist() == logits.argmax(1).tolist()
    assert predict(nn.Identity(), logits, batch=batch)[3] == 0


def test_predict_of_nothing():
    answers = predict(nn.Identity(), torch.zeros(0, 5))
    assert answers.shape == (0,)
    assert answers.dtype == torch.int64


@pytest.mark.parametrize("training", [True, False])
def test_predict_evaluates_and_puts_the_mode_back(training):
    model = nn.Dropout(1.0).train(training)
    assert predict(model, torch.eye(3), prepare=lambda x: x * 2).tolist() == [0, 1, 2]
    assert model.training is training


def test_predict_puts_the_mode_back_after_a_failure():
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError):
        predict(model, torch.zeros(1, 3))
    assert model.training


def test_predict_keeps_no_graph():
    assert not predict(nn.Linear(2, 2), torch.zeros(4, 2)).requires_grad


def test_error_is_in_percent():
    labels = torch.arange(10000) % 10
    wrong = labels.clone()
    wrong[:158] = (wrong[:158] + 1) % 10
    assert error(wrong, labels) == 1.58
    assert error(labels, labels) == 0.0


@pytest.mark.parametrize(("a", "b"), [((3,), (4,)), ((0,), (0,)), ((3, 1), (3,))])
def test_error_refuses(a, b):
    with pytest.raises(ValueError, match="expected predictions and labels of one shape"):
        error(torch.zeros(a), torch.zeros(b))


@given(st.lists(st.tuples(classes, classes)))
def test_confusion_matrix_counts(pairs):
    predictions, labels = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    matrix = confusion_matrix(predictions, labels, 5)
    assert matrix.shape == (5, 5)
    assert matrix.dtype == torch.int64
    for true in range(5):
        for answer in range(5):
            assert matrix[true, answer] == pairs.count((answer, true))


@pytest.mark.parametrize(("predictions", "labels"), [([5], [0]), ([0], [5]), ([-1], [0]), ([0], [-1])])
def test_confusion_matrix_refuses_classes_out_of_range(predictions, labels):
    with pytest.raises(ValueError, match="within 0 to 4"):
        confusion_matrix(torch.tensor(predictions), torch.tensor(labels), 5)


def test_confusion_matrix_refuses_other_lengths():
    with pytest.raises(ValueError, match="two vectors of one length"):
        confusion_matrix(torch.tensor([1]), torch.tensor([1, 2]), 5)


@given(st.lists(st.tuples(classes, classes, classes)))
def test_changes_are_the_differences(rows):
    before, after, labels = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).unbind(1)
    found = changes(before, after, labels)
    assert found == [Change(i, t, b, a) for i, (b, a, t) in enumerate(rows) if b != a]
    patched = before.clone()
    for change in found:
        patched[change.index] = change.after
    assert torch.equal(patched, after)


def test_changes_refuse_other_lengths():
    one, two = torch.tensor([1]), torch.tensor([1, 2])
    for arguments in ((one, two, one), (one, one, two)):
        with pytest.raises(ValueError, match="two vectors of one length"):
            changes(*arguments)
