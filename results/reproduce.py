"""The notes' two programs, by their own settings and their own start (python results/reproduce.py NAME OUT).

nicelib starts every model's hidden layers Kaiming-normal and its last layers at zero. The programs repeated here leave
torch's default start in all of them (uniform within 1 / sqrt(fan-in)), so the model is built here and handed to nicelib's loop.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from nicelib import NICE, RECIPES, TrainConfig, train

RUNS = {
    # the notes' second program: 60,000 images, batch 200, s from zero, Adam 1e-3 with eps 1e-4, LeakyReLU, 50 epochs
    "notes-second": (RECIPES["notes"], 0.0),
    # the notes' first program with right noise: batch 256, s from N(0, 1), Adam's defaults, 75 epochs
    "notes-first": (RECIPES["notes"] | {"batch_size": 256, "max_iter": 75, "eps": 1e-8}, 1.0),
}


def start_as_torch_does(config: TrainConfig, scale_std: float) -> NICE:
    """A model whose linear layers start as torch's default, and its log-scales at N(0, scale_std^2)."""
    torch.manual_seed(config.seed)
    model = config.build()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    nn.init.normal_(model.scaling.log_scale, std=scale_std)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings, scale_std = RUNS[args.name]
    config = TrainConfig(**settings, precision="highest", seed=args.seed)
    model = start_as_torch_does(config, scale_std)
    for record in train(config, out=args.out, resume=True, model=model):
        print(f"epoch {record['epoch']} train {record['train']:.2f} held-out {record['held_out']:.2f}", flush=True)
