"""Which images a step sees, and with which noise: a function of the seed and the step alone."""

import hashlib

import torch
from torch import Tensor

from nicelib.bijection import check_generator
from nicelib.data import dequantise, side_of
from nicelib.errors import InputError, plain
from nicelib.training.settings import TrainConfig


def stream(seed: int, purpose: str, index: int) -> int:
    """A seed of its own for each purpose, in 32 bits: torch's CPU generator reads no more of it."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {purpose} {index}".encode(), digest_size=4).digest())


def order_of_epoch(generator: torch.Generator, config: TrainConfig, epoch: int, n: int) -> Tensor:
    """The order of ``n`` images in an epoch: int64 (n,), on the generator's device."""
    generator.manual_seed(stream(config.seed, "order", epoch))
    return torch.randperm(n, generator=generator, device=generator.device)


def draw_batch(pixels: Tensor, config: TrainConfig, step: int, generator: torch.Generator) -> Tensor:
    """The images of one step, moved and dequantised with noise of the step's own: uint8 (B, D) -> (B, D) in [0, 1).

    ``step`` counts over the whole run. Seeding the generator, on the pixels' device, by it, not drawing on from the last
    step, is what makes every resume exact.
    """
    generator.manual_seed(stream(config.seed, "noise", step))
    return dequantise(shift_images(pixels, config.shift, generator) if config.shift else pixels, generator)


def shift_images(pixels: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Move a share of the images, uint8 (B, side * side) to the same, by -1, 0 or 1 pixel along each axis.

    What comes in at a border is black. Integers stay integers, so that the dequantised image keeps its meaning. ``share``
    is each image's probability; the generator is on the pixels' device. Not in the paper.

    >>> image = torch.eye(4, dtype=torch.uint8).view(1, 16)
    >>> torch.equal(shift_images(image, 0.0), image)
    True
    """
    side, device = side_of(pixels), pixels.device
    if not 0 <= plain("share", share, float) <= 1:
        raise InputError(f"share = {share}; expected 0 to 1")
    check_generator(generator, device)
    offset = torch.randint(0, 3, (len(pixels), 2), generator=generator, device=device)
    moved = torch.rand(len(pixels), 1, generator=generator, device=device, dtype=torch.float32) < share
    offset = torch.where(moved, offset, 1)
    padded = torch.nn.functional.pad(pixels.reshape(len(pixels), side, side), (1, 1, 1, 1))
    index = torch.arange(side, device=device)
    rows, columns = offset[:, :1] + index, offset[:, 1:] + index
    image = torch.arange(len(pixels), device=device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].view(pixels.shape)
