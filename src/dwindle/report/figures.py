"""Figures, drawn without a display and written as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dwindle import atomic

DPI = 120


def confusion(path: Path, matrix: NDArray[np.int64], title: str) -> None:
    """Draw a confusion matrix; its diagonal is left white, since it would drown the errors.

    Args:
        path: the PNG to write; replaced if it exists.
        matrix: counts, rows true classes, columns answers.
        title: above the figure.
    """
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    figure, axes = _figure(5.6, 5.2)
    _cells(axes, matrix, errors, "Reds", 0, max(int(errors.max()), 1))
    wrong, total = int(errors.sum()), int(matrix.sum())
    axes.set_title(f"{title}\n{wrong} of {total} wrong ({100 * wrong / max(total, 1):.2f} %)")
    _write(figure, path)


def confusion_difference(path: Path, before: NDArray[np.int64], after: NDArray[np.int64], title: str) -> None:
    """Draw what changed between two confusion matrices: red cells gained answers, blue ones lost some.

    Args:
        path: the PNG to write; replaced if it exists.
        before: counts, rows true classes, columns answers.
        after: likewise.
        title: above the figure.
    """
    difference = after - before
    most = max(int(np.abs(difference).max()), 1)
    figure, axes = _figure(5.6, 5.2)
    _cells(axes, difference, difference, "RdBu_r", -most, most, "{:+d}")
    axes.set_title(f"{title}\n{int(np.trace(difference)):+d} right answers")
    _write(figure, path)


def sensitivity(
    path: Path, sparsities: Sequence[float], errors: Mapping[str, Sequence[float]], title: str
) -> None:
    """Draw error against sparsity, a line for each layer pruned alone (Han et al. 2015, figure 6).

    Args:
        path: the PNG to write; replaced if it exists.
        sparsities: shares of weights removed, rising.
        errors: percent by tensor name, one for each sparsity.
        title: above the figure.
    """
    figure, axes = _figure(6.4, 4.4)
    for name, line in errors.items():
        axes.plot([100 * share for share in sparsities], line, marker="o", markersize=3, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("weights removed from one layer, %")
    axes.set_ylabel("error, % (logarithmic)")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    axes.set_title(title)
    _write(figure, path)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _cells(
    axes: Axes,
    shown: NDArray[np.int64],
    coloured: NDArray[np.int64],
    colours: str,
    low: int,
    high: int,
    form: str = "{:d}",
) -> None:
    """A heat map with the numbers in its cells; zeros are left blank."""
    axes.imshow(coloured, cmap=colours, vmin=low, vmax=high)
    limit = 0.6 * max(abs(low), abs(high))
    for row, column in np.argwhere(shown):
        dark = abs(int(coloured[row, column])) > limit
        text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
        axes.text(column, row, form.format(shown[row, column]), color="white" if dark else "black", **text)
    classes = range(len(shown))
    axes.set_xticks(classes)
    axes.set_yticks(classes)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")


def _write(figure: Figure, path: Path) -> None:
    with atomic.writing(path) as stream:
        # No date or version in the file: the same figure is the same bytes.
        figure.savefig(stream, format="png", metadata={"Software": None})
