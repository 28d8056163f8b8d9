"""Second moments of what goes into each weight, and of the gradients that come back to it.

Layers are recognised where torch computes them, by the weight they are given: so layers of somebody else's,
with padding or shapes of their own, shared and tied ones are all seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

MOST_INPUTS = 8192
"""Layers whose rows have more weights are not observed: their moments would take over half a gigabyte."""

LEAST_POSITIONS = 1024
"""Positions of a batch that are taken where there are more; or four times the weights of a row."""

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


@dataclass
class Moments:
    """What was seen of one weight of R rows in G groups, J weights to a row.

    Attributes:
        inputs: sum of x x^T over positions, double, shape (G, J, J).
        positions: how many x.
        gradients: sum of the squares of the gradients of outputs, double, shape (R,), over all positions.
        samples: rows of the network's outputs these came from.
    """

    inputs: Tensor
    positions: int
    gradients: Tensor
    samples: int = 0

    def add(self, other: Moments) -> Moments:
        """Both together."""
        return Moments(
            self.inputs + other.inputs,
            self.positions + other.positions,
            self.gradients + other.gradients,
            self.samples + other.samples,
        )


class Observer(TorchFunctionMode):
    """Collects moments of weights while a model runs, and while gradients of its outputs are taken.

    Args:
        model: without parametrizations.
        names: weights to look at, by full name; those that are not computed with by a linear layer or a
            convolution are never seen.
        seed: of which positions are taken where there are many.

    Attributes:
        moments: what was seen, by name.
    """

    def __init__(self, model: nn.Module, names: Mapping[str, Any], seed: int = 0) -> None:
        super().__init__()
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self.names = {id(parameters[name]): name for name in names if name in parameters}
        self.moments: dict[str, Moments] = {}
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.linear or func in _CONVOLUTIONS:
            given = dict(zip(_ARGUMENTS, args, strict=False)) | (kwargs or {})
            name = self.names.get(id(given["weight"]))
            if name is not None:
                self._see(name, given, out, linear=func is F.linear)
        return out

    @torch.no_grad()
    def _see(self, name: str, given: Mapping[str, Any], out: Tensor, *, linear: bool) -> None:
        weight, groups = given["weight"], given.get("groups", 1)
        width = weight[0].numel()
        if width > MOST_INPUTS or not out.is_floating_point():
            return
        inputs = given["input"].detach()
        if not inputs.numel():
            return
        most = max(LEAST_POSITIONS, 4 * width)
        rows = self._rows(inputs, width, most) if linear else self._patches(inputs, given, out, groups, most)
        rows = rows.float()
        if name not in self.moments:
            empty = torch.zeros(groups, width, width, dtype=torch.float64, device=weight.device)
            self.moments[name] = Moments(empty, 0, torch.zeros(len(weight), dtype=torch.float64))
        seen = self.moments[name]
        seen.inputs += rows.transpose(1, 2) @ rows
        seen.positions += rows.shape[1]
        if out.requires_grad:
            channel = out.ndim - 1 if linear else out.ndim - weight.ndim + 1
            others = [dimension for dimension in range(out.ndim) if dimension != channel]

            def collect(gradient: Tensor) -> None:
                # Squares of small gradients have no float16.
                square = gradient.detach().float().square()
                seen.gradients += (square.sum(others, dtype=torch.float64) if others else square).cpu()

            out.register_hook(collect)  # type: ignore[no-untyped-call]

    def _rows(self, inputs: Tensor, width: int, most: int) -> Tensor:
        """What each output of a linear map is computed from, at most so many, shape (1, positions, J)."""
        rows = inputs.reshape(-1, width)
        chosen = self._some(len(rows), most)
        return (rows if chosen is None else rows[chosen.to(rows.device)])[None]

    def _patches(
        self, inputs: Tensor, given: Mapping[str, Any], out: Tensor, groups: int, most: int
    ) -> Tensor:
        """What outputs of a convolution are computed from, at most so many, shape (G, positions, J)."""
        sides = given["weight"].ndim - 2
        inputs = inputs if inputs.ndim == sides + 2 else inputs[None]
        sizes, batch = out.shape[-sides:], len(inputs)
        chosen = self._some(math.prod(sizes), -(-most // batch))
        if chosen is None:
            chosen = torch.arange(math.prod(sizes))
        columns = _columns(inputs, given, torch.unravel_index(chosen.to(inputs.device), sizes))
        width = given["weight"][0].numel()
        return columns.view(batch, groups, width, -1).permute(1, 0, 3, 2).reshape(groups, -1, width)

    def _some(self, count: int, most: int) -> Tensor | None:
        """Which of so many positions to take; None for all."""
        return None if count <= most else torch.randint(count, (most,), generator=self._generator)


def _columns(inputs: Tensor, given: Mapping[str, Any], places: tuple[Tensor, ...]) -> Tensor:
    """The patches a convolution multiplies with at some places.

    Not by `unfold`, which makes those at all places first: there may be a thousand times as many.

    Args:
        inputs: shape (batch, channels, *sides).
        given: the arguments of the convolution by name.
        places: in its output, a tensor of shape (P,) for each side.

    Returns:
        Shape (batch, channels, size of the kernel, P).
    """
    kernel = given["weight"].shape[2:]
    sides = len(kernel)
    stride, dilation = _each(given.get("stride", 1), sides), _each(given.get("dilation", 1), sides)
    padding = given.get("padding", 0)
    if padding == "same":
        whole = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        ends = [(total // 2, total - total // 2) for total in whole]
    else:
        ends = [(size, size) for size in _each(0 if padding == "valid" else padding, sides)]
    padded = F.pad(inputs, [size for pair in reversed(ends) for size in pair])
    within = torch.stack(
        torch.meshgrid(*[torch.arange(size, device=inputs.device) for size in kernel], indexing="ij")
    ).reshape(sides, -1, 1)
    index = [
        place * step + offset * wide
        for place, step, offset, wide in zip(places, stride, within, dilation, strict=True)
    ]
    return padded[(slice(None), slice(None), *index)]


def _each(value: Any, sides: int) -> tuple[int, ...]:
    """One number for each side, which torch takes as one for all, too."""
    given = (value,) if isinstance(value, int) else tuple(int(entry) for entry in value)
    return given * sides if len(given) == 1 else given
