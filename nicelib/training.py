"""Maximum likelihood: settings, the start from data, the training loop, exact resume (paper, section 5.1)."""

import dataclasses
import hashlib
import json
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from nicelib.checkpoints import checksum, make_folder, save_model, write_atomically
from nicelib.coupling import ACTIVATIONS
from nicelib.data import DATASETS, PROTOCOLS, dequantise, held_out_split, load_pixels
from nicelib.errors import InputError
from nicelib.evaluation import evaluate
from nicelib.model import COUPLINGS, NICE
from nicelib.prior import PRIORS

PRECISIONS = ("auto", "highest", "high", "bf16")
SCHEDULES = ("one-cycle", "linear", "constant")
INITS = ("data", "zero")


def _option(default: object, text: str, choices: tuple | None = None) -> object:
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a training run. The first thirteen keep the notes' names and defaults.

    Raises:
        InputError: a value outside its range or an unknown name.
    """

    dataset: str = _option("mnist", "data set", DATASETS)
    batch_size: int = _option(200, "images in a mini-batch, over all processes")
    latent: str = _option("logistic", "prior of the code z", tuple(PRIORS))
    max_iter: int = _option(50, "training length in epochs")
    sample_size: int = _option(64, "images to generate at the end")
    lr: float = _option(1e-3, "Adam's learning rate; the peak of the schedule")
    momentum: float = _option(0.9, "Adam's beta1")
    decay: float = _option(0.999, "Adam's beta2")
    coupling: int = _option(4, "number of coupling layers")
    save_every: int = _option(5, "epochs between weight snapshots")
    coup_type: str = _option("additive", "coupling type", tuple(COUPLINGS))
    mid_dim: int = _option(1000, "units in a hidden layer")
    hidden: int = _option(5, "hidden layers in a conditioner")
    activation: str = _option("leaky_relu", "nonlinearity of the conditioners", tuple(ACTIVATIONS))
    init: str = _option("data", "start of shifts and scales: from the data, or zero as in the authors' code", INITS)
    schedule: str = _option(
        "one-cycle",
        "learning rate: up over a tenth of the run, then down to 0 as a cosine or a line; or constant",
        SCHEDULES,
    )
    scale_lr: float = _option(20.0, "learning rate of the scaling layer, as a multiple of lr")
    weight_decay: float = _option(0.0, "decoupled weight decay (AdamW) of the conditioners' matrices")
    clip: float = _option(200.0, "largest norm of the gradient of the mean nats an image; 0 = no clipping")
    shift: float = _option(0.0, "share of the training images moved by up to one pixel each time they are drawn")
    eps: float = _option(1e-8, "Adam's epsilon")
    protocol: str = _option("paper", "which images train (see nicelib.data)", PROTOCOLS)
    precision: str = _option(
        "auto", "matrix products in training: float32 (highest), TF32 on CUDA (high), bfloat16 (bf16)", PRECISIONS
    )
    device: str = _option("auto", "auto, cpu, cuda, cuda:1, ...")
    seed: int = _option(0, "seed of the weights, the order of the images and the noise")

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value, choices = getattr(self, item.name), item.metadata["choices"]
            if choices and value not in choices:
                raise InputError(f"{item.name} = {value!r}; expected one of {', '.join(choices)}")
        for name in ("batch_size", "max_iter", "sample_size", "coupling", "save_every", "mid_dim", "hidden"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}; expected 1 or more")
        for name in ("lr", "eps", "scale_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} = {getattr(self, name)}; expected a positive number")
        for name in ("momentum", "decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}; expected a number in [0, 1)")
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} = {getattr(self, name)}; expected 0 or more")
        if not 0 <= self.shift <= 1:
            raise InputError(f"shift = {self.shift}; expected a share, 0 to 1")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed = {self.seed}; expected 0 to 2^32 - 1")

    def build(self, dim: int = 784) -> NICE:
        """A fresh model of this configuration, its weights drawn from ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return NICE(dim, self.coupling, self.mid_dim, self.hidden, self.coup_type, self.latent, self.activation)


