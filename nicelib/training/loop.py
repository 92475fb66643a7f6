"""Maximum likelihood: the loop around the training step, its files, and how it stops and goes on."""

import dataclasses
import functools
import inspect
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from nicelib.checkpoints import check_config, save_model, unwrap, write_atomically
from nicelib.data import dequantise, held_out_split, load_pixels
from nicelib.errors import InputError, as_path
from nicelib.evaluation import evaluate
from nicelib.training.batches import draw_batch, order_of_epoch
from nicelib.training.device import pick_precision, precisions, start_process, synchronise
from nicelib.training.graph import CapturedStep, can_record
from nicelib.training.resume import claim, damaged, read_resume, write_resume
from nicelib.training.settings import TrainConfig
from nicelib.training.start import initialise_from_data
from nicelib.training.step import Schedule, make_optimiser, train_step

OnStep = Callable[[int, int, Tensor], object]


@torch.inference_mode(False)
@torch.enable_grad()
def train(
    config: TrainConfig,
    data_dir: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    model: nn.Module | None = None,
    progress: bool = False,
    on_step: OnStep | None = None,
) -> Generator[dict[str, Any]]:
    """Train by maximum likelihood; a generator of one record an epoch.

    Each holds ``epoch``, ``train`` (nats, mean over the epoch while the weights changed), ``held_out`` (nats; the split of
    :func:`nicelib.data.held_out_split`, the same draw of noise each epoch), ``lr``, and of the training steps
    ``images_per_s`` and ``seconds`` since the run began. With ``out`` the run writes ``best.safetensors`` (best on held-out), ``epoch_NNNN.safetensors`` every ``save_every``
    epochs, ``history.json`` and ``resume.pt``: after every ``save_every`` epochs, after an epoch that ends a minute or
    more after the last one written, at the end, at an interrupt, when the caller stops asking for records. Noise and
    order depend on the seed and the step alone, so a run that was killed and resumed ends on the same numbers.

    Under torchrun, every process draws the whole batch and takes its own rows; process 0 writes; an interrupt stops at once.

    Args:
        config: the settings; ``precision = "auto"`` times some steps that move no weight, logs and keeps what was faster.
        data_dir: as :func:`nicelib.load_pixels`.
        out: folder for the files, this run's alone; none are written without it.
        resume: continue the run in ``out`` (or begin it, where there is none yet).
        model: a model to train in place, compiled or not; default: ``config.build()``. With ``init = "data"`` a fresh one.
        progress: show a bar over the steps of each epoch.
        on_step: called before the first step of an epoch and after each, with the steps done, the steps of the whole run,
            and the losses of this epoch's steps so far, on the device: reading them waits for it.

    Raises:
        InputError: settings that do not fit the data, the folder or the machine; a loss that is not finite.
        KeyboardInterrupt: after Ctrl-C, once the current step, or what follows an epoch's last step, is done and
            ``resume.pt`` is written.
    """
    if not isinstance(config, TrainConfig):
        raise InputError(f"config of type {type(config).__name__}; expected a TrainConfig")
    run = _Run(config, data_dir, as_path(out).absolute() if out else None, model)
    with claim(run.out if run.rank == 0 else None) as run.check_claim:
        run.begin(resume)
        while run.state["epoch"] < config.max_iter:
            with _deferred_interrupt(run.world == 1) as interrupted:
                run.do_steps(interrupted, progress, on_step or (lambda *_: None))
                record = run.finish_epoch()
                if interrupted.is_set():
                    run.save_resume()
                    raise KeyboardInterrupt(f"stopped after epoch {record['epoch']}")
            try:
                yield record
            except GeneratorExit:  # the caller asks for no more: as after Ctrl-C
                with suppress(InputError):  # a later run has the folder now
                    if not sys.is_finalizing():
                        run.save_resume()
                raise


