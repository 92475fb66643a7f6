"""The shipped MNIST weights (how they were trained: weights/MODEL_CARD.md); InputError where their files are damaged."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nicelib.checkpoints import load_model
from nicelib.errors import InputError, cause
from nicelib.model import NICE

#: the shipped weights in half precision; config, metrics and training command in the header
WEIGHTS = Path(__file__).parent / "weights" / "nice_mnist.safetensors"
#: what ``nicelib evaluate --dataset mnist --per-image FILE`` wrote for them
TEST_NATS = WEIGHTS.with_name("mnist_test_nats.safetensors")


def load_pretrained() -> NICE:
    """The 22,295,920-parameter MNIST model, trained; float32 on the CPU, no network needed.

    The 500 test digits of ``mnist-sample`` and MNIST's last 10,000 training images took no part in training.

    >>> load_pretrained().dim
    784
    """
    return load_model(WEIGHTS)


def load_test_nats() -> Tensor:
    """The shipped model's log-likelihood of each of MNIST's 10,000 test images (nats, mean of 10 noise draws): (10000,).

    >>> round(load_test_nats().mean().item(), 1)
    2231.5
    """
    try:
        open(TEST_NATS, "rb").close()  # safetensors calls every file that it cannot open "not found"
        return load_file(TEST_NATS)["nats"]
    except (OSError, LookupError, SafetensorError) as error:
        raise InputError(f"{TEST_NATS} cannot be read ({cause(error)}); install the package again") from error
