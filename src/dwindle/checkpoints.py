"""One call from a checkpoint to a verified file, without its model's code."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dwindle import atomic, dtypes, settings
from dwindle.code.plan import Coding
from dwindle.compression import HIGHEST, QUALITY, UNIT, Result, least, out_of_range
from dwindle.errors import CheckpointError, SearchError, TensorError, shown
from dwindle.file import Archive, ledger, write
from dwindle.file.reader import default_threads
from dwindle.io import read_checkpoint
from dwindle.prune import by_sparsity
from dwindle.records import Raw, Record, Shared, Tied, distinct, elements, few_values, to_storage
from dwindle.rounding import is_vector, round_significant, significant_bits
from dwindle.share import Signal, assign_layer, step_sizes
from dwindle.share.apply import nearest_levels
from dwindle.share.entropy import entropy_constrained as clustered
from dwindle.share.kmeans import Init
from dwindle.share.levels import check_quality

T = TypeVar("T")


def compress_checkpoint(
    source: Path | str,
    path: Path | str,
    *,
    key: str | None = None,
    layers: Path | str | None = None,
    base: Path | str | None = None,
    sparsity: float | Mapping[str, float | None] | None = None,
    quality: float | None = None,
    target_size: int | None = None,
    bits: int | Mapping[str, int | None] | None = None,
    init: Init = "linear",
    entropy_constrained: bool = False,
    lossless: bool = False,
    codebook: str | None = None,
    coding: Coding | None = None,
    min_elements: int | None = None,
    seed: int = 0,
    force: bool = False,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Prune, share and code a checkpoint without its model's code.

    All tensors are written. A checkpoint whose weights all share the values of codebooks, as those of a .net
    file do, is kept to the bit if there is no setting. Those pruned and shared are float tensors of two or
    more dimensions: with one setting for all, those of at least `min_elements` elements, else those a key
    fits.
    Tensors with NaN, infinite or huge (over 1e150) values are kept exactly, and noted. One that is pruned and
    not shared keeps its survivors to the bit.

    Args:
        source: what `io.read_checkpoint` reads.
        path: the file to write.
        key: where a nested state dict is.
        layers: for a .net file, the network's prototxt.
        base: a checkpoint whose tensors exact ones are stored as differences from; who reads the file needs
            it too.
        sparsity: sparsity, for all those tensors or by name, pattern and type (`settings.resolve`).
        quality: signal to noise in dB, see `compress`; biases and norms are tensors of one dimension that are
            called so.
        target_size: the most bytes of the file: the greatest quality of those in steps of `UNIT` that keeps
            to it is looked for, in seven trials or less.
        bits: width of an index, likewise: codebooks by k-means instead, and all that gets none stays exact;
            with an empty mapping everything does.
        init: start of k-means.
        entropy_constrained: with `quality` or `target_size`, see `compress`.
        lossless: change nothing, whatever `sparsity`, `quality` and `bits` say. Tensors are then read and
            written one after the other: memory does not grow with the checkpoint.
        codebook: "float16" or "bfloat16": round the entries of codebooks of `bits` to that type, which about
            halves their bytes; the tensors keep their own dtype.
        coding: how indices and gaps are coded.
        min_elements: see above.
        seed: of what is random in k-means.
        force: replace an existing file.
        threads: tensors worked on at once, all processors by default.
        progress: called with the name of each tensor done.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        OutputError: if `path` exists without `force`, is a file that is read, or cannot be written.
        SearchError: if not even the least quality keeps to `target_size`.
        TensorError: if a key of `sparsity` or `bits` fits no tensor, one to prune and not to share has more
            than 65,535 survivors, or an entry is beyond the range of `codebook`.
        ValueError: if a number is out of range, or settings are given that exclude each other.
        VerificationError: if the file does not decode to what went in.
    """
    source, path = Path(source), Path(path)
    atomic.check_output(path, force=force, inputs=(source,))
    checkpoint = read_checkpoint(source, key=key, layers=None if layers is None else Path(layers))
    _check_plain(source, checkpoint.records)
    other = None if base is None else read_checkpoint(base)
    before = None if other is None else other.records
    atomic.check_output(path, force=force, inputs=checkpoint.files + (() if other is None else other.files))
    if codebook not in (None, "float16", "bfloat16"):
        raise ValueError(f"expected a codebook of float16 or bfloat16, got {codebook}")
    _check(quality, target_size, bits, lossless=lossless, entropy_constrained=entropy_constrained)
    asked = any(setting is not None for setting in (sparsity, quality, target_size, bits))
    exact = lossless or not (asked or entropy_constrained or not _all_shared(checkpoint.records))

    def save(where: Path, quality: float) -> tuple[int, tuple[str, ...]]:
        made: Mapping[str, Record] = checkpoint.records
        notes: tuple[str, ...] = ()
        if not exact:
            how = _How(
                sparsity,
                quality,
                bits,
                init,
                entropy_constrained,
                codebook,
                min_elements,
                seed,
                coding or Coding(),
            )
            tell = progress if where == path else None
            made, notes = _made(checkpoint.records, how, threads, tell)
        written = write(
            where,
            made,
            coding=coding,
            metadata=checkpoint.metadata,
            base=before,
            extras=checkpoint.extras,
            force=force or where != path,
            threads=threads,
        )
        return written.size, notes

    if target_size is not None:
        quality = _greatest_quality(save, target_size, path)
    _, notes = save(path, QUALITY if quality is None else quality)
    with Archive(path, max_bytes=None, base=before) as archive:
        book = ledger(archive)
    return Result(path, book, notes, checkpoint.skipped, kept=checkpoint.kept)


