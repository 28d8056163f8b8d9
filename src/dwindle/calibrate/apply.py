"""Levels for a model's weights, their steps by what each tensor matters to its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dwindle import bind, chains
from dwindle.calibrate.feedback import factor, round_with_feedback
from dwindle.calibrate.observe import Moments, Observer
from dwindle.calibrate.outputs import Outputs, forward, mean_divergence, sampled_score
from dwindle.share import Signal, set_codebook, share_levels, step_sizes
from dwindle.share.apply import array_of
from dwindle.share.levels import from_levels, round_step

DAMPING = 0.1
"""Of input moments. Ten times what is usual where thousands of inputs are at hand; here they are hundreds."""

HELD_OUT = 5
"""Every fifth batch checks what the others say of a tensor."""

LEAST_RATIO, MOST_RATIO = 0.5, 20.0
"""Bounds of that correction: it is measured on few inputs."""


@dataclass(frozen=True)
class CalibratedTensor:
    """What was found of one tensor.

    Attributes:
        step: between levels.
        curvature: what a squared error in one weight costs the outputs, in nats, before correction; None
            where the tensor was not seen at work, and its step is that of `step_sizes`.
        ratio: measured divergence over predicted, on inputs held out; 1.0 where it was not measured.
    """

    step: float
    curvature: float | None
    ratio: float = 1.0


@dataclass(frozen=True)
class Calibration:
    """Inputs to calibrate with, and how.

    Attributes:
        batches: inputs, a few hundred in all, in batches: tensors, tuples of arguments, or mappings.
        outputs: what the model's outputs are.
        feedback: let the weights of a row make up for each other's rounding.
        check: measure on every fifth batch how far predictions for each tensor are off, and correct them;
            takes one pass over these for each tensor.
        seed: of labels and positions that are drawn.
    """

    batches: Iterable[Any]
    outputs: Outputs = "classes"
    feedback: bool = True
    check: bool = True
    seed: int = 0


def calibrate(
    model: nn.Module,
    names: Iterable[str],
    quality: float,
    calibration: Calibration,
    progress: Callable[[str], None] | None = None,
) -> dict[str, CalibratedTensor]:
    """Round tensors of a model to levels, in place, so that its outputs change least.

    The cost of an error in each tensor is its Kronecker-factored Fisher information: the moments of inputs,
    of which `feedback` leaves what rows cannot make up for, times those of output gradients (Martens, Grosse
    2015, "Optimizing neural networks with Kronecker-factored approximate curvature"). Steps are in inverse
    proportion to the root of it, which is best at high rates (every tensor then loses as much by a bit less),
    and their level is that at which they spend as many bits as those of `step_sizes`.

    Args:
        model: any module; its parameters keep their values beneath the codebooks.
        names: the tensors to round.
        quality: in dB, see `step_sizes`.
        calibration: inputs and what to do with them.
        progress: called with what is being done.

    Returns:
        What was found of each tensor, by name.

    Raises:
        ValueError: if there are no batches.
        TypeError: if the model's output is no float tensor.
    """
    tell = progress or (lambda line: None)
    batches = list(calibration.batches)
    if not batches:
        raise ValueError("expected at least one batch to calibrate with, got none")
    owners = {full: (module, name) for full, module, name in chains.named_tensors(model)}
    plain = bind.unparametrized(model).eval()
    signals = {name: Signal.of(array_of(*owners[name])) for name in names}
    steps = step_sizes(signals, quality)
    checks = batches[HELD_OUT - 1 :: HELD_OUT] if calibration.check else []
    used = [batch for place, batch in enumerate(batches) if not checks or (place + 1) % HELD_OUT]
    tell("observing")
    seen = observe(plain, steps, used, calibration)
    found = {name: _Tensor(plain, name, moments) for name, moments in seen.items()}
    ratios = {}
    chosen = _balanced(found, {}, signals, steps)
    if checks:
        with torch.no_grad():
            references = [forward(plain, batch) for batch in checks]
        for name, tensor in found.items():
            tell(f"checking {name}")
            predicted, measured = tensor.try_step(chosen[name], checks, references, calibration)
            ratios[name] = min(max(measured / max(predicted, 1e-30), LEAST_RATIO), MOST_RATIO)
        more = observe(plain, steps, checks, calibration)
        found = {name: _Tensor(plain, name, seen[name].add(more[name])) for name in found}
        chosen = _balanced(found, ratios, signals, steps)
    for name, tensor in found.items():
        tell(f"rounding {name}")
        dtype = str(chains.source(*owners[name]).dtype).removeprefix("torch.")
        levels = tensor.levels(chosen[name], feedback=calibration.feedback).cpu().numpy()
        values, places = from_levels(levels, chosen[name], dtype)
        set_codebook(model, name, torch.from_numpy(values), torch.from_numpy(places))
    share_levels(model, {name: step for name, step in steps.items() if name not in found})
    return {
        name: CalibratedTensor(chosen[name], found[name].curvature, ratios.get(name, 1.0))
        if name in found
        else CalibratedTensor(step, None)
        for name, step in steps.items()
    }


def observe(
    model: nn.Module, names: Mapping[str, Any], batches: list[Any], calibration: Calibration
) -> dict[str, Moments]:
    """Moments of the weights of a model without parametrizations, of those that were seen with gradients."""
    observer = Observer(model, names, calibration.seed)
    generator = torch.Generator().manual_seed(calibration.seed)
    samples = 0
    for batch in batches:
        with observer, torch.enable_grad():
            out = forward(model, batch)
        sampled_score(out, calibration.outputs, generator).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        samples += len(out)
    for moments in observer.moments.values():
        moments.samples = samples
    return {name: moments for name, moments in observer.moments.items() if float(moments.gradients.sum()) > 0}


class _Tensor:
    """One tensor with what was seen of it."""

    def __init__(self, model: nn.Module, name: str, moments: Moments) -> None:
        self.model, self.name = model, name
        self.parameter = dict(model.named_parameters(remove_duplicate=False))[name]
        self.inputs = moments.inputs / max(moments.positions, 1)
        groups, width, _ = self.inputs.shape
        # Fewer inputs than a row has weights say nothing of most directions.
        self.upper = factor(self.inputs, DAMPING * (1 + width / max(moments.positions, 1)))
        self.gradients = (moments.gradients / moments.samples).view(groups, -1).to(self.inputs.device)
        left = torch.diagonal(self.upper, dim1=-2, dim2=-1) ** -2
        self.curvature = float((self.gradients.mean(1) * left.mean(1)).mean())
        self.weights = self.parameter.detach().double().reshape(groups, -1, width)

    def levels(self, step: float, *, feedback: bool) -> Tensor:
        """Levels in int32, shape (G, R, J)."""
        if not feedback:
            return torch.round(self.weights / step).int()
        return round_with_feedback(self.weights, self.upper, step)

    def try_step(
        self, step: float, batches: list[Any], references: list[Tensor], calibration: Calibration
    ) -> tuple[float, float]:
        """Predicted and measured divergence in nats with this tensor alone rounded."""
        rounded = self.levels(step, feedback=calibration.feedback) * step
        off = rounded - self.weights
        cost = ((off @ self.inputs) * off).sum(2)
        before = self.parameter.data
        self.parameter.data = rounded.reshape(before.shape).to(before.dtype)
        measured = mean_divergence(self.model, batches, references, calibration.outputs)
        self.parameter.data = before
        return float((cost * self.gradients).sum()) / 2, measured


def _balanced(
    tensors: Mapping[str, _Tensor],
    ratios: Mapping[str, float],
    signals: Mapping[str, Signal],
    steps: Mapping[str, float],
) -> dict[str, float]:
    """Steps in proportion to curvature ** -1/2 that spend as many bits as `steps` on these tensors."""
    costs = {name: tensor.curvature * ratios.get(name, 1.0) for name, tensor in tensors.items()}
    total = max(sum(signals[name].survivors for name in tensors), 1)
    level = sum(
        signals[name].survivors * (math.log(steps[name]) + math.log(cost) / 2) for name, cost in costs.items()
    )
    return {name: round_step(math.exp(level / total) / math.sqrt(cost)) for name, cost in costs.items()}
