"""One call from a model or a checkpoint to a verified file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dwindle import atomic, bind, dtypes, settings
from dwindle.code.plan import Coding
from dwindle.file import Archive, Ledger, ledger, write
from dwindle.file.reader import default_threads
from dwindle.io import read_checkpoint
from dwindle.prune import by_sparsity, prunable, prune
from dwindle.records import Raw, Record, Shared, elements, to_storage
from dwindle.share import assign_layer, get_codebook, sharable, share
from dwindle.share.apply import LAYER_TYPES
from dwindle.share.kmeans import Init

BITS = 8
MIN_ELEMENTS = 4096
"""Without being asked, float tensors of two or more dimensions and at least so many elements are shared."""

T = TypeVar("T")
Evaluate = Callable[[nn.Module], float]
"""A model's score, higher is better."""

Train = Callable[[nn.Module], None]
"""One pass of training, in place, its optimizer built from the model it is given."""


@dataclass(frozen=True)
class Result:
    """What a compression made.

    Attributes:
        path: the file, read back and found equal to what went in.
        ledger: where its bytes go.
        notes: one line for each tensor that was to be compressed and is kept exactly, and why.
        skipped: what a checkpoint held besides tensors, and is not in the file.
        model: the compressed model in memory, None where there was only a checkpoint.
        reference_score: what `evaluate` said of the model before.
        score: what `evaluate` said of the model as it is read from the file.
    """

    path: Path
    ledger: Ledger
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    model: nn.Module | None = field(default=None, repr=False)
    reference_score: float | None = None
    score: float | None = None

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.ledger.file_size

    @property
    def rate(self) -> float:
        """Bytes of the model's parameters and buffers over bytes of the whole file."""
        return self.ledger.rate


def compress(
    model: nn.Module,
    path: Path | str,
    *,
    sparsity: float | Mapping[str, float | None] | None = None,
    bits: int | Mapping[str, int | None] | None = BITS,
    init: Init = "linear",
    coding: Coding | None = None,
    train: Train | None = None,
    evaluate: Evaluate | None = None,
    min_elements: int = MIN_ELEMENTS,
    seed: int = 0,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
) -> Result:
    """Prune, share and code a copy of a model, write it, and prove that the file holds it.

    Masks and codebooks the model has already are kept as they are; only what has no codebook yet is shared.
    Weights with NaN or infinite values are kept exactly, and noted.

    Args:
        model: unchanged.
        path: the file to write.
        sparsity: sparsity, for all prunable tensors or by name; None prunes nothing.
        bits: width of an index, for all tensors or by name and layer type (`share.share`); None shares
            nothing.
        init: start of k-means.
        coding: how indices and gaps are coded; Huffman codes per layer by default.
        train: called with the copy once after pruning and once after sharing.
        evaluate: called with the model, and with the model as read back from the file.
        min_elements: smaller tensors are shared only where `bits` names them.
        seed: of what is random in k-means.
        metadata: free text to keep in the file.
        force: replace an existing file.

    Raises:
        OutputError: if `path` exists without `force` or cannot be written.
        TensorError: if a name is no tensor's, or the model holds what has no record.
        VerificationError: if the file does not decode to what went in.
    """
    path = Path(path)
    atomic.check_output(path, force=force)
    reference_score = None if evaluate is None else evaluate(model)
    small = copy.deepcopy(model)
    broken = _broken(small)
    if sparsity is not None:
        by_name = sparsity if isinstance(sparsity, Mapping) else dict.fromkeys(prunable(small), sparsity)
        prune(small, sparsity={name: None if name in broken else value for name, value in by_name.items()})
        if train is not None:
            train(small)
    if bits is not None:
        todo = _without_codebook(small, bits, broken)
        share(small, bits=todo, init=init, seed=seed, min_elements=min_elements)
        if train is not None:
            train(small)
    write(path, bind.to_records(small), coding=coding, metadata=metadata, force=force)
    with Archive(path, max_bytes=None) as archive:
        book = ledger(archive)
        score = None
        if evaluate is not None:
            loaded = bind.unparametrized(small)
            bind.load_records(loaded, {name: archive.record(name) for name in archive}, str(path))
            score = evaluate(loaded)
    notes = tuple(f"{name}: kept exactly: {why}" for name, why in broken.items())
    return Result(path, book, notes, (), small, reference_score, score)