#: Named settings for ``nicelib train --recipe NAME``: what differs from the defaults of :class:`TrainConfig`.
RECIPES: dict[str, dict] = {
    "notes": {
        "max_iter": 50,
        "init": "zero",
        "schedule": "constant",
        "scale_lr": 1.0,
        "clip": 0.0,
        "eps": 1e-4,
        "protocol": "notes",
    },
    "paper": {
        "max_iter": 1500,
        "decay": 0.99,
        "eps": 1e-4,
        "activation": "relu",
        "init": "zero",
        "schedule": "constant",
        "scale_lr": 1.0,
        "clip": 0.0,
    },
    "sample": {"dataset": "mnist-sample", "batch_size": 50, "max_iter": 5, "lr": 2e-3},
    "sprint": {"batch_size": 50, "max_iter": 3, "lr": 1.5e-3, "schedule": "linear", "weight_decay": 0.2},
}


@torch.no_grad()
def initialise_from_data(model: NICE, x: Tensor) -> None:
    """Start a fresh model where the data are, adding no parameter.

    Every coupling layer starts as a constant shift that centres what it moves, its conditioner reads centred inputs, its
    shift's unit is each dimension's standard deviation, and the scales give every z_d the prior's own variance.

    From zero, the scales of MNIST's border pixels would have to climb to about 7.3, a thousandth or so a step.

    Args:
        model: a fresh NICE, changed in place.
        x: (N, D) dequantised images; 10,000 are plenty.
    """
    *couplings, scaling = model.layers
    x = x.to(scaling.log_scale)
    std = x.std(0).clamp_min(1e-6)
    for layer in couplings:
        first, last = layer.conditioner[0], layer.conditioner[-1]
        layer.unit.copy_(std)
        first.bias -= first.weight @ torch.where(layer.mask, x.mean(0), 0)
        off_centre = layer(x)[0].mean(0) / std
        last.bias[: model.dim] -= torch.where(layer.mask, 0, off_centre)
        x = layer(x)[0]
    scaling.log_scale.copy_((model.prior.stddev.to(std) / x.std(0).clamp_min(1e-6)).log())


