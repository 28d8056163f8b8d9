"""Codebooks in models: gradients, zeros, training, copies, ties."""

import copy
import os
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dwindle.errors import TensorError
from dwindle.prune import get_mask, prune, set_mask
from dwindle.share import Codebook, get_codebook, set_codebook, share


def linear(weight):
    module = nn.Linear(*reversed(weight.shape), bias=False, dtype=weight.dtype)
    with torch.no_grad():
        module.weight.copy_(weight)
    return module


def test_the_papers_example():
    """Figure 3: gradients are summed by cluster, and the step of learning rate 1 moves the centroids."""
    indices = torch.tensor([[3, 0, 2, 1], [1, 1, 0, 3], [0, 3, 1, 0], [3, 1, 2, 2]])
    gradient = torch.tensor(
        [
            [-0.03, -0.01, 0.03, 0.02],
            [-0.01, 0.01, -0.02, 0.12],
            [-0.01, 0.02, 0.04, 0.01],
            [-0.07, -0.02, 0.01, -0.02],
        ]
    )
    # The paper trains its 0.00 too; an entry that is exactly zero stays here, so it is a hair off.
    centroids = torch.tensor([-1.0, 1e-9, 1.5, 2.0])
    module = linear(torch.zeros(4, 4))
    codebook = set_codebook(module, "weight", centroids, indices)
    assert module.weight.round(decimals=2).tolist() == centroids.round(decimals=2)[indices].tolist()
    (module.weight * gradient).sum().backward()
    assert codebook.centroids.grad.round(decimals=2).tolist() == pytest.approx([-0.03, 0.04, 0.02, 0.04])
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    assert codebook.centroids.detach().round(decimals=2).tolist() == pytest.approx([-0.97, -0.04, 1.48, 1.96])


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
        lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, 0.1, weight_decay=0.1, momentum=0.9),
    ],
)
def test_zero_stays_and_the_others_train(make):
    torch.manual_seed(0)
    module = linear(torch.randn(6, 8) * (torch.rand(6, 8) > 0.5))
    zeros = module.weight == 0
    share(module, bits=3)
    frozen = module.parametrizations.weight.original
    kept, before = frozen.clone(), module.weight.detach().clone()
    assert not frozen.requires_grad
    optimizer = make(module.parameters())
    for _ in range(5):
        optimizer.zero_grad()
        (module(torch.randn(4, 8)) - 1).square().sum().backward()
        optimizer.step()
    assert (module.weight[zeros] == 0).all()
    assert (module.weight[~zeros] != before[~zeros]).all()
    assert len(module.weight.unique()) == len(before.unique())
    assert torch.equal(frozen, kept)


def test_state_dict_and_deepcopy():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(48, 5))
    share(model, bits=4)
    twin = copy.deepcopy(model)
    inputs = torch.randn(2, 1, 6, 6)
    with torch.no_grad():
        twin[2].parametrizations.weight[0].centroids += 1
    assert not torch.equal(twin(inputs), model(inputs))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(inputs), model(inputs))
    share(twin, bits=2)
    assert len(model[2].weight.unique()) == 16
    assert len(twin[2].weight.unique()) == 4


@pytest.mark.parametrize(("entries", "dtype"), [(256, torch.uint8), (257, torch.int32)])
def test_width_of_indices(entries, dtype):
    module = linear(torch.randn(30, 40))
    indices = torch.arange(1200) % entries
    codebook = set_codebook(module, "weight", torch.randn(entries), indices)
    assert codebook.indices.dtype == dtype
    assert torch.equal(module.weight.reshape(-1), codebook.centroids[indices])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype):
    module = linear(torch.randn(30, 40, dtype=dtype))
    original = module.weight.detach().clone()
    share(module, bits=5)
    assert module.weight.dtype == get_codebook(module, "weight").centroids.dtype == dtype
    assert (module.weight - original).abs().max() < 0.5
    module(torch.ones(1, 40, dtype=dtype)).sum().backward()
    assert get_codebook(module, "weight").centroids.grad.dtype == dtype


def test_sharing_again_replaces():
    torch.manual_seed(2)
    module = linear(torch.randn(20, 20))
    assert get_codebook(module, "weight") is None
    share(module, bits=6)
    first = module.weight.detach().clone()
    share(module, bits=2)
    assert [type(link) for link in module.parametrizations.weight] == [Codebook]
    levels = first.unique().numpy()
    assert len(module.weight.unique()) == 4
    assert np.ptp(module.weight.detach().numpy()) < np.ptp(levels)


