"""Where the repository is, if the package is used from one."""

from __future__ import annotations

from pathlib import Path


def source_tree() -> Path | None:
    """The checkout this package lies in (`src/dwindle`), or None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "src" / "dwindle").is_dir() and (root / "pyproject.toml").is_file() else None
