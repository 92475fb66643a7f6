"""Held-out log-likelihood with its standard error."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nicelib.data import bits_per_dim, dequantise
from nicelib.errors import at_least
from nicelib.model import NICE


@dataclass(frozen=True)
class Evaluation:
    """Mean log-likelihood of a set of images, a Monte Carlo estimate over fresh dequantisation noise.

    Attributes:
        nats: mean over images and noise draws.
        standard_error: of that mean (nats), over images, each averaged over its noise draws.
        bits_per_dim: of the discrete image.
        per_image: (N,), nats of each image.
        draws: noise draws an image.
    """

    nats: float
    standard_error: float
    bits_per_dim: float
    per_image: Tensor
    draws: int

    def __str__(self) -> str:
        return (
            f"{self.nats:.2f} +- {self.standard_error:.2f} nats, {self.bits_per_dim:.3f} bits/dim "
            f"({len(self.per_image):,} images, {self.draws} noise draw{'s' if self.draws > 1 else ''})"
        )


@torch.no_grad()
def evaluate(model: NICE, pixels: Tensor, draws: int = 1, seed: int = 0, batch_size: int = 500) -> Evaluation:
    """Log-likelihood of images under the model, in nats on [0, 1)^D; nothing is clamped.

    Args:
        model: on any device.
        pixels: uint8 (N, D), on any device.
        draws: dequantisation noise draws an image.
        seed: of the noise.
        batch_size: images at a time.

    Raises:
        InputError: no images, no draws, pixels of the wrong dtype or shape.
    """
    at_least(1, draws=draws, images=len(pixels), batch_size=batch_size)
    device = model.scaling.log_scale.device
    generator = torch.Generator(device).manual_seed(seed)
    total = np.zeros(len(pixels))  # float64, not on the device: Apple's GPU knows none
    for _ in range(draws):
        noisy = (dequantise(batch.to(device), generator) for batch in pixels.split(batch_size))
        total += torch.cat([model.log_prob(x.to(model.scaling.log_scale)) for x in noisy]).cpu().numpy()
    per_image = total / draws
    nats = float(per_image.mean())
    error = float(per_image.std(ddof=1)) / math.sqrt(len(pixels)) if len(pixels) > 1 else math.nan
    nats_of_each = torch.from_numpy(per_image.astype(np.float32))
    return Evaluation(nats, error, bits_per_dim(nats, model.dim), nats_of_each, draws)
