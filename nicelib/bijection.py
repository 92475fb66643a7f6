"""The contract every layer keeps: an invertible map of ``(B, D)`` vectors with a known log-determinant."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nicelib.errors import InputError, shown


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


def check_generator(generator: Any, device: torch.device | str) -> None:
    """Raise :class:`InputError` unless ``generator`` is None or a torch.Generator of that kind of device."""
    fits = isinstance(generator, torch.Generator) and generator.device.type == torch.device(device).type
    if generator is not None and not fits:
        raise InputError(f"generator = {shown(generator)}; expected None or torch.Generator({str(device)!r})")


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
        kind = type(self).__name__
        if not isinstance(x, Tensor) or x.layout != torch.strided:
            raise InputError(f"{kind} got a {type(x).__name__}; expected a dense tensor (B, {self.dim})")
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise InputError(f"{kind} got shape {tuple(x.shape)}; expected (B, {self.dim}): each image one row")
        if not x.is_floating_point():
            raise InputError(f"{kind} got dtype {x.dtype}; expected floating-point values: nicelib.dequantise(pixels)")
        own = next(self.parameters(), x)
        if (x.dtype, x.device) != (own.dtype, own.device):
            raise InputError(f"{kind} got {x.dtype} on {x.device}; expected {own.dtype} on {own.device}: use .to()")
