"""What a GPU is worth here: python results/gpu.py --data-dir DATA --out results/gpu.json  (about two minutes, --minutes 2).

Into one JSON file: whether a CUDA graph changes any number; images/s of a training step with and without graphs, in
float32, TF32 and bfloat16, at 200 and 50 images, the plain masked loop beside it in the same alternating rounds; the
sprint by three seeds (seconds to the paper's 1980.50 nats on validation, nats at its end; peak memory). The file is
written anew after each part, and a part that fails leaves its error there. ``--tiny`` tries every line on any machine.
"""

import argparse
import contextlib
import dataclasses
import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch

from nicelib import RECIPES, TrainConfig, load_pixels, train
from nicelib.checkpoints import write_atomically
from nicelib.errors import cause
from nicelib.training import matmul_precision, resolve_device
from nicelib.training.bench import FLOP, Clock, copy_rate, nicelib_loop, plain_loop, product_rate, to_tensor_batches
from nicelib.training.device import timed

PAPER = 1980.50
PRECISIONS = {"highest": "float32", "high": "TF32", "bf16": "bfloat16"}


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write; returns 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="where MNIST is, for the sprint (default: NICE_DATA_DIR, else data)")
    parser.add_argument("--out", default="gpu.json", help="file to write (default: gpu.json)")
    parser.add_argument("--minutes", type=float, default=2.0, help="about how long it may take, 1 to 9 (default: 2)")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--tiny", action="store_true", help="a small model, few steps: to try the script, not to measure"
    )
    args = parser.parse_args(argv)
    began, device = time.monotonic(), resolve_device(args.device)
    small = {"mid_dim": 16, "hidden": 1} if args.tiny else {}
    graphs = ("off", "on") if device.type == "cuda" else ("off",)
    end = began + 60 * min(max(args.minutes, 1.0), 9.0)
    result: dict[str, Any] = {"minutes": args.minutes, "tiny": args.tiny}

    def part(name: str, measure: Callable[[], Any]) -> None:
        try:
            result[name] = measure()
        except Exception as error:  # what was measured before and what comes after is worth having
            traceback.print_exc()
            result[name] = {"error": f"{type(error).__name__}: {cause(error)}"}
        result["seconds_in_all"] = time.monotonic() - began
        text = json.dumps(result, indent=1)
        write_atomically(args.out, lambda path: path.write_text(text + "\n", encoding="utf-8"))

    part("machine", lambda: machine(device, 256 if args.tiny else 8192))
    part("same_numbers", lambda: {p: same_numbers(device, p, graphs, small) for p in PRECISIONS})
    part("sprints", lambda: list(sprints(device, graphs, small, args.data_dir, args.tiny)))
    part("speed", lambda: speed(device, graphs, small, 0 if args.tiny else end - time.monotonic()))
    report(result)
    return int(any("error" in part for part in result.values() if isinstance(part, dict)))


def machine(device: torch.device, size: int) -> dict[str, Any]:
    """Names, and what the machine can do at best: products (FLOP/s, by precision) and copies (bytes/s, read and written)."""
    found: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version(), "device": device.type}
    if device.type == "cuda":
        found |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    for precision in PRECISIONS:
        with matmul_precision(precision, device):
            found[f"product_{precision}"] = product_rate(device, size, size)
    return found | {"copy": copy_rate(device)}


def same_numbers(
    device: torch.device, precision: str, graphs: tuple[str, ...], small: dict[str, Any]
) -> dict[str, Any]:
    """Losses of twelve steps with and without graphs: 0 where they agree to the last bit."""
    pixels, losses = load_pixels(), []
    for graph in (*graphs, "off"):
        torch.manual_seed(0)
        config = TrainConfig(lr=2.0**-10, batch_size=50, precision=precision, cuda_graph=graph, **small)
        step = nicelib_loop(pixels, device, config)
        losses.append([step().item() for _ in range(12)])
    first, *others = losses
    differences = [max(abs(a - b) for a, b in zip(first, other, strict=True)) for other in others]
    names = [f"{graph}_against_off" for graph in (*graphs[1:], "off_again")]
    return dict(zip(names, differences, strict=True)) | {"last_loss": first[-1]}


