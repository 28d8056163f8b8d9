"""What somebody else pruned: the hooks of `torch.nn.utils.prune`, and plain zeros."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from dwindle import chains
from dwindle.dtypes import SHAREABLE
from dwindle.prune.mask import get_mask, set_mask

MIN_ZEROS = 0.05
"""Share of zeros from which they are taken for pruned: training leaves next to none."""


def adopt_hooks(model: nn.Module) -> dict[str, Tensor]:
    """Turn the hooks of `torch.nn.utils.prune` into masks, in place.

    A tensor kept as `weight_orig` and `weight_mask` is the parameter `weight` again, and stays pruned.

    Returns:
        The masks by the full name of the tensor, bool, true where a weight survives. Those of modules and
        dtypes that take no `Mask` are zeros only, in a plain parameter.
    """
    masks = {}
    for path, module in model.named_modules():
        for hook in list(module._forward_pre_hooks.values()):
            if not isinstance(hook, torch_prune.BasePruningMethod):
                continue
            name = hook._tensor_name
            mask = module._buffers[f"{name}_mask"]
            assert isinstance(mask, Tensor)  # noqa: S101 (torch's own invariant)
            masks[f"{path}.{name}" if path else name] = mask.bool()
            torch_prune.remove(module, name)  # type: ignore[no-untyped-call]
    able = chains.weights(model)
    for full, mask in masks.items():
        if full in able and str(chains.source(*able[full]).dtype).removeprefix("torch.") in SHAREABLE:
            set_mask(model, full, mask)
    return masks


def adopt_zeros(model: nn.Module, names: Iterable[str]) -> dict[str, float]:
    """Mask the zeros of tensors that have many, in place, so that training does not revive them.

    Args:
        model: any module.
        names: prunable tensors to look at.

    Returns:
        The share of zeros by the name of each tensor that got a mask for it.
    """
    tensors, found = chains.weights(model), {}
    for name in names:
        weight = chains.effective(*tensors[name])
        zeros = 1 - int(weight.count_nonzero()) / max(weight.numel(), 1)
        mask = get_mask(*tensors[name])
        masked = 0.0 if mask is None else 1 - int(mask.count_nonzero()) / max(mask.numel(), 1)
        if zeros - masked >= MIN_ZEROS:
            set_mask(model, name, weight != 0)
            found[name] = zeros
    return found
