"""The stretches a run is made of: what changes the model, for how long it trains, and at which rate."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dwindle.errors import RecipeError
from dwindle.prune import cubic, fraction_for, iterative, per_tensor, prune
from dwindle.recipe import Pruning, Sharing, Training
from dwindle.share import share
from dwindle.train import cosine


class Phase:
    """A stretch of training with one optimizer.

    Args:
        name: the recipe's section.
        training: that section.
    """

    def __init__(self, name: str, training: Training) -> None:
        self.name = name
        self.training = training

    @property
    def epochs(self) -> int:
        """Passes over the training set."""
        return self.training.epochs

    def enter(self, model: nn.Module) -> None:
        """Change the model before its optimizer is made."""

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """Change the model's values, not its parameters."""

    def leave(self, model: nn.Module) -> None:
        """Change the model's values after the last epoch; the same however often it is done."""

    def lr(self, epoch: int) -> Callable[[float], float]:
        """Learning rate over an epoch."""
        return _falling(self.training, epoch, self.training.epochs)


class PrunePhase(Phase):
    """Rounds of pruning, training between them, and training after the last."""

    def __init__(self, pruning: Pruning) -> None:
        super().__init__("prune", pruning)
        self.pruning = pruning
        schedules = {}
        for name, final in pruning.sparsity.items():
            if pruning.schedule == "gradual":
                schedules[name] = cubic(final, pruning.rounds)
            else:
                schedules[name] = iterative(fraction_for(final, pruning.rounds), pruning.rounds)
        self.rounds = per_tensor(schedules)
        self.between = (pruning.rounds - 1) * pruning.epochs_between

    @property
    def epochs(self) -> int:
        """Passes between the rounds and after the last."""
        return self.between + self.pruning.epochs

    def enter(self, model: nn.Module) -> None:
        """Remove the first round's weights."""
        # Rounds that no epoch separates are one.
        prune(model, sparsity=self.rounds[0 if self.between else -1])

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """Remove the next round's weights where one is due."""
        if epoch and epoch <= self.between and epoch % self.pruning.epochs_between == 0:
            prune(model, sparsity=self.rounds[epoch // self.pruning.epochs_between])

    def leave(self, model: nn.Module) -> None:
        """Remove the last round's weights where no epoch followed it."""
        prune(model, sparsity=self.rounds[-1])

    def lr(self, epoch: int) -> Callable[[float], float]:
        """Level between the rounds, falling after the last."""
        if epoch < self.between:
            return lambda part: self.pruning.lr
        return _falling(self.pruning, epoch - self.between, self.pruning.epochs)


class SharePhase(Phase):
    """Sharing, then training the centroids."""

    def __init__(self, sharing: Sharing, seed: int) -> None:
        super().__init__("share", sharing)
        self.sharing, self.seed = sharing, seed

    def enter(self, model: nn.Module) -> None:
        """Share what the recipe names.

        Raises:
            RecipeError: if the budget is too small for it.
        """
        sharing = self.sharing
        try:
            share(model, bits=sharing.bits, budget=sharing.budget, init=sharing.init, seed=self.seed)
        except ValueError as error:
            raise RecipeError(f"share: {error}") from error


def _falling(training: Training, epoch: int, epochs: int) -> Callable[[float], float]:
    last = training.final_lr or training.lr / 100
    return cosine(training.lr, last, epoch=epoch, epochs=epochs)
