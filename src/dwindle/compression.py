"""One call from a model to a verified file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from dwindle import atomic, bind, chains, dtypes, settings
from dwindle.calibrate import Calibration, Measured
from dwindle.code.plan import Coding
from dwindle.file import Archive, Ledger, ledger, write
from dwindle.file.writer import check_metadata
from dwindle.io.torch_file import to_raw
from dwindle.prune import Mask, prune
from dwindle.prune.apply import by_tensor
from dwindle.prune.found import adopt_hooks
from dwindle.records import Raw, to_storage
from dwindle.rounding import significant_bits
from dwindle.share import Codebook, Signal, get_codebook, share, share_levels, step_sizes
from dwindle.share.apply import array_of, bits_by_tensor
from dwindle.share.found import adopt_values
from dwindle.share.kmeans import Init
from dwindle.share.levels import check_quality
from dwindle.share.sorted import LARGEST
from dwindle.share.vectors import coarsen_statistics, round_vectors, vectors

QUALITY, CALIBRATED_QUALITY = 25.0, 12.0
"""Signal to noise in dB unless something else is asked for: safe on networks nobody has looked at; and where
it is known what each tensor matters, so that the same outputs take fewer bits."""

HIGHEST, UNIT = 60.0, 0.5
"""Greatest quality that is looked for where a size or a bound is given, and the step between two, in dB."""

MIN_ELEMENTS, MIN_LEVELS = 4096, 64
"""Without being asked, float tensors of two or more dimensions and at least so many elements are pruned and
clustered; and rounded to levels, whose codebooks cost next to nothing."""

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
    quality: float | None = None,
    bits: int | Mapping[str, int | None] | None = None,
    calibrate: Calibration | Iterable[Any] | None = None,
    init: Init = "linear",
    entropy_constrained: bool = False,
    lossless: bool = False,
    coding: Coding | None = None,
    train: Train | None = None,
    evaluate: Evaluate | None = None,
    min_elements: int | None = None,
    seed: int = 0,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Prune, share and code a copy of a model, write it, and prove that the file holds it.

    Masks and codebooks the model has already are kept as they are, those of `torch.nn.utils.prune` too, which
    become part of the weights; only what has no codebook yet is shared.
    Tensors with NaN, infinite or huge (over 1e150) values, and those with parametrizations of somebody
    else's, are kept exactly, and noted.

    Args:
        model: unchanged.
        path: the file to write.
        sparsity: sparsity, for all prunable tensors, or by name, pattern and type (`settings.resolve`); None
            prunes nothing.
        quality: signal to noise in dB, for all weights together (`share.step_sizes`): they are rounded to
            levels, and biases and norms to a few significant bits; 6 dB are about one bit a weight. None is
            `QUALITY`, or `CALIBRATED_QUALITY` with `calibrate`.
        bits: width of an index, for all tensors or by name and layer type (`share.share`): codebooks by
            k-means instead, and all that gets none stays exact; with an empty mapping everything does.
        calibrate: some hundred inputs without labels, in batches, or a `Calibration`, which says more: bits
            go where the model's outputs need them, and weights make up for each other's rounding. With `bits`
            k-means minds what an error in each weight costs, see `share.share`.
        init: start of k-means.
        entropy_constrained: with `quality`, choose the values weights take, zero among them, for error and
            for bytes after entropy coding at once, where that is cheaper than levels
            (`share.entropy.entropy_constrained`). Without training on, outputs are mostly worse for it.
        lossless: change nothing, whatever `sparsity`, `quality` and `bits` say: every tensor comes back to
            the bit.
        coding: how indices and gaps are coded; for each tensor what is smallest by default.
        train: called with the copy once after pruning and once after sharing.
        evaluate: called with the model, and with the model as read back from the file.
        min_elements: smaller tensors are left exact by a setting for all tensors; `MIN_ELEMENTS` by default,
            and `MIN_LEVELS` by `quality`.
        seed: of what is random in k-means.
        metadata: free text to keep in the file.
        force: replace an existing file.
        progress: called with what is being done while calibrating.

    Raises:
        OutputError: if `path` exists without `force` or cannot be written.
        TensorError: if a name is no tensor's, or the model holds what has no record.
        TypeError: if metadata is anything but text.
        ValueError: if a number is out of range, or `bits` is given with `quality`, or `entropy_constrained`
            with `bits`, `calibrate` or `lossless`.
        VerificationError: if the file does not decode to what went in.
    """
    path = Path(path)
    atomic.check_output(path, force=force)
    check_metadata(metadata or {})
    bind.check(model)
    if bits is not None and quality is not None:
        raise ValueError("expected quality or bits, got both")
    if entropy_constrained and (bits is not None or calibrate is not None or lossless):
        raise ValueError("expected entropy_constrained without bits, calibrate and lossless, got both")
    if quality is not None:
        check_quality(quality)
    if lossless:
        sparsity, bits = None, {}
    small = chains.duplicate(model)
    hooked = {} if lossless else adopt_hooks(small)
    shares = {} if sparsity is None else by_tensor(small, _targets(small, sparsity, least(min_elements)))
    # What a key asks for is done whatever its size.
    fewest = 1 if isinstance(bits, Mapping) else least(min_elements, levels=bits is None)
    widths = bits_by_tensor(small, 1 if bits is None else bits, fewest)
    owners = {name: (module, attribute) for name, module, attribute in chains.named_tensors(small)}
    reasons = {name: why_exact(*owner) for name, owner in owners.items() if name in shares or name in widths}
    exact = {name: reason for name, reason in reasons.items() if reason}
    reference_score = None if evaluate is None else evaluate(model)
    if sparsity is not None:
        prune(small, sparsity={name: share for name, share in shares.items() if name not in exact})
        if train is not None:
            train(small)
    unshared = [name for name in widths if name not in exact and get_codebook(*owners[name]) is None]
    if bits is None:
        count = sum(chains.source(*owners[name]).numel() for name in unshared)
        trellis = (coding or Coding()).allows_trellis(count)
        _round(
            small,
            unshared,
            quality,
            calibrate,
            progress,
            entropy_constrained=entropy_constrained,
            trellis=trellis,
            trained_on=train is not None,
        )
    else:
        measured = None
        if calibrate is not None and unshared:
            # Within a tensor nothing depends on how it compares with others.
            measured = Measured(small, unshared, replace(_calibration(calibrate), check=False), progress)
        costs = None if measured is None else measured.sensitivities()
        share(small, bits={name: widths[name] for name in unshared}, init=init, seed=seed, sensitivity=costs)
        if measured is not None:
            measured.repair(small)
    if unshared and train is not None:
        train(small)
    write(path, bind.to_records(small), coding=coding, metadata=metadata, force=force)
    with Archive(path, max_bytes=None) as archive:
        book = ledger(archive)
        score = None if evaluate is None else evaluate(read_back(small, archive, str(path)))
    notes = [f"{name}: pruned before by torch.nn.utils.prune" for name in hooked]
    notes += [f"{name}: kept exactly: {reason}" for name, reason in exact.items()]
    return Result(path, book, tuple(notes), (), small, reference_score, score)


