"""The search with training: prune until the score falls, recover, go on; then ever fewer values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from dwindle import chains
from dwindle.compression import Step, Train
from dwindle.search.sharing import share_at
from dwindle.search.thresholds import Thresholds, prune_to
from dwindle.search.trial import Trial

WIDE = 6
"""Bits at which a pruned network is scored: codebooks of so many cost next to nothing untrained."""

NARROW = 2
"""Fewest bits tried."""

FRACTION = 0.08
"""Share of the survivors that a round removes. Networks recover from small rounds, not from large ones."""

PATIENCE = 14
"""Passes of training in which a pruned network may come back over the bound."""

SHARE_PATIENCE = 6
"""Passes in which a shared one may."""

WINDOW = 6
"""Passes whose weights are averaged while nothing is removed: it lowers the noise that a pass ends with."""

RESERVED = 0.25
"""Share of the passes that is kept for sharing."""

LEVELS = 8
"""Pruned networks that are kept to go back to."""


@dataclass
class Level:
    """A pruned network that holds the bound.

    Attributes:
        survivors: weights that are left.
        name: of its snapshot.
    """

    survivors: int
    name: str


@dataclass
class Progress:
    """Where a search stands.

    Attributes:
        phase: what it is at: removing weights, training a pruned network back over the bound, or sharing.
        survivors: weights left in the model it works on.
        least: weights at which it stops to remove more, and trains.
        failed: weights with which the bound could not be held; 0 before that happened.
        tries: passes since weights were last removed, or since the last sharing.
        levels: what holds, from most survivors to fewest.
        bits: of the sharing that is tried.
        level: place of the level that is shared.
        fresh: whether that is still to be done.
        serial: number of the snapshots of the model and of its average; 0 before there are any.
    """

    phase: Literal["prune", "recover", "share", "done"] = "prune"
    survivors: int = 0
    least: int = 1
    failed: int = 0
    tries: int = 0
    levels: list[Level] = field(default_factory=list)
    bits: int = WIDE - 1
    level: int = 0
    fresh: bool = True
    serial: int = 0

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Progress:
        """From plain data."""
        return cls(**{**kept, "levels": [Level(**level) for level in kept["levels"]]})


class Gradual:
    """Searches for the smallest file that holds a floor.

    Args:
        trial: measures, and remembers.
        train: one pass.
        thresholds: which weights matter.
        slack: how far under the floor a network may be and still be pruned on.
        max_passes: most passes of training.
    """

    def __init__(
        self, trial: Trial, train: Train, thresholds: Thresholds, *, slack: float, max_passes: int
    ) -> None:
        self.trial, self.train, self.thresholds = trial, train, thresholds
        self.slack, self.max_passes = slack, max_passes
        kept = trial.work.position.get("gradual")
        self.at = Progress() if kept is None else Progress.of(kept["progress"])
        # Loaded last, so that torch's random state is that of the model.
        self.mean = self._load(f"mean-{self.at.serial}" if self.at.serial else "")
        self.model = self._load(f"current-{self.at.serial}" if self.at.serial else "")

    def run(self) -> None:
        """Go on to the end. After every pass of training all is kept."""
        while self.at.phase != "done":
            known = {level.name for level in self.at.levels}
            {"prune": self._prune, "recover": self._recover, "share": self._share}[self.at.phase]()
            self.at.serial += 1
            models = {f"current-{self.at.serial}": self.model, f"mean-{self.at.serial}": self.mean}
            models |= {level.name: self.mean for level in self.at.levels if level.name not in known}
            kept = {"progress": asdict(self.at), "models": [*models]}
            self.trial.save({"gradual": kept}, models)

    def _prune(self) -> None:
        """Remove some weights and train a pass, and stop where the score falls too low."""
        at = self.at
        left = at.survivors * (1 - FRACTION) if at.survivors else self.thresholds.survivors
        at.survivors = prune_to(self.model, self.thresholds.scale, max(round(left), at.least))
        before = self.trial.steps[-1].score if self.trial.steps else None
        at.tries = 0
        step = self._pass()
        # A single low score may be noise.
        low = [score for score in (before, step.score) if score is not None]
        if at.survivors <= at.least or not sum(low) / len(low) >= self._floor - self.slack:
            at.phase = "recover"
        if step.holds:
            self._hold()
        self._end_pruning()

    def _recover(self) -> None:
        """Train a pass; once the bound holds, go on removing; if it never does, go back."""
        at = self.at
        if self._pass().holds:
            self._hold()
        elif at.tries > PATIENCE:
            at.failed = at.survivors
            at.survivors = self._back_to(len(at.levels) - 1)
            self._aim(at.survivors or self.thresholds.survivors)
        self._end_pruning()

    def _pass(self) -> Step:
        """Train a pass, average what passes at the same mask end with, and measure the average."""
        self.trial.train(self.train, self.model)
        self.at.tries += 1
        if self.at.tries == 1:
            self.mean = chains.duplicate(self.model)
        else:
            blend(self.mean, self.model, 1 / min(self.at.tries, WINDOW))
        if self.at.phase == "share":
            return self.trial.measure(self.mean, self._setting(self.at.bits))
        shared = chains.duplicate(self.mean)
        share_at(shared, self._names, WIDE, self.thresholds.scale)
        return self.trial.measure(shared, self._setting(WIDE))

    def _hold(self) -> None:
        """Keep the average as a level, and go on to remove weights."""
        at = self.at
        at.levels = [*at.levels, Level(at.survivors, f"level-{at.serial}")][-LEVELS:]
        self._aim(at.survivors)

    def _aim(self, held: int) -> None:
        """Set how far to remove: halfway, by ratio, between what held and what failed."""
        at = self.at
        at.phase = "prune"
        if at.failed:
            at.least = round(math.sqrt(held * at.failed))
            if at.least > held * (1 - FRACTION):
                at.phase = "share"

    def _end_pruning(self) -> None:
        """Turn to sharing when it is time, or end if there is nothing to share."""
        at = self.at
        spent = self.trial.passes >= self.max_passes * (1 - RESERVED) or at.survivors <= len(self._names)
        if at.phase == "share" or spent:
            at.phase, at.fresh, at.level = ("share" if at.levels else "done"), True, len(at.levels) - 1

    def _share(self) -> None:
        """Share a level, or train what is shared, and see what to do next."""
        at, best = self.at, self.trial.best
        if at.fresh:
            self._back_to(at.level)
            share_at(self.model, self._names, at.bits, self.thresholds.scale)
            at.survivors, at.tries = at.levels[at.level].survivors, 0
            step = self.trial.measure(self.model, self._setting(at.bits))
        else:
            step = self._pass()
        at.fresh = True
        if not step.holds and (best is None or step.size < self.trial.steps[best].size):
            if at.tries < SHARE_PATIENCE:
                at.fresh = False
            elif at.level > 0:
                at.level -= 1
            else:
                at.bits -= 1
        else:
            at.bits -= 1
        if at.bits < NARROW or self.trial.passes >= self.max_passes:
            at.phase = "done"

    @property
    def _floor(self) -> float:
        return -math.inf if self.trial.goal.floor is None else self.trial.goal.floor

    @property
    def _names(self) -> tuple[str, ...]:
        return self.trial.targets.names

    def _setting(self, bits: int) -> dict[str, float]:
        return {"survivors": self.at.survivors, "bits": bits}

    def _back_to(self, level: int) -> int:
        """Work on a level again, or on the model the search began with; the weights it has left, 0 for all."""
        found = self.at.levels[level] if level >= 0 else None
        self.model = self._load(found.name if found else "")
        return found.survivors if found else 0

    def _load(self, name: str) -> nn.Module:
        targets = self.trial.targets
        if not name:
            return chains.duplicate(targets.model)
        return self.trial.work.load(name, targets.model, targets.names)


def blend(mean: nn.Module, model: nn.Module, weight: float) -> None:
    """Move the floats of a model towards those of another with the same masks and indices, in place."""
    with torch.no_grad():
        new = model.state_dict()
        for key, value in mean.state_dict().items():
            if value.is_floating_point():
                value.lerp_(new[key].to(value.dtype), weight)
            else:
                value.copy_(new[key])
