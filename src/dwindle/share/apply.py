"""Sharing a model's weights in place, and the report of what was shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dwindle import chains
from dwindle.dtypes import SHAREABLE
from dwindle.errors import TensorError
from dwindle.records import MAX_ENTRIES
from dwindle.share.allocate import allocate
from dwindle.share.binned import LEAST
from dwindle.share.codebook import set_codebook
from dwindle.share.entropy import entropy_constrained as cluster
from dwindle.share.layer import assign_layer, squared_error
from dwindle.share.levels import Signal, from_levels, to_levels
from dwindle.share.starts import Init
from dwindle.share.trellis import path_step, to_path

LAYER_TYPES: dict[str, tuple[type[nn.Module], ...]] = {
    "conv": (
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose1d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
    ),
    "linear": (nn.Linear, nn.Bilinear, nn.MultiheadAttention),
    "other": (nn.Module,),
}
"""Words for types of layers; the first that fits counts."""

PAPER_BITS: Mapping[str, int | None] = {"conv": 8, "linear": 5, "other": 8}
"""Bits of Han et al. 2016, section 3: 8 for convolutions, 5 for fully connected layers; 8 for others."""

Bits = int | Mapping[str, int | None]
"""Bits for all tensors; or bits by layer type and by tensor name, where the name counts more. What is not
named, or None, is left alone."""


@dataclass(frozen=True)
class SharedTensor:
    """How one tensor was shared.

    Attributes:
        name: full name, "fc1.weight".
        bits: width of an index that was asked for.
        elements: number of weights.
        survivors: weights that are not zero.
        entries: codebook entries, zero's included.
        mse: mean squared error over all weights that sharing caused.
    """

    name: str
    bits: int
    elements: int
    survivors: int
    entries: int
    mse: float


@dataclass(frozen=True)
class ShareReport:
    """What one call of `share` did, one row for each tensor shared, in the model's order."""

    tensors: tuple[SharedTensor, ...]

    @property
    def elements(self) -> int:
        """Number of weights shared."""
        return sum(row.elements for row in self.tensors)

    @property
    def mse(self) -> float:
        """Mean squared error over all weights shared; 0 where there are none."""
        return sum(row.mse * row.elements for row in self.tensors) / self.elements if self.elements else 0.0

    def to_json(self) -> dict[str, Any]:
        """The report as plain dicts, lists and numbers."""
        return {
            "elements": self.elements,
            "mse": self.mse,
            "tensors": [asdict(row) for row in self.tensors],
        }