def _round(
    model: nn.Module,
    names: Sequence[str],
    quality: float | None,
    calibrate: Calibration | Iterable[Any] | None,
    progress: Callable[[str], None] | None,
    *,
    entropy_constrained: bool,
    trellis: bool,
    trained_on: bool,
) -> None:
    """Round weights to levels, but for what was shared before, and vectors to few bits, in place.

    Args:
        model: to be rounded.
        names: its weights.
        quality: in dB, or None for what is usual.
        calibrate: see `compress`.
        progress: see `compress`.
        entropy_constrained: see `compress`.
        trellis: whether levels may follow a trellis.
        trained_on: whether training follows.
    """
    if quality is None:
        quality = QUALITY if calibrate is None else CALIBRATED_QUALITY
    known, small = adopt_values(model, names), [name for name, _ in vectors(model)]
    owners = {full: (module, name) for full, module, name in chains.named_tensors(model)}
    signals = {name: Signal.of(array_of(*owners[name])) for name in names if name not in known}
    if calibrate is None:
        steps = step_sizes(signals, quality)
        share_levels(model, steps, entropy_constrained=entropy_constrained, trellis=trellis)
    else:
        how = _calibration(calibrate)
        Measured(model, signals, how, progress, trellis=trellis).round(model, quality)
        # In training mode norms would not compute the same.
        if how.statistics and not trained_on:
            coarsen_statistics(model, small)
    round_vectors(model, small, significant_bits(quality, calibrated=calibrate is not None))


def _calibration(given: Calibration | Iterable[Any]) -> Calibration:
    return given if isinstance(given, Calibration) else Calibration(given)


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


def least(min_elements: int | None, *, levels: bool = False) -> int:
    """How many elements a tensor must have for a setting for all tensors to apply to it."""
    if min_elements is not None:
        return min_elements
    return MIN_LEVELS if levels else MIN_ELEMENTS


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
    return out_of_range(to_raw(chains.effective(module, name)))


def out_of_range(record: Raw) -> str | None:
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
