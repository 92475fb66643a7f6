"""What several test files need."""

import os
import signal
from pathlib import Path

import pytest
import torch

from nicelib import NICE

ROOT = Path(__file__).parents[1]

# Tiny models gain nothing from threads, and on a busy machine lose all their time waiting for each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the commands that tests start
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a script's "&" starts it: the tests of Ctrl-C send one
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def all_cores(monkeypatch):
    """For the tests of the 22.3M model."""
    before, cores = torch.get_num_threads(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    torch.set_num_threads(cores)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter a random value: a fresh model is the identity and would prove little."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        scale = 1 / parameter.shape[1] ** 0.5 if parameter.ndim == 2 else 0.3
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.fixture
def small_model() -> NICE:
    return randomise(NICE(dim=8, mid_dim=16, hidden=2))


@pytest.fixture
def mnist_dir() -> Path:
    folder = Path(os.environ.get("NICE_DATA_DIR") or ROOT.parent / "shared" / "data")
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
        pytest.skip("no MNIST files: set NICE_DATA_DIR to a folder in torchvision's layout")
    return folder