def shift_images(pixels: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Move a share of the images by -1, 0 or 1 pixel along each axis; what comes in at a border is black.

    Integers stay integers, so that the dequantised image keeps its meaning. Not in the paper.

    Args:
        pixels: uint8 (B, side * side).
        share: probability that an image is moved.
        generator: on the pixels' device.

    Returns:
        uint8 (B, side * side).

    >>> image = torch.eye(4, dtype=torch.uint8).view(1, 16)
    >>> torch.equal(shift_images(image, 0.0), image)
    True
    """
    side = math.isqrt(pixels.shape[1])
    device = pixels.device
    offset = torch.randint(0, 3, (len(pixels), 2), generator=generator, device=device)
    moved = torch.rand(len(pixels), 1, generator=generator, device=device) < share
    offset = torch.where(moved, offset, 1)
    padded = torch.nn.functional.pad(pixels.view(-1, side, side), (1, 1, 1, 1))
    index = torch.arange(side, device=device)
    rows, columns = offset[:, :1] + index, offset[:, 1:] + index
    image = torch.arange(len(pixels), device=device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].view(len(pixels), -1)


def resolve_device(name: str) -> torch.device:
    """``"auto"``: CUDA where there is one, else the CPU; InputError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device = {name!r}; expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device = {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices; use cpu or auto")
    try:
        torch.Generator(device)  # all noise is drawn on the device
    except (AssertionError, RuntimeError):
        raise InputError(f"device = {name!r} is not on this machine; use cpu or auto") from None
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """``"auto"``: TF32 on CUDA, bfloat16 products on CPUs with instructions for them, else full float32.

    Weights, gradients, Adam, the log-likelihood's sums and every evaluation stay in float32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "high"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # newer torch only
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "highest"


def make_optimiser(model: NICE, config: TrainConfig) -> torch.optim.AdamW:
    """Fused Adam in three groups: matrices (with weight decay), biases, scales (with their own learning rate)."""
    scales = [model.scaling.log_scale]
    conditioners = [p for layer in model.layers[:-1] for p in layer.parameters()]
    groups = [
        {"params": [p for p in conditioners if p.ndim == 2], "weight_decay": config.weight_decay},
        {"params": [p for p in conditioners if p.ndim == 1]},
        {"params": scales, "lr": config.lr * config.scale_lr},
    ]
    betas = (config.momentum, config.decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, weight_decay=0, fused=True)


def lr_factor(step: int, steps: int, schedule: str) -> float:
    """The learning rate of a step as a fraction of its peak.

    >>> [round(lr_factor(s, 100, "one-cycle"), 2) for s in (0, 5, 10, 55, 100)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    >>> [round(lr_factor(s, 100, "linear"), 2) for s in (0, 5, 10, 82, 100)]
    [0.04, 0.52, 1.0, 0.2, 0.0]
    """
    if schedule == "constant":
        return 1.0
    warmup = max(1, steps // 10)
    if step < warmup:
        return 0.04 + 0.96 * step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 1 - done if schedule == "linear" else 0.5 + 0.5 * math.cos(math.pi * done)


def train(
    config: TrainConfig,
    data_dir: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    model: NICE | None = None,
    progress: bool = False,
) -> Iterator[dict]:
    """Train by maximum likelihood; a generator of one record an epoch.

    Each record holds ``epoch``, ``train`` (nats, mean over the epoch while the weights changed), ``held_out`` (nats; the
    split of :func:`nicelib.data.held_out_split`, one draw of noise, the same each epoch), ``lr``, ``images_per_s`` of the
    training steps and ``seconds`` of training since the run began.

    With ``out`` the run writes ``best.safetensors`` (best on held-out), ``epoch_NNNN.safetensors`` every ``save_every``
    epochs, ``history.json`` and ``resume.pt``: after every ``save_every`` epochs, after an epoch that ends a minute or
    more after the last one written, at the end, at an interrupt. Noise and order depend on the seed and the step alone,
    so a run that was killed and resumed ends on the same numbers.

    Under torchrun, every process draws the whole batch and takes its own rows; process 0 writes. There an interrupt
    stops at once, and resuming goes on from the last ``resume.pt``.

    Args:
        config: the settings.
        data_dir: as :func:`nicelib.load_pixels`.
        out: folder for the files; none are written without it.
        resume: continue the run in ``out`` (or begin it, where there is none yet).
        model: a fresh model to train in place; default: ``config.build()``.
        progress: show a bar over the steps of each epoch.

    Raises:
        InputError: settings that do not fit the data, the folder or the machine; a loss that is not finite.
        KeyboardInterrupt: after Ctrl-C, once the current step, or what follows an epoch's last step, is done and
            ``resume.pt`` is written.
    """
    world, rank, device = _start_process(config)
    config = dataclasses.replace(config, precision=resolve_precision(config.precision, device))
    if config.batch_size % world:
        raise InputError(f"batch_size = {config.batch_size}; expected a multiple of the {world} processes")
    others_wait = int(os.environ.get("LOCAL_RANK", 0)) > 0
    if others_wait:  # one process of a machine downloads what is missing
        distributed.barrier()
    splits = ("train", held_out_split(config.dataset, config.protocol))
    pixels, held_out = (
        load_pixels(config.dataset, split, data_dir, protocol=config.protocol).to(device) for split in splits
    )
    if world > 1 and not others_wait:
        distributed.barrier()
    steps = len(pixels) // config.batch_size  # an epoch; the rest of the images wait for the next order
    if steps < 1:
        raise InputError(f"batch_size = {config.batch_size}; expected at most the {len(pixels)} training images")
    model = (model or config.build(pixels.shape[1])).to(device)
    generator = torch.Generator(device)
    out = make_folder(out) if out else None
    run = {"config": dataclasses.asdict(config), "machine": f"{device.type} x {world}", "model_config": model.config}
    saved = _read_resume(out, run, resume)
    if config.init != "zero" and not saved:
        start = pixels[_order(generator, config, 0, len(pixels))[:10_000]]
        initialise_from_data(model, dequantise(start, generator))
    optimiser = make_optimiser(model, config)
    scheduler = LambdaLR(optimiser, lambda step: lr_factor(step, steps * config.max_iter, config.schedule))
    saved_parts = {"model": model, "optimiser": optimiser, "scheduler": scheduler}
    losses = torch.zeros(steps, device=device)
    state = {"epoch": 0, "step": 0, "seconds": 0.0, "best": -math.inf, "history": []}
    if saved:
        try:
            for name, part in saved_parts.items():
                part.load_state_dict(saved[name])
            state = {key: saved["state"][key] for key in state}
            losses.copy_(saved["losses"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise _damaged(out / "resume.pt", error) from error
    forward = DistributedDataParallel(model, broadcast_buffers=False) if world > 1 else model

    def save_resume() -> None:
        if out and rank == 0:
            content = {name: part.state_dict() for name, part in saved_parts.items()}
            content |= run | {"state": state, "losses": losses.cpu()}
            content["sha256"] = _resume_checksum(content)
            write_atomically(out / "resume.pt", lambda temporary: torch.save(content, temporary))

    last_save = time.monotonic()
    while state["epoch"] < config.max_iter:
        epoch = state["epoch"] + 1
        order = _order(generator, config, epoch, len(pixels))
        first_step, start = state["step"], time.perf_counter()
        bar = tqdm(
            total=steps, initial=first_step, desc=f"epoch {epoch}", leave=False, disable=not progress or rank > 0
        )
        with _deferred_interrupt(world == 1) as interrupted:
            with bar:
                for step in range(first_step, steps):
                    batch = order[step * config.batch_size : (step + 1) * config.batch_size]
                    # Seeding by the step, not drawing on from the last one, is what makes every resume exact.
                    generator.manual_seed(_stream(config.seed, "noise", (epoch - 1) * steps + step))
                    images = shift_images(pixels[batch], config.shift, generator) if config.shift else pixels[batch]
                    x = dequantise(images, generator).tensor_split(world)[rank]
                    optimiser.zero_grad(set_to_none=True)
                    with matmul_precision(config.precision, device):
                        z, log_det = forward(x)
                        loss = -(model.prior.log_prob(z).sum(-1) + log_det).mean()
                        loss.backward()
                    if config.clip:
                        clip_grad_norm_(model.parameters(), config.clip, foreach=True)
                    optimiser.step()
                    scheduler.step()
                    losses[step] = loss.detach()
                    state["step"] = step + 1
                    bar.update()
                    if interrupted.is_set():
                        break
            _synchronise(device)
            elapsed = time.perf_counter() - start
            state["seconds"] += elapsed
            if state["step"] < steps:
                if losses.isfinite().all():  # else the earlier checkpoint is the good one
                    save_resume()
                raise KeyboardInterrupt(f"stopped in epoch {epoch} after step {state['step']} of {steps}")
            if world > 1:
                distributed.all_reduce(losses)
                losses /= world
            record = {"epoch": epoch, "train": -losses.double().mean().item()}
            if not math.isfinite(record["train"]):
                bad = int((~losses.isfinite()).nonzero()[0])
                what = f"is {losses[bad].item()} in epoch {epoch} at step {bad + 1} of {steps}"
                raise _diverged(what, state, out, config)
            record["held_out"] = evaluate(model, held_out, seed=config.seed).nats
            if not math.isfinite(record["held_out"]):  # the last update broke the weights: keep them out of every file
                what = f"is {-record['held_out']} on held-out images in epoch {epoch} after step {steps}"
                raise _diverged(what, state, out, config)
            record["lr"] = optimiser.param_groups[0]["lr"]
            record["images_per_s"] = (steps - first_step) * config.batch_size / elapsed
            record["seconds"] = state["seconds"]
            state |= {"epoch": epoch, "step": 0, "history": [*state["history"], record]}
            if out and rank == 0:
                header = {"train_config": dataclasses.asdict(config), "metrics": record}
                if record["held_out"] > state["best"]:
                    save_model(model, out / "best.safetensors", **header)
                if epoch % config.save_every == 0:
                    save_model(model, out / f"epoch_{epoch:04d}.safetensors", **header)
                text = json.dumps({"config": dataclasses.asdict(config), "history": state["history"]}, indent=1)
                write_atomically(out / "history.json", lambda temporary, text=text: temporary.write_text(text))
            state["best"] = max(state["best"], record["held_out"])
            due = epoch == config.max_iter or epoch % config.save_every == 0 or time.monotonic() - last_save > 60
            if due or interrupted.is_set():
                save_resume()
                last_save = time.monotonic()
        if interrupted.is_set():
            raise KeyboardInterrupt(f"stopped after epoch {epoch}")
        yield record


def _start_process(config: TrainConfig) -> tuple[int, int, torch.device]:
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        return 1, 0, resolve_device(config.device)
    cuda = config.device in ("auto", "cuda") and torch.cuda.is_available()
    device = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}" if cuda else config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return world, distributed.get_rank(), device


def _stream(seed: int, purpose: str, index: int) -> int:
    """A seed of its own for each purpose, in 32 bits: torch's CPU generator reads no more of it."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {purpose} {index}".encode(), digest_size=4).digest())


def _order(generator: torch.Generator, config: TrainConfig, epoch: int, n: int) -> Tensor:
    """The order of the images in an epoch, a function of the seed and the epoch alone."""
    generator.manual_seed(_stream(config.seed, "order", epoch))
    return torch.randperm(n, generator=generator, device=generator.device)


def _read_resume(out: Path | None, run: dict, resume: bool) -> dict | None:
    """What ``resume.pt`` in ``out`` holds, or None where a run begins; ``run`` says what must be the same."""
    path = out / "resume.pt" if out else None
    if not path:
        return None
    if not resume:
        if any((out / name).exists() for name in ("resume.pt", "history.json", "best.safetensors")):
            raise InputError(f"{out} already holds a run; add --resume to continue it, or choose another --out")
        return None
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(saved, dict):
            raise TypeError("it does not hold a dictionary")
        if saved["sha256"] != _resume_checksum(saved):
            raise ValueError("its checksum is wrong")
        before = saved["config"] | saved["model_config"] | {"machine": saved["machine"]}
    except (
        OSError,
        RuntimeError,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise _damaged(path, error) from error
    free = {"device", "save_every", "sample_size"}  # these do not change the numbers; "machine" tells cpu from cuda
    now = run["config"] | run["model_config"] | {"machine": run["machine"]}
    changed = [f"{k} was {before.get(k)!r}, is {now[k]!r}" for k in now if k not in free and before.get(k) != now[k]]
    if changed:
        raise InputError(
            f"{path} is of a run with other settings ({'; '.join(changed)}); use the same, or another --out"
        )
    return saved


def _resume_checksum(content: dict) -> str:
    parts = {f"model.{name}": t for name, t in content["model"].items()}
    for index, moments in content["optimiser"]["state"].items():
        parts |= {f"optimiser.{index}.{name}": t for name, t in moments.items()}
    rest = [content[name] for name in ("config", "machine", "model_config", "state", "scheduler")]
    text = json.dumps([*rest, content["optimiser"]["param_groups"]], sort_keys=True)
    parts["text"] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    return checksum(parts | {"losses": content["losses"]})


def _diverged(what: str, state: dict, out: Path | None, config: TrainConfig) -> InputError:
    cure = "try a smaller --lr" + ("" if config.clip else ", or --clip 200")
    kept = f"the last good checkpoint is in {out}" if out and state["history"] else "nothing was saved before it"
    return InputError(f"the loss {what}; {kept}: {cure}")


def _damaged(path: Path, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    return InputError(f"{path} is not a resume file of nicelib, or is damaged ({reason}); delete it to begin again")


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Matrix products within a ``with`` block: ``"highest"`` (float32), ``"high"`` (TF32) or ``"bf16"`` (autocast)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "high" else "highest")
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _deferred_interrupt(wanted: bool) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event that the loop reads between steps, when the state is whole."""
    event = threading.Event()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield event
        return

    def on_interrupt(*_: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
