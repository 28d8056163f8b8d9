"""A network's outputs, and how far one network's are from another's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Outputs = Literal["classes", "values"]
"""What the last dimension of an output is: scores of classes before softmax, or plain values."""


def forward(model: nn.Module, batch: Any) -> Tensor:
    """The outputs of a model for one batch, shape (n, k).

    Args:
        model: its first output counts, or that called `logits`.
        batch: a tensor, or a tuple or list of arguments, or a mapping of arguments by name.

    Raises:
        TypeError: if the output is no float tensor.
    """
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    if isinstance(batch, Mapping):
        out = model(**{name: _to(value, device) for name, value in batch.items()})
    elif isinstance(batch, tuple | list):
        out = model(*[_to(value, device) for value in batch])
    else:
        out = model(_to(batch, device))
    if isinstance(out, Mapping):
        out = out["logits"] if "logits" in out else next(iter(out.values()))
    elif isinstance(out, tuple | list):
        out = out[0]
    if not isinstance(out, Tensor) or not out.is_floating_point():
        raise TypeError(f"expected a float tensor as the model's output, got {type(out).__name__}")
    return out.reshape(-1, out.shape[-1]) if out.ndim > 1 else out.reshape(1, -1)


def divergence(reference: Tensor, other: Tensor, kind: Outputs) -> Tensor:
    """How far outputs are from those of a reference, for each row, in nats.

    For classes the Kullback-Leibler divergence of the distributions; for values the divergence of normal
    distributions around them, of the reference's spread: half the squared error over its mean square.

    Args:
        reference: shape (n, k).
        other: shape (n, k).
        kind: what the outputs are.
    """
    if kind == "values":
        return ((other - reference).square() / reference.square().mean(0).clamp(min=1e-30)).sum(1) / 2
    log = F.log_softmax(reference, 1)
    return (log.exp() * (log - F.log_softmax(other, 1))).sum(1)


def sampled_score(out: Tensor, kind: Outputs, generator: torch.Generator) -> Tensor:
    """A scalar whose gradient is the score of labels drawn from the outputs themselves.

    The mean of its square is the Fisher information of the network's own predictions, no labels needed
    (Martens 2020, "New insights and perspectives on the natural gradient method", section 5).

    Args:
        out: outputs, shape (n, k).
        kind: what they are.
        generator: of the draw, on the CPU.
    """
    if kind == "values":
        noise = torch.randn(out.shape, generator=generator).to(out)
        return (out * noise / out.detach().square().mean(0).clamp(min=1e-30).sqrt()).sum()
    drawn = torch.multinomial(F.softmax(out.detach(), 1).cpu(), 1, generator=generator)[:, 0]
    return F.cross_entropy(out, drawn.to(out.device), reduction="sum")


@torch.no_grad()
def mean_divergence(model: nn.Module, batches: list[Any], references: list[Tensor], kind: Outputs) -> float:
    """Mean divergence of a model's outputs from references, over all rows; infinite if one is NaN."""
    found = torch.cat(
        [
            divergence(known, forward(model, batch), kind)
            for batch, known in zip(batches, references, strict=True)
        ]
    )
    mean = float(found.mean())
    return mean if math.isfinite(mean) else math.inf


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
