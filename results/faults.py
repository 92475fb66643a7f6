"""What each fault costs: the sprint with one thing changed (python results/faults.py NAME --seed 0 --out DIR).

Every fault was met in public programs. The first kind is trained, three epochs on MNIST, and judged twice: by held-out
images under right noise, and by what the broken program would itself report. The second kind breaks only the report:
how much it lies is read off the sound sprint. nicelib is imported and broken from outside.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from reproduce import TINY, Noise, Run, follow, noise_in
from torch import Tensor, nn

from nicelib import NICE, RECIPES, TrainConfig, bits_per_dim, dequantise, evaluation, initialise_from_data, load_pixels
from nicelib.coupling import AdditiveCoupling, make_conditioner
from nicelib.data import held_out_split
from nicelib.prior import StandardNormal
from nicelib.scaling import Scaling
from nicelib.training import resolve_device
from nicelib.training.batches import order_of_epoch


def nothing(model: NICE) -> None:
    """Change nothing."""


@dataclass
class Sprint:
    """The sprint's parts, each of which a fault may put another in place of."""

    settings: dict[str, Any] = field(default_factory=lambda: dict(RECIPES["sprint"]))
    noise: Noise = dequantise
    before: Callable[[NICE], None] = nothing  # to the fresh model
    after: Callable[[NICE], None] = nothing  # to the model as it starts, from the data
    log_det_reported: bool = True


# --- faults that change training -------------------------------------------------------------------------------------


