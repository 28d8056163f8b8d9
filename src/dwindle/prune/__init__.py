"""Pruning: masks by magnitude, as parametrizations of the model that is being compressed."""

from dwindle.prune.apply import PrunedTensor, PruneReport, Target, prune
from dwindle.prune.iterate import prune_iteratively
from dwindle.prune.mask import Mask, get_mask, prunable, set_mask
from dwindle.prune.permanent import make_permanent
from dwindle.prune.retrain import (
    RETRAIN_LR_ALEXNET,
    RETRAIN_LR_LENET,
    correct_dropout,
    dropout_rates,
    retrain_dropout,
)
from dwindle.prune.schedule import cubic, fraction_for, iterative, per_tensor
from dwindle.prune.sensitivity import Sensitivity, scan_sensitivity
from dwindle.prune.threshold import by_quality, by_sparsity, global_threshold

__all__ = [
    "RETRAIN_LR_ALEXNET",
    "RETRAIN_LR_LENET",
    "Mask",
    "PruneReport",
    "PrunedTensor",
    "Sensitivity",
    "Target",
    "by_quality",
    "by_sparsity",
    "correct_dropout",
    "cubic",
    "dropout_rates",
    "fraction_for",
    "get_mask",
    "global_threshold",
    "iterative",
    "make_permanent",
    "per_tensor",
    "prunable",
    "prune",
    "prune_iteratively",
    "retrain_dropout",
    "scan_sensitivity",
    "set_mask",
]
