"""How fast a training step is: phase by phase, beside the machine's own rates and the loop that most programs write."""

import dataclasses
import functools
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nicelib.data import dequantise, load_pixels
from nicelib.errors import InputError, at_least
from nicelib.training.batches import draw_batch
from nicelib.training.device import matmul_precision, precisions, synchronise, timed
from nicelib.training.graph import CapturedStep
from nicelib.training.settings import TrainConfig
from nicelib.training.start import initialise_from_data
from nicelib.training.step import make_optimiser, train_step

FLOP = 3 * 38_272_000  # an image: forward, and twice that backward
ADAM_BYTES = 7 * 4 * 19_158_352  # a step: weight, gradient and two moments read, all but the gradient written
PHASES = ("data", "forward", "backward", "clip", "optimiser")
TITLES = {"plain": "plain masked loop, ToTensor DataLoader, Adam, float32", "highest": "nicelib, float32"}
TITLES |= {"high": "nicelib, TF32", "bf16": "nicelib, bfloat16", "graph": "nicelib, TF32, a CUDA graph"}


def to_tensor_batches(pixels: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Batches (B, 1, 28, 28) in [0, 1] without end, each image through torchvision's ToTensor, as a DataLoader gives MNIST."""
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    images: Any = pixels.view(-1, 28, 28).numpy()
    stack = lambda batch: torch.stack([to_tensor(Image.fromarray(image)) for image in batch])  # noqa: E731
    loader = DataLoader(images, batch_size, shuffle=True, drop_last=True, collate_fn=stack)
    return itertools.chain.from_iterable(itertools.repeat(loader))


def plain_loop(batches: Iterator[Tensor], device: torch.device, config: TrainConfig) -> Callable[[], None]:
    """A step as most programs write it, on the next of ``batches``: masks around full-width products, Adam as torch has it."""
    model = config.build()
    for layer in model.couplings:
        for i in (0, -1):  # the dead halves are computed, and masked away
            layer.conditioner[i] = nn.Linear(layer.conditioner[i].in_features, layer.conditioner[i].out_features)
    optimiser = torch.optim.Adam(model.to(device).parameters(), lr=config.lr)

    def step() -> None:
        x = next(batches).to(device).view(config.batch_size, 784)
        x = (x * 255 + torch.rand_like(x)) / 256
        loss = -model.log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


class Clock:
    """Seconds by phase, in ``spent``: call it with a phase's name at its end."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.spent, self.last = device, defaultdict[str, float](float), 0.0

    def __call__(self, phase: str) -> None:
        synchronise(self.device)
        before, self.last = self.last, time.perf_counter()
        self.spent[phase] += self.last - before


def nicelib_loop(
    pixels: Tensor, device: torch.device, config: TrainConfig, mark: Callable[[str], object] = lambda phase: None
) -> Callable[[], Tensor]:
    """A step of nicelib on random images of ``pixels``; returns the loss. ``mark`` hears of the end of each phase."""
    pixels, model, generator = pixels.to(device), config.build().to(device), torch.Generator(device)
    initialise_from_data(model, dequantise(pixels))
    optimiser, steps = make_optimiser(model, config), itertools.count()
    settings: dict[str, Any] = {"clip": config.clip, "precision": config.precision}
    step: Callable[[Tensor], Tensor] = functools.partial(train_step, model, optimiser, **settings, mark=mark)
    if config.cuda_graph == "on":  # whose phases cannot be told apart
        step = CapturedStep(functools.partial(train_step, model, optimiser, **settings), optimiser, device)

    def draw_and_step() -> Tensor:
        batch = pixels[torch.randint(len(pixels), (config.batch_size,), device=device)]
        x = draw_batch(batch, config, next(steps), generator)
        mark("data")
        loss = step(x)
        mark("rest")
        return loss

    return draw_and_step


def product_rate(device: torch.device, rows: int, width: int = 1000) -> float:
    """FLOP/s of (rows, width) times each of 16 square matrices, which at 1000 do not fit a cache; in autocast, its type."""
    kind = torch.bfloat16 if torch.is_autocast_enabled(device.type) else torch.float32
    x, *weights = (torch.randn(n, width, device=device, dtype=kind) for n in (rows, *16 * [width]))
    best = min(timed(lambda: [x @ w for w in weights], 1, device) for _ in range(4))
    return 2 * rows * width**2 * len(weights) / best


def copy_rate(device: torch.device) -> float:
    """Bytes a second, read and written, of a copy of 80 MB."""
    a, b = torch.randn(2, 20_000_000, device=device)
    return 2 * a.nbytes / min(timed(lambda: b.copy_(a), 1, device) for _ in range(4))


def bench(device: torch.device, rounds: int = 5, steps: int = 10, batch_size: int = 200) -> dict[str, Any]:
    """Time the plain loop, nicelib's in each precision and, on a GPU, as a graph, in turn, on the embedded digits.

    ``loops`` of the result holds for each a list with a value a round: ``images_per_s``; nicelib's also ``ratio`` to the
    plain loop in that round, seconds a step of each phase, the machine's own ``products`` (FLOP/s, of that many rows) and
    ``copies`` (bytes/s); ``floor``, the seconds that a step's products and Adam's memory take at these; and the ``share``
    of it reached. One round more, at first, warms up.

    Raises:
        InputError: a non-positive ``rounds``, ``steps`` or ``batch_size``, or a batch larger than the sample.
    """
    at_least(1, rounds=rounds, steps=steps, batch_size=batch_size)
    pixels = load_pixels("mnist-sample", "train")
    if batch_size > len(pixels):
        raise InputError(f"batch_size = {batch_size}; expected 1 to {len(pixels)}, the images of mnist-sample")
    clock, config = Clock(device), TrainConfig(lr=1e-4, batch_size=batch_size, precision="highest")
    batches = to_tensor_batches(pixels, batch_size)
    loops: dict[str, Callable[[], object]] = {"plain": plain_loop(batches, device, config)}
    kinds = {name: (name, "off") for name in ("highest", *precisions(device))}
    kinds |= {"graph": ("high", "on")} if device.type == "cuda" else {}
    for name, (precision, graph) in kinds.items():
        setting = dataclasses.replace(config, precision=precision, cuda_graph=graph)
        loops[name] = nicelib_loop(pixels, device, setting, clock)
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in loops}
    for measured in range(rounds + 1):
        for name, loop in loops.items():
            clock("before")
            clock.spent.clear()
            row = {"images_per_s": steps * batch_size / timed(loop, steps, device)}
            row |= {phase: spent / steps for phase, spent in clock.spent.items()}
            if name != "plain":
                with matmul_precision(kinds[name][0], device):
                    row |= {"products": product_rate(device, batch_size), "copies": copy_rate(device)}
                row["floor"] = FLOP * batch_size / row["products"] + ADAM_BYTES / row["copies"]
                row["share"] = row["floor"] * row["images_per_s"] / batch_size
            for key, value in row.items() if measured else ():
                found[name][key].append(value)
    for values in found.values():
        values["ratio"] = [a / b for a, b in zip(values["images_per_s"], found["plain"]["images_per_s"], strict=True)]
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    about = {"machine": machine, "torch": torch.__version__, "batch_size": batch_size, "rounds": rounds, "steps": steps}
    return about | {"loops": found}


def describe(result: dict[str, Any]) -> Iterator[str]:
    """What :func:`bench` found, in lines of text."""
    head = "{machine}, torch {torch}, batch {batch_size}, medians of {rounds} alternating rounds of {steps} steps"
    yield head.format(**result)
    for name, values in result["loops"].items():
        m = {key: statistics.median(numbers) for key, numbers in values.items()}
        spread = f"{min(values['images_per_s']):.0f} to {max(values['images_per_s']):.0f}"
        yield f"{TITLES[name]}: {m['images_per_s']:.0f} images/s ({spread}); ratio to the plain loop: {m['ratio']:.2f}"
        if name != "plain":
            yield "    ms a step: " + ", ".join(f"{phase} {1e3 * m[phase]:.1f}" for phase in PHASES if phase in m)
            yield (
                f"    share {m['share']:.2f} of the floor, {1e3 * m['floor']:.1f} ms: products at this machine's "
                f"{m['products'] / 1e9:.0f} GFLOP/s, Adam at {m['copies'] / 1e9:.0f} GB/s of copying"
            )
