"""Weights that other PyTorch programs of NICE saved, as a model of this package.

The family is read from the names of the tensors, the sizes from their shapes. A file says neither the nonlinearity, nor
the prior, nor which half the first layer keeps, nor a mean image that was subtracted: those are the family's, or given.

======  =================  ==============  ===========================================================================
family  first layer keeps  hidden layers   as written by
======  =================  ==============  ===========================================================================
full    odd                LeakyReLU(0.2)  DakshIdnani/pytorch-nice: masked full-width vectors
blocks  odd                ReLU            fmu2/NICE: gathered halves, on images less their mean
nets    even               ReLU            a course's template: gathered halves, additive or affine with s = tanh(raw)
======  =================  ==============  ===========================================================================
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nicelib.bijection import check_tensor
from nicelib.checkpoints import as_file
from nicelib.errors import InputError, cause
from nicelib.model import NICE


class Family(NamedTuple):
    """How a program names its tensors, and what its files do not say."""

    layer: str  # what the names in coupling layer i begin with
    linears: Callable[[int], list[str]]  # the linear layers there, by the number of hidden layers
    scale: str
    first: str
    activation: str


def _full(hidden: int) -> list[str]:
    return [str(2 * n) for n in range(hidden + 1)]


def _halves(part: str) -> Callable[[int], list[str]]:
    return lambda hidden: [f"in_{part}.0", *(f"mid_{part}.{j}.0" for j in range(hidden - 1)), f"out_{part}"]


#: the programs whose files can be read
FAMILIES = {
    "full": Family("coupling_layers.{}.m.", _full, "scaling_layer.log_scale_vector", "odd", "leaky_relu"),
    "blocks": Family("coupling.{}.", _halves("block"), "scaling.scale", "odd", "relu"),
    "nets": Family("coupling.{}.", _halves("net"), "scaling.scale", "even", "relu"),
}


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """What a ``torch.save`` file holds, read without running code: tensors by name, or a dictionary around them.

    Raises:
        InputError: no such file, or not one that ``weights_only=True`` reads.
    """
    path = as_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be read ({reason}); name a file that torch.save wrote") from error
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, KeyError, ...
        raise InputError(
            f"{path} does not hold tensors alone ({cause(error)[:100]}); a whole pickled model "
            "could run code: save its state_dict() with its own program, and import that"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a state dict, tensors by name")
    return content


def read_mean(path: str | Path) -> Tensor:
    """A mean image that ``torch.save`` wrote, any shape; InputError where the file holds something else."""
    try:
        mean = torch.load(as_file(path), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = cause(error)[:100]
        raise InputError(f"the mean {path} cannot be read ({reason}); give a tensor's file, mnist, or none") from error
    if not isinstance(mean, Tensor):
        raise InputError(f"the mean {path} holds a {type(mean).__name__}; expected a tensor")
    return mean


def family_of(state: Mapping[str, Any]) -> str:
    """The family these weights are of, a name in :data:`FAMILIES`; InputError where they are of none."""
    tensors = _unwrap(state)[0]
    for name, family in FAMILIES.items():
        if {family.layer.format(0) + family.linears(1)[0] + ".weight", family.scale} <= tensors.keys():
            return name
    reason = "none of their names is a known family's"
    if any("running_mean" in key for key in tensors):
        reason = "they hold BatchNorm, which no layer of this package has"
    elif any(isinstance(t, Tensor) and t.ndim == 4 for t in tensors.values()):
        reason = "they hold convolutions, which no layer of this package has"
    first = ", ".join(list(tensors)[:3])
    raise InputError(f"these weights cannot be imported: {reason} (they begin {first}); see nicelib.importers")


def import_state_dict(
    state: Mapping[str, Any],
    activation: str | None = None,
    latent: str | None = None,
    first: str | None = None,
    mean: Tensor | None = None,
) -> NICE:
    """Another program's weights as a NICE, in float64 where they are.

    Args:
        state: tensors by name, or a checkpoint that holds them under ``model_state_dict``, ``state_dict`` or ``model``.
        activation: ``"leaky_relu"`` or ``"relu"``; default: the family's.
        latent: ``"logistic"`` or ``"normal"``; default: what the checkpoint says, else logistic.
        first: the half that layer 0 keeps, ``"odd"`` or ``"even"``; default: the family's.
        mean: (D,) image that their program subtracts from its inputs; it moves into three biases, so that the model takes
            images on [0, 1). Additive coupling only.

    Raises:
        InputError: no family's names, a name left over, a wrong shape, NaN or infinity, convolutions, BatchNorm.
    """
    tensors, said = _unwrap(state)
    name = family_of(state)
    family = FAMILIES[name]
    scale = _take(tensors, family.scale).flatten()
    layers = {key.split(".")[1] for key in tensors if key.startswith(family.layer.split("{}")[0])}
    weights = [key for key in tensors if key.startswith(family.layer.format(0)) and key.endswith(".weight")]
    linears = family.linears(max(len(weights) - 1, 1))
    mid_dim, outputs = (_tensor(tensors, family.layer.format(0) + linears[n] + ".bias").numel() for n in (0, -1))
    dim, affine = len(scale), name == "nets" and outputs == len(scale)
    if not first:
        first = family.first if said.get("mask_config", 1) else {"odd": "even", "even": "odd"}[family.first]
    model = NICE(
        dim,
        coupling=len(layers),
        mid_dim=mid_dim,
        hidden=len(linears) - 1,
        coup_type="affine" if affine else "additive",
        latent=latent or ("normal" if said.get("latent") == "normal" else "logistic"),
        activation=activation or family.activation,
        first=first,
        bound=1.0 if affine else 2.0,
    ).to(torch.promote_types(scale.dtype, torch.float32))
    with torch.no_grad():
        model.scaling.log_scale.copy_(scale)
        for i, layer in enumerate(model.couplings):
            keep, moved = layer.mask.nonzero().flatten(), (~layer.mask).nonzero().flatten()
            if affine:  # theirs are interleaved: raw log-scale, shift, raw log-scale, ...
                moved = torch.stack((moved + dim, moved), 1).flatten()
            for linear, own in zip(layer.conditioner[::2], linears, strict=True):
                half = name != "full"
                rows = moved if half and own == linears[-1] else torch.arange(linear.out_features, device="cpu")
                columns = keep if half and own == linears[0] else torch.arange(linear.in_features, device="cpu")
                _fill(linear, rows, columns, tensors, family.layer.format(i) + own)
        if tensors:
            raise InputError(f"{next(iter(tensors))} is left over: this is no NICE of a family that can be imported")
        if mean is not None:
            _fold(model, mean)
    return model


def _unwrap(state: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The tensors by name without a wrapper's prefix, and what stands beside them."""
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise InputError(f"a state of type {type(state).__name__}; expected a state dict, tensors by name")
    for key in ("model_state_dict", "state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            return _unwrap(state[key])[0], state
    starts = [family.layer.format(0) for family in FAMILIES.values()]
    prefix = next((key[: key.index(start)] for key in state for start in starts if start in key), "")
    return {key.removeprefix(prefix): tensor for key, tensor in state.items()}, {}


def _tensor(tensors: Mapping[str, Any], name: str) -> Tensor:
    if name not in tensors:
        raise InputError(f"{name} is missing; expected the weights and biases of every layer")
    if not isinstance(tensors[name], Tensor):
        raise InputError(f"{name} is a {type(tensors[name]).__name__}; expected a tensor")
    return tensors[name]


def _take(tensors: dict[str, Any], name: str, shape: tuple[int, ...] | None = None) -> Tensor:
    tensor = _tensor(tensors, name)
    if shape and tensor.shape != shape:
        raise InputError(f"{name} has shape {tuple(tensor.shape)}; expected {shape}")
    finite = lambda t: t.is_floating_point() and t.isfinite().all()  # noqa: E731
    check_tensor(name, tensor, "finite floating-point weights", finite)
    return tensors.pop(name)


def _fill(linear: Any, rows: Tensor, columns: Tensor, tensors: dict[str, Any], name: str) -> None:
    """Copy one linear layer; a half-width one goes to its places in the full width, where the rest is 0 as it was made."""
    weight = _take(tensors, name + ".weight", (len(rows), len(columns)))
    linear.weight[rows[:, None], columns] = weight.to(linear.weight)
    linear.bias[rows] = _take(tensors, name + ".bias", (len(rows),)).to(linear.bias)


def _fold(model: NICE, mean: Tensor) -> None:
    """f(x - mean) as a model of x: three biases take the mean, and after two layers both halves are centred."""
    mean = mean.flatten().to(model.scaling.log_scale)
    if len(mean) != model.dim or model.config["coup_type"] != "additive" or model.config["coupling"] < 2:
        raise InputError(
            f"a mean of {len(mean)} entries into {model.config['coupling']} {model.config['coup_type']} layers of dim = "
            f"{model.dim}; expected {model.dim} entries and two or more additive layers"
        )
    first, second = model.couplings[:2]
    keep = first.mask
    first.conditioner[0].bias -= first.conditioner[0].weight[:, keep] @ mean[keep]
    first.conditioner[-1].bias[~keep] -= mean[~keep]
    second.conditioner[-1].bias[keep] -= mean[keep]
