"""Held-out log-likelihood with its standard error, and the importance-weighted bound."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nicelib.bijection import check_tensor
from nicelib.checkpoints import unwrap
from nicelib.data import bits_per_dim, dequantise
from nicelib.errors import at_least
from nicelib.model import NICE


@dataclass(frozen=True)
class Evaluation:
    """Mean log-likelihood of a set of images, a Monte Carlo estimate over fresh dequantisation noise.

    The standard error is over images, each averaged over its noise draws.
    """

    nats: float  # the mean
    standard_error: float  # of the mean, in nats
    bits_per_dim: float  # of the discrete image
    per_image: Tensor  # (N,), nats
    draws: int  # of noise, an image
    importance: int = 1  # noises inside the logarithm of each draw

    def __str__(self) -> str:
        weighted = f", importance-weighted over {self.importance}" if self.importance > 1 else ""
        return (
            f"{self.nats:.2f} +- {self.standard_error:.2f} nats, {self.bits_per_dim:.3f} bits/dim "
            f"({len(self.per_image):,} images, {self.draws} noise draw{'s' if self.draws > 1 else ''}{weighted})"
        )


@torch.no_grad()
@np.errstate(invalid="ignore")  # NaN in, NaN out, without a word
def evaluate(
    model: NICE, pixels: Tensor, draws: int = 1, seed: int = 0, batch_size: int = 500, importance: int = 1
) -> Evaluation:
    r"""Log-likelihood of images under the model, in nats on [0, 1)^D; nothing is clamped.

    .. math:: \log \frac{1}{K} \sum_k p((pixels + u_k) / 256), \quad \text{K noises } u_k \text{, then the mean over draws}

    K = 1 is the log-likelihood that training raises (paper, section 5.1). By Jensen's inequality it lies below what the
    integer image has, D ln 256 + log P(pixels); the mean rises with K and tends to that.

    Args:
        model, pixels: uint8 (N, D); on any device, each.
        draws: dequantisation noise draws an image, seeded by ``seed``.
        importance: noises inside the logarithm, K; the cost is that of ``draws * importance`` draws.

    Raises:
        InputError: no images, no draws, importance below 1, pixels of the wrong dtype or shape.
    """
    check_tensor("pixels", pixels, "torch.uint8 (N, D)", lambda pixels: pixels.ndim > 0 and not pixels.is_meta)
    at_least(1, images=len(pixels))
    draws, batch_size, importance = at_least(1, draws=draws, batch_size=batch_size, importance=importance)
    (seed,), model = at_least(0, seed=seed), unwrap(model)
    device = model.scaling.log_scale.device
    generator = torch.Generator(device).manual_seed(seed)
    total = np.zeros(len(pixels))  # float64, not on the device: Apple's GPU knows none
    for _ in range(draws):
        bound = np.full(len(pixels), -np.inf)
        for _ in range(importance):
            noisy = (dequantise(batch.to(device), generator) for batch in pixels.split(batch_size))
            nats = torch.cat([model.log_prob(x.to(model.scaling.log_scale)) for x in noisy]).float().cpu().numpy()
            bound = np.logaddexp(bound, nats.astype(np.float64))
        total += bound - math.log(importance)
    per_image = total / draws
    mean = float(per_image.mean())
    error = float(per_image.std(ddof=1)) / math.sqrt(len(pixels)) if len(pixels) > 1 else math.nan
    nats_of_each = torch.from_numpy(per_image.astype(np.float32))
    return Evaluation(mean, error, bits_per_dim(mean, model.dim), nats_of_each, draws, importance)
