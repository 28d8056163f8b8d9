"""Levels for a model's weights, their steps by what each tensor matters to its outputs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dwindle import bind, chains
from dwindle.calibrate.allocate import Curve, cheapest
from dwindle.calibrate.observe import Moments, Observer
from dwindle.calibrate.outputs import Outputs, forward, sampled_score
from dwindle.calibrate.repair import distill, match_moments
from dwindle.calibrate.tensor import Observed
from dwindle.errors import CalibrationError
from dwindle.share import Signal, set_codebook, share_levels, step_sizes
from dwindle.share.apply import array_of
from dwindle.share.levels import from_levels, round_step
from dwindle.share.trellis import SCALE, suits

HELD_OUT = 5
"""Every fifth batch checks what the others say of a tensor."""

CHECKED = 12.0
"""The quality at which that is done, in dB."""

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
        statistics: keep running statistics of batch norms in few bits, for which scales and shifts make up
            (`share.vectors.coarsen_statistics`).
        moments: bring means and spreads of channels back by biases and batch norms (`repair.match_moments`).
        distillation: passes over the inputs in which biases, norms and the values of codebooks are trained
            towards the model's own outputs (`repair.distill`).
        seed: of labels, positions and orders that are drawn.

    Beside feedback neither of the two repairs gains anything (README, Results), hence they are off; where
    there is none, matched moments do.

    Raises:
        ValueError: if there are to be fewer than no passes.
    """

    batches: Iterable[Any]
    outputs: Outputs = "classes"
    feedback: bool = True
    check: bool = True
    statistics: bool = True
    moments: bool = False
    distillation: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.distillation < 0:
            raise ValueError(f"expected distillation in 0 or more passes, got {self.distillation}")


