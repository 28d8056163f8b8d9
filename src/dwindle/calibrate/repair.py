"""Repair of a rounded network without labels: means and spreads, then a short distillation."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dwindle.calibrate.outputs import Outputs, divergence, forward
from dwindle.errors import CalibrationError
from dwindle.share import Codebook
from dwindle.share.vectors import rounded

LEAST, MOST = 0.25, 4.0
"""Bounds of how far a variance is corrected: a channel that is next to constant has none to compare."""

RATE = 1e-4
"""How far a step of distillation moves values, as a share of their root mean square. At ten times that a deep
network is thrown off before it learns."""

SIGNIFICANT = 8
"""Bits that are kept of the values of codebooks: more would cost bytes and gain nothing."""

LEAST_SIZE = 1e-3
"""Root mean square of values that are next to nothing, as new biases are."""


def match_moments(model: nn.Module, original: nn.Module, batches: list[Any]) -> None:
    """Make up in biases and batch norms for what rounding did to the moments of their channels, in place.

    Each is compared with the original on the same inputs, so that a few of them will do, and corrected on the
    way, so that later layers see what they will see: estimated each for itself, all would correct the same
    error once more. Nagel et al. 2019, "Data-free quantization through weight equalization and bias
    correction", section 4.2, with inputs.

    Args:
        model: the rounded network.
        original: its original, with the same modules.
        batches: inputs.
    """
    moments = _Moments()
    with torch.no_grad():
        for batch in batches:
            for network, see in ((original, moments.learn), (model, moments.correct)):
                handles = _watch(network, see)
                try:
                    forward(network, batch)
                finally:
                    for handle in handles:
                        handle.remove()
        for name, module in model.named_modules():
            if name in moments.found:
                before, shift, ratio = (
                    torch.stack(values).mean(0) for values in zip(*moments.found[name], strict=True)
                )
                if isinstance(module, _BatchNorm):
                    _correct_norm(module, before, shift, ratio)
                else:
                    module.get_parameter("bias").sub_(shift)


def distill(
    model: nn.Module,
    original: nn.Module,
    batches: list[Any],
    *,
    epochs: int,
    outputs: Outputs,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Train biases, norms and the values of codebooks towards the original's outputs, in place.

    Which value a weight takes stays, and the values are rounded to `SIGNIFICANT` bits at the end.

    Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", at a temperature of 1, on
    unlabelled inputs.

    Args:
        model: the rounded network.
        original: its original.
        batches: inputs.
        epochs: passes over them.
        outputs: what the outputs are.
        seed: of their order.
        progress: called after every epoch.

    Raises:
        CalibrationError: if nothing that could be trained requires gradients.
    """
    with torch.no_grad():
        references = [forward(original, batch) for batch in batches]
    trained = [p for p in model.parameters() if p.requires_grad and p.ndim == 1 and p.is_floating_point()]
    if not trained:
        raise CalibrationError("expected biases, norms or codebooks that require gradients, got none")
    optimizer = torch.optim.Adam([{"params": [p]} for p in trained], betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    steps, done = epochs * len(batches), 0
    for epoch in range(epochs):
        total = 0.0
        for place in torch.randperm(len(batches), generator=generator).tolist():
            for group in optimizer.param_groups:
                size = float(group["params"][0].detach().square().mean().sqrt())
                group["lr"] = RATE * max(size, LEAST_SIZE) * (1 - done / steps)
            optimizer.zero_grad()
            with torch.enable_grad():
                loss = divergence(references[place], forward(model, batches[place]), outputs).mean()
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total, done = total + float(loss.detach()), done + 1
        if progress is not None:
            progress(f"distilling {epoch + 1}/{epochs}: {total / len(batches):.5f} nats")
    with torch.no_grad():
        for book in model.modules():
            if isinstance(book, Codebook) and book.centroids.requires_grad:
                book.centroids.copy_(rounded(book.centroids, SIGNIFICANT))


class _Moments:
    """Means and variances of channels: of the original on one batch, and how far off they are on all."""

    def __init__(self) -> None:
        self.found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
        # A shared module is called more than once: its calls are kept in order.
        self._known: dict[str, deque[tuple[Tensor, Tensor]]] = defaultdict(deque)

    def learn(self, name: str, seen: Tensor, dim: int, *, norm: bool) -> Tensor:
        self._known[name].append(_of_channels(seen, dim))
        return seen

    def correct(self, name: str, seen: Tensor, dim: int, *, norm: bool) -> Tensor:
        """What is seen, moved and, before a norm, stretched to the original's moments."""
        (mean, variance), (before, spread) = _of_channels(seen, dim), self._known[name].popleft()
        ratio = (variance / spread.clamp(min=1e-12)).clamp(LEAST, MOST) if norm else torch.ones_like(mean)
        self.found.setdefault(name, []).append((before, mean - before, ratio))
        centred = (seen - _along(mean, seen, dim)) / _along(ratio.sqrt(), seen, dim)
        return centred + _along(before, seen, dim)


def _watch(model: nn.Module, see: Callable[..., Tensor]) -> list[Any]:
    """Hooks that pass on what `see` makes of inputs of batch norms, and of outputs of layers with a bias."""
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:

            def before(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> tuple[Tensor, ...]:
                return (see(name, inputs[0], 1, norm=True), *inputs[1:])

            handles.append(module.register_forward_pre_hook(before))
        elif (sides := _sides(module)) is not None and module._parameters.get("bias") is not None:
            # From the end, where batches may be left out.
            channel = -1 - sides

            def after(_: nn.Module, __: Any, out: Tensor, name: str = name, dim: int = channel) -> Tensor:
                return see(name, out, dim, norm=False)

            handles.append(module.register_forward_hook(after))
    return handles


def _sides(module: nn.Module) -> int | None:
    """Dimensions of an output behind its channels; None for modules whose biases are left alone."""
    types = {nn.Linear: 0, nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
    return next((sides for kind, sides in types.items() if isinstance(module, kind)), None)


def _of_channels(seen: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each."""
    rows = seen.float().movedim(dim, -1).reshape(-1, seen.shape[dim])
    return rows.mean(0), rows.var(0, unbiased=False)


def _along(values: Tensor, seen: Tensor, dim: int) -> Tensor:
    shape = [1] * seen.ndim
    shape[dim] = -1
    return values.to(seen.dtype).view(shape)


def _correct_norm(norm: _BatchNorm, before: Tensor, shift: Tensor, ratio: Tensor) -> None:
    """Statistics with which a norm makes of moved and stretched inputs what it made of the original's."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    mean.copy_(before + shift - (before - mean) * ratio.sqrt())
    variance.copy_(((variance + norm.eps) * ratio - norm.eps).clamp(min=0))
