"""Files that are tried: written, read back, scored, and the best of them kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from dwindle import atomic, bind, chains
from dwindle.code.plan import Coding
from dwindle.compression import Evaluate, Step, Train, read_back
from dwindle.file import Archive, write
from dwindle.search.sharing import averaged, round_small
from dwindle.search.targets import Targets
from dwindle.search.work import Work


@dataclass(frozen=True)
class Goal:
    """What is asked for: the smallest file of at least a score, or the most accurate of at most a size.

    Attributes:
        floor: the least score.
        limit: the most bytes.
    """

    floor: float | None = None
    limit: int | None = None

    def holds(self, size: int, score: float | None) -> bool:
        """Whether a file keeps to it. A score that is NaN does not."""
        if self.limit is not None:
            return size <= self.limit
        return self.floor is not None and score is not None and score >= self.floor

    def better(self, step: Step, other: Step) -> bool:
        """Whether of two files that hold the first is to be preferred."""
        if self.limit is None:
            return step.size < other.size
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
        report: called with a line for each thing tried, and with the number of steps to come if known.
        steps: files tried.
        best: place in `steps` of the best that holds.
        passes: of training so far.
    """

    targets: Targets
    goal: Goal
    evaluate: Evaluate | None
    work: Work
    coding: Coding | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    report: Callable[[str], None] = lambda line: None
    steps: list[Step] = field(default_factory=list)
    best: int | None = None
    passes: int = 0
    _waiting: dict[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Go on where an earlier search in the same folder was stopped."""
        position = self.work.position
        self.steps = [Step(**step) for step in position.get("steps", [])]
        self.best, self.passes = position.get("best"), position.get("passes", 0)

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
            self.report(f"{label}: {found:.6g}")
        return self.work.scores[label]

    def train(self, train: Train, model: nn.Module) -> None:
        """One pass of training, counted."""
        with averaged(model, self.targets.names):
            train(model)
        self.passes += 1

    def measure(self, model: nn.Module, setting: Mapping[str, float], *, exact: bool = False) -> Step:
        """Write a copy of a model to a file, read it back and score what it holds.

        Args:
            model: not changed.
            setting: what it was made with.
            exact: leave biases, norms and codebooks as they are.
        """
        small = chains.duplicate(model)
        if not exact:
            round_small(small, self.targets.model, self.targets.names, self.targets.small)
        name = f"step-{len(self.steps)}"
        path = self.work.file(name)
        write(path, bind.to_records(small), coding=self.coding, metadata=self.metadata, force=True)
        size, score = path.stat().st_size, None
        wanted = self.goal.limit is None or size <= self.goal.limit
        if self.evaluate is not None and wanted:
            with Archive(path, max_bytes=None) as archive:
                loaded = read_back(small, archive, str(path))
            score = float(self.evaluate(self._in_mode(loaded)))
        step = Step(dict(setting), size, score, self.goal.holds(size, score), self.passes)
        self.steps.append(step)
        if step.holds and (self.best is None or self.goal.better(step, self.steps[self.best])):
            self.best = len(self.steps) - 1
            self._waiting[f"model-{self.best}"] = self._in_mode(small)
        self.report(self._line(step))
        return step

    def save(self, position: Mapping[str, Any], models: Mapping[str, nn.Module]) -> None:
        """Keep what was tried, the caller's own position, and the models it names."""
        kept = {} if self.best is None else {"file": f"step-{self.best}", "model": f"model-{self.best}"}
        own = {"steps": [asdict(step) for step in self.steps], "best": self.best, "passes": self.passes}
        self.work.save({**self.work.position, **own, "kept": kept, **position}, {**self._waiting, **models})
        self._waiting = {}

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


def publish(trial: Trial, path: Any, *, force: bool) -> None:
    """Write the best file to where the user wants it."""
    atomic.write_bytes(path, trial.work.file(f"step-{trial.best}").read_bytes(), force=force)


def _or_least(score: float | None) -> float:
    return float("-inf") if score is None or score != score else score
