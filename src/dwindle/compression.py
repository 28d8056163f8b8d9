"""One call from a model or a checkpoint to a verified file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dwindle import atomic, bind, chains, dtypes, settings
from dwindle.code.plan import Coding
from dwindle.errors import CheckpointError, TensorError, shown
from dwindle.file import Archive, Ledger, ledger, write
from dwindle.file.reader import default_threads
from dwindle.file.writer import check_metadata
from dwindle.io import read_checkpoint
from dwindle.io.torch_file import to_raw
from dwindle.prune import Mask, by_sparsity, prune
from dwindle.prune.apply import by_tensor
from dwindle.records import Raw, Record, Shared, Tied, distinct, elements, to_storage
from dwindle.share import Codebook, assign_layer, get_codebook, share
from dwindle.share.apply import bits_by_tensor
from dwindle.share.kmeans import Init
from dwindle.share.sorted import LARGEST

BITS = 8
MIN_ELEMENTS = 4096
"""Without being asked, float tensors of two or more dimensions and at least so many elements are shared."""

T = TypeVar("T")
Evaluate = Callable[[nn.Module], float]
"""A model's score, higher is better."""

Train = Callable[[nn.Module], None]
"""One pass of training, in place, its optimizer built from the model it is given."""


@dataclass(frozen=True)
class Step:
    """A file that a search tried.

    Attributes:
        setting: what it was made with, such as `survivors` and `bits`.
        size: bytes of the file.
        score: what `evaluate` said of the model as read from it; None if it was not asked.
        holds: whether it keeps to what was asked for.
        passes: passes of training that had gone into it.
    """

    setting: Mapping[str, float]
    size: int
    score: float | None
    holds: bool
    passes: int = 0


