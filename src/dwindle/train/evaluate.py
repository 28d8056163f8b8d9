"""What a model answers, and how often it is wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dwindle.train.fit import Prepare


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, *, batch: int = 1000, prepare: Prepare | None = None) -> Tensor:
    """Classes a model answers in evaluation mode; the model's mode is put back afterwards.

    Args:
        model: outputs logits, shape (N, classes).
        inputs: shape (N, ...), on the model's device.
        batch: examples at a time. Sums may round differently in batches of another size, so predictions
            that are to be compared need the same one.
        prepare: applied to each batch.

    Returns:
        int64, shape (N,): the class with the largest logit, the first of equals.
    """
    training = model.training
    model.eval()
    try:
        answers = [
            model(x if prepare is None else prepare(x)).argmax(1)
            for x in torch.split(inputs, batch)
            if len(x)
        ]
    finally:
        model.train(training)
    return torch.cat(answers) if answers else torch.zeros(0, dtype=torch.int64, device=inputs.device)


def error(predictions: Tensor, labels: Tensor) -> float:
    """Percent of predictions that differ from the label.

    Raises:
        ValueError: if the shapes differ or there is nothing to count.
    """
    if predictions.shape != labels.shape or labels.numel() == 0:
        got = f"{tuple(predictions.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"expected predictions and labels of one shape, at least one, got {got}")
    wrong = int((predictions != labels).sum())
    return 100 * wrong / labels.numel()
