"""The bridge between a model, parametrized or not, and records, both ways."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from dwindle import chains, dtypes
from dwindle.errors import CheckpointError, TensorError
from dwindle.file import Archive
from dwindle.io.torch_file import to_raw, to_tensor
from dwindle.prune import Mask, set_mask
from dwindle.records import MAX_ENTRIES, Raw, Record, Shared, Tied, distinct, index_dtype, resolve
from dwindle.share import Codebook, set_codebook


def to_records(model: nn.Module) -> dict[str, Record]:
    """What a model computes with, by the names its tensors would have without parametrizations.

    A tensor with a codebook becomes `Shared`, its mask applied. So does one with a mask alone, exactly, where
    its values fit a codebook. All others become `Raw`, and a second name of the same tensor `Tied`.
    Parametrizations of somebody else's are kept as the tensors they are made of. Tensors that `state_dict`
    would leave out (non-persistent buffers) are left out.

    Raises:
        TensorError: see `check`.
    """
    check(model)
    records: dict[str, Record] = {}
    owner: dict[int, str] = {}
    for name, tensor, make in _tensors(model):
        first = owner.setdefault(id(tensor), name)
        records[name] = Tied(first) if first != name else make()
    return records


def check(model: nn.Module) -> None:
    """Refuse a model that has no records, before anything is done to it.

    Raises:
        TensorError: if the model keeps something in its state that is not a tensor, or a tensor without data,
            that is not dense, or of a dtype that has no record.
    """
    for path, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            name = path or type(module).__name__
            raise TensorError(f"{name}: expected a module that keeps tensors only, got extra state")
    for name, tensor, _ in _tensors(model):
        dtype = str(tensor.dtype).removeprefix("torch.")
        if is_lazy(tensor) or tensor.is_meta or tensor.layout != torch.strided:
            got = "an uninitialized one" if is_lazy(tensor) else f"{tensor.layout} on {tensor.device}"
            raise TensorError(f"{name}: expected a dense tensor with data, got {got}")
        if dtype not in dtypes.STORAGE:
            raise TensorError(f"{name}: expected a dtype out of {', '.join(dtypes.STORAGE)}, got {dtype}")


def from_records(records: Mapping[str, Record]) -> dict[str, Tensor]:
    """A state dict; tied names share one tensor."""
    return _state_dict(records.items(), to_tensor)


def from_archive(archive: Archive) -> dict[str, Tensor]:
    """The state dict of a file, decoded by all threads; tensors stay where they are decoded.

    Raises:
        FileError: if it is damaged.
    """
    return _state_dict(archive.walk(), partial(to_tensor, adopt=True))


def _state_dict(
    records: Iterable[tuple[str, Record]], make: Callable[[Raw | Shared], Tensor]
) -> dict[str, Tensor]:
    found = {name: record if isinstance(record, Tied) else make(record) for name, record in records}
    made = {name: tensor for name, tensor in found.items() if not isinstance(tensor, Tied)}
    return {name: made[kept.to if isinstance(kept, Tied) else name] for name, kept in found.items()}


def load_records(model: nn.Module, records: Mapping[str, Record], source: str) -> None:
    """Put the values of records into a model without masks and codebooks, in place.

    Args:
        model: its parameters keep their dtype and device.
        records: one for every tensor of the model's state dict, no more; counters of batches
            (`num_batches_tracked`) may be missing, and stay as they are.
        source: where the records are from, for errors.

    Raises:
        CheckpointError: if names, shapes or kinds of dtypes do not match, or the model is pruned or shared.
    """
    for full, module, attribute in chains.named_tensors(model):
        if _is_own(module, attribute):
            raise CheckpointError(f"{source}: expected a model without masks and codebooks, got {full} with")
    expected = model.state_dict()
    # Batch normalization of before torch 0.4.1 did not count its batches; torch loads such states too.
    uncounted = {
        f"{path}.num_batches_tracked" if path else "num_batches_tracked"
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm)
    }
    expected = {name: tensor for name, tensor in expected.items() if name in records or name not in uncounted}
    for names, what in ((set(expected) - set(records), "lacks"), (set(records) - set(expected), "has also")):
        if names:
            raise CheckpointError(f"{source}: expected the model's tensors, but it {what} {sorted(names)[0]}")
    for name, tensor in expected.items():
        record = resolve(records, name)
        if not is_lazy(tensor) and tuple(tensor.shape) != record.shape:
            got = f"expected {list(tensor.shape)}, got {list(record.shape)}"
            raise CheckpointError(f"{source}: {name}: {got}")
        if not torch.can_cast(getattr(torch, record.dtype), tensor.dtype):
            raise CheckpointError(f"{source}: {name}: expected {tensor.dtype}, got {record.dtype}")
    model.load_state_dict(from_records(records))


def unparametrized(model: nn.Module) -> nn.Module:
    """A copy of a model in which what has masks and codebooks is an ordinary parameter of the same value.

    Such tensors that were tied are tied no more: two parameters of the same value. Parametrizations of
    somebody else's stay.
    """
    plain = copy.deepcopy(model)
    for module in list(plain.modules()):
        for name in chains.parametrized_names(module):
            if _is_own(module, name):
                chains.flatten(module, name)
    return plain


def attach(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a fresh model the masks and codebooks a saved state has, so that `load_state_dict` takes it.

    Args:
        model: of the class the state was saved from, without parametrizations; changed in place.
        state: what `state_dict` returned for a pruned or shared model; its values are not loaded here.

    Raises:
        CheckpointError: if the state has parametrizations that are not dwindle's.
    """
    # In the order of the state, which an optimizer's state goes by.
    for name in dict.fromkeys(_plain(key) for key in state if _plain(key) != key):
        path, _, attribute = name.rpartition(".")
        prefix = f"{path}.parametrizations.{attribute}." if path else f"parametrizations.{attribute}."
        link = 0
        while True:
            at = f"{prefix}{link}."
            if f"{at}mask" in state:
                set_mask(model, name, torch.ones_like(state[f"{at}mask"]))
            elif f"{at}centroids" in state:
                set_codebook(model, name, state[f"{at}centroids"], state[f"{at}indices"])
            else:
                break
            link += 1
        if not link or any(key.startswith(at) for key in state):
            raise CheckpointError(f"{name}: expected masks and codebooks, got another parametrization")


