"""The shipped MNIST weights (how they were trained: weights/MODEL_CARD.md); InputError where the file is damaged."""

from pathlib import Path

from nicelib.checkpoints import load_model
from nicelib.model import NICE

#: the shipped weights in half precision; config, metrics and training command in the header
WEIGHTS = Path(__file__).parent / "weights" / "nice_mnist.safetensors"


def load_pretrained() -> NICE:
    """The 22,295,920-parameter MNIST model, trained; float32 on the CPU, no network needed.

    The 500 test digits of ``mnist-sample`` and MNIST's last 10,000 training images took no part in training.

    >>> load_pretrained().dim
    784
    """
    return load_model(WEIGHTS)