@dataclass(frozen=True)
class Result:
    """What a compression made.

    Attributes:
        path: the file, read back and found equal to what went in.
        ledger: where its bytes go.
        notes: one line for each tensor that was to be compressed and is kept exactly, and why.
        skipped: what a checkpoint held that is no tensor of the file.
        model: the compressed model in memory, None where there was only a checkpoint.
        reference_score: what `evaluate` said of the model before.
        score: what `evaluate` said of the model as it is read from the file.
        kept: those of `skipped` that the file holds all the same, to write the checkpoint again.
        steps: what a search tried, in order.
        evaluations: how often a search called `evaluate`.
        passes: how often it called `train`.
    """

    path: Path
    ledger: Ledger
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    model: nn.Module | None = field(default=None, repr=False)
    reference_score: float | None = None
    score: float | None = None
    kept: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    evaluations: int = 0
    passes: int = 0

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
    lossless: bool = False,
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
    Tensors with NaN, infinite or huge (over 1e150) values, and those with parametrizations of somebody
    else's, are kept exactly, and noted.

    Args:
        model: unchanged.
        path: the file to write.
        sparsity: sparsity, for all prunable tensors, or by name, pattern and type (`settings.resolve`); None
            prunes nothing.
        bits: width of an index, for all tensors or by name and layer type (`share.share`); None shares
            nothing.
        init: start of k-means.
        lossless: change nothing, whatever `sparsity` and `bits` say: every tensor comes back to the bit.
        coding: how indices and gaps are coded; for each tensor what is smallest by default.
        train: called with the copy once after pruning and once after sharing.
        evaluate: called with the model, and with the model as read back from the file.
        min_elements: smaller tensors are left exact by a setting for all tensors.
        seed: of what is random in k-means.
        metadata: free text to keep in the file.
        force: replace an existing file.

    Raises:
        OutputError: if `path` exists without `force` or cannot be written.
        TensorError: if a name is no tensor's, or the model holds what has no record.
        TypeError: if metadata is anything but text.
        VerificationError: if the file does not decode to what went in.
    """
    path = Path(path)
    atomic.check_output(path, force=force)
    check_metadata(metadata or {})
    bind.check(model)
    if lossless:
        sparsity = bits = None
    small = copy.deepcopy(model)
    shares = {} if sparsity is None else by_tensor(small, _targets(small, sparsity, min_elements))
    # What a key asks for is done whatever its size.
    least = 1 if isinstance(bits, Mapping) else min_elements
    widths = {} if bits is None else bits_by_tensor(small, bits, least)
    owners = {name: (module, attribute) for name, module, attribute in chains.named_tensors(small)}
    reasons = {name: why_exact(*owner) for name, owner in owners.items() if name in shares or name in widths}
    exact = {name: reason for name, reason in reasons.items() if reason}
    reference_score = None if evaluate is None else evaluate(model)
    if sparsity is not None:
        prune(small, sparsity={name: share for name, share in shares.items() if name not in exact})
        if train is not None:
            train(small)
    if bits is not None:
        unshared = {name for name in widths if name not in exact and get_codebook(*owners[name]) is None}
        share(small, bits={name: widths[name] for name in unshared}, init=init, seed=seed)
        if train is not None:
            train(small)
    write(path, bind.to_records(small), coding=coding, metadata=metadata, force=force)
    with Archive(path, max_bytes=None) as archive:
        book = ledger(archive)
        score = None if evaluate is None else evaluate(read_back(small, archive, str(path)))
    notes = tuple(f"{name}: kept exactly: {reason}" for name, reason in exact.items())
    return Result(path, book, notes, (), small, reference_score, score)


def read_back(model: nn.Module, archive: Archive, source: str) -> nn.Module:
    """A model with the values a file has, without masks and codebooks.

    Args:
        model: what the file was written from; not changed.
        archive: the file, opened.
        source: its name, for errors.
    """
    loaded = bind.unparametrized(model)
    bind.load_records(loaded, {name: archive.record(name) for name in archive}, source)
    return loaded


def compress_checkpoint(
    source: Path | str,
    path: Path | str,
    *,
    key: str | None = None,
    layers: Path | str | None = None,
    base: Path | str | None = None,
    sparsity: float | Mapping[str, float | None] | None = None,
    bits: int | Mapping[str, int | None] | None = BITS,
    init: Init = "linear",
    lossless: bool = False,
    codebook: str | None = None,
    coding: Coding | None = None,
    min_elements: int = MIN_ELEMENTS,
    seed: int = 0,
    force: bool = False,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Prune, share and code a checkpoint without its model's code.

    All tensors are written. Those pruned and shared are float tensors of two or more dimensions: with one
    setting for all, those of at least `min_elements` elements, else those a key fits. Tensors with NaN,
    infinite or huge (over 1e150) values are kept exactly, and noted. One that is pruned and not shared keeps
    its survivors to the bit.

    Args:
        source: what `io.read_checkpoint` reads.
        path: the file to write.
        key: where a nested state dict is.
        layers: for a .net file, the network's prototxt.
        base: a checkpoint whose tensors exact ones are stored as differences from; who reads the file needs
        it
            too.
        sparsity: sparsity, for all those tensors or by name, pattern and type (`settings.resolve`).
        bits: width of an index, likewise; None shares nothing.
        init: start of k-means.
        lossless: change nothing, whatever `sparsity` and `bits` say. Tensors are then read and written one
        after
            the other: memory does not grow with the checkpoint.
        codebook: "float16" or "bfloat16": round the entries of codebooks to that type, which about halves
        their
            bytes; the tensors keep their own dtype.
        coding: how indices and gaps are coded.
        min_elements: see above.
        seed: of what is random in k-means.
        force: replace an existing file.
        threads: tensors worked on at once, all processors by default.
        progress: called with the name of each tensor done.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        OutputError: if `path` exists without `force`, is the source, or cannot be written.
        TensorError: if a key of `sparsity` or `bits` fits no tensor, or one to prune and not to share has
            more than 65,535 survivors.
        VerificationError: if the file does not decode to what went in.
    """
    source, path = Path(source), Path(path)
    shards = tuple(source.glob("*.safetensors*")) if source.is_dir() else ()
    atomic.check_output(path, force=force, inputs=(source, *shards))
    checkpoint = read_checkpoint(source, key=key, layers=None if layers is None else Path(layers))
    _check_plain(source, checkpoint.records)
    before = None if base is None else read_checkpoint(base).records
    if lossless:
        sparsity = bits = None
    shares = _chosen(sparsity, checkpoint.records, min_elements)
    widths = _chosen(bits, checkpoint.records, min_elements)
    notes: dict[str, str] = {}

    def work(name: str) -> Record:
        record: Record = checkpoint.records[name]
        if isinstance(record, Raw) and (name in shares or name in widths):
            reason = _out_of_range(record)
            if reason:
                notes[name] = f"{name}: kept exactly: {reason}"
            else:
                record = _shrink(name, record, shares.get(name), widths.get(name), init, seed)
                record = _rounded(record, codebook)
        if progress is not None:
            progress(name)
        return record

    made: Mapping[str, Record] = checkpoint.records
    if shares or widths:
        with ThreadPoolExecutor(threads or default_threads()) as pool:
            made = dict(zip(checkpoint.records, pool.map(work, checkpoint.records), strict=True))
    write(
        path,
        made,
        coding=coding,
        metadata=checkpoint.metadata,
        base=before,
        extras=checkpoint.extras,
        force=force,
        threads=threads,
    )
    with Archive(path, max_bytes=None, base=before) as archive:
        book = ledger(archive)
    noted = tuple(notes[name] for name in made if name in notes)
    return Result(path, book, noted, checkpoint.skipped, kept=checkpoint.kept)


