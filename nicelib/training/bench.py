"""How fast a training step is, beside the loop that most programs write, measured in one run."""

import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from nicelib.data import dequantise, load_pixels
from nicelib.errors import InputError
from nicelib.masks import parity_mask
from nicelib.training.batches import draw_batch
from nicelib.training.device import matmul_precision, resolve_precision, synchronise
from nicelib.training.graph import CapturedStep
from nicelib.training.loop import make_optimiser, train_step
from nicelib.training.settings import TrainConfig
from nicelib.training.start import initialise_from_data

FLOPS_PER_IMAGE = 3 * 38_272_000  # forward, and twice that backward


class PlainNICE(nn.Module):
    """The same flow as it is usually written: masks multiply full-width vectors, and the dead halves are computed."""

    mask: Tensor

    def __init__(self, mid_dim: int = 1000) -> None:
        super().__init__()

        def conditioner() -> nn.Sequential:
            widths = [784, *5 * [mid_dim], 784]
            layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
            return nn.Sequential(*layers[:-1])

        self.conditioners = nn.ModuleList(conditioner() for _ in range(4))
        self.log_scale = nn.Parameter(torch.zeros(784))
        self.register_buffer("mask", parity_mask(784).float())

    def log_prob(self, x: Tensor) -> Tensor:
        mask = self.mask
        for conditioner in self.conditioners:
            x = x + (1 - mask) * conditioner(mask * x)
            mask = 1 - mask
        z = x * self.log_scale.exp()
        return (-F.softplus(z) - F.softplus(-z)).sum(-1) + self.log_scale.sum()


class _Images(Dataset):
    """What torchvision's MNIST with ToTensor does for each image."""

    def __init__(self, pixels: Tensor) -> None:
        from torchvision.transforms import ToTensor

        self.pixels, self.transform = pixels.view(-1, 28, 28).numpy(), ToTensor()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index]))


def bench(device: torch.device, rounds: int = 5, steps: int = 10, batch_size: int = 200) -> Iterator[str]:
    """Time both loops in turn, ``rounds`` times ``steps`` steps of ``batch_size`` images; yields lines of text.

    The images are the embedded sample's; both loops get the same. The first alternation warms up and is not counted.

    Args:
        device: where to run.
        rounds: alternations that count.
        steps: steps timed at a time.
        batch_size: images a step.

    Raises:
        InputError: a non-positive ``rounds``, ``steps`` or ``batch_size``, or a batch larger than the sample.
    """
    if rounds < 1 or steps < 1:
        raise InputError(f"rounds = {rounds}, steps = {steps}; expected 1 or more of both")
    pixels = load_pixels("mnist-sample", "train")
    if not 1 <= batch_size <= len(pixels):
        raise InputError(f"batch_size = {batch_size}; expected 1 to {len(pixels)}, the images of mnist-sample")
    default = resolve_precision("auto", device)
    config = TrainConfig(lr=1e-4, batch_size=batch_size, precision="highest")
    loops: dict[str, tuple[Callable[[], object], str]] = {
        "plain masked loop, ToTensor DataLoader, Adam, float32": (plain_loop(pixels, device, batch_size), "highest"),
        "nicelib, float32": (nicelib_loop(pixels, device, config), "highest"),
    }
    if default != "highest":
        name = f"nicelib, its default here (precision {default})"
        loops[name] = (nicelib_loop(pixels, device, dataclasses.replace(config, precision=default)), default)
    rates: dict[str, list[float]] = {name: [] for name in loops}
    products: dict[str, list[float]] = {name: [] for name in loops}
    for measured in range(rounds + 1):
        for name, (loop, precision) in loops.items():
            rate = steps * batch_size / seconds(loop, steps, device)
            with matmul_precision(precision, device):
                product = product_rate(device)
            if measured:
                rates[name].append(rate)
                products[name].append(product)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    yield f"{machine}, torch {torch.__version__}, batch {batch_size}, median of {rounds} alternating rounds of {steps} steps"
    plain = next(iter(rates.values()))
    for name, values in rates.items():
        yield f"{name}: {statistics.median(values):.0f} images/s ({min(values):.0f} to {max(values):.0f})"
        if values is plain:
            continue
        ratios = [ours / theirs for theirs, ours in zip(plain, values, strict=True)]
        flops, product = statistics.median(values) * FLOPS_PER_IMAGE, statistics.median(products[name])
        yield f"    ratio to the plain loop: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        yield (
            f"    {flops / 1e9:.0f} GFLOP/s, {flops / product:.0%} of this machine's own "
            f"2000 x 2000 product at that precision ({product / 1e9:.0f} GFLOP/s)"
        )


def plain_loop(pixels: Tensor, device: torch.device, batch_size: int, mid_dim: int = 1000) -> Callable[[], None]:
    """A step of the plain loop, its images as torchvision's ToTensor and a DataLoader give them; call it again and again."""
    model = PlainNICE(mid_dim).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    loader = DataLoader(_Images(pixels), batch_size=batch_size, shuffle=True, drop_last=True)
    batches: Iterator[Tensor] = iter(())

    def step() -> None:
        nonlocal batches
        images = next(batches, None)
        if images is None:
            batches = iter(loader)
            images = next(batches)
        x = images.to(device).view(batch_size, 784)
        x = (x * 255 + torch.rand_like(x)) / 256
        loss = -model.log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def nicelib_loop(pixels: Tensor, device: torch.device, config: TrainConfig) -> Callable[[], Tensor]:
    """A step of nicelib on random images of ``pixels``; returns the loss."""
    pixels, model, generator = pixels.to(device), config.build().to(device), torch.Generator(device)
    initialise_from_data(model, dequantise(pixels))
    optimiser, steps = make_optimiser(model, config), itertools.count()
    step = functools.partial(train_step, model, optimiser, clip=config.clip, precision=config.precision)
    if config.cuda_graph == "on":
        step = CapturedStep(step, optimiser, device)  # type: ignore[assignment]

    def draw_and_step() -> Tensor:
        batch = pixels[torch.randint(len(pixels), (config.batch_size,), device=device)]
        return step(draw_batch(batch, config, next(steps), generator))

    return draw_and_step


def seconds(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """How long ``steps`` calls take, the device's work included."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    synchronise(device)
    return time.perf_counter() - start


def product_rate(device: torch.device, size: int = 2000) -> float:
    """Floating-point operations a second of a product of two matrices, at the precision in force."""
    a, b = torch.randn(2, size, size, device=device)
    a @ b
    return 5 * 2 * size**3 / seconds(lambda: a @ b, 5, device)
