"""The folder of a search: what was tried and how it came out, so that a killed search goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dwindle import atomic, bind, chains
from dwindle.errors import OutputError, RunError
from dwindle.records import Raw, Shared
from dwindle.train import load_snapshot, read_model, read_progress, save_snapshot


class Work:
    """What a search keeps: scores by what was scored, its position as plain data, and models.

    Everything is on disk before a method returns. One process at a time may use a folder.

    Args:
        path: the folder; made if it is not there.
        about: what the search depends on; a folder with another search is refused.

    Raises:
        RunError: if the folder has another search, or damaged files.
        OutputError: if it cannot be made or written to.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.about = json.loads(json.dumps(about))
        self.scores: dict[str, float] = {}
        self.position: dict[str, Any] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be made: {error.strerror}") from error
        if self._file.exists():
            self._read()
        else:
            if any(path.iterdir()):
                raise RunError(f"{path}: expected a folder of a search, or an empty one, got other files")
            self._write()

    def file(self, name: str) -> Path:
        """Where a compressed file of that name is."""
        return self.path / f"{name}.dwz"

    def remember(self, label: str, score: float) -> None:
        """Keep the score of what `label` names."""
        self.scores[label] = score
        self._write()

    def save(self, position: Mapping[str, Any], models: Mapping[str, nn.Module]) -> None:
        """Keep a position, and the models it names besides those that are kept already.

        Models and files whose name is not found in the position are removed.
        """
        for name, model in models.items():
            save_snapshot(
                self._snapshot(name), model=model, optimizer=None, generator=torch.Generator(), progress={}
            )
        self.position = json.loads(json.dumps(position))
        self._write()
        named = set(_texts(self.position))
        for kept in self.path.iterdir():
            if kept.suffix in (".pt", ".dwz") and kept.stem not in named:
                kept.unlink(missing_ok=True)

    def load(self, name: str, base: nn.Module, tensors: Iterable[str], *, resume: bool) -> nn.Module:
        """The model kept under a name.

        Args:
            name: as given to `save`.
            base: the model the search began with; not changed.
            tensors: those that may have got masks and codebooks.
            resume: put torch's random state back to what it was then, too.
        """
        path = self._snapshot(name)
        model = chains.duplicate(base)
        known = set(tensors)
        state = {key: value for key, value in read_model(path).items() if _owner(key) in known}
        bind.attach(model, state)
        now = torch.get_rng_state()
        load_snapshot(path, model=model, optimizer=None, generator=torch.Generator())
        if not resume:
            torch.set_rng_state(now)
        return model

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under a name until a position is saved that does not have it."""
        holder = nn.Module()
        for number, tensor in enumerate(tensors.values()):
            holder.register_buffer(str(number), tensor)
        save_snapshot(
            self._snapshot(name),
            model=holder,
            optimizer=None,
            generator=torch.Generator(),
            progress={"names": list(tensors)},
        )

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        """Tensors kept under a name."""
        path = self._snapshot(name)
        return dict(zip(read_progress(path)["names"], read_model(path).values(), strict=True))

    def remove(self) -> None:
        """Remove the folder and all that the search kept."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _file(self) -> Path:
        return self.path / "search.json"

    def _snapshot(self, name: str) -> Path:
        return self.path / f"{name}.pt"

    def _read(self) -> None:
        try:
            kept = json.loads(self._file.read_bytes())
            before, self.scores, self.position = kept["about"], kept["scores"], kept["position"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self._file}: expected what a search keeps, got damage: {error}") from error
        for key in self.about:
            if not isinstance(before, dict) or before.get(key) != self.about[key]:
                got = f"one that differs in {key}; remove the folder to begin anew"
                raise RunError(f"{self.path}: expected this search, got {got}")

    def _write(self) -> None:
        kept = {"about": self.about, "scores": self.scores, "position": self.position}
        atomic.write_bytes(self._file, json.dumps(kept, indent=1).encode())


def fingerprint(model: nn.Module) -> str:
    """A digest of all that a model computes with."""
    digest = hashlib.sha256()
    for name, record in bind.to_records(model).items():
        digest.update(f"{name} ".encode())
        if isinstance(record, Raw):
            digest.update(f"{record.dtype} {record.shape} ".encode())
            digest.update(record.data)
        elif isinstance(record, Shared):
            digest.update(f"{record.dtype} {record.shape} ".encode())
            digest.update(record.codebook.tobytes())
            digest.update(record.indices.tobytes())
        else:
            digest.update(record.to.encode())
    return digest.hexdigest()


def digest(about: Mapping[str, Any]) -> str:
    """Eight digits that tell searches apart."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]


def _owner(key: str) -> str:
    """The tensor a key of a state dict belongs to."""
    path, found, rest = key.rpartition("parametrizations.")
    return f"{path}{rest.split('.')[0]}" if found else key


def _texts(value: Any) -> list[str]:
    """All texts within plain data."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in inner for text in _texts(item)]
