"""The start from data: where a fresh model's shifts and scales begin (not in the paper)."""

import torch
from torch import Tensor

from nicelib.bijection import check_tensor
from nicelib.checkpoints import unwrap
from nicelib.errors import InputError
from nicelib.model import NICE


@torch.no_grad()
def initialise_from_data(model: NICE, x: Tensor) -> None:
    """Start a fresh model where the data are, adding no parameter.

    Every coupling layer starts as a constant shift that centres what it moves, its conditioner reads centred inputs, its
    shift's unit is each dimension's standard deviation, and the scales give every z_d the prior's own variance.

    From zero, the scales of MNIST's border pixels would have to climb to about 7.3, a thousandth or so a step.

    Args:
        model: a fresh NICE, changed in place.
        x: (N, D) dequantised images; 10,000 are plenty.

    Raises:
        InputError: a model that was trained or started before; fewer than two images; integers, NaN or infinity.
    """
    model = unwrap(model)
    couplings, scaling = model.couplings, model.scaling
    like = lambda x: x.is_floating_point() and x.shape[1:] == (model.dim,) and not x.is_meta  # noqa: E731
    check_tensor("x", x, f"floating-point (N, {model.dim})", like)
    if x.shape[0] < 2 or not x.isfinite().all():
        what = f"{x.shape[0]} images" if x.shape[0] < 2 else "images with NaN or infinity"
        raise InputError(f"{what} cannot start a model; expected two or more finite ones, better some thousands")
    moved = [scaling.log_scale, *(t for layer in couplings for t in layer.conditioner[-1].parameters())]
    if any(t.any() for t in moved):
        raise InputError(
            "the model is not fresh: its shifts or scales are no longer 0, and a start from data would overwrite them; "
            "build a new one, or train it on as it is with init = 'zero'"
        )
    x = x.to(scaling.log_scale)
    std = x.std(0).clamp_min(1e-6)
    for layer in couplings:
        first, last = layer.conditioner[0], layer.conditioner[-1]
        layer.unit.copy_(std)
        first.bias -= first.weight @ torch.where(layer.mask, x.mean(0), 0)
        last.bias[: model.dim] -= torch.where(layer.mask, 0, layer(x)[0].mean(0) / std)
        x = layer(x)[0]
    scaling.log_scale.copy_((model.prior.stddev.to(std) / x.std(0).clamp_min(1e-6)).log())
