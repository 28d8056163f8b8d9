"""The one call: compress a model at a setting, or search for the setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch import nn

from dwindle import compression
from dwindle.calibrate import Calibration
from dwindle.code.plan import Coding
from dwindle.compression import Evaluate, Result, Train
from dwindle.search.find import search
from dwindle.search.targets import Tensors
from dwindle.share.kmeans import Init


class Settings(TypedDict, total=False):
    """What a compression without a search is done with; see `compression.compress`."""

    sparsity: float | Mapping[str, float | None] | None
    quality: float | None
    bits: int | Mapping[str, int | None] | None
    init: Init
    entropy_constrained: bool
    lossless: bool
    min_elements: int | None
    seed: int
    progress: Callable[[str], None] | None


class Search(TypedDict, total=False):
    """How a search is done; see `find.search`."""

    max_passes: int
    distill: bool
    tensors: Tensors | None
    work: Path | str | None
    quiet: bool


class Keywords(Settings, Search):
    """All of them."""


def compress(
    model: nn.Module,
    path: Path | str,
    *,
    max_drop: float | None = None,
    target_size: int | None = None,
    evaluate: Evaluate | None = None,
    train: Train | None = None,
    calibrate: Calibration | Iterable[Any] | None = None,
    coding: Coding | None = None,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
    **keywords: Unpack[Keywords],
) -> Result:
    """Make a model small, write it, and prove that the file holds it; the model itself is unchanged.

    With `max_drop` or `target_size`, settings are searched for (`find.search`):

        compress(model, path, evaluate=accuracy, train=one_epoch, max_drop=0.005)
        compress(model, path, evaluate=accuracy, target_size=200_000)

    Without, they are what is given (`compression.compress`), and without any weights are rounded at a quality
    that is safe for most networks:

        compress(model, path)
        compress(model, path, sparsity=0.9, bits=5, train=one_epoch)
        compress(model, path, lossless=True)

    Args:
        model: any module; for a file of tensors there is `compress_checkpoint`.
        path: the file to write.
        max_drop: find the smallest file whose score is at most so far under the model's.
        target_size: find the most accurate file of at most so many bytes.
        evaluate: a model's score, higher is better.
        train: one pass of training, in place, its optimizer built from the model it is given.
        calibrate: some hundred inputs without labels, or a `Calibration`: bits go where outputs need them.
        coding: how indices and gaps are coded; for each tensor what is smallest by default.
        metadata: free text to keep in the file.
        force: replace an existing file.
        keywords: `Settings` of a compression, or how a `Search` is done.

    Raises:
        DwindleError: see `compression.compress` and `find.search`.
        TypeError: if the model is none.
        ValueError: if a value is out of range, or settings are given to a search.
    """
    if not isinstance(model, nn.Module):
        got = type(model).__name__
        raise TypeError(f"expected a torch.nn.Module, got {got}; compress_checkpoint takes a file of tensors")
    asked = max_drop is not None or target_size is not None
    wrong = [key for key in keywords if key in (Settings if asked else Search).__annotations__]
    if wrong:
        got = f"{wrong[0]} with a search" if asked else f"{wrong[0]} without max_drop or target_size"
        raise ValueError(f"expected settings or a bound, got {got}")
    if asked:
        return search(
            model,
            path,
            evaluate=evaluate,
            train=train,
            calibrate=calibrate,
            max_drop=max_drop,
            target_size=target_size,
            coding=coding,
            metadata=metadata,
            force=force,
            **keywords,  # type: ignore[misc] # those of a search, by the check above
        )
    return compression.compress(
        model,
        path,
        evaluate=evaluate,
        train=train,
        calibrate=calibrate,
        coding=coding,
        metadata=metadata,
        force=force,
        **keywords,  # type: ignore[misc] # those of a compression
    )