def _rounded(record: Record, codebook: str | None) -> Record:
    """A shared tensor with the entries of its codebook rounded to a shorter type."""
    if codebook is None or not isinstance(record, Shared):
        return record
    values = dtypes.to_float(
        dtypes.from_float(dtypes.to_float(record.codebook, record.dtype), codebook), codebook
    )
    return replace(record, codebook=dtypes.from_float(values.astype(np.float64), record.dtype).copy())


def _targets(
    model: nn.Module, sparsity: float | Mapping[str, float | None], min_elements: int
) -> dict[str, float]:
    """The sparsity for each tensor of a model that a setting applies to."""
    weights = {name: chains.source(*owner) for name, owner in chains.weights(model).items()}
    if not isinstance(sparsity, Mapping):
        return {name: sparsity for name, weight in weights.items() if weight.numel() >= min_elements}
    dimensions = {name: weight.ndim for name, weight in weights.items()}
    for name, module, attribute in chains.named_tensors(model):
        if name in sparsity:
            dimensions[name] = chains.source(module, attribute).ndim
    return settings.resolve(sparsity, dimensions)


def why_exact(module: nn.Module, name: str) -> str | None:
    """What keeps a tensor of a model from being pruned and shared."""
    for link in chains.chain(module, name):
        # Its own tensors are what has to be in the file; and computing the weight may change them.
        if not isinstance(link, Mask | Codebook):
            return f"parametrized by {type(link).__name__}"
    return _out_of_range(to_raw(chains.effective(module, name)))


def _check_plain(source: Path, records: Mapping[str, Record]) -> None:
    """Refuse the state of a model with masks or codebooks, whose tensors are not what it computes with.

    Names that a file has for what is no tensor are refused too.
    """
    for name in records:
        if name.startswith("\0"):
            raise CheckpointError(f"{source}: {shown(name)}: expected a name that does not begin with NUL")
        _, found, link = name.partition("parametrizations.")
        if found and link.endswith((".mask", ".centroids")):
            raise CheckpointError(
                f"{source}: {shown(name)}: expected plain tensors, got the state of a pruned or shared "
                "model; dwindle.compress(model, path) takes the model itself"
            )


def _chosen(
    setting: T | Mapping[str, T | None] | None, records: Mapping[str, Record], min_elements: int
) -> dict[str, T]:
    """The value of a setting for each tensor of a checkpoint it applies to."""
    if setting is None:
        return {}
    able = {
        name: record
        for name, record in records.items()
        if isinstance(record, Raw) and record.dtype in dtypes.SHAREABLE
    }
    named: set[str] = set()
    if isinstance(setting, Mapping):
        ties = {name: record.to for name, record in records.items() if isinstance(record, Tied)}
        setting = {ties.get(key, key): value for key, value in setting.items()}
        named = set(setting)
    found = settings.resolve(setting, {name: len(record.shape) for name, record in able.items()})
    return {
        name: value
        for name, value in found.items()
        if name in named or (len(able[name].shape) > 1 and (named or elements(able[name]) >= min_elements))
    }


def _shrink(
    name: str, record: Raw, sparsity: float | None, bits: int | None, init: Init, seed: int
) -> Raw | Shared:
    """Prune and share one tensor of a checkpoint."""
    weights = dtypes.to_float(to_storage(record), record.dtype)
    kept = None if sparsity is None else by_sparsity(_read_only(weights), sparsity, name=name).numpy()
    if bits is None:
        weights = weights if kept is None else np.where(kept, weights, weights.dtype.type(0))
        pruned = Raw(record.dtype, record.shape, dtypes.from_float(weights, record.dtype).tobytes())
        small = distinct(pruned)
        if small is None:
            raise TensorError(f"{name}: expected bits for a pruned tensor of so many values, got none")
        return small
    codebook, indices = assign_layer(weights, bits, kept=kept, init=init, seed=seed, dtype=record.dtype)
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


def _out_of_range(record: Raw) -> str | None:
    """What keeps values from being compared and averaged, if anything does."""
    values = dtypes.to_float(to_storage(record), record.dtype)
    if not values.size:
        return None
    most = LARGEST if values.dtype == np.float64 else float(np.finfo(values.dtype).max)
    # NaN is neither; the extremes need no memory, unlike a test of each value.
    if -most <= float(values.min()) and float(values.max()) <= most:
        return None
    bad = values.size - int(np.count_nonzero(np.isfinite(values) & (np.abs(values) <= most)))
    return f"{bad} of {values.size} weights are NaN, infinite or huge"
