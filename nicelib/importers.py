"""Weights that other PyTorch programs of NICE saved, as a model of this package.

The family is read from the names of the tensors, the sizes from their shapes. A file says neither the nonlinearity, nor
the prior, nor which half the first layer keeps, nor a mean image that was subtracted: those are the family's, or given.

| family | first layer keeps | hidden layers | as written by |
| --- | --- | --- | --- |
| full | odd | LeakyReLU(0.2) | DakshIdnani/pytorch-nice: masked full-width vectors |
| blocks | odd | ReLU | fmu2/NICE: gathered halves, on images less their mean |
| nets | even | ReLU | a course's template: gathered halves, additive or affine with s = tanh(raw) |
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nicelib.errors import InputError
from nicelib.model import NICE


@dataclass(frozen=True)
class _Family:
    layer: str  # the names of layer i's linear layers: the first, those between (n counts from 1), the last
    first: str
    middle: str
    last: str
    scale: str
    keep: str
    activation: str


FAMILIES = {
    "full": _Family(
        "coupling_layers.{i}.m.", "0", "{n2}", "{n2}", "scaling_layer.log_scale_vector", "odd", "leaky_relu"
    ),
    "blocks": _Family("coupling.{i}.", "in_block.0", "mid_block.{j}.0", "out_block", "scaling.scale", "odd", "relu"),
    "nets": _Family("coupling.{i}.", "in_net.0", "mid_net.{j}.0", "out_net", "scaling.scale", "even", "relu"),
}


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """What a ``torch.save`` file holds, read without running code: tensors by name, or a dictionary around them.

    Raises:
        InputError: no such file, or not one that ``weights_only=True`` reads.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}); name a file that torch.save wrote"
        ) from error
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise InputError(
            f"{path} does not hold tensors alone ({str(error).strip().splitlines()[0][:100]}); a whole pickled model "
            "could run code: save its state_dict() with its own program, and import that"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a state dict, tensors by name")
    return content


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
    family = FAMILIES[_family(tensors)]
    count, hidden, names = _linears(tensors, family)
    scale = _take(tensors, family.scale, None).flatten()
    dim, mid_dim = len(scale), _peek(tensors, family.layer.format(i=0) + names[0] + ".bias")
    outputs = _peek(tensors, family.layer.format(i=0) + names[-1] + ".bias")
    affine = family is FAMILIES["nets"] and outputs == dim
    model = NICE(
        dim, coupling=count, mid_dim=mid_dim, hidden=max(hidden, 1), coup_type="affine" if affine else "additive",
        latent=latent or ("normal" if said.get("latent") == "normal" else "logistic"), activation=activation or family.activation,
        first=first or (family.keep if said.get("mask_config", 1) else {"odd": "even", "even": "odd"}[family.keep]), bound=1.0 if affine else 2.0,
    ).to(torch.promote_types(scale.dtype, torch.float32))  # fmt: skip
    with torch.no_grad():
        model.scaling.log_scale.copy_(scale)
        for i, layer in enumerate(model.couplings):
            linears = list(layer.conditioner)[::2]
            for n, (linear, name) in enumerate(zip(linears, names, strict=True)):
                _fill(
                    linear, tensors, family.layer.format(i=i) + name, layer.mask, n, hidden, family is FAMILIES["full"]
                )
        if tensors:
            raise InputError(f"{next(iter(tensors))} is left over: this is no NICE of a family that can be imported")
        if mean is not None:
            _fold(model, mean)
    return model


def family_of(state: Mapping[str, Any]) -> str:
    """The family these weights are of, a name in :data:`FAMILIES`; InputError where they are of none."""
    return _family(_unwrap(state)[0])


def read_mean(path: str | Path) -> Tensor:
    """A mean image that ``torch.save`` wrote, any shape; InputError where the file holds something else."""
    try:
        mean = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"the mean {path} cannot be read ({error}); give a tensor's file, mnist, or none") from error
    if not isinstance(mean, Tensor):
        raise InputError(f"the mean {path} holds a {type(mean).__name__}; expected a tensor")
    return mean


def _unwrap(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors by name without a wrapper's prefix, and what stands beside them."""
    for key in ("model_state_dict", "state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            return _unwrap(state[key])[0], state
    prefixes = [
        key[: key.index(mark)] for key in state for mark in ("coupling_layers.0.m.0.w", "coupling.0.") if mark in key
    ]
    start = len(prefixes[0]) if prefixes else 0
    return {key[start:] if prefixes and key.startswith(prefixes[0]) else key: t for key, t in state.items()}, {}


def _family(tensors: Mapping[str, Any]) -> str:
    for name, family in FAMILIES.items():
        if family.layer.format(i=0) + family.first + ".weight" in tensors and family.scale in tensors:
            return name
    reason = "none of their names is a known family's"
    if any("running_mean" in key for key in tensors):
        reason = "they hold BatchNorm, which no layer of this package has"
    elif any(isinstance(t, Tensor) and t.ndim == 4 for t in tensors.values()):
        reason = "they hold convolutions, which no layer of this package has"
    first = ", ".join(list(tensors)[:3])
    raise InputError(
        f"these weights cannot be imported: {reason} (they begin {first}); see nicelib.importers for the families"
    )


def _linears(tensors: Mapping[str, Any], family: _Family) -> tuple[int, int, list[str]]:
    """Number of coupling layers, of hidden layers, and the names of the linear layers in each."""
    count = 0
    while family.layer.format(i=count) + family.first + ".weight" in tensors:
        count += 1
    hidden = 1
    while family.layer.format(i=0) + family.middle.format(j=hidden - 1, n2=2 * hidden) + ".weight" in tensors:
        hidden += 1
    hidden -= family is FAMILIES["full"]  # there the last linear layer is numbered like those between
    names = [family.first, *(family.middle.format(j=n - 1, n2=2 * n) for n in range(1, hidden))]
    return count, hidden, [*names, family.last.format(n2=2 * hidden)]


def _peek(tensors: Mapping[str, Any], name: str) -> int:
    if name not in tensors:
        raise InputError(f"{name} is missing; expected the weights and biases of every layer")
    return len(tensors[name])


def _take(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...] | None) -> Tensor:
    _peek(tensors, name)
    tensor = tensors.pop(name)
    if not isinstance(tensor, Tensor) or (shape and tensor.shape != shape):
        raise InputError(f"{name} has shape {tuple(getattr(tensor, 'shape', ()))}; expected {shape}")
    if not tensor.is_floating_point() or not tensor.isfinite().all():
        raise InputError(f"{name} holds NaN, infinity or no floating-point numbers; expected finite weights")
    return tensor


def _fill(linear: Any, tensors: dict[str, Tensor], name: str, keep: Tensor, n: int, hidden: int, full: bool) -> None:
    """Copy one linear layer; a half-width one goes to its places in the full width, zeros elsewhere."""
    rows: Any = slice(None)
    columns: Any = slice(None)
    if not full and n == 0:
        columns = keep.nonzero().flatten()
    if not full and n == hidden:
        rows = (~keep).nonzero().flatten()
        if linear.out_features == 2 * len(keep):  # theirs are interleaved: raw log-scale, shift, raw log-scale, ...
            rows = torch.stack((rows + len(keep), rows), 1).flatten()
    linear.weight.zero_()
    linear.bias.zero_()
    shape = (len(linear.bias[rows]), len(linear.weight[0, columns]))
    weight = linear.weight[rows]
    weight[:, columns] = _take(tensors, name + ".weight", shape).to(weight)
    linear.weight[rows] = weight
    linear.bias[rows] = _take(tensors, name + ".bias", shape[:1]).to(weight)


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
