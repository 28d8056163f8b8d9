"""What changes when the survivors are trained again: dropout and the learning rate."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dwindle import chains
from dwindle.errors import TensorError
from dwindle.prune.mask import get_mask, prunable

RETRAIN_LR_LENET = 1 / 10
"""Retraining rate over the first learning rate, LeNet (Han et al. 2015, section 4.1)."""

RETRAIN_LR_ALEXNET = 1 / 100
"""Retraining rate over the first learning rate, AlexNet (Han et al. 2015, section 4.2)."""

_DROPOUT = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def retrain_dropout(original: float, connections: int, survivors: int) -> float:
    """The dropout rate a pruned layer needs: D_retrain = D_original sqrt(C_retrain / C_original).

    Args:
        original: D_original, the rate the dense layer was trained with, 0 to 1.
        connections: C_original, the weights of the dense layer.
        survivors: C_retrain, those that survive, 0 to `connections`.

    Returns:
        D_retrain. A layer without weights keeps its rate.

    Han et al. 2015, section 3.2, equation 2.
    """
    if not 0 <= original <= 1:
        raise ValueError(f"expected a dropout rate of 0 to 1, got {original}")
    if not 0 <= survivors <= connections:
        raise ValueError(f"expected 0 to {connections} survivors, got {survivors}")
    return float(original * (survivors / connections) ** 0.5) if connections else original


def dropout_rates(model: nn.Module) -> dict[str, float]:
    """The rates of a model's dropout modules by name, in the model's order. Read them before pruning."""
    return {name: module.p for name, module in model.named_modules() if isinstance(module, _DROPOUT)}


def correct_dropout(
    model: nn.Module, original: Mapping[str, float], *, layers: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Set the dropout rates of a model for the weights that survive in it now, in place.

    The same whenever and however often it is called, since it starts from the original rates. The layer of a
    dropout module is the one it thins out: the last prunable tensor the model lists before it, or where there
    is none the first after it.

    Args:
        model: the model, pruned.
        original: rates of the dense model by module name, from `dropout_rates`.
        layers: tensor names by dropout module name, for models that don't list their layers in order.

    Returns:
        The new rates by module name.

    Raises:
        TensorError: if a name is not that of a dropout module or prunable tensor.
    """
    tensors, modules = prunable(model), dict(model.named_modules())
    corrected = {}
    for name, rate in original.items():
        module = modules.get(name)
        if not isinstance(module, _DROPOUT):
            raise TensorError(f"{name}: expected a dropout module of the model, got none of that name")
        layer = (layers or {}).get(name) or _neighbour(model, module)
        if layer is None:
            corrected[name] = rate
        elif layer not in tensors:
            raise chains.unknown(layer, tensors, "prunable tensor")
        else:
            connections, mask = chains.source(*tensors[layer]).numel(), get_mask(*tensors[layer])
            survivors = connections if mask is None else int(mask.count_nonzero())
            corrected[name] = retrain_dropout(rate, connections, survivors)
    for name, rate in corrected.items():
        module = modules[name]
        assert isinstance(module, _DROPOUT)  # noqa: S101 (checked above)
        module.p = rate
    return corrected


def _neighbour(model: nn.Module, dropout: nn.Module) -> str | None:
    """The prunable tensor listed last before a dropout module, or else first after it."""
    owned = {id(module): name for name, (module, _) in prunable(model).items()}
    before: str | None = None
    passed = False
    for module in model.modules():
        passed = passed or module is dropout
        if passed and before is not None:
            return before
        before = owned.get(id(module), before)
    return before