def _check(
    quality: float | None,
    target_size: int | None,
    bits: int | Mapping[str, int | None] | None,
    *,
    lossless: bool,
    entropy_constrained: bool,
) -> None:
    if bits is not None and quality is not None:
        raise ValueError("expected quality or bits, got both")
    if target_size is not None and (bits is not None or quality is not None or lossless):
        raise ValueError("expected target_size alone, got it with quality, bits or lossless")
    if target_size is not None and target_size < 1:
        raise ValueError(f"expected a target_size of 1 byte or more, got {target_size}")
    if entropy_constrained and (bits is not None or lossless):
        raise ValueError("expected entropy_constrained with a quality or target_size, got bits or lossless")
    if quality is not None:
        check_quality(quality)


def _greatest_quality(
    save: Callable[[Path, float], tuple[int, tuple[str, ...]]], target_size: int, path: Path
) -> float:
    """The greatest quality whose file is of at most so many bytes."""
    low, high = -1, round(HIGHEST / UNIT)
    with tempfile.TemporaryDirectory() as folder:
        sizes: dict[int, int] = {}
        while high > low:
            middle = (low + high + 1) // 2
            sizes[middle], _ = save(Path(folder) / "trial.dwz", middle * UNIT)
            low, high = (middle, high) if sizes[middle] <= target_size else (low, middle - 1)
    if low < 0:
        raise SearchError(
            f"{path}: expected a file of at most {target_size} bytes, got {sizes[0]} at the least quality"
        )
    return low * UNIT


@dataclass(frozen=True)
class _How:
    """What is to be done with the tensors of a checkpoint; see `compress_checkpoint`."""

    sparsity: float | Mapping[str, float | None] | None
    quality: float
    bits: int | Mapping[str, int | None] | None
    init: Init
    entropy_constrained: bool
    codebook: str | None
    min_elements: int | None
    seed: int
    coding: Coding


def _made(
    records: Mapping[str, Record], how: _How, threads: int | None, progress: Callable[[str], None] | None
) -> tuple[Mapping[str, Record], tuple[str, ...]]:
    """The records to write, and a note for each tensor that is kept exactly though it was to be changed."""
    shares = _chosen(how.sparsity, records, least(how.min_elements))
    fewest = least(how.min_elements, levels=how.bits is None)
    widths = _chosen(1 if how.bits is None else how.bits, records, fewest)
    raw = {name: record for name, record in records.items() if isinstance(record, Raw)}
    reasons = {name: out_of_range(raw[name]) for name in {**shares, **widths}}
    shares = {name: share for name, share in shares.items() if not reasons[name]}
    widths = {name: width for name, width in widths.items() if not reasons[name]}
    significant = significant_bits(how.quality) if how.bits is None else None
    trellis = how.coding.allows_trellis(sum(elements(raw[name]) for name in widths))
    known: dict[str, Shared | None] = {}
    steps: dict[str, float] = {}

    def pruned(name: str) -> NDArray[Any]:
        return _pruned(name, raw[name], shares.get(name))

    def work(name: str) -> Record:
        record = records[name]
        if name in steps:
            record = _as_shared(raw[name], *_levels(pruned(name), steps[name], raw[name].dtype, how, trellis))
        elif known.get(name) is not None:
            record = known[name] or record
        elif name in shares or name in widths:
            record = _clustered(name, raw[name], pruned(name), widths.get(name), how.init, how.seed)
            if name in widths:
                record = _rounded(name, record, how.codebook)
        elif significant is not None:
            record = _shorter(name, record, significant)
        if progress is not None:
            progress(name)
        return record

    if not shares and not widths and significant is None:
        return records, _notes(reasons)
    with ThreadPoolExecutor(threads or default_threads()) as pool:
        if how.bits is None:
            known = dict(zip(widths, pool.map(lambda name: few_values(raw[name]), widths), strict=True))
            rounded = [name for name in widths if name in shares or known[name] is None]
            signals = pool.map(lambda name: Signal.of(pruned(name)), rounded)
            steps = step_sizes(dict(zip(rounded, signals, strict=True)), how.quality)
        made = dict(zip(records, pool.map(work, records), strict=True))
    return made, _notes({name: reasons.get(name) for name in made})