def one_noise_vector(sprint: Sprint) -> None:
    """One noise vector a batch, shared by all its images"""
    size = sprint.settings["batch_size"]

    def shared(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        # The start from data and the evaluation see more images at once: they too get a vector for each batch of them.
        batches = -(-len(pixels) // size)
        u = torch.rand(batches, pixels.shape[1], generator=generator, device=pixels.device)
        return (pixels + u.repeat_interleave(size, 0)[: len(pixels)]) / 256

    sprint.noise = shared


def half_the_bin(sprint: Sprint) -> None:
    """Noise over half of each bin"""
    sprint.noise = lambda pixels, generator=None: (
        (pixels + torch.rand(pixels.shape, generator=generator, device=pixels.device) / 2) / 256
    )


def over_255_clamped(sprint: Sprint) -> None:
    """Noise added to pixel / 255, the sum cut off at 1"""
    sprint.noise = lambda pixels, generator=None: (
        pixels / 255 + torch.rand(pixels.shape, generator=generator, device=pixels.device) / 256
    ).clamp(0, 1)


def no_noise(sprint: Sprint) -> None:
    """No noise at all"""
    sprint.noise = lambda pixels, generator=None: pixels / 256


def scales_from_normal(sprint: Sprint) -> None:
    """Log-scales start from N(0, 1)"""
    sprint.after = lambda model: nn.init.normal_(model.scaling.log_scale)


def scales_from_zero(sprint: Sprint) -> None:
    """Log-scales start from zero"""
    sprint.after = lambda model: nn.init.zeros_(model.scaling.log_scale)


def four_small_linear_layers(sprint: Sprint) -> None:
    """Hidden layers of 100 units, four linear layers"""
    sprint.settings |= {"mid_dim": 100, "hidden": 3}


def three_couplings(sprint: Sprint) -> None:
    """Three coupling layers"""
    sprint.settings |= {"coupling": 3}


def masks_that_stay(sprint: Sprint) -> None:
    """Masks that do not alternate"""

    def keep_the_same(model: NICE) -> None:
        mask = model.couplings[0].mask
        for i in range(1, model.config["coupling"]):
            sizes = (model.config[name] for name in ("mid_dim", "hidden"))
            setattr(model, f"coupling_{i}", AdditiveCoupling(mask, make_conditioner(mask, *sizes)))

    sprint.before = keep_the_same


class _Forgetful(Scaling):
    """Its log-det is missing wherever gradients are kept: in training, not when nicelib judges."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = super().forward(x)
        return z, torch.zeros_like(log_det) if torch.is_grad_enabled() else log_det


def log_det_forgotten(sprint: Sprint) -> None:
    """The log-det of the scaling layer left out"""
    sprint.before = lambda model: setattr(model, "scaling", _Forgetful(model.dim))
    sprint.log_det_reported = False


def relu_at_the_end(sprint: Sprint) -> None:
    """ReLU after the network's last layer"""

    def end_in_relu(model: NICE) -> None:
        for layer in model.couplings:
            # From zero the last layer would stay dead behind the ReLU: it starts as torch does.
            layer.conditioner[-1].reset_parameters()
            layer.conditioner.append(nn.ReLU())

    sprint.after = end_in_relu


def gaussian_prior(sprint: Sprint) -> None:
    """Gaussian prior"""
    sprint.settings |= {"latent": "normal"}


def sprint(sprint: Sprint) -> None:
    """The sprint as it is"""


TRAINED: dict[str, Callable[[Sprint], None]] = {
    fault.__name__: fault
    for fault in (
        sprint,
        one_noise_vector,
        half_the_bin,
        over_255_clamped,
        no_noise,
        scales_from_normal,
        scales_from_zero,
        four_small_linear_layers,
        three_couplings,
        masks_that_stay,
        log_det_forgotten,
        relu_at_the_end,
        gaussian_prior,
    )
}


# --- faults that change only the report: (right, reported), in nats unless said otherwise ---------------------------------


@torch.no_grad()
def samples_from_a_gaussian(model: NICE, run: Run) -> tuple[float, float]:
    """A logistic model sampled from a Gaussian: mean nats of its samples"""
    generator = torch.Generator().manual_seed(0)
    right = model.log_prob(model.sample(1000, generator=generator)).mean()
    z = StandardNormal().sample((1000, model.dim), generator)
    return right.item(), model.log_prob(model.inverse(z.to(model.scaling.log_scale))).mean().item()


def training_mean_as_test(model: NICE, run: Run) -> tuple[float, float]:
    """The mean of the last epoch's training batches reported as test"""
    _, trained, held_out = run.history[-1]
    return held_out, trained


def bits_with_ln_128(model: NICE, run: Run) -> tuple[float, float]:
    """Bits per dimension with ln 128 in place of ln 256 (bits)"""
    nats, dim = run.history[-1][2], model.dim
    return bits_per_dim(nats, dim), (dim * math.log(128) - nats) / (dim * math.log(2))


def ln_256_subtracted(model: NICE, run: Run) -> tuple[float, float]:
    """784 ln 256 subtracted from a density on [0, 1)"""
    nats = run.history[-1][2]
    return nats, nats - model.dim * math.log(256)


REPORTED = {
    f.__name__: f for f in (samples_from_a_gaussian, training_mean_as_test, bits_with_ln_128, ln_256_subtracted)
}


# --- one run ---------------------------------------------------------------------------------------------------------


def start(config: TrainConfig, parts: Sprint) -> NICE:
    """A model as nicelib's loop starts one, with what the fault puts in before and after."""
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)
    pixels = load_pixels(config.dataset, "train", protocol=config.protocol).to(device)
    model = config.build()
    parts.before(model)
    model = model.to(device)
    generator = torch.Generator(device)
    first = pixels[order_of_epoch(generator, config, 0, len(pixels))[:10_000]]
    initialise_from_data(model, parts.noise(first, generator))
    parts.after(model)
    return model


@torch.no_grad()
def judge(model: NICE, pixels: Tensor, parts: Sprint, seed: int) -> dict[str, float]:
    """Held-out nats: by right noise and a right formula (mean, median), and as the broken program would report them."""
    right = evaluation.evaluate(model, pixels, seed=seed)
    with noise_in(parts.noise, evaluation):
        own = evaluation.evaluate(model, pixels, seed=seed).nats
    if not parts.log_det_reported:
        own -= model.scaling.log_scale.double().sum().item()
    numbers = {"right": right.nats, "median": right.per_image.median().item(), "reported": own}
    return {name: round(number, 2) for name, number in numbers.items()}


def run_fault(name: str, seed: int = 0, after_epoch: Callable[[Run], None] = lambda run: None, **changes: Any) -> dict:
    """Train the sprint with one fault and judge it; the sound one also gives what the false reports would say."""
    parts = Sprint()
    parts.settings |= changes
    TRAINED[name](parts)
    config = TrainConfig(**(parts.settings | {"init": "zero", "seed": seed}))
    model = start(config, parts)
    run = follow(config, model, parts.noise, after_epoch=after_epoch)
    record: dict[str, Any] = {"name": name, "what": TRAINED[name].__doc__, "seed": seed, "history": run.history}
    record["stopped"] = run.stopped
    if run.history:  # of the weights as they ended: a broken program chooses nothing
        held_out = load_pixels(
            config.dataset, held_out_split(config.dataset, config.protocol), protocol=config.protocol
        )
        record |= judge(model, held_out, parts, seed)
    if name == "sprint" and run.history:
        model.cpu()
        record["reports"] = {
            fault.__name__: dict(
                zip(("right", "reported"), (round(v, 3) for v in fault(model, run)), strict=True), what=fault.__doc__
            )
            for fault in REPORTED.values()
        }
    return record


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=TRAINED, help="sprint: nothing is broken but the reports")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    parser.add_argument("--tiny", action="store_true", help="two epochs of a small model on the embedded digits")
    args = parser.parse_args()
    record = run_fault(args.name, args.seed, **(TINY if args.tiny else {}))
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1)
    (args.out / f"{args.name}-{args.seed}.json").write_text(text, encoding="utf-8")
    print(text)
