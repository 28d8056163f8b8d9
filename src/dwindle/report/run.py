"""What a run leaves for a reader: result.json and the confusion matrices."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from dwindle import __version__, atomic
from dwindle.file import Archive
from dwindle.outcome import Outcome
from dwindle.recipe import Recipe
from dwindle.report import figures
from dwindle.report.layers import LayerRow, layer_table, total_row

VERSIONS = ("torch", "numpy", "numba")


@dataclass(frozen=True)
class Written:
    """A report.

    Attributes:
        content: what is in result.json.
        files: what was written.
    """

    content: dict[str, Any]
    files: tuple[Path, ...]


def write_report(recipe: Recipe, outcome: Outcome, folder: Path, facts: Mapping[str, Any]) -> Written:
    """Write result.json and the figures of a run; networks of many classes have no figures.

    Args:
        recipe: what was run.
        outcome: what it came to.
        folder: where to write; exists.
        facts: more about the run, such as its seed and its seconds.
    """
    with Archive(outcome.file) as archive:
        rows = layer_table(archive, outcome.ledger)
    layers = [_layer(row) for row in [*rows, total_row(rows, outcome.ledger)]]
    content = {
        "recipe": recipe.name,
        **outcome.to_json(),
        **facts,
        "layers": layers,
        "versions": versions(),
    }
    files = []
    if outcome.confusion_before is not None and outcome.confusion_after is not None:
        before, after = outcome.confusion_before.numpy(), outcome.confusion_after.numpy()
        files = [folder / f"confusion-{what}.png" for what in ("before", "after", "difference")]
        figures.confusion(files[0], before, f"{recipe.model}, before compression")
        figures.confusion(files[1], after, f"{recipe.model}, after compression")
        figures.confusion_difference(files[2], before, after, f"{recipe.model}, after less before")
    result = folder / "result.json"
    atomic.write_bytes(result, (json.dumps(content, indent=1) + "\n").encode())
    return Written(content, (outcome.file, result, *files))


def versions() -> dict[str, str]:
    """Versions of what results rest on."""
    found = {"dwindle": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in VERSIONS}


def _layer(row: LayerRow) -> dict[str, Any]:
    return asdict(row) | {"density": row.density}