class Measured:
    """What each tensor of a model matters to its outputs: measured once, good for every quality.

    The cost of an error in each tensor is its Kronecker-factored Fisher information: the moments of inputs,
    of which `feedback` leaves what rows cannot make up for, times those of output gradients (Martens, Grosse
    2015, "Optimizing neural networks with Kronecker-factored approximate curvature").

    Args:
        model: any module, left as it is.
        names: the tensors to round later.
        calibration: inputs and what to do with them.
        progress: called with what is being done.
        trellis: let levels follow a trellis where that suits a tensor, see `share.share_levels`.

    Raises:
        ValueError: if there are no batches, or one has no rows.
        TypeError: if the model's output is no float tensor.
        CalibrationError: if an output is NaN or infinite.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Iterable[str],
        calibration: Calibration,
        progress: Callable[[str], None] | None = None,
        *,
        trellis: bool = False,
    ) -> None:
        self._trellis = trellis
        self._tell = progress or (lambda line: None)
        batches = list(calibration.batches)
        self._calibration = replace(calibration, batches=batches)
        if not batches:
            raise ValueError("expected at least one batch to calibrate with, got none")
        self._plain = plain = bind.unparametrized(model).eval().requires_grad_(True)
        owners = {full: (module, name) for full, module, name in chains.named_tensors(model)}
        self.signals = {name: Signal.of(array_of(*owners[name])) for name in names}
        checks = batches[HELD_OUT - 1 :: HELD_OUT] if calibration.check else []
        used = [batch for place, batch in enumerate(batches) if not checks or (place + 1) % HELD_OUT]
        self._tell("observing")
        seen = observe(plain, self.signals, used, calibration)
        self._tensors = {name: self._tensor(plain, name, moments) for name, moments in seen.items()}
        self.ratios: dict[str, float] = {}
        if checks:
            self.ratios = self._check(plain, checks, calibration)
            # What checked them may be learnt from once they are checked.
            for name, moments in observe(plain, self.signals, checks, calibration).items():
                if name in seen:
                    self._tensors[name] = self._tensor(plain, name, seen[name].add(moments))

    def _tensor(self, plain: nn.Module, name: str, moments: Moments) -> Observed:
        shape = tuple(plain.get_parameter(name).shape)
        trellis = self._trellis and suits(shape, self.signals[name])
        return Observed(plain, name, moments, feedback=self._calibration.feedback, trellis=trellis)

    def _check(self, plain: nn.Module, checks: list[Any], calibration: Calibration) -> dict[str, float]:
        """How far predictions are off for each tensor, at a quality where this shows."""
        with torch.no_grad():
            references = [forward(plain, batch) for batch in checks]
        steps, ratios = self._steps_at_high_rate(CHECKED), {}
        for name, tensor in self._tensors.items():
            self._tell(f"checking {name}")
            predicted, measured = tensor.try_step(steps[name], checks, references, calibration.outputs)
            ratios[name] = min(max(measured / max(predicted, 1e-30), LEAST_RATIO), MOST_RATIO)
        return ratios

    def steps(self, quality: float) -> dict[str, float]:
        """The step of each tensor: those that cost the outputs least, at as many bits as `step_sizes` takes.

        Args:
            quality: in dB, see `step_sizes`, whose steps tensors that were not seen at work get.
        """
        plain = step_sizes(self.signals, quality)
        if not self._tensors:
            return plain
        budget = sum(tensor.bits(plain[name]) for name, tensor in self._tensors.items())
        return plain | {name: round_step(step) for name, step in cheapest(self._curves, budget).items()}

    @functools.cached_property
    def _curves(self) -> dict[str, Curve]:
        """What each tensor takes and costs, by step."""
        first = self._steps_at_high_rate(CHECKED)

        def curve(name: str, tensor: Observed) -> Curve:
            ratio = self.ratios.get(name, 1.0)
            return Curve(lambda step: tensor.measure(step, ratio), first[name], self._finest(name))

        return {name: curve(name, tensor) for name, tensor in self._tensors.items()}

    def _scale(self, name: str) -> float:
        return SCALE if self._tensors[name].trellis else 1.0

    def _finest(self, name: str) -> float:
        # Feedback may move a weight to beyond the largest, hence twice the finest step.
        return 2 * self.signals[name].finest

    def _steps_at_high_rate(self, quality: float) -> dict[str, float]:
        """Steps in inverse proportion to the root of costs: each tensor loses as much by a bit less."""
        steps = step_sizes(self.signals, quality)
        costs = {
            name: tensor.curvature * self.ratios.get(name, 1.0) for name, tensor in self._tensors.items()
        }
        weights = {name: self.signals[name].survivors for name in costs}
        level = sum(
            weights[name] * (math.log(steps[name]) + math.log(cost) / 2) for name, cost in costs.items()
        )
        scale = math.exp(level / max(sum(weights.values()), 1))
        return {
            name: round_step(max(self._scale(name) * scale / math.sqrt(cost), self._finest(name)))
            for name, cost in costs.items()
        }

    def sensitivities(self) -> dict[str, Tensor]:
        """What a squared error in each weight costs the outputs, in nats, in the shape of the tensor.

        Of tensors that were seen at work; on the CPU, float32.
        """
        return {
            name: tensor.sensitivity() * self.ratios.get(name, 1.0) for name, tensor in self._tensors.items()
        }

    def round(self, model: nn.Module, quality: float) -> dict[str, CalibratedTensor]:
        """Give the tensors of the model that was measured, or of a copy, codebooks of levels, in place."""
        steps = self.steps(quality)
        owners = {full: (module, name) for full, module, name in chains.named_tensors(model)}
        for name, tensor in self._tensors.items():
            self._tell(f"rounding {name}")
            dtype = str(chains.source(*owners[name]).dtype).removeprefix("torch.")
            levels = tensor.levels(steps[name]).cpu().numpy()
            values, places = from_levels(levels, steps[name], dtype)
            set_codebook(model, name, torch.from_numpy(values), torch.from_numpy(places))
        unseen = {name: step for name, step in steps.items() if name not in self._tensors}
        share_levels(model, unseen, trellis=self._trellis)
        self.repair(model)
        costs = {name: tensor.curvature for name, tensor in self._tensors.items()}
        return {
            name: CalibratedTensor(step, costs.get(name), self.ratios.get(name, 1.0))
            for name, step in steps.items()
        }

    def repair(self, model: nn.Module) -> None:
        """Make good what the calibration asks for, once weights are rounded or shared, in place."""
        how, modes = self._calibration, {module: module.training for module in model.modules()}
        batches = list(how.batches)
        model.eval()
        if how.moments:
            self._tell("matching moments")
            match_moments(model, self._plain, batches)
        if how.distillation:
            distill(
                model,
                self._plain,
                batches,
                epochs=how.distillation,
                outputs=how.outputs,
                seed=how.seed,
                progress=self._tell,
            )
        for module, training in modes.items():
            module.training = training


def observe(
    model: nn.Module, names: Mapping[str, Any], batches: list[Any], calibration: Calibration
) -> dict[str, Moments]:
    """Moments of the weights of a model without parametrizations, of those that were seen with gradients."""
    observer = Observer(model, names, calibration.seed)
    generator = torch.Generator().manual_seed(calibration.seed)
    samples = 0
    for number, batch in enumerate(batches):
        with observer, torch.enable_grad():
            out = forward(model, batch)
        if not len(out):
            raise ValueError(f"expected batches with rows, got none in one of shape {list(out.shape)}")
        if not out.isfinite().all():
            raise CalibrationError(f"batch {number}: expected finite outputs, got NaN or infinity")
        sampled_score(out, calibration.outputs, generator).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        samples += len(out)
    for moments in observer.moments.values():
        moments.samples = samples
    return {name: moments for name, moments in observer.moments.items() if float(moments.gradients.sum()) > 0}
