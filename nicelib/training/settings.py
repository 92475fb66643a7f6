"""Every setting of a training run, and the recipes: named sets of them (paper, section 5.1)."""

import threading
from dataclasses import dataclass
from typing import Any

import torch

from nicelib.config import AT_LEAST_ONE, BELOW_ONE, NOT_NEGATIVE, POSITIVE, SEED, SHARE, option
from nicelib.data import DATASETS, PROTOCOLS
from nicelib.model import NICE, NICEConfig

PRECISIONS = ("auto", "highest", "high", "bf16")
SCHEDULES = ("one-cycle", "linear", "constant")
INITS = ("data", "zero")
_BUILDING = threading.Lock()  # torch's random numbers and default dtype are the whole program's


@dataclass(frozen=True)
class TrainConfig(NICEConfig):
    """The architecture and every setting of a training run; thirteen keep the notes' names and defaults.

    Raises:
        InputError: a value outside its range or an unknown name.
    """

    dataset: str = option("mnist", "data set", DATASETS)
    batch_size: int = option(200, "images in a mini-batch, over all processes", rule=AT_LEAST_ONE)
    max_iter: int = option(50, "training length in epochs", rule=AT_LEAST_ONE)
    sample_size: int = option(64, "images to generate at the end", rule=AT_LEAST_ONE)
    lr: float = option(1e-3, "Adam's learning rate; the peak of the schedule", rule=POSITIVE)
    momentum: float = option(0.9, "Adam's beta1", rule=BELOW_ONE)
    decay: float = option(0.999, "Adam's beta2", rule=BELOW_ONE)
    save_every: int = option(5, "epochs between weight snapshots", rule=AT_LEAST_ONE)
    init: str = option("data", "start of shifts and scales: from the data, or zero as in the authors' code", INITS)
    schedule: str = option("one-cycle", "lr: up over a tenth, then down to 0 as cosine or line; or constant", SCHEDULES)
    scale_lr: float = option(20.0, "learning rate of the scaling layer, as a multiple of lr", rule=POSITIVE)
    weight_decay: float = option(0.0, "decoupled weight decay (AdamW) of the conditioners' matrices", rule=NOT_NEGATIVE)
    clip: float = option(200.0, "largest gradient norm of the mean nats an image; 0 = no clipping", rule=NOT_NEGATIVE)
    shift: float = option(0.0, "share of the images moved by up to one pixel each time they are drawn", rule=SHARE)
    eps: float = option(1e-8, "Adam's epsilon", rule=POSITIVE)
    protocol: str = option("paper", "which images train (see nicelib.data)", PROTOCOLS)
    precision: str = option(
        "auto",
        "products in training: float32 (highest), TF32 on CUDA (high), bfloat16 (bf16); auto measures",
        PRECISIONS,
    )
    cuda_graph: str = option("auto", "a step's CUDA kernels as one launch; auto: on a GPU", ("off", "auto", "on"))
    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...")
    seed: int = option(0, "seed of the weights, the order of the images and the noise", rule=SEED)

    def build(self, dim: int = 784) -> NICE:
        """A fresh model of this configuration, its weights drawn from ``seed``."""
        with _BUILDING, torch.random.fork_rng(devices=[]), torch.device("cpu"):
            before = torch.get_default_dtype()
            try:  # whatever torch's defaults are
                torch.set_default_dtype(torch.float32)
                torch.manual_seed(self.seed)
                return NICE(**(self.architecture() | {"dim": dim}))
            finally:
                torch.set_default_dtype(before)


_PLAIN: dict[str, Any] = {"init": "zero", "schedule": "constant", "scale_lr": 1.0, "clip": 0.0, "eps": 1e-4}

#: Named settings for ``nicelib train --recipe NAME``: what differs from the defaults of :class:`TrainConfig`.
RECIPES: dict[str, dict[str, Any]] = {
    "notes": _PLAIN | {"max_iter": 50, "protocol": "notes"},
    "paper": _PLAIN | {"max_iter": 1500, "decay": 0.99, "activation": "relu"},
    "reference": {"max_iter": 34, "lr": 2e-3, "weight_decay": 0.3, "shift": 0.3, "protocol": "reference"},
    "sample": {"dataset": "mnist-sample", "batch_size": 50, "max_iter": 5, "lr": 2e-3},
    "sprint": {"batch_size": 50, "max_iter": 3, "lr": 1.5e-3, "schedule": "linear", "weight_decay": 0.2},
}
