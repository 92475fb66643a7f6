"""Why the Gaussian prior collapses on the small sample and not on MNIST (python results/rare_ink.py).

Held-out digits are split by one question asked of the training digits alone: does the digit have ink in a pixel that at
most five of them inked? There a code entry is far out, and a Gaussian charges the square of the distance.
"""

import torch

from nicelib import RECIPES, TrainConfig, load_pixels, train
from nicelib.errors import InputError
from nicelib.evaluation import evaluate


def unexpected(trained: torch.Tensor, held_out: torch.Tensor, at_most: int) -> torch.Tensor:
    """Which held-out images have ink in a pixel that at most so many training images inked: bool (N,)."""
    rare = (trained > 0).sum(0) <= at_most
    return (held_out[:, rare] > 0).any(1)


if __name__ == "__main__":
    trained, held_out = (load_pixels("mnist-sample", split) for split in ("train", "test"))
    rare = unexpected(trained, held_out, 5)
    for prior in ("logistic", "normal"):
        config = TrainConfig(**(RECIPES["sample"] | {"latent": prior, "precision": "highest"}))
        model = config.build()
        *_, last = train(config, model=model)
        nats = evaluate(model, held_out).per_image
        print(f"{prior}: train {last['train']:.0f}, held-out {nats.mean():.0f}, median {nats.median():.0f};", end=" ")
        print(
            f"{int(rare.sum())} digits with unexpected ink {nats[rare].mean():.0f}, the others {nats[~rare].mean():.0f}"
        )
    try:
        trained, held_out = (
            load_pixels("mnist", s, download=False, protocol="reference") for s in ("train", "validation")
        )
    except InputError as error:
        raise SystemExit(str(error)) from None
    print(
        f"MNIST: {int(unexpected(trained, held_out, 5).sum())} of {len(held_out)} validation images have unexpected ink"
    )
