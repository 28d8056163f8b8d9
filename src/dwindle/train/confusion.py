"""Which classes are taken for which, and what changed between two models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """One example that two models answer differently.

    Attributes:
        index: position of the example.
        label: its true class.
        before: the first model's answer.
        after: the second model's answer.
    """

    index: int
    label: int
    before: int
    after: int


def confusion_matrix(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How often each class was answered for each true class.

    Args:
        predictions: integers 0 to classes - 1, shape (N,).
        labels: likewise.
        classes: number of classes.

    Returns:
        int64, shape (classes, classes): a row for each true class, a column for each answer.

    Raises:
        ValueError: if the shapes differ or a class is out of range.
    """
    _check_shapes(predictions, labels)
    for name, values in (("predictions", predictions), ("labels", labels)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < classes:
            got = f"{int(values.min())} to {int(values.max())}"
            raise ValueError(f"expected {name} within 0 to {classes - 1}, got {got}")
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def changes(before: Tensor, after: Tensor, labels: Tensor) -> list[Change]:
    """The examples whose answer changed, in order of position.

    Args:
        before: answers of the first model, shape (N,).
        after: answers of the second.
        labels: true classes.

    Raises:
        ValueError: if the shapes differ.
    """
    _check_shapes(before, after)
    _check_shapes(before, labels)
    return [
        Change(i, int(labels[i]), int(before[i]), int(after[i]))
        for i in (before != after).nonzero().flatten().tolist()
    ]


def _check_shapes(left: Tensor, right: Tensor) -> None:
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(
            f"expected two vectors of one length, got {tuple(left.shape)} and {tuple(right.shape)}"
        )
