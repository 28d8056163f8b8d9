"""The tensors of a model, their owners, and the parametrization chains on them.

A parametrized tensor keeps the name it would have without parametrizations ("fc1.weight", never
"fc1.parametrizations.weight.original"), and a tied tensor has several owners that must change together.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from dwindle.dtypes import SHAREABLE
from dwindle.errors import TensorError


def named_tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every parameter of a model as (full name, owner, attribute), each tie and alias under its own name.

    The order does not depend on what is parametrized: modules as the model lists them, attributes by name.
    """
    for path, module in model.named_modules(remove_duplicate=False):
        if "parametrizations" in path.split("."):
            continue
        names = {name for name, value in module._parameters.items() if value is not None}
        if parametrize.is_parametrized(module):
            names |= set(module.parametrizations)
        for name in sorted(names):
            yield f"{path}.{name}" if path else name, module, name


def source(module: nn.Module, name: str) -> Tensor:
    """The tensor stored under `module.name`: the first original where it is parametrized.

    Owners of one tied tensor have the same source, the same object.
    """
    if parametrize.is_parametrized(module, name):
        tensor = getattr(_links(module, name), "original" if _links(module, name).is_tensor else "original0")
    else:
        tensor = module._parameters[name]
    assert isinstance(tensor, Tensor)  # noqa: S101 (named_tensors lists no others)
    return tensor


def owners(model: nn.Module, name: str) -> list[tuple[nn.Module, str]]:
    """Every (module, attribute) under `model` that owns the tensor called `name`, ties included.

    Raises:
        TensorError: if `model` has no parameter of that name.
    """
    tensors = {full: (module, attribute) for full, module, attribute in named_tensors(model)}
    if name not in tensors:
        raise unknown(name, tensors)
    wanted = source(*tensors[name])
    unique = {(id(module), attribute): (module, attribute) for module, attribute in tensors.values()}
    return [owner for owner in unique.values() if source(*owner) is wanted]


def weights(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """The weights of a model that stages change unless something else is asked for.

    All float parameters of two or more dimensions (linear, convolution, embedding, attention, recurrent and
    such of your own), except biases and the scales of norms. A tied tensor appears once, under the first of
    its names.

    Returns:
        (owner, attribute) by full tensor name, in the model's order.
    """
    found: dict[str, tuple[nn.Module, str]] = {}
    seen: set[int] = set()
    for full, module, name in named_tensors(model):
        tensor = source(module, name)
        if id(tensor) not in seen and _is_weight(module, name, tensor):
            seen.add(id(tensor))
            found[full] = (module, name)
    return found


def effective(module: nn.Module, name: str) -> Tensor:
    """The tensor as the module computes with it, all parametrizations applied, outside autograd."""
    with torch.no_grad():
        tensor = getattr(module, name)
    assert isinstance(tensor, Tensor)  # noqa: S101 (named_tensors lists no others)
    return tensor.detach()


def unknown(name: str, names: Iterable[str], kind: str = "tensor") -> TensorError:
    """The error for a tensor name that is not among `names`, with the nearest that is."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0)
    hint = f"such as {near[0]}" if near else "of which there are none"
    return TensorError(f"{name}: expected the name of a {kind} of the model, {hint}, got another name")


def chain(module: nn.Module, name: str) -> list[nn.Module]:
    """The parametrizations on `module.name`, first applied first; empty where there are none."""
    return list(_links(module, name)) if parametrize.is_parametrized(module, name) else []


def duplicate(model: nn.Module) -> nn.Module:
    """A deepcopy, also of modules that hold on to tensors they computed, which torch does not copy.

    `torch.nn.utils.prune` leaves such tensors behind; in the copy they are values without a history.
    """
    memo: dict[int, object] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)


def append(module: nn.Module, name: str, part: nn.Module) -> None:
    """Put a parametrization at the end of the chain of `module.name`.

    The parameter stays the same object, with its gradient hooks: a model already wrapped in
    DistributedDataParallel goes on.
    """
    parameter = module._parameters.get(name)
    if parameter is not None:
        _own_class(module)
        # torch calls `set_` on the tensor it registers, which cuts off the hooks; so it gets a stand-in.
        module._parameters[name] = nn.Parameter(parameter.detach(), parameter.requires_grad)
    # unsafe: shapes and dtypes are the caller's to check; torch's check computes the whole tensor.
    parametrize.register_parametrization(module, name, part, unsafe=True)
    if isinstance(module, nn.RNNBase):
        type(module).__deepcopy__ = _copy_recurrent  # type: ignore[attr-defined] # the class is its own
    links = _links(module, name)
    if parameter is not None and links.is_tensor:
        parameter.data = links.original.data
        links.original = parameter


def detach(module: nn.Module, name: str, part: nn.Module) -> None:
    """Take a parametrization out of the chain of `module.name`; what it held is not applied any more.

    An empty chain goes too: the original tensor, the same object, is `module.name` again.
    """
    at = next(i for i, link in enumerate(chain(module, name)) if link is part)
    if len(chain(module, name)) > 1:
        del _links(module, name)[at]
        return
    _own_class(module)
    parametrize.remove_parametrizations(module, name, leave_parametrized=False)


def parametrized_names(module: nn.Module) -> list[str]:
    """The attributes of a module that are parametrized."""
    return list(module.parametrizations) if parametrize.is_parametrized(module) else []  # type: ignore[arg-type]


def inner_state(module: nn.Module, name: str) -> dict[str, Tensor]:
    """What a parametrized tensor is made of, by the names `state_dict` gives it; the tensors themselves."""
    return dict(_links(module, name).state_dict(keep_vars=True))


def flatten(module: nn.Module, name: str) -> None:
    """Replace a parametrized tensor by an ordinary parameter of the value it has."""
    _own_class(module)
    parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _is_weight(module: nn.Module, name: str, tensor: Tensor) -> bool:
    # All other norms of torch have 1-D parameters.
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) or "bias" in name or is_lazy(tensor):
        return False
    return tensor.ndim >= 2 and str(tensor.dtype).removeprefix("torch.") in SHAREABLE


def _links(module: nn.Module, name: str) -> parametrize.ParametrizationList:
    links = module.parametrizations[name]  # type: ignore[index]
    assert isinstance(links, parametrize.ParametrizationList)  # noqa: S101 (torch's own invariant)
    return links


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class that no deepcopy of it shares.

    torch keeps parametrized tensors as properties of a class made for the module, and its deepcopy hands that
    class on: adding or removing a property on the copy would break the module it was copied from.
    """
    if parametrize.is_parametrized(module):
        shared = type(module)
        body = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, body)


def _copy_recurrent(module: nn.RNNBase, memo: dict[int, object]) -> nn.RNNBase:
    """Deepcopy a parametrized `nn.RNN`, `nn.LSTM` or `nn.GRU`.

    These hold on to the weights they last computed, which torch does not copy; they find them again.
    """
    if id(module) in memo:
        return memo[id(module)]  # type: ignore[return-value]
    replica = module.__new__(type(module))
    memo[id(module)] = replica
    held = ("_flat_weights", "_flat_weight_refs")
    replica.__dict__ = copy.deepcopy({k: v for k, v in vars(module).items() if k not in held}, memo)
    replica._init_flat_weights()
    return replica
