"""Training, evaluation and comparison of predictions."""

from dwindle.train.agreement import Accuracy, Agreement, agreement, compare, paired_interval
from dwindle.train.confusion import Change, changes, confusion_matrix
from dwindle.train.evaluate import error, predict
from dwindle.train.fit import fit_epoch
from dwindle.train.schedule import cosine
from dwindle.train.snapshot import load_snapshot, read_model, read_progress, save_snapshot

__all__ = [
    "Accuracy",
    "Agreement",
    "Change",
    "agreement",
    "changes",
    "compare",
    "confusion_matrix",
    "cosine",
    "error",
    "fit_epoch",
    "load_snapshot",
    "paired_interval",
    "predict",
    "read_model",
    "read_progress",
    "save_snapshot",
]
