"""The diagonal scaling layer (paper, section 3.3)."""

import torch
from torch import Tensor, nn

from nicelib.bijection import Bijection
from nicelib.errors import at_least


class Scaling(Bijection):
    r"""One learned log-scale s_d per dimension (paper, section 3.3).

    .. math:: z = e^s h, \quad \log |\det dz/dh| = \sum_d s_d

    The coupling layers preserve volume; this layer lets the model choose how much volume each dimension deserves. A large
    1 / exp(s_d) marks a dimension with much variation: sorted, these are the model's spectrum. The parameter ``log_scale``
    (D,), s, starts at 0. :class:`InputError` for a ``dim`` below 1.

    >>> layer = Scaling(3)
    >>> _ = nn.init.constant_(layer.log_scale, 2.0)
    >>> z, log_det = layer(torch.ones(1, 3))
    >>> log_det.tolist(), torch.allclose(layer.inverse(z), torch.ones(1, 3))
    ([6.0], True)
    """

    def __init__(self, dim: int) -> None:
        at_least(1, dim=dim)
        super().__init__(dim)
        self.log_scale = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.check(x)
        return x * self.log_scale.exp(), self.log_scale.sum().expand(x.shape[0])

    def inverse(self, y: Tensor) -> Tensor:
        self.check(y)
        return y * (-self.log_scale).exp()