def _notes(reasons: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{name}: kept exactly: {reason}" for name, reason in reasons.items() if reason)


def _rounded(name: str, record: Record, codebook: str | None) -> Record:
    """A shared tensor with the entries of its codebook rounded to a shorter type."""
    if codebook is None or not isinstance(record, Shared):
        return record
    exact = dtypes.to_float(record.codebook, record.dtype)
    with np.errstate(over="ignore"):
        values = dtypes.to_float(dtypes.from_float(exact, codebook), codebook)
    beyond = exact[~np.isfinite(values)]
    if len(beyond):
        raise TensorError(f"{name}: expected codebook entries within {codebook}, got {beyond[0]:g}")
    return replace(record, codebook=dtypes.from_float(values.astype(np.float64), record.dtype).copy())


def _all_shared(records: Mapping[str, Record]) -> bool:
    """Whether all weights, of which there are some, share the values of codebooks."""
    weights = [
        record for record in records.values() if not isinstance(record, Tied) and len(record.shape) > 1
    ]
    return bool(weights) and all(isinstance(record, Shared) for record in weights)


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
    dimensions = {name: len(record.shape) for name, record in able.items()}
    found = settings.resolve(setting, dimensions)
    asked = {key for key in named if isinstance(setting, Mapping) and setting[key] is not None}
    for key in sorted(asked - {*able, *settings.KINDS}):
        if not any(fnmatchcase(name, key) and dimensions[name] > 1 for name in able):
            expected = "expected a pattern for tensors of two or more dimensions, or a whole name"
            raise TensorError(f"{shown(key)}: {expected}, got one that fits vectors only")
    chosen = {
        name: value
        for name, value in found.items()
        if name in named or (len(able[name].shape) > 1 and (named or elements(able[name]) >= min_elements))
    }
    if asked and not chosen:
        raise TensorError(f"{', '.join(map(shown, asked))}: expected a tensor to compress, got no match")
    return chosen


def _pruned(name: str, record: Raw, sparsity: float | None) -> NDArray[Any]:
    """The weights of a tensor as floats, those pruned as zeros."""
    weights = dtypes.to_float(to_storage(record), record.dtype)
    if sparsity is None:
        return weights
    kept = by_sparsity(_read_only(weights), sparsity, name=name).numpy()
    return np.where(kept, weights, weights.dtype.type(0))


def _clustered(
    name: str, record: Raw, weights: NDArray[Any], bits: int | None, init: Init, seed: int
) -> Raw | Shared:
    """A tensor with a codebook by k-means; without bits, of the values it has."""
    if bits is None:
        pruned = Raw(record.dtype, record.shape, dtypes.from_float(weights, record.dtype).tobytes())
        small = distinct(pruned)
        if small is None:
            raise TensorError(f"{name}: expected bits for a pruned tensor of so many values, got none")
        return small
    return _as_shared(record, *assign_layer(weights, bits, init=init, seed=seed, dtype=record.dtype))


def _levels(
    weights: NDArray[Any], step: float, dtype: str, how: _How, trellis: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    if how.entropy_constrained:
        return clustered(weights, step, dtype)
    return nearest_levels(weights, step, dtype, trellis=trellis)


def _as_shared(record: Raw, codebook: NDArray[Any], indices: NDArray[Any]) -> Shared:
    return Shared(record.dtype, record.shape, dtypes.from_float(codebook, record.dtype), indices)


def _shorter(name: str, record: Record, bits: int) -> Record:
    """A bias or norm with so many significant bits; anything else as it is."""
    if not isinstance(record, Raw) or not is_vector(name, len(record.shape), record.dtype):
        return record
    values = round_significant(dtypes.to_float(to_storage(record), record.dtype), bits)
    return Raw(record.dtype, record.shape, dtypes.from_float(values, record.dtype).tobytes())


class _Writable:
    """Says of an array that it may be written to, for torch, which has no tensors that may not."""

    def __init__(self, array: NDArray[Any]) -> None:
        address, _ = array.__array_interface__["data"]
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def _read_only(weights: NDArray[Any]) -> torch.Tensor:
    """A tensor over an array that will only be read, be it mapped memory."""
    return torch.from_numpy(np.asarray(_Writable(weights)))