def _is_own(module: nn.Module, name: str) -> bool:
    """Whether a tensor is parametrized, and by masks and codebooks alone."""
    links = chains.chain(module, name)
    return bool(links) and all(isinstance(link, Mask | Codebook) for link in links)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, Callable[[], Raw | Shared]]]:
    """Name, tensor as the module holds it and a function that makes the record, of all that is stored."""
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if "parametrizations" in path.split("."):
            continue
        for name, tensor in sorted([*module._parameters.items(), *module._buffers.items()]):
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield prefix + name, tensor, partial(to_raw, tensor)
        for name in sorted(chains.parametrized_names(module)):
            if _is_own(module, name):
                full = prefix + name
                yield full, chains.source(module, name), partial(_parametrized, module, name, full)
                continue
            for key, tensor in chains.inner_state(module, name).items():
                yield f"{prefix}parametrizations.{name}.{key}", tensor, partial(to_raw, tensor)


def _parametrized(module: nn.Module, name: str, full: str) -> Raw | Shared:
    """The record of a tensor whose chain is dwindle's own."""
    links = chains.chain(module, name)
    last = max((at for at, link in enumerate(links) if isinstance(link, Codebook)), default=None)
    with torch.no_grad():
        weight = getattr(module, name).detach()
    if last is None:
        raw = to_raw(weight)
        return distinct(raw) or raw
    codebook = links[last]
    assert isinstance(codebook, Codebook)  # noqa: S101 (chosen for it)
    entries = torch.where(codebook.centroids == 0, 0.0, codebook.centroids).detach()
    record = to_raw(entries)
    values = np.frombuffer(record.data, dtypes.STORAGE[record.dtype])
    indices = codebook.indices.cpu().numpy().astype(index_dtype(len(values)))
    for link in links[last + 1 :]:
        if isinstance(link, Mask):
            values, indices = _masked(values, indices, link.mask.cpu().numpy().reshape(-1), full)
    return Shared(record.dtype, tuple(weight.shape), values, indices)


def _masked(
    values: NDArray[Any], indices: NDArray[Any], mask: NDArray[np.bool_], name: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Send what a mask removes to an entry of zero, made if there is none."""
    if mask.all():
        return values, indices
    zeros = np.flatnonzero(values.view(f"u{values.itemsize}") == 0)
    if not len(zeros):
        if len(values) == MAX_ENTRIES:
            raise TensorError(f"{name}: expected at most {MAX_ENTRIES} values, zero included, got one more")
        values = np.concatenate([np.zeros(1, values.dtype), values])
        indices = indices.astype(index_dtype(len(values))) + indices.dtype.type(1)
        zeros = np.zeros(1, np.int64)
    return values, np.where(mask, indices, index_dtype(len(values)).type(zeros[0]))


def _plain(key: str) -> str:
    """The name of a tensor without its parametrizations: the key itself where it has none."""
    parts = key.split(".")
    if "parametrizations" not in parts:
        return key
    at = parts.index("parametrizations")
    return ".".join([*parts[:at], parts[at + 1]])
