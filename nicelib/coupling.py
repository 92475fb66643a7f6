"""Coupling layers and the network inside them (paper, sections 3.2 and 5.1)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nicelib.bijection import Bijection, check_tensor
from nicelib.errors import InputError, at_least, one_of, plain
from nicelib.masks import selector

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"leaky_relu": partial(nn.LeakyReLU, 0.2), "relu": nn.ReLU}


class _HalfLinear(nn.Linear):
    """A full-width linear layer whose dead columns or rows meet masked zeros, or would be masked away.

    They belong to the usual parameter count, and cost no arithmetic: only the ``live`` ones are multiplied.
    """

    live: slice | Tensor

    def set_live(self, mask: Tensor) -> None:
        live = selector(mask)
        if hasattr(self, "live"):
            del self.live
        if isinstance(live, Tensor):
            self.register_buffer("live", live, persistent=False)  # moves with .to(), not saved: the mask is
        else:
            self.live = live


class KeptInputLinear(_HalfLinear):
    """Reads only the kept entries of the full-width vector: (B, D) -> (B, out_features)."""

    def __init__(self, mask: Tensor, out_features: int) -> None:
        super().__init__(len(mask), out_features)
        self.set_live(mask)

    def forward(self, x: Tensor) -> Tensor:
        # The columns left out would be multiplied by zeros: the same sum, half the work.
        return F.linear(x[:, self.live], self.weight[:, self.live], self.bias)


class MovedOutputLinear(_HalfLinear):
    """Computes only the moved entries of the full-width vector, the others are 0: (B, in_features) -> (B, D or 2D)."""

    def __init__(self, in_features: int, moved: Tensor) -> None:
        super().__init__(in_features, len(moved))
        self.set_live(moved)

    def forward(self, h: Tensor) -> Tensor:
        y = h.new_zeros(h.shape[0], self.out_features)
        y[:, self.live] = F.linear(h, self.weight[self.live], self.bias[self.live])
        return y


def make_conditioner(
    mask: Tensor, mid_dim: int = 1000, hidden: int = 5, outputs: int = 1, activation: str = "leaky_relu"
) -> nn.Sequential:
    """The network m of one coupling layer: (B, D) -> (B, outputs * D) (paper, section 5.1).

    ``hidden`` layers of ``mid_dim`` units, each with a nonlinearity after it, then a linear layer that starts at zero, so
    that a fresh coupling layer is the identity. Hidden weights start Kaiming-normal with zero biases; the first layer
    counts its live inputs only.

    Args:
        mask: bool (D,), True = kept. The network reads the kept entries and writes the moved ones.
        outputs: vectors of length D to write: 1 (a shift) or 2 (a shift and a log-scale).
        activation: ``"leaky_relu"`` (slope 0.2) or ``"relu"`` (the paper's).
    """
    mid_dim, hidden, outputs = at_least(1, mid_dim=mid_dim, hidden=hidden, outputs=outputs)
    one_of("activation", activation, ACTIVATIONS)
    _check_mask(mask)
    first, last = KeptInputLinear(mask, mid_dim), MovedOutputLinear(mid_dim, (~mask).repeat(outputs))
    layers: list[nn.Module] = []
    for linear in (first, *[nn.Linear(mid_dim, mid_dim) for _ in range(hidden - 1)]):
        nonlinearity = ACTIVATIONS[activation]()
        gain = nn.init.calculate_gain("leaky_relu", getattr(nonlinearity, "negative_slope", 0.0))
        fan_in = int(mask.sum()) if linear is first else mid_dim
        nn.init.normal_(linear.weight, std=gain / math.sqrt(fan_in))
        nn.init.zeros_(linear.bias)
        layers += [linear, nonlinearity]
    with torch.no_grad():
        first.weight[:, ~mask] = 0
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _check_mask(mask: Tensor) -> None:
    check_tensor("mask", mask, "bool (D,)", lambda mask: mask.ndim == 1 and mask.dtype == torch.bool)
    if mask.all() or not mask.any():
        raise InputError("the mask keeps all entries or none; expected some kept (True) and some moved (False)")


class _Coupling(Bijection):
    """What both kinds of coupling share: the mask, the conditioner and the shift's unit."""

    mask: Tensor
    unit: Tensor
    conditioner: Any  # a module, (B, D) -> (B, D or 2D)

    def __init__(self, mask: Tensor, conditioner: nn.Module) -> None:
        _check_mask(mask)
        super().__init__(len(mask))
        self.register_buffer("mask", mask.clone())
        self.register_buffer("unit", torch.ones(len(mask)))
        self.conditioner = conditioner

    def _condition(self, x: Tensor, width: int) -> Tensor:
        self.check(x)
        own = isinstance(next(self.conditioner.children(), None), KeptInputLinear)  # it reads kept entries only
        out = self.conditioner(x if own else torch.where(self.mask, x, 0))
        if out.shape != (x.shape[0], width):
            raise InputError(
                f"the conditioner returned shape {tuple(out.shape)} for a mask of length {self.dim}; "
                f"expected {(x.shape[0], width)}"
            )
        return out

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        for part in self.conditioner.children():  # which half is live follows from the mask, so it is derived again
            if isinstance(part, KeptInputLinear):
                part.set_live(self.mask)
            elif isinstance(part, MovedOutputLinear):
                part.set_live((~self.mask).repeat(part.out_features // self.dim))


class AdditiveCoupling(_Coupling):
    r"""Additive coupling layer (paper, section 3.2): the moved entries are shifted by a function of the kept ones.

    .. math:: y_{keep} = x_{keep}, \quad y_{move} = x_{move} + unit \cdot m(x_{keep}), \quad \log |\det dy/dx| = 0

    ``unit`` (D,) is a fixed buffer, 1 unless :func:`nicelib.initialise_from_data` sets it to each pixel's standard
    deviation; it could be folded into the last layer's weights.

    Args:
        mask: bool (D,), True = kept; some must be, and some not.
        conditioner: m, any module (B, D) -> (B, D). It sees zeros in place of the moved entries.

    >>> from nicelib.masks import parity_mask
    >>> layer = AdditiveCoupling(parity_mask(4), nn.Linear(4, 4))
    >>> x = torch.rand(2, 4)
    >>> y, log_det = layer(x)
    >>> torch.allclose(layer.inverse(y), x), log_det.tolist()
    (True, [0.0, 0.0])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shift = self._condition(x, self.dim)
        # unit, 1 or each pixel's standard deviation, lets one network steer pixels of very different widths
        return torch.where(self.mask, x, x + self.unit * shift), x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor) -> Tensor:
        shift = self._condition(y, self.dim)
        return torch.where(self.mask, y, y - self.unit * shift)


class AffineCoupling(_Coupling):
    r"""Affine coupling layer (Real NVP, Dinh et al. 2016, arXiv 1605.08803, section 3.2).

    .. math:: y_{keep} = x_{keep}, \quad y_{move} = x_{move} e^{s(x_{keep})} + unit \cdot t(x_{keep}), \quad
              \log |\det dy/dx| = \sum_{move} s

    with s = bound * tanh(raw), so that no image can make a scale explode, or s = raw without a bound.

    Arguments and errors are :class:`AdditiveCoupling`'s, but the conditioner writes (B, 2D): t, then raw. ``bound``: largest
    size of s (nats); None leaves s = raw.
    """

    def __init__(self, mask: Tensor, conditioner: nn.Module, bound: float | None = 2.0) -> None:
        super().__init__(mask, conditioner)
        self.bound = None if bound is None else plain("bound", bound, float)

    def extra_repr(self) -> str:
        return f"bound={self.bound}"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.shift_and_log_scale(x)
        return torch.where(self.mask, x, x * log_scale.exp() + shift), log_scale.sum(-1)

    def inverse(self, y: Tensor) -> Tensor:
        shift, log_scale = self.shift_and_log_scale(y)
        return torch.where(self.mask, y, (y - shift) * (-log_scale).exp())

    def shift_and_log_scale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) -> what is added to, and the log-scale (nats) of, each entry: twice (B, D), 0 log-scale where kept."""
        shift, raw = self._condition(x, 2 * self.dim).chunk(2, dim=-1)
        log_scale = raw if self.bound is None else self.bound * raw.tanh()
        return self.unit * shift, torch.where(self.mask, 0, log_scale)
