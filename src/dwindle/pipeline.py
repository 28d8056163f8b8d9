"""Running a recipe: train, prune, share, code. A run killed at any moment goes on to the same bytes."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dwindle import atomic, bind, file
from dwindle.data import Examples, split
from dwindle.errors import OutputError, RecipeError, RunError
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.models import build
from dwindle.phases import Phase, PrunePhase, SharePhase
from dwindle.prune import correct_dropout, dropout_rates
from dwindle.recipe import Recipe
from dwindle.records import Raw
from dwindle.train import error, fit_epoch, load_snapshot, predict, read_model, read_progress, save_snapshot

Log = Callable[[str], None]


@dataclass(frozen=True)
class RunFolder:
    """What a run leaves in its folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe with every default, which a resumed run must have too."""
        return self.path / "recipe.json"

    @property
    def snapshot(self) -> Path:
        """The state after the last epoch."""
        return self.path / "snapshot.pt"

    @property
    def reference(self) -> Path:
        """The network before compression."""
        return self.path / "reference.safetensors"

    @property
    def pruned(self) -> Path:
        """The network after pruning and retraining."""
        return self.path / "pruned.safetensors"

    @property
    def compressed(self) -> Path:
        """The file."""
        return self.path / "model.dwz"


def run_recipe(
    recipe: Recipe,
    folder: Path,
    data: Examples,
    *,
    reference: Path | None = None,
    force: bool = False,
    device: str = "cpu",
    log: Log | None = None,
) -> nn.Module:
    """Carry a recipe out; begin where an earlier run of it in the same folder was stopped.

    However often it is stopped and resumed, on one machine and with one number of threads the file comes out
    the same to the byte: model, optimizer, random states and data order are restored at the epoch.

    Args:
        recipe: what to do.
        folder: made if it is not there.
        data: what to train on.
        reference: a checkpoint to compress instead of training one.
        force: begin anew; what an earlier run left in the folder goes.
        device: where to train.
        log: called with a line for each epoch.

    Returns:
        The compressed model in memory; the file and the networks before are in the folder.

    Raises:
        RunError: if the folder has a run of another recipe, damaged files, or files that are no run's.
        TensorError: if the recipe names a tensor the model does not have.
        RecipeError: if the recipe has no section on training and no `reference` is given, or holds out all
            examples.
        CheckpointError: if `reference` cannot be read, or is not the recipe's network.
        OutputError: if the folder cannot be made or written to.
    """
    at = RunFolder(folder)
    if reference is None and recipe.reference is None:
        raise RecipeError(
            f"{recipe.name}: expected a checkpoint of {recipe.model} (--reference), "
            "since the recipe has no section [reference], got none"
        )
    torch.manual_seed(recipe.seed)
    trainer = _Trainer(recipe, at, data, device, log or (lambda line: None))
    if reference is not None:
        bind.load_records(trainer.model, read_checkpoint(reference).records, str(reference))
    phases: list[Phase] = []
    if reference is None and recipe.reference is not None:
        phases += [Phase("reference", recipe.reference)]
    phases += [PrunePhase(recipe.prune)] if recipe.prune else []
    phases += [SharePhase(recipe.share, recipe.seed)] if recipe.share else []
    rehearsal = copy.deepcopy(trainer.model)
    for phase in phases:
        phase.enter(rehearsal)  # what the recipe says of a tensor that is not there is said now
    _claim(at, recipe, None if reference is None else trainer.model, force)
    if reference is not None:
        _save(trainer.model, at.reference)
    done = trainer.resume([phase.name for phase in phases])
    for phase in phases:
        if done is None or done.phase == phase.name:
            trainer.train(phase, done)
            done = None
            if phase.name in ("reference", "prune"):
                _save(trainer.model, at.reference if phase.name == "reference" else at.pruned)
    records = bind.to_records(trainer.model)
    file.write(
        at.compressed, records, coding=recipe.code.coding, metadata={"model": recipe.model}, force=True
    )
    return trainer.model


@dataclass(frozen=True)
class _Done:
    """Where an earlier run was stopped."""

    phase: str
    epochs: int


class _Trainer:
    """The model, the data and the random states of a run."""

    def __init__(self, recipe: Recipe, at: RunFolder, data: Examples, device: str, log: Log) -> None:
        self.recipe, self.at, self.data, self.log = recipe, at, data, log
        dropout = recipe.reference.dropout if recipe.reference else None
        self.model = build(recipe.model, dropout=dropout).to(device)
        self.dropout = dropout_rates(self.model)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        if recipe.validation >= len(data.train_labels):
            got = f"{recipe.validation} of {len(data.train_labels)}"
            raise RecipeError(f"{recipe.name}: expected training examples besides those held out, got {got}")
        chosen, held_out = split(len(data.train_labels), recipe.validation, seed=recipe.seed)
        self.inputs, self.targets = _pick(data, chosen, device)
        self.validation = _pick(data, held_out, device)

    def resume(self, phases: Sequence[str]) -> _Done | None:
        """Put the model back as the last snapshot has it."""
        if not self.at.snapshot.exists():
            return None
        progress = read_progress(self.at.snapshot)
        done = _Done(progress["phase"], progress["epochs"])
        if done.phase not in phases:
            raise RunError(f"{self.at.snapshot}: expected a phase of {', '.join(phases)}, got {done.phase}")
        bind.attach(self.model, read_model(self.at.snapshot))
        self.log(f"resuming {done.phase} after {done.epochs} epochs")
        return done

    def train(self, phase: Phase, done: _Done | None) -> None:
        """Carry a phase out, from its first epoch or from where it was stopped."""
        training = phase.training
        if done is None:
            phase.enter(self.model)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(
            trained,
            lr=training.lr,
            momentum=training.momentum,
            nesterov=training.momentum > 0,
            weight_decay=training.weight_decay,
        )
        if done is not None:
            load_snapshot(self.at.snapshot, model=self.model, optimizer=optimizer, generator=self.generator)
        for epoch in range(done.epochs if done else 0, phase.epochs):
            phase.before_epoch(self.model, epoch)
            self._correct_dropout()
            loss = fit_epoch(
                self.model,
                self.inputs,
                self.targets,
                optimizer,
                batch=training.batch,
                generator=self.generator,
                prepare=lambda inputs: self.data.augment(inputs, training.shift, self.generator),
                lr=phase.lr(epoch),
            )
            self.log(f"{phase.name} {epoch + 1}/{phase.epochs}: loss {loss:.4f}{self._validate()}")
            progress = {"phase": phase.name, "epochs": epoch + 1}
            save_snapshot(
                self.at.snapshot,
                model=self.model,
                optimizer=optimizer,
                generator=self.generator,
                progress=progress,
            )
        phase.leave(self.model)

    def _correct_dropout(self) -> None:
        if self.recipe.prune and self.recipe.prune.correct_dropout:
            correct_dropout(self.model, self.dropout)

    def _validate(self) -> str:
        inputs, labels = self.validation
        if not len(labels):
            return ""
        answers = predict(self.model, inputs, batch=self.data.batch, prepare=self.data.prepare)
        return f", validation error {error(answers, labels):.2f} %"


def _claim(at: RunFolder, recipe: Recipe, reference: nn.Module | None, force: bool) -> None:
    """Make the folder this recipe's, or make sure that it is."""
    described = recipe.model_dump(mode="json") | {
        "reference_crc32": None if reference is None else _fingerprint(reference),
        "threads": torch.get_num_threads(),
    }
    kept = (at.snapshot, at.pruned, at.compressed)
    try:
        at.path.mkdir(parents=True, exist_ok=True)
        if at.recipe.exists():
            if not force:
                _check_same(at, described)
            else:
                for path in kept:
                    path.unlink(missing_ok=True)
        for path in (*kept, at.reference):
            if path.exists() and not at.recipe.exists():
                raise RunError(f"{path}: expected no such file in a folder without a run, got one")
    except OSError as error:
        raise OutputError(f"{at.path}: cannot be written: {error.strerror}") from error
    atomic.write_bytes(at.recipe, json.dumps(described, indent=2).encode())


def _check_same(at: RunFolder, described: dict[str, Any]) -> None:
    """Refuse a folder with the run of another recipe."""
    try:
        before = json.loads(at.recipe.read_bytes())
    except ValueError as error:
        raise RunError(f"{at.recipe}: expected JSON, got {error}; --force begins anew") from error
    for key in described:
        if not isinstance(before, dict) or before.get(key) != described[key]:
            got = f"one that differs in {key}; --force begins anew"
            raise RunError(f"{at.path}: expected a run of this recipe, got {got}")


def _fingerprint(model: nn.Module) -> int:
    """A checksum over the values of a model."""
    crc = 0
    for record in bind.to_records(model).values():
        crc = zlib.crc32(record.data, crc) if isinstance(record, Raw) else crc
    return crc


def _save(model: nn.Module, path: Path) -> None:
    write_checkpoint(path, bind.to_records(model), force=True)


def _pick(data: Examples, chosen: Tensor, device: str) -> tuple[Tensor, Tensor]:
    return data.train_inputs[chosen].to(device), data.train_labels[chosen].to(device)
