"""NICE: coupling layers, a scaling layer and a factorised prior (paper, sections 2, 3 and 5.1)."""

import math

import torch
from torch import Tensor

from nicelib.bijection import Bijection
from nicelib.coupling import AdditiveCoupling, AffineCoupling, make_conditioner
from nicelib.errors import InputError
from nicelib.masks import parity_mask
from nicelib.prior import PRIORS
from nicelib.scaling import Scaling

COUPLINGS = {"additive": AdditiveCoupling, "affine": AffineCoupling}


class NICE(Bijection):
    """The flow f: x -> z and the density it gives by the change of variables (paper, equation 1 and section 3.4).

        log p_X(x) = sum_d log p_H(f_d(x)) + log |det df(x)/dx|          (nats, x in [0, 1)^D)

    The defaults are the 22,295,920-parameter MNIST model: four additive coupling layers with five hidden layers of 1000
    units each, masks that alternate (layer 0 keeps the odd indices), one scaling layer, the logistic prior.

    Args:
        dim: number of dimensions D, even.
        coupling: number of coupling layers.
        mid_dim: units in a hidden layer of a conditioner.
        hidden: hidden layers in a conditioner.
        coup_type: ``"additive"`` (NICE) or ``"affine"`` (Real NVP).
        latent: prior of z, ``"logistic"`` or ``"normal"``.
        activation: ``"leaky_relu"`` (slope 0.2) or ``"relu"``.

    Raises:
        InputError: an odd ``dim``, a non-positive size, an unknown coupling type, prior or activation.

    >>> model = NICE(dim=4, mid_dim=8, hidden=1)
    >>> x = torch.rand(2, 4)
    >>> z, log_det = model(x)
    >>> torch.allclose(model.inverse(z), x), model.log_prob(x).shape, model.sample(3).shape
    (True, torch.Size([2]), torch.Size([3, 4]))
    """

    def __init__(
        self,
        dim: int = 784,
        coupling: int = 4,
        mid_dim: int = 1000,
        hidden: int = 5,
        coup_type: str = "additive",
        latent: str = "logistic",
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__(dim)
        if coupling < 1:
            raise InputError(f"coupling = {coupling}; expected 1 or more coupling layers")
        for name, value, known in (("coup_type", coup_type, COUPLINGS), ("latent", latent, PRIORS)):
            if value not in known:
                raise InputError(f"{name} = {value!r}; expected one of {', '.join(known)}")
        #: everything needed to build this architecture again: ``NICE(**model.config)``
        self.config = {
            "dim": dim,
            "coupling": coupling,
            "mid_dim": mid_dim,
            "hidden": hidden,
            "coup_type": coup_type,
            "latent": latent,
            "activation": activation,
        }
        outputs = 1 if coup_type == "additive" else 2
        mask = parity_mask(dim, keep="odd")
        for i in range(coupling):
            conditioner = make_conditioner(mask, mid_dim, hidden, outputs, activation)
            # Direct children, not a list: torchinfo's default depth then reaches every linear layer.
            self.add_module(f"coupling_{i}", COUPLINGS[coup_type](mask, conditioner))
            mask = ~mask
        self.scaling = Scaling(dim)
        self.prior = PRIORS[latent]()

    @property
    def layers(self) -> list[Bijection]:
        """The bijections in the order x passes them: the coupling layers, then the scaling layer."""
        return list(self.children())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) -> z (B, D), log_det (B,) in nats."""
        self.check(x)
        log_det = x.new_zeros(len(x))
        for layer in self.layers:
            x, layer_log_det = layer(x)
            log_det = log_det + layer_log_det
        return x, log_det

    def inverse(self, y: Tensor) -> Tensor:
        """z (B, D) -> x (B, D)."""
        for layer in reversed(self.layers):
            y = layer.inverse(y)
        return y

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-likelihood in nats of each row of x (B, D), a point of [0, 1)^D -> (B,)."""
        z, log_det = self(x)
        return self.prior.log_prob(z).sum(-1) + log_det

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """Draw z from the prior, multiply it by ``temperature``, and invert the flow -> x (n, D).

        Values may fall a little outside [0, 1): nothing is clamped.

        Args:
            n: number of samples.
            temperature: 1 samples the model; below 1, closer to the mode; 0, the mode of z alone.
            generator: source of the uniform numbers; its device may differ from the model's.

        Raises:
            InputError: a negative ``n``, a negative or infinite ``temperature``.
        """
        if n < 0 or not 0 <= temperature < math.inf:
            raise InputError(f"n = {n}, temperature = {temperature}; expected both 0 or more, and finite")
        z = temperature * self.prior.sample((n, self.dim), generator)
        return self.inverse(z.to(self.scaling.log_scale))
