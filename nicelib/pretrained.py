"""The shipped weights of the 22,295,920-parameter MNIST model; ``weights/MODEL_CARD.md`` says how they were made."""

from pathlib import Path

from nicelib.checkpoints import load_model
from nicelib.model import NICE

PRETRAINED = Path(__file__).parent / "weights" / "nice-mnist.safetensors"


def load_pretrained() -> NICE:
    """The shipped model, in float32 on the CPU; needs no network.

    Raises:
        InputError: the weights file is missing or damaged.
    """
    return load_model(PRETRAINED)
