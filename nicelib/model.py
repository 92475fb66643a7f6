"""NICE: coupling layers, a scaling layer and a factorised prior (paper, sections 2, 3 and 5.1)."""

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nicelib.bijection import Bijection
from nicelib.config import AT_LEAST_ONE, POSITIVE, check_options, option
from nicelib.coupling import ACTIVATIONS, AdditiveCoupling, AffineCoupling, make_conditioner
from nicelib.errors import InputError, at_least, plain
from nicelib.masks import MASKS, make_mask
from nicelib.prior import PRIORS
from nicelib.scaling import Scaling

COUPLINGS = {"additive": AdditiveCoupling, "affine": AffineCoupling}


@dataclass(frozen=True)
class NICEConfig:
    """The architecture, named here and nowhere else: all that rebuilds a model, saved with its weights.

    :class:`InputError` for a value outside its range, an unknown name, a ``dim`` that the mask cannot have.

    >>> NICEConfig(mask="halves").first
    'first'
    """

    dim: int = option(784, "number of dimensions D, even")
    coupling: int = option(4, "number of coupling layers", rule=AT_LEAST_ONE)
    mid_dim: int = option(1000, "units in a hidden layer", rule=AT_LEAST_ONE)
    hidden: int = option(5, "hidden layers in a conditioner", rule=AT_LEAST_ONE)
    coup_type: str = option("additive", "coupling type: NICE's additive, or Real NVP's affine", COUPLINGS)
    latent: str = option("logistic", "prior of the code z", PRIORS)
    activation: str = option("leaky_relu", "nonlinearity of the conditioners", ACTIVATIONS)
    mask: str = option("parity", "how the entries are split: parity is the paper's", MASKS)
    first: str | None = option(None, "half that layer 0 keeps: odd or even; first or second of halves")
    bound: float | None = option(2.0, "largest log-scale of an affine layer, or none", rule=POSITIVE)

    def __post_init__(self) -> None:
        check_options(self, may_be_none=("bound",))
        if self.first is None and self.mask in MASKS:
            object.__setattr__(self, "first", MASKS[self.mask][0])
        self.masks()

    def masks(self) -> list[Tensor]:
        """The mask of each coupling layer, bool (dim,), True = kept: they alternate."""
        mask = make_mask(self.mask, self.dim, str(self.first))
        return [~mask if i % 2 else mask for i in range(self.coupling)]

    def architecture(self) -> dict[str, Any]:
        """These settings alone, where a class adds others: ``NICE(**config.architecture())``."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(NICEConfig)}


class NICE(Bijection):
    r"""The flow f: x -> z and the density it gives by the change of variables (paper, equation 1 and section 3.4).

    .. math:: \log p_X(x) = \sum_d \log p_H(f_d(x)) + \log |\det df(x)/dx| \quad \text{(nats)}, \quad x \in [0, 1)^D

    The defaults are the 22,295,920-parameter MNIST model: four additive coupling layers with five hidden layers of 1000
    units each, masks that alternate (layer 0 keeps the odd indices), one scaling layer, the logistic prior.

    Its arguments are the fields of :class:`NICEConfig`, by name (``dim`` by position too), and so are the errors. The
    attribute ``config`` holds them all: ``NICE(**model.config)`` builds the architecture again.

    >>> model = NICE(dim=4, mid_dim=8, hidden=1)
    >>> x = torch.rand(2, 4)
    >>> z, log_det = model(x)
    >>> torch.allclose(model.inverse(z), x), model.log_prob(x).shape, model.sample(3).shape
    (True, torch.Size([2]), torch.Size([3, 4]))
    """

    __signature__ = inspect.signature(NICEConfig)  # what an editor shows

    def __init__(self, dim: int = 784, **architecture: Any) -> None:
        config = NICEConfig(dim, **architecture)
        super().__init__(config.dim)
        self.config = config.architecture()
        outputs, bound = (1, {}) if config.coup_type == "additive" else (2, {"bound": config.bound})
        for i, mask in enumerate(config.masks()):
            conditioner = make_conditioner(mask, config.mid_dim, config.hidden, outputs, config.activation)
            # Direct children, not a list: torchinfo's default depth then reaches every linear layer.
            self.add_module(f"coupling_{i}", COUPLINGS[config.coup_type](mask, conditioner, **bound))
        self.scaling = Scaling(config.dim)
        self.prior = PRIORS[config.latent]()
        if self.scaling.log_scale.device.type != "meta":  # masks were made on the CPU, the rest where torch makes it
            self.to(self.scaling.log_scale.device)

    @property
    def couplings(self) -> list[Any]:
        """The coupling layers, from layer 0 on."""
        return [getattr(self, f"coupling_{i}") for i in range(self.config["coupling"])]

    @property
    def layers(self) -> list[Bijection]:
        """The bijections in the order x passes them; the coupling layers, then the scaling layer."""
        return [*self.couplings, self.scaling]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.check(x)
        log_det = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, layer_log_det = layer(x)
            log_det = log_det + layer_log_det
        return x, log_det

    def inverse(self, y: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            y = layer.inverse(y)
        return y

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-likelihood in nats of each row of x (B, D), a point of [0, 1)^D -> (B,)."""
        z, log_det = self(x)
        return self.prior.log_prob(z).sum(-1) + log_det

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """Draw n codes z from the prior, multiply them by ``temperature``, and invert the flow -> x (n, D), not clamped.

        Args:
            temperature: 1 samples the model; below 1, closer to the mode; 0, the mode of z alone.
            generator: source of the uniform numbers; its device may differ from the model's.
        """
        (n,), temperature = at_least(0, n=n), plain("temperature", temperature, float)
        if temperature < 0:
            raise InputError(f"temperature = {temperature}; expected 0 or more")
        z = temperature * self.prior.sample((n, self.dim), generator)
        return self.inverse(z.to(self.scaling.log_scale))

    def extra_repr(self) -> str:
        return f"prior={type(self.prior).__name__}"

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; the names of a compiled or wrapped model are understood, masks that are not this model's refused."""
        plain = {key.replace("_orig_mod.", "").replace("module.", ""): value for key, value in state_dict.items()}
        return super().load_state_dict(plain, strict, assign)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.check_masks(state_dict, prefix)  # before any layer takes anything
        super()._load_from_state_dict(state_dict, prefix, *args)

    def check_masks(self, state_dict: Mapping[str, Any], prefix: str = "") -> None:
        """Raise :class:`InputError` where the masks among these tensors are not those that ``config`` makes."""
        for i, mask in enumerate(NICEConfig(**self.config).masks()):
            saved = state_dict.get(f"{prefix}coupling_{i}.mask")
            if isinstance(saved, Tensor) and not torch.equal(saved.cpu(), mask):
                raise InputError(
                    f"the mask of coupling layer {i} keeps other entries than mask = {self.config['mask']!r}, "
                    f"first = {self.config['first']!r}; build the model with the masks of these weights"
                )
