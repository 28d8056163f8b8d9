"""Which tensors of a model a search changes, and why it leaves the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from dwindle import chains, settings
from dwindle.compression import why_exact
from dwindle.dtypes import SHAREABLE
from dwindle.prune.found import adopt_hooks, adopt_zeros
from dwindle.share.found import adopt_values
from dwindle.share.vectors import vectors

KNOWN = (
    nn.Linear,
    nn.Bilinear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
)
"""Layers whose weights are multiplied with what they are given, or looked up."""

NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)

MIN_ELEMENTS = 16
"""Smaller tensors are not worth a codebook."""

Tensors = Mapping[str, bool]
"""Whether a search may change tensors, by name, pattern and type (`settings.resolve`)."""


@dataclass(frozen=True)
class Targets:
    """What a search works on.

    Attributes:
        model: a copy of the user's, in which what somebody else pruned or shared has masks and codebooks.
        names: tensors to change, in the model's order.
        small: biases, scales and statistics of known layers, which are rounded.
        notes: one line for each tensor that is left as it is, or was found pruned or shared.
    """

    model: nn.Module
    names: tuple[str, ...]
    small: tuple[str, ...]
    notes: tuple[str, ...]


def choose(model: nn.Module, tensors: Tensors | None = None) -> Targets:
    """Copy a model and see what of it can be changed.

    Changed are the weights of `KNOWN` layers: float, of two or more dimensions and `MIN_ELEMENTS` or more
    elements, finite, without parametrizations of somebody else's. Weights of other modules are left exact
    unless they are named.

    Args:
        model: unchanged.
        tensors: True for what is to be changed though its module is not known, False for what is to be left.

    Raises:
        TensorError: if a key of `tensors` is no type and fits no tensor.
    """
    small = chains.duplicate(model)
    hooked = adopt_hooks(small)
    owners = {full: (module, name) for full, module, name in chains.named_tensors(small)}
    able = chains.weights(small)
    first = {id(chains.source(*owner)): name for name, owner in reversed(owners.items())}
    shapes = {name: chains.source(*owner).ndim for name, owner in owners.items()}
    wanted: Mapping[str, bool | None] = dict(tensors or {})
    found: dict[str, bool] = settings.resolve(wanted, shapes)
    asked = {first[id(chains.source(*owners[name]))]: value for name, value in found.items()}
    names, notes = [], []
    for name, owner in owners.items():
        reason = _why_left(name, owner, able, asked.get(name))
        if reason is None:
            names.append(name)
        elif reason:
            notes.append(f"{name}: kept exactly: {reason}")
    notes += [f"{name}: pruned before by torch.nn.utils.prune" for name in hooked if name in names]
    zeros = adopt_zeros(small, names)
    notes += [f"{name}: found pruned, {share:.0%} zeros" for name, share in zeros.items()]
    notes += [f"{name}: found shared, {n} values" for name, n in adopt_values(small, names).items()]
    left = {name for name, value in asked.items() if not value}
    known = [name for name, module in vectors(small) if isinstance(module, (*KNOWN, *NORMS))]
    return Targets(small, tuple(names), tuple(name for name in known if name not in left), tuple(notes))


def _why_left(
    name: str, owner: tuple[nn.Module, str], able: Mapping[str, object], asked: bool | None
) -> str | None:
    """Why a tensor is not changed, "" where that is not worth telling; None if it is changed."""
    module, attribute = owner
    tensor = chains.source(module, attribute)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if asked is False:
        return "as asked for"
    if name not in able:
        large = tensor.ndim > 1 and "bias" not in attribute
        return f"of dtype {dtype}" if large and dtype not in SHAREABLE else ""
    if tensor.numel() < MIN_ELEMENTS:
        return f"of {tensor.numel()} elements" if asked is None else None
    if not isinstance(module, KNOWN) and not asked:
        return f"{type(module).__name__} is no layer known to dwindle; tensors={{{name!r}: True}} adds it"
    return why_exact(module, attribute)
