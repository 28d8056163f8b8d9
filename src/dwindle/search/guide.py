"""Distillation inside a user's own training: outputs are also drawn to those of the model as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

TEMPERATURE = 2.0
"""Logits are divided by this first: what the original thinks of the classes that are wrong counts, too."""

WEIGHT = 3.0
"""Of the original's opinion against the user's own loss, where that is a mean over a batch."""


@contextlib.contextmanager
def guided(model: nn.Module, original: nn.Module | None) -> Iterator[None]:
    """For the length of a `with` block of training, add the gradient of a distillation loss to the outputs'.

    The loss is WEIGHT T^2 KL(softmax(original / T) || softmax(model / T)), a mean over the batch, of outputs
    that are class scores: a float tensor of shape (batch, classes), two or more classes. Other outputs are
    left alone. No row draws harder than a wrong label would, so that what was chosen for the user's loss,
    such as the learning rate, is right for this one.

    Args:
        model: what is trained.
        original: in evaluation mode; None adds nothing.

    Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", section 2.
    """
    if original is None:
        yield
        return

    def guide(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        if not _are_scores(out) or not out.requires_grad:
            return
        with torch.no_grad():
            wanted = original.to(out.device)(*args, **kwargs)
            if _are_scores(wanted) and wanted.shape == out.shape:
                more = _gradient(out.detach(), wanted)
                out.register_hook(lambda gradient: gradient + more.to(gradient.dtype))

    handle = model.register_forward_hook(guide, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _are_scores(out: object) -> bool:
    return isinstance(out, Tensor) and out.is_floating_point() and out.ndim == 2 and out.shape[1] > 1


def _gradient(now: Tensor, wanted: Tensor) -> Tensor:
    """Of the loss by the outputs, shape (batch, classes), float32."""
    off = (now.float() / TEMPERATURE).softmax(1) - (wanted.float() / TEMPERATURE).softmax(1)
    pull: Tensor = WEIGHT * TEMPERATURE * off.nan_to_num(0.0)
    hardest: Tensor = torch.linalg.vector_norm(pull, dim=1, keepdim=True).clamp_min(1.0)
    return pull / (hardest * max(len(pull), 1))
