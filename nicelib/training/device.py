"""Where a run computes, at which precision, and how its processes find each other."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from nicelib.errors import InputError, cause

MEETING = timedelta(minutes=2)  # how long each try to find the other processes may take


def resolve_device(name: str) -> torch.device:
    """``"auto"``: CUDA where there is one, else the CPU; InputError for a device that is not there."""
    count = torch.cuda.device_count()
    name = ("cuda" if count else "cpu") if name == "auto" else name
    try:
        device = torch.device(name)
        torch.Generator(device)  # all noise is drawn on the device
        if device.type != "cuda" or (device.index or 0) < count:
            return device
    except (AssertionError, RuntimeError, TypeError):
        pass
    raise InputError(
        f"device = {name!r} is not on this machine, where torch sees {count} CUDA devices; expected auto, cpu, cuda or cuda:N"
    )


def precisions(device: torch.device) -> list[str]:
    """Worth trying on a device: the usual one (TF32 on CUDA, else float32), then bfloat16 where it has instructions for it.

    Weights, gradients, Adam, the log-likelihood's sums and every evaluation stay in float32.
    """
    if device.type == "cuda":
        return ["high", "bf16"] if torch.cuda.is_bf16_supported(including_emulation=False) else ["high"]
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # newer torch only
    bf16 = device.type == "cpu" and (capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return ["highest", "bf16"] if bf16 else ["highest"]


def pick_precision(steps: Mapping[str, Callable[[], object]], device: torch.device) -> tuple[str, str]:
    """The second of two precisions if its step takes a tenth less time than the first's here, else the first; and why.

    The instructions alone do not tell: of two CPUs that have them, one was twice as fast with bfloat16, one slower.
    """
    shortest, end, rounds = dict.fromkeys(steps, math.inf), time.perf_counter() + 1, 0
    while rounds < 6 or time.perf_counter() < end:  # the first rounds warm up: the shortest time is a later one's
        rounds += 1
        shortest |= {name: min(shortest[name], timed(step, 1, device)) for name, step in steps.items()}
    usual, other = steps
    chosen = other if shortest[other] <= 0.9 * shortest[usual] else usual
    times = ", ".join(f"{1e3 * shortest[name]:.1f} ms in {name}" for name in steps)
    return chosen, f"precision {chosen}: a step takes {times}"


@contextmanager
def matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Matrix products within a ``with`` block: ``"highest"`` (float32), ``"high"`` (TF32) or ``"bf16"`` (autocast).

    What was set before, by torch's old way or its new one, is in force again afterwards.
    """
    wanted = "tf32" if precision == "high" else "ieee"
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [(b, b.fp32_precision) for b in backends]
    changed = [(b, was) for b, was in before if was != wanted and (was, wanted) != ("none", "ieee")]
    try:
        for backend, _ in changed:
            backend.fp32_precision = wanted
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            yield
    finally:
        for backend, was in changed:
            backend.fp32_precision = was


def is_main_process() -> bool:
    """Whether this process writes and prints: the only one, or torchrun's first."""
    return _number("WORLD_SIZE", 1) == 1 or _number("RANK", 0) == 0


def start_process(device: str) -> tuple[int, int, torch.device]:
    """Number of processes, this one's rank, and its device; joins torchrun's group where there is one.

    Raises:
        InputError: a device that is not there; variables of torchrun's that no torchrun set.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        return 1, 0, resolve_device(device)
    if missing := [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise InputError(
            f"WORLD_SIZE = {world} in the environment, but not {', '.join(missing)}; "
            "start several processes by torchrun, or unset WORLD_SIZE for one"
        )
    local, rank = _number("LOCAL_RANK", 0), _number("RANK", 0)
    if rank >= world:
        raise InputError(f"RANK = {rank} in the environment with WORLD_SIZE = {world}; expected 0 to {world - 1}")
    cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    resolved = resolve_device(f"cuda:{local}" if cuda else device)
    if resolved.type == "cuda":
        torch.cuda.set_device(resolved)
    if not distributed.is_initialized():
        try:
            backend = "nccl" if resolved.type == "cuda" else "gloo"
            store, *_ = next(distributed.rendezvous("env://", timeout=MEETING))
            distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
            store.set_timeout(distributed.default_pg_timeout)  # one may have to wait for another's download
        except (RuntimeError, ValueError) as e:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise InputError(f"{world} processes do not meet at {where} ({cause(e)}); start them by torchrun") from e
    return world, distributed.get_rank(), resolved


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def timed(step: Callable[[], object], times: int, device: torch.device) -> float:
    """Seconds that so many calls take, the device's work included."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(times):
        step()
    synchronise(device)
    return time.perf_counter() - start


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or (name == "WORLD_SIZE" and int(text) < 1):
        raise InputError(f"{name} = {text!r} in the environment; expected a number, as torchrun sets it: unset it")
    return int(text)
