import errno
import io
import os
import zlib

import pytest
import torch
from torch import nn

from dwindle import models
from dwindle.errors import OutputError, RunError
from dwindle.train import cosine, fit_epoch, load_snapshot, read_progress, save_snapshot

EPOCHS = 4


@pytest.fixture(scope="module")
def examples():
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (60, 28, 28), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (60,), generator=generator)


def start():
    """A fresh run, its random states set to something that a resumed one must not keep."""
    torch.manual_seed(9)
    model = models.build("lenet-300-100", dropout=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    return model, optimizer, torch.Generator().manual_seed(9)


def train(run, examples, epochs):
    model, optimizer, generator = run
    images, labels = examples
    for epoch in epochs:
        fit_epoch(
            model,
            images,
            labels,
            optimizer,
            batch=16,
            generator=generator,
            prepare=lambda x: x.unsqueeze(1) / 255,
            lr=cosine(0.05, 0.0, epoch=epoch, epochs=EPOCHS),
        )


def save(path, run, **progress):
    model, optimizer, generator = run
    save_snapshot(path, model=model, optimizer=optimizer, generator=generator, progress=progress)


def load(path, run):
    model, optimizer, generator = run
    return load_snapshot(path, model=model, optimizer=optimizer, generator=generator)


def content(run):
    model, optimizer, generator = run
    momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
    tensors = [*model.state_dict().values(), *momenta, generator.get_state(), torch.get_rng_state()]
    return [tensor.numpy().tobytes() for tensor in tensors]


@pytest.mark.parametrize("stop", range(1, EPOCHS))
def test_a_resumed_run_ends_in_the_same_bytes(tmp_path, examples, stop):
    whole = start()
    train(whole, examples, range(EPOCHS))
    expected = content(whole)

    cut = start()
    train(cut, examples, range(stop))
    save(tmp_path / "snapshot.pt", cut, epoch=stop, errors=[1.5, 2.0])
    train(cut, examples, range(stop, stop + 1))  # work lost in the kill

    resumed = start()
    torch.manual_seed(1234)
    progress = load(tmp_path / "snapshot.pt", resumed)
    assert progress == {"epoch": stop, "errors": [1.5, 2.0]}
    train(resumed, examples, range(progress["epoch"], EPOCHS))
    assert content(resumed) == expected


def test_without_the_random_state_the_bytes_would_differ(tmp_path, examples):
    whole = start()
    train(whole, examples, range(2))
    cut = start()
    train(cut, examples, range(1))
    torch.manual_seed(1234)
    train(cut, examples, range(1, 2))
    assert content(cut) != content(whole)


def test_parametrized_model_without_optimizer(tmp_path):
    class Masked(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.register_buffer("mask", mask)

        def forward(self, weight):
            return weight * self.mask

    def masked(mask):
        model = nn.Linear(3, 2)
        nn.utils.parametrize.register_parametrization(model, "weight", Masked(mask))
        return model

    saved, other = masked(torch.eye(2, 3).bool()), masked(torch.ones(2, 3).bool())
    path = tmp_path / "snapshot.pt"
    save(path, (saved, None, torch.Generator()), phase="share")
    assert read_progress(path) == {"phase": "share"}
    assert load(path, (other, None, torch.Generator())) == {"phase": "share"}
    assert torch.equal(saved.weight, other.weight)
    assert (other.weight != 0).sum() == 2


def test_missing(tmp_path):
    with pytest.raises(RunError, match=r"none\.pt: expected a snapshot, got no file"):
        read_progress(tmp_path / "none.pt")


def sealed(content):
    """A file with the right magic and checksum around any content."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    return b"dwindle snapshot 1\n" + zlib.crc32(data).to_bytes(4, "little") + data


def test_layout_of_the_file(tmp_path):
    path = tmp_path / "snapshot.pt"
    save(path, start())
    state = torch.load(io.BytesIO(path.read_bytes()[23:]), weights_only=True)
    path.write_bytes(sealed(state))
    assert read_progress(path) == {}


@pytest.mark.parametrize("keep", [0, 10, 19, 22, 23, 1000, -1])
def test_cut_short(tmp_path, keep):
    path = tmp_path / "snapshot.pt"
    save(path, start())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"snapshot\.pt: expected a (whole )?snapshot") as caught:
        load(path, start())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0, 18, 19, 22, 23, 500, -1])
def test_a_flipped_bit(tmp_path, place):
    path = tmp_path / "snapshot.pt"
    save(path, start())
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"snapshot\.pt: expected a (whole )?snapshot"):
        load(path, start())


def test_a_folder_in_its_place(tmp_path):
    with pytest.raises(RunError, match="cannot be read"):
        read_progress(tmp_path)


def test_another_kind_of_file(tmp_path):
    path = tmp_path / "snapshot.pt"
    path.write_bytes(b"not a snapshot at all")
    with pytest.raises(RunError, match="got another kind of file"):
        load(path, start())
    path.write_bytes(sealed({"weight": torch.zeros(1)}))
    with pytest.raises(RunError, match="got other content"):
        load(path, start())


def test_code_in_a_snapshot_is_not_run(tmp_path):
    path = tmp_path / "snapshot.pt"
    path.write_bytes(sealed(nn.Linear(1, 1)))
    with pytest.raises(RunError, match="holds tensors only"):
        load(path, start())


def test_another_model(tmp_path):
    path = tmp_path / "snapshot.pt"
    save(path, start())
    other = models.build("lenet-5")
    run = other, torch.optim.SGD(other.parameters(), lr=0.1), torch.Generator()
    with pytest.raises(RunError, match="expected a snapshot of this model") as caught:
        load(path, run)
    assert "\n" not in str(caught.value)


def test_another_optimizer(tmp_path):
    path = tmp_path / "snapshot.pt"
    model, optimizer, generator = start()
    save(path, (model, optimizer, generator))
    with pytest.raises(RunError, match="expected a snapshot of this model"):
        load(path, (model, torch.optim.SGD([model.fc1.weight], lr=0.1), generator))
    with pytest.raises(RunError, match=r"asked for \(none\), got one"):
        load(path, (model, None, generator))
    save(path, (model, None, generator))
    with pytest.raises(RunError, match=r"asked for \(one\), got none"):
        load(path, (model, optimizer, generator))


def test_a_full_disk_keeps_the_old_snapshot(tmp_path, monkeypatch):
    path = tmp_path / "snapshot.pt"
    save(path, start(), epoch=1)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save(path, start(), epoch=2)
    monkeypatch.undo()
    assert read_progress(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["snapshot.pt"]
