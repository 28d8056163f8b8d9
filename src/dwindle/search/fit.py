"""The search for the most accurate file of a size with training: many coarse weights, or fewer finer ones."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from dwindle.compression import Train
from dwindle.search.sharing import LEAST
from dwindle.search.trainee import Trainee
from dwindle.search.trial import Trial

BITS = (3.5, 4.25, 5.0)
"""Bits that are tried, the coarsest first: its weights need not be removed so far."""

FINER = 0.125
"""To how many bits a network that is trained is fitted into the limit."""

PRUNING = 0.5
"""Share of the passes in which weights are removed."""

WIDEST = 8.0
"""Most bits: more make no difference."""

MARGIN = 0.98
"""Share of the limit to prune and to share to: what is trained after that is a little larger or smaller."""

BITS_A_SURVIVOR = 8
"""Rough bits of a survivor, from which the number of rounds is planned."""

SMALLEST, LARGEST = 0.04, 0.3
"""Shares of the survivors that a round may remove."""


@dataclass
class Progress:
    """Where a search stands.

    Attributes:
        phase: removing weights, training what is pruned, or what is shared.
        fits: name of the level whose size at some bits is right, by these bits.
        at: place in `BITS` of what is trained.
        bits: in which it is shared.
    """

    phase: Literal["prune", "train", "share", "done"] = "prune"
    fits: dict[str, str] = field(default_factory=dict)
    at: int = 0
    bits: float = 0.0


def search_fit(trial: Trial, train: Train, max_passes: int) -> None:
    """Find the most accurate file of at most a limit. After every pass of training all is kept.

    Args:
        trial: measures, and remembers.
        train: one pass.
        max_passes: most passes of training.
    """
    _Fit(trial, train, max_passes).run()


class _Fit:
    def __init__(self, trial: Trial, train: Train, max_passes: int) -> None:
        self.trial, self.max_passes = trial, max_passes
        self.limit = trial.goal.limit or 1
        self.at = Progress(**trial.work.position.get("fit", {}))
        self.trainee = Trainee(trial, train)

    def run(self) -> None:
        while self.at.phase != "done":
            {"prune": self._prune, "train": self._train, "share": self._share}[self.at.phase]()
            self.trainee.save({"fit": asdict(self.at)})

    def _prune(self) -> None:
        """Remove a round, and keep a level for all bits at which it fits now."""
        at, trainee = self.at, self.trainee
        missing = [bits for bits in BITS if str(bits) not in at.fits]
        while missing and self._fits(missing[0]):
            at.fits[str(missing.pop(0))] = trainee.keep_level(len(BITS))
        spent = self.trial.passes >= self.max_passes * PRUNING and at.fits
        gone = trainee.survivors <= 1 and not trainee.saliency.stale
        if not missing or spent or gone:
            at.phase = "train" if at.fits else "done"
            if at.fits:
                trainee.back_to(at.fits[str(BITS[0])])
            return
        if not trainee.saliency.stale:
            trainee.remove_to(max(math.floor(trainee.survivors * (1 - self._fraction)), 1))
        if self.trial.passes < self.max_passes or trainee.saliency.stale:
            trainee.run_pass()
        if not trainee.saliency.squares:
            at.phase = "done"

    def _train(self) -> None:
        """Train what is pruned; then share it in as many bits as fit."""
        at, trainee = self.at, self.trainee
        if trainee.tries < self._passes_each(2 / 3):
            trainee.run_pass()
            return
        at.bits, over = LEAST, WIDEST
        while over - at.bits > FINER:
            middle = (at.bits + over) / 2
            if self._fits(middle):
                at.bits = middle
            else:
                over = middle
        trainee.share(at.bits)
        trainee.measure(at.bits, share=False)
        at.phase = "share"

    def _share(self) -> None:
        """Train what is shared; then turn to the next bits."""
        at, trainee = self.at, self.trainee
        if trainee.tries < self._passes_each(1 / 3):
            trainee.run_pass()
            trainee.measure(at.bits, share=False)
            return
        at.at += 1
        at.phase = "train" if at.at < len(at.fits) else "done"
        if at.phase == "train":
            trainee.back_to(at.fits[str(BITS[at.at])])

    def _fits(self, bits: float) -> bool:
        """Whether the average, shared, is within the limit, with a margin."""
        return self.trainee.measure(bits, share=True, scored=False).size <= self.limit * MARGIN

    @property
    def _fraction(self) -> float:
        """Share of the survivors to remove in a round, so that the last round comes in time."""
        rounds = max(int(self.max_passes * PRUNING) - self.trial.passes, 1)
        ratio = 8 * self.limit / BITS_A_SURVIVOR / self.trainee.survivors
        return min(max(1 - float(min(ratio, 1.0) ** (1 / rounds)), SMALLEST), LARGEST)

    def _passes_each(self, share: float) -> int:
        """Passes for a part of the work on each of the levels."""
        return int(self.max_passes * (1 - PRUNING) / max(len(self.at.fits), 1) * share)
