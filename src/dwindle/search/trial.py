"""Files that are tried: written, read back, scored, and the best of them kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from dwindle import bind, chains
from dwindle.code.plan import Coding
from dwindle.compression import Evaluate, Step, Train, read_back
from dwindle.file import Archive, write
from dwindle.search.guide import guided
from dwindle.search.sharing import SIGNIFICANT, averaged
from dwindle.search.show import Report
from dwindle.search.targets import Targets
from dwindle.search.work import Work
from dwindle.share.vectors import round_vectors

LITTLE = 1 / 64
"""Share of the greatest drop under which drops are noise."""


@dataclass(frozen=True)
class Goal:
    """What is asked for: the smallest file of at least a score, or the most accurate of at most a size.

    Attributes:
        reference: score of the model before.
        max_drop: how far under it a file may be.
        limit: the most bytes; None if `max_drop` counts.
    """

    reference: float = 0.0
    max_drop: float = 0.0
    limit: int | None = None

    @property
    def floor(self) -> float:
        """The least score."""
        return self.reference - self.max_drop

    def holds(self, size: int, score: float | None) -> bool:
        """Whether a file keeps to it. A score that is NaN does not."""
        if self.limit is not None:
            return size <= self.limit
        return score is not None and score >= self.floor

    def excess(self, step: Step) -> float:
        """How far a file is from what is asked for, as a logarithm; positive if it fails."""
        if self.limit is not None:
            return math.log(step.size / self.limit)
        drop = self.reference - _or_least(step.score)
        if self.max_drop <= 0 or not math.isfinite(drop):
            return -1.0 if step.holds else 1.0
        return math.log(max(drop / self.max_drop, LITTLE))

    def better(self, step: Step, other: Step) -> bool:
        """Whether of two files that hold the first is to be preferred."""
        if self.limit is None:
            return step.size < other.size
        if step.score is None and other.score is None:
            return step.size > other.size
        first, second = (_or_least(one.score) for one in (step, other))
        return (first, -step.size) > (second, -other.size)

    def nearer(self, step: Step, other: Step) -> bool:
        """Whether of two files that do not hold the first is nearer to it."""
        if self.limit is not None:
            return step.size < other.size
        return _or_least(step.score) > _or_least(other.score)


@dataclass
class Trial:
    """Measures candidates, and keeps count in the folder of the search.

    Attributes:
        targets: what the search works on.
        goal: what is asked for.
        evaluate: the user's; None if only sizes count.
        work: the folder.
        coding: how indices and gaps are coded.
        metadata: free text for the files.
        original: the model as it was, in evaluation mode, for training to be drawn to; or None.
        report: called with a line for each thing tried, and the passes of training so far.
        steps: files tried.
        best: place in `steps` of the best that holds.
        nearest: place of what came nearest, while none holds.
        passes: of training so far.
    """

    targets: Targets
    goal: Goal
    evaluate: Evaluate | None
    work: Work
    coding: Coding | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    original: nn.Module | None = None
    report: Report = lambda line, passes: None
    steps: list[Step] = field(default_factory=list)
    best: int | None = None
    nearest: int | None = None
    passes: int = 0
    _waiting: dict[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Go on where an earlier search in the same folder was stopped."""
        position = self.work.position
        self.steps = [Step(**step) for step in position.get("steps", [])]
        self.best, self.nearest = position.get("best"), position.get("nearest")
        self.passes = position.get("passes", 0)

    @property
    def evaluations(self) -> int:
        """How often `evaluate` was called."""
        return len(self.work.scores) + sum(step.score is not None for step in self.steps)

    def score(self, label: str, model: nn.Module) -> float:
        """The score of a model that is no candidate; asked once for each label."""
        if self.evaluate is None:
            raise ValueError("expected evaluate, got none")
        if label not in self.work.scores:
            found = float(self.evaluate(self._in_mode(model)))
            self.work.remember(label, found)
            self.report(f"  {label}: {found:.6g}", self.passes)
        return self.work.scores[label]

    def train(self, train: Train, model: nn.Module) -> None:
        """One pass of training, counted."""
        with averaged(model, self.targets.names), guided(model, self.original):
            train(model)
        self.passes += 1

    def measure(
        self,
        model: nn.Module,
        setting: Mapping[str, float],
        *,
        vectors: int | None = SIGNIFICANT,
        scored: bool = True,
    ) -> Step:
        """Write a copy of a model to a file, read it back and score what it holds.

        Args:
            model: not changed.
            setting: what it was made with.
            vectors: significant bits of biases and norms; None leaves them exact.
            scored: ask `evaluate`, unless the file is over the limit; otherwise it cannot be the best.
        """
        small = chains.duplicate(model)
        if vectors is not None:
            round_vectors(small, self.targets.small, vectors)
        name = f"step-{len(self.steps)}"
        path = self.work.file(name)
        write(path, bind.to_records(small), coding=self.coding, metadata=self.metadata, force=True)
        size, score = path.stat().st_size, None
        if self.evaluate is not None and scored and self.goal.holds(size, math.inf):
            with Archive(path, max_bytes=None) as archive:
                loaded = read_back(small, archive, str(path))
            score = float(self.evaluate(self._in_mode(loaded)))
        step = Step(dict(setting), size, score, self.goal.holds(size, score), self.passes)
        self.steps.append(step)
        eligible = step.holds and (scored or self.evaluate is None)
        if eligible and (self.best is None or self.goal.better(step, self.steps[self.best])):
            self.best = len(self.steps) - 1
            self._waiting = {f"model-{self.best}": self._in_mode(small)}
        if self.nearest is None or self.goal.nearer(step, self.steps[self.nearest]):
            self.nearest = len(self.steps) - 1
        self.report(self._line(step), self.passes)
        return step

    def save(self, position: Mapping[str, Any], models: Mapping[str, nn.Module]) -> None:
        """Keep what was tried, the caller's own position, and the models it names."""
        place = self.nearest if self.best is None else self.best
        own = {
            "steps": [asdict(step) for step in self.steps],
            "best": self.best,
            "nearest": self.nearest,
            "passes": self.passes,
            "kept": [f"step-{place}", f"model-{self.best}"],
        }
        self.work.save({**self.work.position, **own, **position}, {**self._waiting, **models})
        self._waiting = {}

    def load(self, name: str, *, resume: bool = False) -> nn.Module:
        """A model kept under a name; see `Work.load`."""
        return self.work.load(name, self.targets.model, self.targets.names, resume=resume)

    def _line(self, step: Step) -> str:
        """What was tried, as a line."""
        setting = ", ".join(f"{value:,g} {name}" for name, value in step.setting.items())
        score = "" if step.score is None else f", {step.score:.6g}"
        mark = "*" if self.best == len(self.steps) - 1 else "+" if step.holds else "-"
        return f"{mark} {setting}: {step.size:,} bytes{score}"

    def _in_mode(self, model: nn.Module) -> nn.Module:
        """A model whose modules are in training or evaluation mode as the user's are."""
        modes = {name: module.training for name, module in self.targets.model.named_modules()}
        for name, module in model.named_modules():
            module.training = modes.get(name, module.training)
        return model


def _or_least(score: float | None) -> float:
    return float("-inf") if score is None or score != score else score
