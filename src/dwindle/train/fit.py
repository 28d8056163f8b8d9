"""One pass of training over tensors that are in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

Prepare = Callable[[Tensor], Tensor]
"""Turns a batch as it is kept (uint8 images, say) into what the model takes."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets of a batch to their mean loss, a scalar."""


def fit_epoch(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    optimizer: Optimizer,
    *,
    batch: int,
    generator: torch.Generator,
    prepare: Prepare | None = None,
    loss: Loss = functional.cross_entropy,
    lr: Callable[[float], float] | None = None,
) -> float:
    """Train on every example once, in an order drawn from `generator`.

    The result depends on the model, the optimizer, `generator` and torch's global random state (dropout),
    and on nothing else: put these back and the epoch repeats bit for bit on one machine and thread count.

    Args:
        model: put into training mode.
        inputs: examples, shape (N, ...), any dtype `prepare` takes; on the model's device.
        targets: shape (N, ...), on the same device.
        optimizer: one step a batch; all its groups get the rate of `lr`.
        batch: examples a step; the last step takes what is left.
        generator: a CPU generator.
        prepare: applied to each batch of inputs.
        loss: mean loss of a batch.
        lr: learning rate as a function of the part of the epoch done, 0 at its first step and under 1 at its
            last; None leaves the optimizer's own.

    Returns:
        Mean loss over the epoch.

    Raises:
        ValueError: if there is no example, `batch` is under 1, or inputs and targets differ in number.
    """
    n = len(inputs)
    if n == 0 or len(targets) != n:
        raise ValueError(f"expected as many targets as inputs and at least one, got {n} and {len(targets)}")
    if batch < 1:
        raise ValueError(f"expected a batch of at least 1, got {batch}")
    model.train()
    order = torch.randperm(n, generator=generator).to(inputs.device)
    total = torch.zeros((), device=inputs.device)
    for start in range(0, n, batch):
        if lr is not None:
            rate = lr(start / n)
            for group in optimizer.param_groups:
                group["lr"] = rate
        chosen = order[start : start + batch]
        x = inputs.index_select(0, chosen)
        optimizer.zero_grad(set_to_none=True)
        value = loss(model(x if prepare is None else prepare(x)), targets.index_select(0, chosen))
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += value.detach() * len(chosen)
    return float(total) / n