def sprints(
    device: torch.device, graphs: tuple[str, ...], small: dict[str, Any], data_dir: str | None, tiny: bool
) -> Iterator[dict[str, Any]]:
    """The sprint by three seeds and two precisions with the last of ``graphs``, and once, first, with the first."""
    runs = [(0, graphs[0], "high"), *((seed, graphs[-1], p) for p in ("high", "bf16") for seed in range(3))]
    for seed, graph, precision in runs:
        recipe = RECIPES["sample"] | {"max_iter": 1, "batch_size": 500} if tiny else RECIPES["sprint"]
        config = TrainConfig(**recipe | small, seed=seed, precision=precision, cuda_graph=graph, device=str(device))
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        began = time.monotonic()
        records = [record | {"since_start": time.monotonic() - began} for record in train(config, data_dir)]
        above = next((r for r in records if r["held_out"] >= PAPER), None)
        run = {
            "seed": seed,
            "precision": precision,
            "cuda_graph": graph,
            "nats": records[-1]["held_out"],
            "training_seconds": records[-1]["seconds"],
            "training_seconds_to_paper": above and above["seconds"],
            "seconds_to_paper_with_data_start_and_evaluation": above and above["since_start"],
            "epochs": records,
        }
        if device.type == "cuda":
            run["peak_bytes"] = torch.cuda.max_memory_allocated(device)
        print(
            f"sprint, seed {seed}, graphs {graph}: {run['nats']:.2f} nats, {run['training_seconds']:.2f} s", flush=True
        )
        yield run


def speed(device: torch.device, graphs: tuple[str, ...], small: dict[str, Any], budget: float) -> dict[str, Any]:
    """Images/s by loop and batch: the median and all values of alternating rounds, three or as many as ``budget`` holds."""
    pixels, began = load_pixels(), time.monotonic()
    found: dict[str, Any] = {}
    batches = (200, 50)
    for number, batch in enumerate(batches, start=1):
        config = TrainConfig(batch_size=batch, lr=1e-4, **small)
        loops: dict[str, Callable[[], object]] = {
            "plain": plain_loop(to_tensor_batches(pixels, batch), device, config),
            "plain, images on the device": plain_loop(_images(pixels, device, batch), device, config),
        }
        phases: dict[str, dict[str, float]] = {}
        for precision, name in PRECISIONS.items():
            for graph in graphs:
                config = dataclasses.replace(config, precision=precision, cuda_graph=graph)
                title = f"nicelib, {name}{', graph' if graph == 'on' else ''}"
                with contextlib.suppress(RuntimeError):  # same_numbers has said why a graph failed
                    ours = nicelib_loop(pixels, device, config)
                    timed(ours, 5, device)
                    loops[title] = ours
                    phases[title] = by_phase(pixels, device, config)
        steps = {}
        for name, loop in loops.items():  # as many as take a quarter of a second
            pace = timed(loop, 5, device) / 5
            steps[name] = min(1000, max(1, round(0.25 / pace))) if budget else 1
        rates: dict[str, list[float]] = {name: [] for name in loops}
        until, rounds = began + budget * number / len(batches), 0
        while rounds < 3 or (time.monotonic() < until and rounds < 25):
            rounds += 1
            for name, loop in loops.items():
                rates[name].append(steps[name] * batch / timed(loop, steps[name], device))
        medians = {name: statistics.median(values) for name, values in rates.items()}
        found[str(batch)] = {
            name: {
                "images_per_s": medians[name],
                "ratio_to_plain": statistics.median(r / p for r, p in zip(values, rates["plain"], strict=True)),
                "flop_per_s": medians[name] * FLOP if name.startswith("nicelib") and not small else None,
                "seconds_by_phase": phases.get(name),
                "rounds": values,
                "steps_a_round": steps[name],
            }
            for name, values in rates.items()
        }
    return found


def by_phase(pixels: torch.Tensor, device: torch.device, config: TrainConfig, steps: int = 20) -> dict[str, float]:
    """Seconds of each phase of a step, the device waited for at the end of each; all of a graph is "rest"."""
    clock = Clock(device)
    loop = nicelib_loop(pixels, device, config, clock)
    timed(loop, 8, device)
    clock("before")
    clock.spent.clear()
    timed(loop, steps, device)
    return {phase: spent / steps for phase, spent in clock.spent.items()}


def _images(pixels: torch.Tensor, device: torch.device, batch: int) -> Iterator[torch.Tensor]:
    """Batches in [0, 1] from images that are on the device: what the DataLoader costs shows beside them."""
    pixels = pixels.to(device)
    while True:
        yield pixels[torch.randint(len(pixels), (batch,), device=device)] / 255


def report(result: dict[str, Any]) -> None:
    """The figures worth a line."""
    for name in ("machine", "same_numbers"):
        print(name, json.dumps(result[name]))
    if "error" in result["speed"]:
        return
    for batch, loops in result["speed"].items():
        for name, found in loops.items():
            print(f"{batch:>4}  {name:30} {found['images_per_s']:12,.0f} images/s {found['ratio_to_plain']:8.2f}")


if __name__ == "__main__":
    sys.exit(main())
