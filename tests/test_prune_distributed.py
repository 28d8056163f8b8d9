"""Masks under DistributedDataParallel, over gloo."""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dwindle.prune import get_mask, prune, set_mask


def steps(rank, world, rendezvous):
    """Two steps under DDP, one more prune and two more; the weights all ranks end with."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{rendezvous}", rank=rank, world_size=world, timeout=timedelta(seconds=120)
    )
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    mask = torch.rand(4, 4) > 0.5
    set_mask(model, "0.weight", mask)
    wrapped = DistributedDataParallel(model)
    for sparsity in (0.5, 0.75):
        prune(wrapped, sparsity=sparsity)
        optimizer = torch.optim.SGD(wrapped.parameters(), 0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            wrapped(torch.randn(3, 4)).square().sum().backward()
            optimizer.step()
        assert not model[0].weight[~get_mask(model, "0.weight")].any()
        assert (~get_mask(model, "3.weight")).sum() == round(sparsity * 8)
    gathered = [torch.empty(4, 4) for _ in range(world)]
    dist.all_gather(gathered, model[2].weight.detach().contiguous())
    assert all(torch.equal(gathered[0], other) for other in gathered)
    assert gathered[0].any()
    dist.destroy_process_group()
    # Past all destructors: the reducer's waits, with the interpreter's lock, for threads that may need it.
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ddp(tmp_path, processes):
    mp.spawn(steps, args=(processes, str(tmp_path / "rendezvous")), nprocs=processes)
