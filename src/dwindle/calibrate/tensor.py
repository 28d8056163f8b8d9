"""One tensor of a network with what was seen of it at work: what it takes and costs at each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dwindle.calibrate.feedback import factor, round_with_feedback
from dwindle.calibrate.observe import Moments
from dwindle.calibrate.outputs import Outputs, mean_divergence
from dwindle.code.trellis import number_counts
from dwindle.share.allocate import entropy
from dwindle.share.levels import round_step
from dwindle.share.trellis import to_path

DAMPING = 0.1
"""Of input moments. Ten times what is usual where thousands of inputs are at hand; here they are hundreds."""

LEAST_CURVATURE = 1e-30


class Observed:
    """A tensor with moments of its inputs and of the gradients of its outputs.

    Args:
        model: without parametrizations; the tensor is changed and put back in it by `try_step`.
        name: of the tensor.
        moments: what was seen.
        feedback: round with `feedback.round_with_feedback`, or to the nearest level.
        trellis: let levels follow a trellis.

    Attributes:
        curvature: what a squared error in one weight costs the outputs on average, in nats; with feedback
            what the rest of its row cannot make up for.
    """

    def __init__(
        self, model: nn.Module, name: str, moments: Moments, *, feedback: bool, trellis: bool
    ) -> None:
        self.model, self.feedback, self.trellis = model, feedback, trellis
        self.parameter = dict(model.named_parameters(remove_duplicate=False))[name]
        self.inputs = moments.inputs / max(moments.positions, 1)
        groups, width, _ = self.inputs.shape
        # Fewer inputs than a row has weights say nothing of most directions.
        self.upper = factor(self.inputs, DAMPING * (1 + width / max(moments.positions, 1)))
        self.gradients = (moments.gradients / moments.samples).view(groups, -1).to(self.inputs.device)
        # What a square error costs: all of it, or what the rest of the row cannot make up for.
        left = torch.diagonal(self.upper, dim1=-2, dim2=-1) ** -2
        if not feedback:
            left = torch.diagonal(self.inputs, dim1=-2, dim2=-1)
        # Of weights whose inputs are always zero nothing matters; their steps still have logarithms.
        self.curvature = max(float((self.gradients.mean(1) * left.mean(1)).mean()), LEAST_CURVATURE)
        self.weights = self.parameter.detach().double().reshape(groups, -1, width)

    def levels(self, step: float) -> Tensor:
        """Levels in int32, shape (G, R, J)."""
        if self.feedback:
            return round_with_feedback(self.weights, self.upper, step, trellis=self.trellis)
        if self.trellis:
            rows = self.weights.flatten(0, 1).cpu().numpy()
            return torch.from_numpy(to_path(rows, step)).to(self.weights.device).view(self.weights.shape)
        return torch.round(self.weights / step).int()

    def bits(self, step: float) -> float:
        """Zero-order entropy of the nearest levels, in bits for all weights."""
        return _entropy(torch.round(self.weights / step).int())

    def measure(self, step: float, ratio: float) -> tuple[float, float]:
        """Bits at a step, and predicted divergence in nats times a ratio."""
        step = round_step(step)
        levels = self.levels(step)
        counts = None
        if self.trellis:
            counts = number_counts(levels.flatten().cpu().numpy(), tuple(levels.flatten(0, 1).shape), 0)
        bits = _entropy(levels) if counts is None else sum(map(entropy, counts))
        return bits, ratio * self._cost(levels * step)

    def sensitivity(self) -> Tensor:
        """What a squared error in each weight costs, in nats, in the parameter's shape."""
        square = torch.diagonal(self.inputs, dim1=-2, dim2=-1)
        cost = self.gradients[:, :, None] * square[:, None, :] / 2
        return cost.reshape(self.parameter.shape).float().cpu()

    def _cost(self, rounded: Tensor) -> float:
        off = rounded - self.weights
        return float((((off @ self.inputs) * off).sum(2) * self.gradients).sum()) / 2

    def try_step(
        self, step: float, batches: list[Any], references: list[Tensor], outputs: Outputs
    ) -> tuple[float, float]:
        """Predicted and measured divergence in nats with this tensor alone rounded."""
        rounded = self.levels(step) * step
        before = self.parameter.data
        self.parameter.data = rounded.reshape(before.shape).to(before.dtype)
        measured = mean_divergence(self.model, batches, references, outputs)
        self.parameter.data = before
        return self._cost(rounded), measured


def _entropy(levels: Tensor) -> float:
    """Zero-order entropy of levels, in bits for all of them together."""
    flat = levels.reshape(-1)
    return entropy(torch.bincount(flat - flat.min()).cpu().numpy())
