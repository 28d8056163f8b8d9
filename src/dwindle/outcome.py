"""What a run came to: test errors before and after, each looked at once, and every byte of the file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dwindle import bind
from dwindle.data import Examples
from dwindle.errors import CheckpointError
from dwindle.file import Archive, Ledger, ledger
from dwindle.file.layout import MAGIC
from dwindle.io import read_checkpoint
from dwindle.loading import load_into
from dwindle.models import NAMES, build
from dwindle.pipeline import RunFolder
from dwindle.recipe import Recipe
from dwindle.train import Agreement, Change, changes, compare, confusion_matrix, error, predict

MOST_CLASSES = 20
"""Of networks with more classes no confusion matrix is made: it would be larger than the answers."""


@dataclass(frozen=True)
class Outcome:
    """A finished run, measured.

    Attributes:
        file: the compressed file.
        ledger: where its bytes go.
        parameters: of the network.
        parameters_left: after pruning, biases included; None without pruning.
        reference_error: percent of test examples the network before compression gets wrong.
        pruned_error: likewise after pruning and retraining; None without pruning.
        test_error: likewise of the network as read from the file.
        same_predictions: whether the file's predictions equal those of the compressed model in memory on
            every test example; None where there is no such model.
        agreement: outputs of the network before compression and of that read from the file, side by side.
        confusion_before: rows true classes, columns answers, before compression; None with over
            MOST_CLASSES classes.
        confusion_after: likewise of the network as read from the file.
        changed: test examples whose answer changed.
        noun: what the examples are called.
    """

    file: Path
    ledger: Ledger
    parameters: int
    parameters_left: int | None
    reference_error: float
    pruned_error: float | None
    test_error: float
    same_predictions: bool | None
    agreement: Agreement
    confusion_before: Tensor | None
    confusion_after: Tensor | None
    changed: tuple[Change, ...]
    noun: str

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON types."""
        matrices = {"confusion_before": self.confusion_before, "confusion_after": self.confusion_after}
        return {
            "file": str(self.file),
            "bytes": self.ledger.file_size,
            "rate": self.ledger.rate,
            "parameters": self.parameters,
            "parameters_left": self.parameters_left,
            "reference_error": self.reference_error,
            "pruned_error": self.pruned_error,
            "test_error": self.test_error,
            "same_predictions": self.same_predictions,
            "agreement": self.agreement.to_json(),
            **{name: None if matrix is None else matrix.tolist() for name, matrix in matrices.items()},
            "changed": [asdict(change) for change in self.changed],
            "ledger": self.ledger.to_json(),
        }


def measure(
    recipe: Recipe, folder: Path, data: Examples, model: nn.Module | None = None, *, device: str = "cpu"
) -> Outcome:
    """Evaluate the networks a finished run left in its folder.

    Args:
        recipe: what was run.
        folder: where.
        data: its test set is used.
        model: the compressed model in memory, on `device`, to compare the file's predictions with.
        device: where the networks run.

    Raises:
        FileError: if the compressed file is damaged.
        CheckpointError: if one of the others is.
    """
    at = RunFolder(folder)
    reference = _load(recipe.model, at.reference).to(device)
    decoded = load_into(build(recipe.model), at.compressed).to(device)
    inputs, labels = data.test_inputs.to(device), data.test_labels.to(device)
    agreed = compare(reference, decoded, inputs, labels, batch=data.batch, prepare=data.prepare)
    before, after = agreed.before, agreed.after
    few = data.classes <= MOST_CLASSES
    matrices = [
        confusion_matrix(answers, data.test_labels, data.classes) if few else None
        for answers in (before, after)
    ]
    pruned_error = left = None
    if recipe.prune:
        pruned = _load(recipe.model, at.pruned).to(device)
        pruned_error = error(_predict(pruned, data, device), data.test_labels)
        left = sum(int(torch.count_nonzero(p)) if p.ndim > 1 else p.numel() for p in pruned.parameters())
    with Archive(at.compressed) as archive:
        book = ledger(archive)
    return Outcome(
        file=at.compressed,
        ledger=book,
        parameters=sum(parameter.numel() for parameter in reference.parameters()),
        parameters_left=left,
        reference_error=error(before, data.test_labels),
        pruned_error=pruned_error,
        test_error=error(after, data.test_labels),
        same_predictions=None if model is None else torch.equal(after, _predict(model, data, device)),
        agreement=agreed,
        confusion_before=matrices[0],
        confusion_after=matrices[1],
        changed=tuple(changes(before, after, data.test_labels)),
        noun=data.noun,
    )


def read_network(path: Path, name: str | None) -> tuple[str, nn.Module]:
    """A reference network with the values of a `.dwz` file or a checkpoint.

    Args:
        path: the file.
        name: which network; a `.dwz` file written by a recipe names it itself.

    Returns:
        The network's name, and the network.

    Raises:
        CheckpointError: if nothing says which network it is, or the file holds another.
        FileError: if the `.dwz` file is damaged.
    """
    if _is_dwz(path):
        with Archive(path) as archive:
            name = name or archive.metadata.get("model")
    if name is None:
        raise CheckpointError(f"{path}: expected --model to say which network this is, got none")
    if name not in NAMES:
        raise CheckpointError(f"{path}: expected a network out of {', '.join(NAMES)}, got {name!r}")
    return name, load_into(build(name), path) if _is_dwz(path) else _load(name, path)


def _is_dwz(path: Path) -> bool:
    if path.is_dir():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _load(name: str, path: Path) -> nn.Module:
    model = build(name)
    bind.load_records(model, read_checkpoint(path).records, str(path))
    return model


def _predict(model: nn.Module, data: Examples, device: str) -> Tensor:
    inputs = data.test_inputs.to(device)
    return predict(model, inputs, batch=data.batch, prepare=data.prepare).cpu()
