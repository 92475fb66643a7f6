"""The factorised priors over the code z (paper, section 3.4), as torch distributions over one real number."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from nicelib.bijection import check_generator, check_tensor
from nicelib.errors import at_least


class _Standard(Distribution):
    """Sampling by inverse cdf, shared by both priors."""

    arg_constraints: dict = {}
    support = constraints.real

    def __init__(self) -> None:
        super().__init__(validate_args=False)

    @property
    def mean(self) -> Tensor:
        return torch.tensor(0.0, device="cpu", dtype=torch.float32)

    def sample(self, sample_shape=(), generator: torch.Generator | None = None) -> Tensor:
        """Draw float32 numbers of shape ``sample_shape`` on the generator's device (default: CPU)."""
        shape = sample_shape if isinstance(sample_shape, Iterable) else [sample_shape]
        size = at_least(0, **{f"size {i}": n for i, n in enumerate(shape)})
        device = getattr(generator, "device", "cpu")
        check_generator(generator, device)
        with torch.no_grad():
            return self.icdf(torch.rand(size, generator=generator, device=device, dtype=torch.float32))


def _real(value: Tensor) -> Tensor:
    check_tensor("value", value, "floating-point numbers", lambda value: value.is_floating_point())
    return value


def _inside(u: Tensor) -> Tensor:
    """Move exact 0 and 1 half a step of the generator inside (0, 1), so that their quantiles are finite.

    ``torch.rand`` returns multiples of eps/2 in [0, 1 - eps/2], 0 included. Every other number stays as it is.
    """
    eps = torch.finfo(_real(u).dtype).eps
    return torch.where(u == 0, eps / 4, torch.where(u == 1, 1 - eps / 2, u))


class StandardLogistic(_Standard):
    r"""The standard logistic distribution (paper, section 3.4): mean 0, variance pi^2 / 3.

    .. math:: \log p(z) = -\log(1 + e^z) - \log(1 + e^{-z}) \quad \text{(nats)}

    ``icdf(u) = log u - log(1 - u)`` is finite for every number ``torch.rand`` can return, 0 included.

    >>> StandardLogistic().log_prob(torch.tensor([0.0, 1e4])).tolist()
    [-1.3862943649291992, -10000.0]
    """

    @property
    def variance(self) -> Tensor:
        return torch.tensor(math.pi**2 / 3, device="cpu", dtype=torch.float32)

    def log_prob(self, value: Tensor) -> Tensor:
        """z, any shape -> log density in nats, same shape."""
        return -F.softplus(_real(value)) - F.softplus(-value)

    def cdf(self, value: Tensor) -> Tensor:
        """z -> sigmoid(z), the probability of a smaller number."""
        return torch.sigmoid(_real(value))

    def icdf(self, value: Tensor) -> Tensor:
        """u in [0, 1] -> the quantile log u - log(1 - u); NaN outside."""
        u = _inside(value)
        return u.log() - torch.log1p(-u)


class StandardNormal(_Standard):
    r"""The standard normal distribution, the paper's alternative prior (section 3.4).

    .. math:: \log p(z) = -z^2 / 2 - \log(2 \pi) / 2 \quad \text{(nats)}

    >>> StandardNormal().log_prob(torch.tensor(0.0)).item()
    -0.9189385175704956
    """

    @property
    def variance(self) -> Tensor:
        return torch.tensor(1.0, device="cpu", dtype=torch.float32)

    def log_prob(self, value: Tensor) -> Tensor:
        """z, any shape -> log density in nats, same shape."""
        return -0.5 * _real(value).square() - 0.5 * math.log(2 * math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        """z -> the probability of a smaller number."""
        return torch.special.erfc(_real(value) * -math.sqrt(0.5)) / 2  # ndtr is 0 below -8.3

    def icdf(self, value: Tensor) -> Tensor:
        """u in [0, 1] -> the quantile; NaN outside."""
        u = _inside(value)
        return torch.special.ndtri(u.to(torch.promote_types(u.dtype, torch.float32))).to(u)  # there is none in half


PRIORS = {"logistic": StandardLogistic, "normal": StandardNormal}
