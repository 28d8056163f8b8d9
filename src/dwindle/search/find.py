"""The smallest file under a bound, or the most accurate of a size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dwindle import atomic, bind, chains
from dwindle.calibrate import Calibration, Measured
from dwindle.code.plan import Coding
from dwindle.compression import CALIBRATED_QUALITY, HIGHEST, QUALITY, UNIT, Evaluate, Result, Train
from dwindle.errors import SearchError
from dwindle.file import Archive, ledger
from dwindle.file.writer import check_metadata
from dwindle.records import original_bytes
from dwindle.rounding import significant_bits
from dwindle.search.fit import search_fit
from dwindle.search.gradual import search_gradually
from dwindle.search.setting import Setting, search_setting
from dwindle.search.show import shown
from dwindle.search.targets import Targets, Tensors, choose
from dwindle.search.trial import Goal, Trial
from dwindle.search.work import Work, digest, fingerprint
from dwindle.share import Signal, get_codebook, share_levels, step_sizes
from dwindle.share.apply import array_of
from dwindle.share.levels import LEAST_QUALITY
from dwindle.share.vectors import coarsen_statistics

MAX_PASSES = 100
"""Most passes of training, unless told otherwise."""

POOR = 6.0
"""Rate under which what training came to is compared with what can be done without it."""


def search(
    model: nn.Module,
    path: Path | str,
    *,
    evaluate: Evaluate | None = None,
    train: Train | None = None,
    max_drop: float | None = None,
    target_size: int | None = None,
    max_passes: int = MAX_PASSES,
    distill: bool = True,
    calibrate: Calibration | Iterable[Any] | None = None,
    tensors: Tensors | None = None,
    work: Path | str | None = None,
    coding: Coding | None = None,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Result:
    """Find the smallest file whose score is within a bound, or the most accurate file of at most a size.

    Every score is that of a model read back from a written file. Each step is kept in a folder, so that the
    same call goes on where an earlier one was stopped.

    Args:
        model: unchanged.
        path: the file to write.
        evaluate: higher is better; needed for `max_drop` and for `train`.
        train: one pass in place, its optimizer built from the model it is given. Without it, weights are
            rounded, and nothing is pruned.
        max_drop: how far the score may fall, in the units of `evaluate`, 0 or more.
        target_size: most bytes of the file.
        max_passes: most calls of `train`.
        distill: draw the outputs to those of the model as it was, beside the user's own loss, where they have
            the shape of class scores, (batch, classes) (`guide.guided`); to be turned off where that shape
            means something else and the model as it was is not what to learn from.
        calibrate: some hundred inputs without labels, by which weights are rounded where they are not
            trained (`compression.compress`).
        tensors: False for tensors to leave exact, True for those of modules that are not known to dwindle, by
            name, pattern and type (`settings.resolve`).
        work: the folder to keep steps in; it stays. By default one beside `path`, which goes when all is
            done.
        coding: how indices and gaps are coded; for each tensor what is smallest by default.
        metadata: free text to keep in the file.
        force: replace an existing file.
        quiet: print nothing of what is tried.

    Raises:
        OutputError: if `path` exists without `force` or cannot be written, or the folder cannot.
        RunError: if the folder is that of another search.
        SearchError: if no file was found; it names the nearest, which is kept in the folder.
        TensorError: if a key of `tensors` fits nothing, or the model holds what has no record.
        ValueError: unless exactly one of `max_drop` and `target_size` is given, in its range, with `evaluate`
            where it is needed.
    """
    path = Path(path)
    _check(evaluate, train, max_drop, target_size, max_passes)
    atomic.check_output(path, force=force)
    check_metadata(metadata or {})
    bind.check(model)
    targets = choose(model, tensors)
    about = {
        "model": fingerprint(targets.model),
        "max_drop": max_drop,
        "target_size": target_size,
        "max_passes": max_passes,
        "train": train is not None,
        "distill": distill,
        "evaluate": evaluate is not None,
        "calibrate": calibrate is not None,
        "tensors": dict(tensors or {}),
        "coding": None if coding is None else asdict(coding),
        "metadata": dict(metadata or {}),
    }
    # Another search has another folder: of two that were stopped, neither is in the way of the other.
    beside = path.with_name(f"{path.name}.search-{digest(about)}")
    folder = Work(beside if work is None else Path(work), about)
    with shown(None if train is None else max_passes, quiet=quiet) as report:
        original = bind.unparametrized(targets.model).eval() if train is not None and distill else None
        goal = Goal(limit=target_size)
        trial = Trial(targets, goal, evaluate, folder, coding, metadata or {}, original, report)
        reference = None if evaluate is None else _reference(trial, model)
        if max_drop is not None:
            trial.goal = Goal(reference or 0.0, max_drop)
        _run(trial, train, max_passes, calibrate)
    if trial.best is None:
        raise SearchError(_nothing(trial, path))
    file = folder.file(f"step-{trial.best}")
    atomic.write_bytes(path, file.read_bytes(), force=force)
    with Archive(path, max_bytes=None) as archive:
        book = ledger(archive)
    found = Result(
        path,
        book,
        targets.notes,
        (),
        trial.load(f"model-{trial.best}"),
        reference,
        trial.steps[trial.best].score,
        steps=tuple(trial.steps),
        evaluations=trial.evaluations,
        passes=trial.passes,
    )
    if work is None:
        folder.remove()
    return found


def _run(
    trial: Trial, train: Train | None, max_passes: int, calibrate: Calibration | Iterable[Any] | None
) -> None:
    """Search with training where there is any, and without where that comes to little."""
    goal, targets = trial.goal, trial.targets
    if train is not None and targets.names and max_passes > 0:
        if goal.limit is None:
            search_gradually(trial, train, max_passes)
        else:
            search_fit(trial, train, max_passes)
    total = original_bytes(bind.to_records(targets.model))
    scored = [step for step in trial.steps if step.score is not None and "survivors" in step.setting]
    found = [step.size for step in scored if step.holds]
    if not found or (goal.limit is None and min(found) * POOR > total):
        unshared = _unshared(targets)
        count = sum(
            chains.source(*owner).numel()
            for name, owner in chains.weights(targets.model).items()
            if name in unshared
        )
        trellis = (trial.coding or Coding()).allows_trellis(count)
        make, first = partial(_at_quality, targets, trellis), QUALITY
        if calibrate is not None:
            given = calibrate if isinstance(calibrate, Calibration) else Calibration(calibrate)
            measured = Measured(targets.model, unshared, given, trellis=trellis)
            make = partial(_calibrated, targets, measured, given.statistics)
            first = CALIBRATED_QUALITY
        vectors = partial(significant_bits, calibrated=calibrate is not None)
        search_setting(trial, Setting("dB", make, vectors, LEAST_QUALITY, HIGHEST, first, UNIT))
    if trial.best is None:
        trial.measure(targets.model, {"lossless": 1}, vectors=None)
        trial.save({}, {})


def _at_quality(targets: Targets, trellis: bool, quality: float) -> nn.Module:
    """A copy of the model rounded at a quality in dB; tensors that were found shared stay what they are."""
    small = chains.duplicate(targets.model)
    owners = chains.weights(small)
    signals = {name: Signal.of(array_of(*owners[name])) for name in _unshared(targets)}
    share_levels(small, step_sizes(signals, quality), trellis=trellis)
    return small


def _calibrated(targets: Targets, measured: Measured, statistics: bool, quality: float) -> nn.Module:
    """Likewise, rounded for the outputs on given inputs."""
    small = chains.duplicate(targets.model)
    measured.round(small, quality)
    if statistics:
        coarsen_statistics(small, targets.small)
    return small


def _unshared(targets: Targets) -> list[str]:
    return [name for name in targets.names if get_codebook(targets.model, name) is None]


def _reference(trial: Trial, model: nn.Module) -> float:
    score = trial.score("as it is", model)
    if not math.isfinite(score):
        raise SearchError(f"expected evaluate to give a finite number for the model as it is, got {score}")
    trial.goal = Goal(score, 0.0, trial.goal.limit)
    return score


def _nothing(trial: Trial, path: Path) -> str:
    """That no file was found, and what came nearest."""
    nearest = trial.steps[trial.nearest or 0]
    goal, kept = trial.goal, trial.work.file(f"step-{trial.nearest}")
    score = "" if nearest.score is None else f" with a score of {nearest.score:.6g}"
    if goal.limit is not None:
        asked = f"a file of at most {goal.limit} bytes"
    else:
        asked = (
            f"a file with a score of at least {goal.floor:.6g} ({goal.max_drop:g} under {goal.reference:.6g})"
        )
    return f"{path}: expected {asked}, found none; the nearest has {nearest.size} bytes{score}, see {kept}"


def _check(
    evaluate: Evaluate | None,
    train: Train | None,
    max_drop: float | None,
    target_size: int | None,
    max_passes: int,
) -> None:
    if (max_drop is None) == (target_size is None):
        got = "neither" if max_drop is None else "both"
        raise ValueError(f"expected either max_drop or target_size, got {got}")
    if max_drop is not None and not 0 <= max_drop < math.inf:
        raise ValueError(f"expected a finite max_drop of 0 or more, got {max_drop}")
    if target_size is not None and target_size < 1:
        raise ValueError(f"expected a target_size of 1 byte or more, got {target_size}")
    if max_passes < 0:
        raise ValueError(f"expected max_passes of 0 or more, got {max_passes}")
    if evaluate is None and (max_drop is not None or train is not None):
        raise ValueError(f"expected evaluate with {'train' if max_drop is None else 'max_drop'}, got none")