def sharable(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """The weights of a model that are shared unless something else is asked for: those of `chains.weights`.

    Returns:
        (owner, attribute) by full tensor name, in the model's order.
    """
    return chains.weights(model)


def share(
    model: nn.Module,
    *,
    bits: Bits = PAPER_BITS,
    budget: float | None = None,
    init: Init = "linear",
    seed: int = 0,
    min_elements: int = 1,
    sensitivity: Mapping[str, torch.Tensor] | None = None,
) -> ShareReport:
    """Let the weights of each tensor share a few values, in place.

    Zeros stay zeros, and the values can be trained on: the gradient of each is summed over its weights. A
    tensor that is shared already gets a new codebook. An error leaves the model as it was.

    Args:
        model: any module; `sharable` says which of its tensors are considered, and one named in `bits` always
            is.
        bits: width of an index, 1 to 16: at most 2 ** bits values in a tensor, zero included where there are
            zeros.
        budget: bytes for all indices and codebooks, estimated by entropy; bits then only say which tensors,
            and 1 to 8 bits are chosen for each so that the squared error is least.
        init: "linear", "density", "forgy" or "optimal"; see `kmeans.kmeans`.
        seed: of "forgy".
        min_elements: leave smaller tensors alone unless they are named in `bits`.
        sensitivity: what a squared error in each weight costs, by tensor name, in the tensor's shape, 0 or
            more; it moves values to where it is great, whatever `init` says (`calibrate.Measured`, or squared
            gradients), and a budget's bits to tensors where its mean is. Tensors not named get plain k-means,
            and bits as for a mean one.

    Returns:
        What was shared.

    Raises:
        TensorError: if a key of `bits` is neither a layer type nor a tensor that can be shared, or a tensor
            to share holds NaN or infinite weights.
        ValueError: if bits are out of range, or the budget too small.

    Han et al. 2016, section 3.
    """
    chosen = bits_by_tensor(model, bits, min_elements)
    owners = {full: (module, name) for full, module, name in chains.named_tensors(model)}
    for name in sensitivity or {}:
        if name not in owners:
            raise chains.unknown(name, owners)
    known = {name: found.detach().float().cpu().numpy() for name, found in (sensitivity or {}).items()}
    if budget is not None:
        weights = {name: array_of(*owners[name]) for name in chosen}
        importance = _importance({name: known[name] for name in chosen if name in known})
        chosen = allocate(weights, budget, importance=importance, init=init, seed=seed)
    books, rows = [], []
    for name, width in chosen.items():
        array = array_of(*owners[name])
        dtype = _dtype(chains.source(*owners[name]))
        try:
            codebook, indices = assign_layer(
                array, width, init=init, seed=seed, dtype=dtype, sensitivity=known.get(name)
            )
        except TensorError as error:
            raise TensorError(f"{name}: {error}") from error
        books.append((name, torch.from_numpy(codebook), torch.from_numpy(indices)))
        mse = squared_error(array, codebook, indices) / max(array.size, 1)
        alive = int(np.count_nonzero(array))
        rows.append(SharedTensor(name, width, array.size, alive, len(codebook), mse))
    for name, values, places in books:
        set_codebook(model, name, values, places)
    return ShareReport(tuple(rows))


def share_levels(
    model: nn.Module,
    steps: Mapping[str, float],
    *,
    entropy_constrained: bool = False,
    trellis: bool = False,
) -> None:
    """Let the weights of tensors take whole multiples of a step, in place: a codebook of all of them.

    Zeros stay zeros. A codebook that a tensor has already is replaced. An error leaves the model as it was.

    Args:
        model: any module.
        steps: the step of each tensor to share, by full name (`levels.step_sizes`).
        entropy_constrained: where that is cheaper, take clusters for the bytes after entropy coding instead,
            a bit as dear as in these levels (`entropy.entropy_constrained`).
        trellis: let levels follow a trellis where that suits a tensor, with steps that make it as good
            (`share.trellis`). Coded along it they take fewer bytes, and by other codes more.

    Raises:
        TensorError: if a name is no tensor's, or a tensor holds NaN or infinite weights, or is more than
            65,535 steps wide.
    """
    owners = {full: (module, name) for full, module, name in chains.named_tensors(model)}
    books = []
    for name, step in steps.items():
        if name not in owners:
            raise chains.unknown(name, owners)
        array = array_of(*owners[name])
        # A NaN fails both.
        if array.size and not float(np.abs(array).max()) <= step * (MAX_ENTRIES // 2 - 1):
            raise TensorError(f"{name}: expected finite weights under {MAX_ENTRIES // 2 - 1} steps of {step}")
        dtype = _dtype(chains.source(*owners[name]))
        if entropy_constrained:
            values, places = cluster(array, step, dtype)
        else:
            values, places = nearest_levels(array, step, dtype, trellis=trellis)
        books.append((name, torch.from_numpy(values), torch.from_numpy(places)))
    for name, centroids, indices in books:
        set_codebook(model, name, centroids, indices)


def nearest_levels(
    array: NDArray[Any], step: float, dtype: str, *, trellis: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights as levels of a step, or along a trellis of one that is as good; see `levels.from_levels`."""
    finer = path_step(array.shape, Signal.of(array), step) if trellis else None
    if finer is None:
        return from_levels(to_levels(array, step), step, dtype)
    return from_levels(to_path(array, finer), finer, dtype)


def bits_by_tensor(model: nn.Module, bits: Bits, min_elements: int = 1) -> dict[str, int]:
    """Which tensors `share` would share, and with how many bits.

    Args:
        model: any module.
        bits: see `share`.
        min_elements: see `share`.

    Returns:
        Bits by the first name of each tensor, in the model's order.

    Raises:
        TensorError: if a key of `bits` is neither a layer type nor a tensor that can be shared.
        ValueError: if bits are out of range.
    """
    tensors = sharable(model)
    by_key = dict.fromkeys(LAYER_TYPES, bits) if isinstance(bits, int) else dict(bits)
    named = {key: value for key, value in by_key.items() if key not in LAYER_TYPES}
    owners = {full: (module, name) for full, module, name in chains.named_tensors(model)}
    first = {id(chains.source(*owner)): full for full, owner in reversed(list(owners.items()))}
    chosen: dict[str, int | None] = {}
    for name, (module, attribute) in tensors.items():
        if chains.source(module, attribute).numel() >= min_elements:
            chosen[name] = by_key.get(_layer_type(module))
    for name, value in named.items():
        if name not in owners:
            raise chains.unknown(name, [*LAYER_TYPES, *tensors], "layer type or tensor")
        if _dtype(chains.source(*owners[name])) not in SHAREABLE:
            got = _dtype(chains.source(*owners[name]))
            raise TensorError(f"{name}: expected a tensor of {', '.join(SHAREABLE)}, got {got}")
        chosen[first[id(chains.source(*owners[name]))]] = value
    for name, width in chosen.items():
        if width is not None and not 1 <= width <= 16:
            raise ValueError(f"{name}: expected 1 to 16 bits, got {width}")
    return {name: width for name in owners if (width := chosen.get(name)) is not None}


def _importance(sensitivity: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Of each tensor the mean, relative to that of all; none is free."""
    means = {name: float(known.mean(dtype=np.float64)) for name, known in sensitivity.items() if known.size}
    typical = sum(means.values()) / max(len(means), 1)
    return {name: max(mean / typical, LEAST) for name, mean in means.items()} if typical > 0 else {}


def _layer_type(module: nn.Module) -> str:
    return next(word for word, types in LAYER_TYPES.items() if isinstance(module, types))


def array_of(module: nn.Module, name: str) -> NDArray[Any]:
    """The effective weight on the CPU, as float32, or float64 where it is that."""
    weight = chains.effective(module, name).cpu()
    array: NDArray[Any] = (weight if weight.dtype == torch.float64 else weight.float()).numpy()
    return array


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