class _Run:
    """A run: its images on the device, its model and optimiser, and how far it is."""

    check_claim: Callable[[], None]

    def __init__(self, config: TrainConfig, data_dir: Any, out: Path | None, model: nn.Module | None) -> None:
        self.config, self.out = config, out
        self.world, self.rank, self.device = start_process(config.device)
        self.graph = can_record(config.cuda_graph, model, self.device, self.world)
        if config.batch_size % self.world:
            raise InputError(f"batch_size = {config.batch_size}; expected a multiple of the {self.world} processes")
        self.pixels, self.held_out = self._load(data_dir)
        self.steps = len(self.pixels) // config.batch_size  # an epoch; the rest of the images wait for the next order
        if self.steps < 1:
            raise InputError(f"batch_size = {config.batch_size}; expected at most the {len(self.pixels)} images")
        model = config.build(self.pixels.shape[1]) if model is None else model
        self.model, self.forward = unwrap(model).to(self.device), model
        if out:  # else an epoch would be lost
            check_config(self.model)
        if not any(p.requires_grad for p in model.parameters()):
            raise InputError("no parameter of the model requires a gradient; expected some: requires_grad_(True)")
        self.generator = torch.Generator(self.device)
        self.optimiser = make_optimiser(self.model, config)
        self.scheduler = Schedule(self.optimiser, self.steps * config.max_iter, config.schedule)
        self.parts: dict[str, Any] = {"model": self.model, "optimiser": self.optimiser, "scheduler": self.scheduler}
        self.losses = torch.zeros(self.steps, device=self.device, dtype=torch.float32)
        self.state: dict[str, Any] = {"epoch": 0, "step": 0, "seconds": 0.0, "best": -math.inf, "history": []}
        self.saved_at = time.monotonic()

    def _load(self, data_dir: Any) -> list[Tensor]:
        """Training and held-out images, uint8 (N, D); one process of a machine downloads what is missing."""
        others_wait = self.world > 1 and int(os.environ["LOCAL_RANK"]) > 0
        if others_wait:
            distributed.barrier()
        config, splits = self.config, ("train", held_out_split(self.config.dataset, self.config.protocol))
        images = [load_pixels(config.dataset, s, data_dir, protocol=config.protocol).to(self.device) for s in splits]
        if self.world > 1 and not others_wait:
            distributed.barrier()
        return images

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one before."""
        machine = f"{self.device.type} x {self.world}"
        return {"config": dataclasses.asdict(self.config), "machine": machine, "model_config": self.model.config}

    def begin(self, resume: bool) -> None:
        """Go on where ``resume.pt`` stopped, or start the model from the data."""
        precision = self.config.precision
        if (saved := read_resume(self.out, self.identity(), resume)) and self.out:
            try:
                for name, part in self.parts.items():
                    part.load_state_dict(saved[name])
                self.state = {key: saved["state"][key] for key in self.state}
                self.losses.copy_(saved["losses"])
                precision = saved["config"]["precision"]
            except Exception as error:
                raise damaged(self.out / "resume.pt", error) from error
        elif self.config.init == "data":
            start = self.pixels[order_of_epoch(self.generator, self.config, 0, len(self.pixels))[:10_000]]
            initialise_from_data(self.model, dequantise(start, self.generator))
        precision = self._pick_precision() if precision == "auto" else precision
        self.config = dataclasses.replace(self.config, precision=precision)
        if self.world > 1:
            known = inspect.signature(DistributedDataParallel).parameters  # torch 2.14 has renamed it
            name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            quiet: dict[str, Any] = {name: False}
            self.forward = DistributedDataParallel(self.forward, **quiet)
        self.take_step = self._step(self.forward, self.optimiser, precision)

    def _step(self, model: nn.Module, optimiser: torch.optim.Optimizer, precision: str) -> Callable[[Tensor], Tensor]:
        step = functools.partial(train_step, model, optimiser, clip=self.config.clip, precision=precision)
        return CapturedStep(step, optimiser, self.device) if self.graph else step

    def _pick_precision(self) -> str:
        """The precision in which process 0 is fastest at steps of this model that move no weight; all processes take it."""
        usual, *others = precisions(self.device)
        picked = [usual]
        if others and self.rank == 0:
            still = torch.optim.AdamW(self.model.parameters(), lr=0.0, weight_decay=0.0, fused=True)
            x = self._batch(self.pixels[: self.config.batch_size], 0)
            steps = {p: functools.partial(self._step(self.model, still, p), x) for p in (usual, *others)}
            picked[0], why = pick_precision(steps, self.device)
            logging.getLogger(__name__).info(why)
            still.zero_grad()
        if self.world > 1:
            distributed.broadcast_object_list(picked, device=self.device)
        return picked[0]

    def _batch(self, pixels: Tensor, step: int) -> Tensor:
        """This process's rows of a step's batch."""
        x = draw_batch(pixels, self.config, step, self.generator)
        return x.tensor_split(self.world)[self.rank].to(self.model.scaling.log_scale)

    def do_steps(self, interrupted: threading.Event, progress: bool, on_step: OnStep) -> None:
        """The steps that are left of the epoch; KeyboardInterrupt, with ``resume.pt`` written, when interrupted."""
        config, state, first = self.config, self.state, self.state["step"]
        order = order_of_epoch(self.generator, config, state["epoch"] + 1, len(self.pixels))
        name, quiet = f"epoch {state['epoch'] + 1}", not progress or self.rank > 0
        done, total = state["epoch"] * self.steps, config.max_iter * self.steps
        on_step(done + first, total, self.losses[:first])
        start = time.perf_counter()
        with tqdm(total=self.steps, initial=first, desc=name, leave=False, disable=quiet) as bar:
            for step in range(first, self.steps):
                pixels = self.pixels[order[step * config.batch_size : (step + 1) * config.batch_size]]
                self.losses[step] = self.take_step(self._batch(pixels, done + step))
                self.scheduler.step()
                state["step"] = step + 1
                bar.update()
                on_step(done + step + 1, total, self.losses[: step + 1])
                if interrupted.is_set():
                    break
        synchronise(self.device)
        elapsed = time.perf_counter() - start
        state["seconds"] += elapsed
        self.images_per_s = (state["step"] - first) * config.batch_size / elapsed
        if state["step"] < self.steps:
            if self.losses.isfinite().all():  # else the earlier checkpoint is the good one
                self.save_resume()
            raise KeyboardInterrupt(f"stopped in {name} after step {state['step']} of {self.steps}")

    def finish_epoch(self) -> dict[str, Any]:
        """Evaluate and write the files; the epoch's record."""
        state, epoch = self.state, self.state["epoch"] + 1
        if self.world > 1:
            distributed.all_reduce(self.losses)
            self.losses /= self.world
        losses = self.losses.tolist()  # summed in float64 here: Apple's GPU knows none
        for step, loss in enumerate(losses, start=1):
            self._check(loss, f"in epoch {epoch} at step {step} of {self.steps}")
        held_out = evaluate(self.model, self.held_out, seed=self.config.seed).nats
        # The last update may have broken the weights: they are kept out of every file.
        self._check(-held_out, f"on held-out images in epoch {epoch} after step {self.steps}")
        record = {"epoch": epoch, "train": -sum(losses) / len(losses), "held_out": held_out}
        record |= {"lr": self.optimiser.param_groups[0]["lr"], "images_per_s": self.images_per_s}
        record["seconds"] = state["seconds"]
        state |= {"epoch": epoch, "step": 0, "history": [*state["history"], record]}
        if self.out and self.rank == 0:
            self.check_claim()
            self._save_weights(self.out, record)
        state["best"] = max(state["best"], held_out)
        last = epoch == self.config.max_iter
        if last or epoch % self.config.save_every == 0 or time.monotonic() - self.saved_at > 60:
            self.save_resume()
        return record

    def _check(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            cure = "try a smaller --lr" + ("" if self.config.clip else ", or --clip 200")
            good = self.out and self.state["history"]
            kept = f"the last good checkpoint is in {self.out}" if good else "nothing was saved before it"
            raise InputError(f"the loss is {loss} {where}; {kept}: {cure}")

    def _save_weights(self, out: Path, record: dict[str, Any]) -> None:
        config = dataclasses.asdict(self.config)
        header: dict[str, Any] = {"train_config": config, "metrics": record}
        if record["held_out"] > self.state["best"]:
            save_model(self.model, out / "best.safetensors", **header)
        if record["epoch"] % self.config.save_every == 0:
            save_model(self.model, out / f"epoch_{record['epoch']:04d}.safetensors", **header)
        text = json.dumps({"config": config, "history": self.state["history"]}, indent=1)
        write_atomically(out / "history.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def save_resume(self) -> None:
        """Write ``resume.pt``, where the run has a folder."""
        if self.out and self.rank == 0:
            self.check_claim()
            content = {name: part.state_dict() for name, part in self.parts.items()}
            write_resume(self.out, content | self.identity() | {"state": self.state, "losses": self.losses.cpu()})
            self.saved_at = time.monotonic()


@contextmanager
def _deferred_interrupt(wanted: bool) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event that the loop reads between steps, when the state is whole."""
    event = threading.Event()
    ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)  # as under nohup, or by another program's will
    if ignored or not wanted or threading.current_thread() is not threading.main_thread():
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
