"""The model a search trains: pruned on, averaged over passes, gone back to, and kept between passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dwindle import chains
from dwindle.compression import Step, Train
from dwindle.search.saliency import Saliency
from dwindle.search.sharing import round_books, share_at
from dwindle.search.trial import Trial

WINDOW = 6
"""Passes whose weights are averaged while nothing is removed: it lowers the noise that a pass ends with."""


class Trainee:
    """A model on its way, with the average of its latest passes.

    Args:
        trial: measures, and remembers.
        train: one pass.

    Attributes:
        model: the model that is trained.
        mean: average of what its latest passes ended with, all with the same masks and indices.
        survivors: weights left in it; 0 before a pass has shown what can be removed.
        tries: passes since weights were removed or shared.
        levels: survivors by the name of a snapshot to go back to.
        ways: likewise of those that did not hold when they were left.
        saliency: what its weights matter, as far as passes have shown.
    """

    def __init__(self, trial: Trial, train: Train) -> None:
        self.trial, self.train = trial, train
        kept: Mapping[str, Any] = trial.work.position.get("trainee", {})
        self.survivors, self.tries = kept.get("survivors", 0), kept.get("tries", 0)
        self.levels: dict[str, int] = dict(kept.get("levels", {}))
        self.ways: dict[str, int] = dict(kept.get("ways", {}))
        self._new: dict[str, nn.Module] = {}
        self._serial = kept.get("serial", 0)
        name = f"saliency-{self._serial}"
        squares = trial.work.load_tensors(name) if self._serial else None
        self.saliency = Saliency(squares, stale=kept.get("stale", True))
        # The model last, so that torch's random state is that of its snapshot.
        self.mean = self._load(f"mean-{self._serial}" if self._serial else "")
        self.model = self._load(f"model-at-{self._serial}" if self._serial else "", resume=True)

    def remove_to(self, survivors: int) -> None:
        """Remove the weights that matter least, until so many are left."""
        self.survivors = self.saliency.prune_to(self.model, survivors)
        self.tries = 0

    def share(self, bits: float) -> None:
        """Go on with the average, its tensors shared."""
        self.model = chains.duplicate(self.mean)
        share_at(self.model, self._names, bits, self.saliency.importance(self.model, self._names))
        self.mean, self.tries = chains.duplicate(self.model), 0

    def run_pass(self) -> None:
        """Train a pass, and average what passes since the last change of the model ended with."""
        with self.saliency.watching(self.model, self._names):
            self.trial.train(self.train, self.model)
        self.survivors = self.survivors or self.saliency.left(self.model)
        self.tries += 1
        if self.tries == 1:
            self.mean = chains.duplicate(self.model)
        else:
            blend(self.mean, self.model, 1 / min(self.tries, WINDOW))

    def measure(self, bits: float, *, share: bool, scored: bool = True) -> Step:
        """Measure the average, or, with `share`, a shared copy of it."""
        shared = chains.duplicate(self.mean)
        if share:
            share_at(shared, self._names, bits, self.saliency.importance(shared, self._names))
        round_books(shared, self.trial.targets.model, self._names)
        return self.trial.measure(shared, {"survivors": self.survivors, "bits": bits}, scored=scored)

    def keep_level(self, most: int) -> str:
        """Keep the average to go back to; of more than `most` the oldest goes. Its name.

        What was left on the way with more weights is of no use any more.
        """
        self.ways = {name: survivors for name, survivors in self.ways.items() if survivors < self.survivors}
        return self._keep("level", self.levels, most)

    def keep_way(self, most: int) -> None:
        """Keep the average, though it does not hold, to train it on from there."""
        self._keep("way", self.ways, most)

    def _keep(self, word: str, kept: dict[str, int], most: int) -> str:
        name = f"{word}-{self._serial}-{len(kept)}"
        kept[name] = self.survivors
        self._new[name] = chains.duplicate(self.mean)
        for old in [*kept][: max(len(kept) - most, 0)]:
            del kept[old]
        return name

    def back_to(self, name: str) -> None:
        """Work on a level again, or, without a name, on the model the search began with.

        What weights matter is stale then: gradients of those removed since are not known.
        """
        self.model = self._load(name)
        self.mean = chains.duplicate(self.model)
        self.survivors, self.tries = (self.levels | self.ways).get(name, 0), 0
        self.saliency.stale = True

    def save(self, position: Mapping[str, Any]) -> None:
        """Keep all of it, and the caller's own position."""
        self._serial += 1
        kept = {
            "serial": self._serial,
            "survivors": self.survivors,
            "tries": self.tries,
            "stale": self.saliency.stale,
            "levels": self.levels,
            "ways": self.ways,
        }
        models = {f"mean-{self._serial}": self.mean, f"model-at-{self._serial}": self.model, **self._new}
        names = [*models, *self.levels, *self.ways, f"saliency-{self._serial}"]
        self.trial.work.save_tensors(f"saliency-{self._serial}", self.saliency.squares)
        self.trial.save({"trainee": {**kept, "levels": self.levels, "names": names}, **position}, models)
        self._new = {}

    @property
    def _names(self) -> tuple[str, ...]:
        return self.trial.targets.names

    def _load(self, name: str, *, resume: bool = False) -> nn.Module:
        if name in self._new:
            return chains.duplicate(self._new[name])
        return self.trial.load(name, resume=resume) if name else chains.duplicate(self.trial.targets.model)


def blend(mean: nn.Module, model: nn.Module, weight: float) -> None:
    """Move the floats of a model towards those of another with the same masks and indices, in place."""
    with torch.no_grad():
        new = model.state_dict()
        for key, value in mean.state_dict().items():
            if value.is_floating_point():
                value.lerp_(new[key].to(value.dtype), weight)
            else:
                value.copy_(new[key])
