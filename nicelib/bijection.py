"""The contract every layer keeps: an invertible map of ``(B, D)`` vectors with a known log-determinant."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nicelib.errors import InputError


def check_tensor(name: str, x: Any, expected: str, fits: Callable[[Tensor], object]) -> None:
    """Raise :class:`InputError` unless ``x`` is a dense tensor that fits."""
    if not isinstance(x, Tensor) or x.layout != torch.strided:
        raise InputError(f"{name} of type {type(x).__name__}; expected a dense tensor, {expected}")
    try:
        good = bool(fits(x))
    except (IndexError, RuntimeError):  # on the meta device, no value can be looked at
        good = False
    if not good:
        raise InputError(f"{name} of shape {tuple(x.shape)} and dtype {x.dtype}; expected {expected}")


class Bijection(nn.Module):
    """An invertible map of D-dimensional vectors: every layer of the flow offers these two methods and nothing else."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) -> y (B, D) and log_det (B,), ``log |det dy/dx|`` in nats."""
        raise NotImplementedError

    def inverse(self, y: Tensor) -> Tensor:
        """y (B, D) -> x (B, D)."""
        raise NotImplementedError

    def check(self, x: Tensor) -> None:
        """Raise :class:`InputError` unless ``x`` is a floating-point batch of shape (B, dim), like the layer's own weights."""
        if not isinstance(x, Tensor) or x.layout != torch.strided:
            raise InputError(f"{type(self).__name__} got a {type(x).__name__}; expected a dense tensor (B, {self.dim})")
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise InputError(
                f"{type(self).__name__} got a tensor of shape {tuple(x.shape)}; expected (B, {self.dim}): "
                "flatten each image to one row"
            )
        if not x.is_floating_point():
            raise InputError(
                f"{type(self).__name__} got dtype {x.dtype}; expected floating-point values: "
                "dequantise integer pixels first (nicelib.dequantise)"
            )
        own = next(self.parameters(), x)
        if (x.dtype, x.device) != (own.dtype, own.device):
            raise InputError(
                f"{type(self).__name__} got {x.dtype} on {x.device}; expected {own.dtype} on {own.device}, like its weights: "
                "move x or the model with .to()"
            )
