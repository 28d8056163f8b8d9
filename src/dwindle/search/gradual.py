"""The search for the smallest file with training: prune until the score falls, recover, go on; then share."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from dwindle.compression import Step, Train
from dwindle.search.trainee import Trainee
from dwindle.search.trial import Trial

WIDE = 6
"""Bits at which a pruned network is scored: codebooks of so many cost next to nothing untrained."""

FIRST, FINER, NARROW = 5.0, 0.5, 2.0
"""Most bits that are trained, how many fewer are tried after them, and the fewest."""

FAST, SLOW = 0.2, 0.08
"""Shares of the survivors that a round removes: while the floor is held, and below it. Networks recover from
small rounds, not from large ones."""

SLACK = 1.0
"""How far under the floor a network may be and still be pruned or trained on, in greatest drops: a pass
after a round is not all that training can do."""

HOPELESS, SETTLED = 4.0, 3
"""Drops under the floor at which a shared network is given up after a pass; and passes after which `SLACK` is
too many."""

PATIENCE = 14
"""Passes of training in which a pruned network may come back over the floor."""

SHARE_PATIENCE = 5
"""Passes without a better score after which a shared one is given up."""

RESERVED, RESERVED_LATER = 0.25, 0.1
"""Share of the passes that is kept for sharing; and once something shared has held."""

LEVELS, WAYS = 8, 12
"""Pruned networks that are kept to go back to: those that held the floor, and others."""


@dataclass
class Progress:
    """Where a search stands.

    Attributes:
        phase: removing weights, training a pruned network back over the floor, or sharing.
        least: weights at which it stops to remove more, and trains.
        failed: weights with which the floor could not be held; 0 before that happened.
        bits: of the sharing that is tried.
        hopeless: bits under which none is.
        held: whether something shared has held.
        level: place of the level that is shared.
        fresh: whether that is still to be done.
    """

    phase: Literal["prune", "recover", "share", "done"] = "prune"
    least: int = 1
    failed: int = 0
    bits: float = FIRST
    hopeless: float = NARROW
    held: bool = False
    level: int = 0
    fresh: bool = True


def search_gradually(trial: Trial, train: Train, max_passes: int) -> None:
    """Find the smallest file that holds a floor. After every pass of training all is kept.

    Args:
        trial: measures, and remembers.
        train: one pass.
        max_passes: most passes of training.

    Zhu and Gupta 2017 prune gradually while they train; Han et al. 2016, section 3, train what is shared.
    """
    _Gradual(trial, train, max_passes).run()


class _Gradual:
    def __init__(self, trial: Trial, train: Train, max_passes: int) -> None:
        self.trial, self.max_passes = trial, max_passes
        self.at = Progress(**trial.work.position.get("gradual", {}))
        self.trainee = Trainee(trial, train)

    def run(self) -> None:
        while self.at.phase != "done":
            {"prune": self._prune, "recover": self._recover, "share": self._share}[self.at.phase]()
            self.trainee.save({"gradual": asdict(self.at)})

    def _prune(self) -> None:
        """Remove some weights and train a pass, and stop where the score falls too low.

        Before the first round a pass shows which weights matter.
        """
        at, trainee, goal = self.at, self.trainee, self.trial.goal
        last = self.trial.steps[-1] if self.trial.steps else None
        before = None if last is None else last.score
        if not trainee.saliency.stale:
            share = FAST if last is not None and last.holds else SLOW
            trainee.remove_to(max(math.floor(trainee.survivors * (1 - share)), at.least))
        trainee.run_pass()
        step = trainee.measure(WIDE, share=True)
        # A single low score may be noise.
        low = [score for score in (before, step.score) if score is not None]
        if trainee.survivors <= at.least or not sum(low) / len(low) >= goal.floor - SLACK * goal.max_drop:
            at.phase = "recover"
        if step.holds or not trainee.saliency.squares:
            self._hold()
        elif at.phase == "prune":
            trainee.keep_way(WAYS)
        self._end_pruning()

    def _recover(self) -> None:
        """Train a pass; once the floor is held, go on removing; if it never is, turn back."""
        at, trainee = self.at, self.trainee
        trainee.run_pass()
        if trainee.measure(WIDE, share=True).holds:
            self._hold()
        elif trainee.tries > PATIENCE:
            at.failed = trainee.survivors
            self._turn_back()
        self._end_pruning()

    def _turn_back(self) -> None:
        """Go back to what was left about halfway between what held and what failed, or to what held."""
        at, trainee = self.at, self.trainee
        trainee.back_to(next(reversed(trainee.levels), ""))
        self._aim()
        between = {
            name: survivors
            for name, survivors in trainee.ways.items()
            if at.least * (1 - SLOW / 2) <= survivors < trainee.survivors
        }
        if at.phase == "prune" and between:
            trainee.back_to(min(between, key=lambda name: between[name]))
            at.phase = "recover"

    def _hold(self) -> None:
        """Keep the average as a level, and go on to remove weights."""
        self.trainee.keep_level(LEVELS)
        self._aim()

    def _aim(self) -> None:
        """Set how far to remove: halfway, by ratio, between what held and what failed."""
        at, held = self.at, self.trainee.survivors
        at.phase = "prune" if self.trainee.saliency.squares else "share"
        if at.failed and held:
            at.least = round(math.sqrt(held * at.failed))
            if at.least > held * (1 - SLOW):
                at.phase = "share"

    def _since_best(self, latest: int) -> int:
        """How many steps after the best of so many latest ones there were."""
        scores = [-math.inf if step.score is None else step.score for step in self.trial.steps[-latest:]]
        return len(scores) - 1 - scores.index(max(scores))

    def _end_pruning(self) -> None:
        """Turn to sharing when it is time, or end if there is nothing to share."""
        at, levels = self.at, self.trainee.levels
        reserved = RESERVED_LATER if at.held else RESERVED
        spent = self.trial.passes >= self.max_passes * (1 - reserved)
        if at.phase == "share" or spent or self.trainee.survivors == 1:
            at.phase, at.fresh, at.level = ("share" if levels else "done"), True, len(levels) - 1
            self.trainee.ways.clear()

    def _share(self) -> None:
        """Share a level, or train what is shared, and see what to do next.

        From the fewest survivors and the most bits, a step is to fewer bits after a success, and to more
        survivors after a failure; what would not be smaller than the best is not trained. When all is tried,
        passes that are left go to removing more.
        """
        at, trainee = self.at, self.trainee
        best = self.trial.best
        if at.fresh:
            trainee.back_to([*trainee.levels][at.level])
            trainee.share(at.bits)
        else:
            trainee.run_pass()
        step = trainee.measure(at.bits, share=False)
        at.fresh = True
        if step.holds:
            at.held = True
            at.bits -= FINER
        elif best is not None and step.size >= self.trial.steps[best].size:
            at.bits -= FINER
        elif self._is_hopeless(step):
            at.hopeless = at.bits
            self._share_more()
        elif self._since_best(trainee.tries + 1) < SHARE_PATIENCE:
            at.fresh = False
        else:
            self._share_more()
        if self.trial.passes >= self.max_passes:
            at.phase = "done"
        elif at.bits < at.hopeless:
            self._prune_on()

    def _share_more(self) -> None:
        """Turn to more survivors, or, where there are no more, to fewer bits."""
        if self.at.level > 0:
            self.at.level -= 1
        else:
            self.at.bits -= FINER

    def _is_hopeless(self, step: Step) -> bool:
        """Whether what is shared is too far under the floor for training to help."""
        goal, tries = self.trial.goal, self.trainee.tries
        if not goal.max_drop:
            return False
        far = SLACK if tries >= SETTLED else HOPELESS if tries else math.inf
        return step.score is not None and step.score < goal.floor - far * goal.max_drop

    def _prune_on(self) -> None:
        """Remove more weights from what holds with the fewest; failures before may have been bad luck."""
        at, trainee = self.at, self.trainee
        if not at.held or not trainee.saliency.squares or trainee.levels[next(reversed(trainee.levels))] == 1:
            at.phase = "done"
            return
        trainee.back_to(next(reversed(trainee.levels)))
        at.phase, at.failed, at.least = "prune", 0, 1
        at.bits, at.hopeless = FIRST, NARROW