def compress_checkpoint(
    source: Path | str,
    path: Path | str,
    *,
    key: str | None = None,
    sparsity: float | Mapping[str, float | None] | None = None,
    bits: int | Mapping[str, int | None] | None = BITS,
    init: Init = "linear",
    coding: Coding | None = None,
    min_elements: int = MIN_ELEMENTS,
    seed: int = 0,
    force: bool = False,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Prune, share and code a checkpoint without its model's code.

    All tensors are written. Those pruned and shared are float tensors of two or more dimensions and at least
    `min_elements` elements, and those named in full; weights with NaN or infinite values are kept exactly,
    and noted.

    Args:
        source: what `io.read_checkpoint` reads.
        path: the file to write.
        key: where a nested state dict is.
        sparsity: sparsity, for all those tensors or by name, pattern and type (`settings.resolve`).
        bits: width of an index, likewise; None shares nothing.
        init: start of k-means.
        coding: how indices and gaps are coded.
        min_elements: see above.
        seed: of what is random in k-means.
        force: replace an existing file.
        threads: tensors worked on at once, all processors by default.
        progress: called with the name of each tensor done.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        OutputError: if `path` exists without `force`, is the source, or cannot be written.
        TensorError: if a key of `sparsity` or `bits` fits no tensor.
        VerificationError: if the file does not decode to what went in.
    """
    source, path = Path(source), Path(path)
    atomic.check_output(path, force=force, inputs=(source,))
    checkpoint = read_checkpoint(source, key=key)
    able = {
        name: len(record.shape)
        for name, record in checkpoint.records.items()
        if isinstance(record, Raw) and record.dtype in dtypes.SHAREABLE
    }
    sizes = {name: elements(record) for name, record in checkpoint.records.items() if isinstance(record, Raw)}
    usual = {name for name, dimensions in able.items() if dimensions > 1 and sizes[name] >= min_elements}

    def chosen(setting: T | Mapping[str, T | None] | None) -> dict[str, T]:
        if setting is None:
            return {}
        named = set(setting) if isinstance(setting, Mapping) else set()
        found = settings.resolve(setting, able)
        return {name: value for name, value in found.items() if name in usual | named}

    shares, widths = chosen(sparsity), chosen(bits)
    notes: dict[str, str] = {}

    def work(name: str) -> Record:
        record: Record = checkpoint.records[name]
        if isinstance(record, Raw) and (name in shares or name in widths):
            why = _not_finite(record)
            if why:
                notes[name] = f"{name}: kept exactly: {why}"
            else:
                record = _shrink(name, record, shares.get(name), widths.get(name), init, seed)
        if progress is not None:
            progress(name)
        return record

    with ThreadPoolExecutor(threads or default_threads()) as pool:
        made = dict(zip(checkpoint.records, pool.map(work, checkpoint.records), strict=True))
    write(path, made, coding=coding, metadata=checkpoint.metadata, force=force, threads=threads)
    with Archive(path, max_bytes=None) as archive:
        book = ledger(archive)
    return Result(path, book, tuple(notes[name] for name in made if name in notes), checkpoint.skipped)


def _broken(model: nn.Module) -> dict[str, str]:
    """Tensors that would be shared but hold NaN or infinite weights, and how many."""
    found = {}
    for name, (module, attribute) in sharable(model).items():
        with torch.no_grad():
            finite = torch.isfinite(getattr(module, attribute))
        bad = finite.numel() - int(finite.count_nonzero())
        if bad:
            found[name] = _why(bad, finite.numel())
    return found


def _without_codebook(
    model: nn.Module, bits: int | Mapping[str, int | None], broken: Mapping[str, str]
) -> Mapping[str, int | None]:
    """The setting, less the tensors that have a codebook already and those that cannot have one."""
    by_key: dict[str, int | None] = (
        dict(bits) if isinstance(bits, Mapping) else dict.fromkeys(LAYER_TYPES, bits)
    )
    for name, owner in sharable(model).items():
        if name in broken or get_codebook(*owner) is not None:
            by_key[name] = None
    return by_key


def _shrink(
    name: str, record: Raw, sparsity: float | None, bits: int | None, init: Init, seed: int
) -> Raw | Shared:
    """Prune and share one tensor of a checkpoint."""
    weights = dtypes.to_float(to_storage(record), record.dtype)
    if sparsity is not None:
        kept = by_sparsity(_read_only(weights), sparsity, name=name).numpy()
        weights = np.where(kept, weights, weights.dtype.type(0))
    if bits is None:
        return Raw(record.dtype, record.shape, dtypes.from_float(weights, record.dtype).tobytes())
    codebook, indices = assign_layer(weights, bits, init=init, seed=seed, dtype=record.dtype)
    return Shared(record.dtype, record.shape, dtypes.from_float(codebook, record.dtype), indices)


class _Writable:
    """Says of an array that it may be written to, for torch, which has no tensors that may not."""

    def __init__(self, array: NDArray[Any]) -> None:
        address, _ = array.__array_interface__["data"]
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def _read_only(weights: NDArray[Any]) -> torch.Tensor:
    """A tensor over an array that will only be read, be it mapped memory."""
    return torch.from_numpy(np.asarray(_Writable(weights)))


def _not_finite(record: Raw) -> str | None:
    """What keeps a tensor from having an order of magnitudes."""
    values = dtypes.to_float(to_storage(record), record.dtype)
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    return _why(bad, values.size) if bad else None


def _why(bad: int, weights: int) -> str:
    return f"{bad} of {weights} weights are NaN or infinite"
