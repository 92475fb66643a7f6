"""Programs of others, by their own settings, start and noise (python results/reproduce.py NAME OUT).

nicelib starts every model's hidden layers Kaiming-normal and its last layers at zero. The programs repeated here do
otherwise, so the model is built here and handed to nicelib's loop; a program's own noise is put into the loop from outside.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nicelib import NICE, RECIPES, InputError, TrainConfig, dequantise, evaluation, train
from nicelib.training import batches, loop

Noise = Callable[[Tensor, torch.Generator | None], Tensor]
#: the same, small, on the embedded digits: for the tests
TINY = {"dataset": "mnist-sample", "protocol": "paper", "mid_dim": 16, "hidden": 1, "max_iter": 2, "device": "cpu"}


def one_vector_clamped(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The notes' first program: one noise vector for a whole batch, added to pixel / 255, and cut off at 1."""
    u = torch.rand(1, pixels.shape[1], generator=generator, device=pixels.device)
    return (pixels / 255 + u / 256).clamp(0, 1)


def start_as_torch_does(model: NICE) -> None:
    """Every linear layer as torch leaves it: weights and biases uniform within 1 / sqrt(fan-in)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()


def start_as_the_authors_do(model: NICE) -> None:
    """Weights uniform within 0.01 and biases zero, as the authors' program of 2014 has them."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -0.01, 0.01)
            nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class Program:
    """Settings, how the linear layers start, the spread of the log-scales' start, the noise in training."""

    settings: dict[str, Any]
    start: Callable[[NICE], None] = start_as_torch_does
    scale_std: float = 0.0
    noise: Noise = dequantise
    then: dict[str, Any] = field(default_factory=dict)  # settings of a second stage, which goes on with the weights


# batch 256, s from N(0, 1), Adam's defaults, 75 epochs
FIRST = RECIPES["notes"] | {"batch_size": 256, "max_iter": 75, "eps": 1e-8, "precision": "highest"}
PROGRAMS = {
    # the notes' second program: 60,000 images, batch 200, s from zero, Adam 1e-3 with eps 1e-4, LeakyReLU, 50 epochs
    "notes-second": Program(RECIPES["notes"] | {"precision": "highest"}),
    "notes-first": Program(FIRST, scale_std=1.0),
    "notes-first-own-noise": Program(FIRST, scale_std=1.0, noise=one_vector_clamped),
    # the paper's recipe from other starts than nicelib's
    "paper-torch-start": Program(RECIPES["paper"]),
    "paper-authors-start": Program(RECIPES["paper"], start_as_the_authors_do),
    # the authors' program of 2014 lets the rate fall from 1e-3 to 1e-4: here in one step, after 30 epochs
    "paper-falling-rate": Program(RECIPES["paper"] | {"max_iter": 30}, then={"lr": 1e-4, "max_iter": 10}),
}


def prepare(program: Program, seed: int = 0, **changes: Any) -> tuple[TrainConfig, NICE]:
    """The program's settings, and a model that starts as the program's does."""
    config = TrainConfig(**(program.settings | {"seed": seed} | changes))
    torch.manual_seed(seed)
    model = config.build()
    program.start(model)
    nn.init.normal_(model.scaling.log_scale, std=program.scale_std)
    return config, model


@contextmanager
def noise_in(noise: Noise, *modules: Any) -> Iterator[None]:
    """Let these modules of nicelib add another noise, within the block."""
    before = [module.dequantise for module in modules]
    for module in modules:
        module.dequantise = noise
    try:
        yield
    finally:
        for module, was in zip(modules, before, strict=True):
            module.dequantise = was


def own_measure(model: NICE, pixels: Tensor, noise: Noise) -> float:
    """Mean nats of images under a program's own noise."""
    with noise_in(noise, evaluation):
        return evaluation.evaluate(model, pixels).nats


@dataclass
class Run:
    """A run as it goes: an epoch a row, why it stopped, and its best weights on held-out images."""

    history: list[list[float]] = field(default_factory=list)
    stopped: str = "at its end"
    best: list[float] = field(default_factory=list)  # a row of the history
    weights: dict[str, Tensor] = field(default_factory=dict)


def follow(
    config: TrainConfig,
    model: NICE,
    noise: Noise = dequantise,
    patience: int = 0,
    out: Path | None = None,
    after_epoch: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Train to the end, to an interrupt, to a loss that is no number, or ``patience`` epochs past the best one.

    Held-out images always have the right noise. Where the interrupt came in the middle of an epoch, the best weights are
    still those of a whole one.
    """
    run = Run()
    try:
        with noise_in(noise, batches, loop):
            for record in train(config, out=out, resume=out is not None, model=model):
                run.history.append([record["epoch"], round(record["train"], 2), round(record["held_out"], 2)])
                if not run.best or run.history[-1][2] > run.best[2]:
                    run.best = run.history[-1]
                    run.weights = {name: t.detach().clone() for name, t in model.state_dict().items()}
                after_epoch(run)
                wait = patience if record["held_out"] > -1e6 else min(patience, 20)  # what exploded seldom comes back
                if patience and record["epoch"] - run.best[0] >= wait:
                    run.stopped = f"held-out nats had not risen for {wait} epochs"
                    break
    except KeyboardInterrupt:
        run.stopped = "the time was up"
    except InputError as error:  # nicelib's loop refuses to go on with a loss that is no number
        run.stopped = str(error).split(";")[0]
    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PROGRAMS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="two epochs of a small model on the embedded digits")
    args = parser.parse_args()
    program = PROGRAMS[args.name]
    config, model = prepare(program, args.seed, **(TINY if args.tiny else {}))
    own = program.noise is not dequantise
    say = f"epoch {{}} train{' by its own noise' * own} {{:.2f}} held-out {{:.2f}}"

    def tell(run: Run) -> None:
        print(say.format(*run.history[-1]), flush=True)

    run = follow(config, model, program.noise, out=args.out, after_epoch=tell)
    print(json.dumps({"stopped": run.stopped, "best": run.best}))
    if program.then and run.stopped == "at its end":
        config = dataclasses.replace(config, **program.then)
        run = follow(config, model, program.noise, out=args.out / "then", after_epoch=tell)
        print(json.dumps({"stopped": run.stopped, "best": run.best}))
