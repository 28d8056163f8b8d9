"""Second moments of what goes into each weight, and of the gradients that come back to it.

Layers are recognised where torch computes them, by the weight they are given: so layers of somebody else's,
with padding or shapes of their own, shared and tied ones are all seen.
"""

from __future__ import annotations

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

_CONVOLUTIONS = (torch.conv1d, torch.conv2d)
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
            convolution of one or two dimensions are never seen.
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
        rows = self._rows(inputs, width, most) if linear else self._patches(inputs, given, groups, most)
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

    def _patches(self, inputs: Tensor, given: Mapping[str, Any], groups: int, most: int) -> Tensor:
        """What outputs of a convolution are computed from, at most so many, shape (G, positions, J)."""
        columns = _columns(inputs, given)
        batch, rows, places = columns.shape
        # Chosen before they are copied: there may be ten thousand times as many.
        chosen = self._some(places, -(-most // batch))
        if chosen is not None:
            columns = columns[:, :, chosen.to(columns.device)]
        width = rows // groups
        return columns.view(batch, groups, width, -1).permute(1, 0, 3, 2).reshape(groups, -1, width)

    def _some(self, count: int, most: int) -> Tensor | None:
        """Which of so many positions to take; None for all."""
        return None if count <= most else torch.randint(count, (most,), generator=self._generator)


def _columns(inputs: Tensor, given: Mapping[str, Any]) -> Tensor:
    """The patches a convolution multiplies with, shape (batch, channels times kernel, places)."""
    weight = given["weight"]
    sides = weight.ndim - 2
    stride, dilation = _each(given.get("stride", 1), sides), _each(given.get("dilation", 1), sides)
    padding, kernel = given.get("padding", 0), tuple(weight.shape[2:])
    if inputs.ndim == sides + 1:
        inputs = inputs[None]
    if padding == "same":
        whole = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        ends = [end for total in reversed(whole) for end in (total // 2, total - total // 2)]
        inputs, padding = F.pad(inputs, ends), 0
    padding = _each(0 if padding == "valid" else padding, sides)
    if set(kernel) == set(stride) == {1} and not any(padding):
        return inputs.flatten(2)
    if sides == 1:
        inputs = inputs[:, :, None]
        kernel, stride, dilation, padding = (1, *kernel), (1, *stride), (1, *dilation), (0, *padding)
    return F.unfold(inputs, kernel, dilation, padding, stride)


def _each(value: Any, sides: int) -> tuple[int, ...]:
    """One number for each side, which torch takes as one for all, too."""
    given = (value,) if isinstance(value, int) else tuple(int(entry) for entry in value)
    return given * sides if len(given) == 1 else given