def test_masks_before_and_after():
    """Prune, share, prune, share: zeros stay, survivors come from what the model computes."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(20, 30))
    prune(model, sparsity=0.5)
    share(model, bits=4)
    assert (model[0].weight != 0).sum() == 300
    assert get_codebook(model, "0.weight").centroids[0] == 0
    prune(model, sparsity=0.8)
    zeros = model[0].weight == 0
    assert zeros.sum() >= 480
    codebook = get_codebook(model, "0.weight")
    share(model, bits=3)
    assert get_codebook(model, "0.weight") is not codebook
    assert torch.equal(model[0].weight == 0, zeros)
    assert len(model[0].weight.unique()) <= 8
    assert get_mask(model, "0.weight") is not None
    model(torch.randn(3, 20)).sum().backward()
    assert get_codebook(model, "0.weight").centroids.grad[0] == 0
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2


def test_tied_tensors_share_one_codebook():
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 9))
    model[1].weight = model[0].weight
    report = share(model, bits={"1.weight": 3})
    assert [row.name for row in report.tensors] == ["0.weight"]
    assert get_codebook(model, "0.weight") is get_codebook(model, "1.weight")
    model(torch.tensor([1, 2])).sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert torch.equal(model[0].weight, model[1].weight)
    share(model, bits=2)
    assert get_codebook(model, "0.weight") is get_codebook(model, "1.weight")
    assert len(model[0].weight.unique()) == 4
    assert len(copy.deepcopy(model).state_dict()) == len(model.state_dict())


def test_an_older_optimizer_leaves_the_frozen_weight_alone():
    module = linear(torch.randn(4, 4))
    optimizer = torch.optim.SGD(module.parameters(), 0.1, weight_decay=0.5, momentum=0.9)
    module(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    share(module, bits=2)
    before = module.parametrizations.weight.original.clone()
    optimizer.step()
    assert torch.equal(module.parametrizations.weight.original, before)


def test_empty_and_scalar():
    module = nn.Module()
    module.empty = nn.Parameter(torch.zeros(0, 3))
    module.scalar = nn.Parameter(torch.tensor(2.0))
    set_codebook(module, "empty", torch.zeros(0), torch.zeros(0, dtype=torch.uint8))
    set_codebook(module, "scalar", torch.tensor([1.0, 3.0]), torch.tensor([1]))
    assert module.empty.shape == (0, 3)
    assert module.scalar.item() == 3.0


@pytest.mark.parametrize(
    ("centroids", "indices", "message"),
    [
        (torch.zeros(2, 2), torch.zeros(4, dtype=int), "1-D centroids"),
        (torch.zeros(2), torch.zeros(5, dtype=int), "expected 4 indices under 2, got 5"),
        (torch.zeros(2), torch.tensor([0, 1, 2, 0]), "got 4 from 0 to 2"),
        (torch.zeros(2), torch.tensor([0, -1, 1, 0]), "got 4 from -1 to 1"),
        (torch.zeros(0), torch.zeros(4, dtype=int), "expected 4 indices under 0"),
    ],
)
def test_refuses_what_does_not_fit(centroids, indices, message):
    module = linear(torch.ones(2, 2))
    with pytest.raises(TensorError, match=message):
        set_codebook(module, "weight", centroids, indices)
    assert get_codebook(module, "weight") is None
    with pytest.raises(TensorError, match="wieght"):
        set_codebook(module, "wieght", torch.zeros(1), torch.zeros(4))


def ddp_steps(rank, world, rendezvous):
    """Two steps, a new codebook, two more: all ranks end with the same weights."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{rendezvous}", rank=rank, world_size=world, timeout=timedelta(seconds=120)
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 60))
    model[2].weight = model[0].weight
    set_mask(model, "0.weight", torch.rand(8, 8) > 0.5)
    torch.manual_seed(rank + 1)
    for bits in (9, 3):
        share(model, bits=bits)
        wrapped = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(wrapped.parameters(), 0.01, momentum=0.9, weight_decay=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            wrapped(torch.randn(3, 8)).square().sum().backward()
            optimizer.step()
        for module in (model[2], model[3]):
            gathered = [torch.empty_like(module.weight) for _ in range(world)]
            dist.all_gather(gathered, module.weight.detach().contiguous())
            assert all(torch.equal(gathered[0], other) for other in gathered)
            assert gathered[0].any()
        assert not model[0].weight[~get_mask(model, "0.weight")].any()
    dist.destroy_process_group()
    # Past all destructors: the reducer's waits, with the interpreter's lock, for threads that may need it.
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ddp(tmp_path, processes):
    mp.spawn(ddp_steps, args=(processes, str(tmp_path / "rendezvous")), nprocs=processes)
