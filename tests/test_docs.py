"""The documentation's examples run, and what it names exists."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import dwindle

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[-2][:40])
def test_readme_examples_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_readme_has_examples() -> None:
    assert len(BLOCKS) >= 2


def test_links_lead_somewhere() -> None:
    for page in ("README.md", "docs/architecture.md", "docs/format.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in target:
                assert (ROOT / page).parent.joinpath(target).exists(), (page, target)


def test_every_command_the_readme_names_exists() -> None:
    from dwindle.cli.commands import COMMANDS

    named = set(re.findall(r"^    dwindle (\w+)", README, re.M))
    assert named
    assert named <= {command.__name__ for command in COMMANDS}


def modules() -> list[str]:
    return [module.name for module in pkgutil.walk_packages(dwindle.__path__, "dwindle.")]


def test_docstring_examples_hold() -> None:
    attempted = 0
    for name in modules():
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0, name
        attempted += result.attempted
    assert attempted > 0
