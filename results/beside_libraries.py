"""nicelib beside the libraries that one would pick instead: python results/beside_libraries.py --json FILE (five minutes).

zuko comes with the tests; normflows is measured too where it is installed. Same shapes for all: 784 pixels, four coupling
layers, five hidden layers of a thousand units, LeakyReLU, additive and affine; float32; the same images, on the device.
Alternating rounds, medians. What differs:

- nicelib: logistic prior, scaling layer; its step clips gradients and uses the fused Adam. Halves are multiplied, not masked.
- zuko: normal prior, no scaling layer; torch's Adam as its pages use it, no clipping. Gathered halves, by a boolean mask.
- normflows: as zuko, but full-width masked vectors; affine has two networks a layer, one for s and one for t, where the
  others have one of twice the outputs.
"""

import argparse
import importlib.util
import itertools
import json
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from nicelib import TrainConfig, dequantise, load_pixels
from nicelib.checkpoints import write_atomically
from nicelib.training import make_optimiser, resolve_device, train_step
from nicelib.training.device import timed

ROWS = {"train, batches of 200": 200, "train, batches of 50": 50, "sample 64": 64, "sample 10,000": 10_000}
ROWS |= {"log_prob of 10,000": 10_000}
Library = tuple[nn.Module, Callable[[torch.Tensor], Any], Callable[[int], Any], Callable[[torch.Tensor], Any]]


def in_nicelib(kind: str, size: dict[str, Any], device: torch.device) -> Library:
    """The model, its training step, its sampler, its log-likelihood; so for all."""
    config = TrainConfig(coup_type=kind, lr=1e-4, **size)
    model = config.build().to(device)
    optimiser, generator = make_optimiser(model, config), torch.Generator(device)
    step = lambda x: train_step(model, optimiser, x, config.clip)  # noqa: E731
    return model, step, lambda n: model.sample(n, generator=generator), model.log_prob


def in_zuko(kind: str, size: dict[str, Any], device: torch.device) -> Library:
    import zuko

    additive = {"univariate": zuko.transforms.AdditiveTransform, "shapes": [()]} if kind == "additive" else {}
    widths = [size["mid_dim"]] * size["hidden"]
    activation = lambda: nn.LeakyReLU(0.2)  # noqa: E731
    flow = zuko.flows.NICE(784, transforms=4, hidden_features=widths, activation=activation, **additive).to(device)
    log_prob = lambda x: flow().log_prob(x)  # noqa: E731
    return flow, _step(flow, log_prob), lambda n: flow().sample((n,)), log_prob


def in_normflows(kind: str, size: dict[str, Any], device: torch.device) -> Library:
    import normflows

    def network() -> nn.Module:
        return normflows.nets.MLP([784, *[size["mid_dim"]] * size["hidden"], 784], leaky=0.2, init_zeros=True)

    parity = torch.arange(784) % 2
    masks = [parity if i % 2 else 1 - parity for i in range(4)]
    flows = [normflows.flows.MaskedAffineFlow(b, network(), network() if kind == "affine" else None) for b in masks]
    model = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(784, trainable=False), flows).to(device)
    return model, _step(model, model.log_prob), model.sample, model.log_prob


def _step(model: nn.Module, log_prob: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], None]:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step(x: torch.Tensor) -> None:
        loss = -log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


LIBRARIES = {"nicelib": in_nicelib, "zuko": in_zuko, "normflows": in_normflows}


def measure(device: torch.device, rounds: int, steps: int, size: dict[str, Any]) -> dict[str, Any]:
    """Images/s by kind of coupling, row and library: a list with a value a round; and each library's parameters."""
    pixels = load_pixels().to(device)
    found: dict[str, Any] = {"device": str(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    for kind in ("additive", "affine"):
        made = {name: f(kind, size, device) for name, f in LIBRARIES.items() if importlib.util.find_spec(name)}
        found[kind] = {"parameters": {name: sum(p.numel() for p in one[0].parameters()) for name, one in made.items()}}
        found[kind] |= {row: {name: [] for name in made} for row in ROWS}
        for measured, (row, images) in itertools.product(range(rounds + 1), ROWS.items()):
            x = dequantise(pixels[torch.randint(len(pixels), (images,), device=device)])
            for name, (_, step, sample, log_prob) in made.items():
                work = {
                    "train": partial(step, x),
                    "sample": partial(sample, images),
                    "log_prob": partial(each, log_prob, x),
                }
                times = steps if row.startswith("train") else 1
                with torch.set_grad_enabled(row.startswith("train")):
                    seconds = timed(work[row.split(",")[0].split()[0]], times, device)
                if measured:
                    found[kind][row][name].append(images * times / seconds)
    return found


def each(log_prob: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Five hundred at a time, as a CPU's cache and a laptop's memory like it."""
    return torch.cat([log_prob(part) for part in x.split(500)])


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5, help="alternations that count (default: 5)")
    parser.add_argument("--steps", type=int, default=5, help="training steps timed at a time (default: 5)")
    parser.add_argument("--json", help="also write every round's value to this file")
    parser.add_argument("--tiny", action="store_true", help="small networks: to try the script, not to measure")
    args = parser.parse_args(argv)
    size = {"mid_dim": 8, "hidden": 1} if args.tiny else {"mid_dim": 1000, "hidden": 5}
    found = measure(resolve_device(args.device), args.rounds, args.steps, size)
    for kind, row in itertools.product(("additive", "affine"), ROWS):
        medians = {name: statistics.median(values) for name, values in found[kind][row].items()}
        ratios = {name: medians["nicelib"] / rate for name, rate in medians.items()}
        line = ", ".join(f"{name} {rate:,.0f} images/s ({ratios[name]:.2f})" for name, rate in medians.items())
        print(f"{kind}, {row}: {line}")
    if args.json:
        write_atomically(args.json, lambda path: path.write_text(json.dumps(found, indent=1), encoding="utf-8"))


if __name__ == "__main__":
    main()
