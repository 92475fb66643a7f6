"""Maximum likelihood: one training step, its optimiser and its learning rate (paper, equation 1 and section 5.1)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR

from nicelib.checkpoints import unwrap
from nicelib.errors import one_of
from nicelib.model import NICE
from nicelib.training.device import matmul_precision
from nicelib.training.settings import SCHEDULES, TrainConfig


def make_optimiser(model: NICE, config: TrainConfig) -> torch.optim.AdamW:
    """Fused Adam in three groups: matrices (with weight decay), biases, scales (with their own learning rate)."""
    conditioners = [p for layer in unwrap(model).couplings for p in layer.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in conditioners if p.ndim == 2], "weight_decay": config.weight_decay},
        {"params": [p for p in conditioners if p.ndim == 1]},
        {"params": [unwrap(model).scaling.log_scale], "lr": config.lr * config.scale_lr},
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
    one_of("schedule", schedule, SCHEDULES)
    if schedule == "constant":
        return 1.0
    warmup = max(1, steps // 10)
    if step < warmup:
        return 0.04 + 0.96 * step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 1 - done if schedule == "linear" else 0.5 + 0.5 * math.cos(math.pi * done)


class Schedule(LambdaLR):
    """The learning rates of a run of so many steps; on a GPU as float32 has them, the form in which a CUDA graph reads them.

    With a graph and without one, the numbers are the same then.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, steps: int, schedule: str) -> None:
        super().__init__(optimiser, lambda step: lr_factor(step, steps, schedule))

    def get_lr(self) -> list[float | Tensor]:
        cuda = self.optimizer.param_groups[0]["params"][0].is_cuda
        return [torch.tensor(lr, dtype=torch.float32).item() if cuda else lr for lr in super().get_lr()]


def train_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    clip: float = 0.0,
    precision: str = "highest",
    mark: Callable[[str], object] = lambda phase: None,
) -> Tensor:
    """One step up the log-likelihood of a batch (paper, equation 1 and section 5.1).

    Args:
        model: a NICE, or torch.compile's or data parallelism's wrapper around one.
        optimiser: over its parameters.
        x: (B, D) dequantised images.
        clip: largest norm of the gradient; 0 = no clipping.
        precision: of the matrix products, as :func:`nicelib.training.matmul_precision`.
        mark: hears of the end of each phase: forward, backward, clip, optimiser.

    Returns:
        The loss, minus the mean log-likelihood in nats, a detached tensor on the device: reading it would wait.
    """
    optimiser.zero_grad(set_to_none=True)
    with matmul_precision(precision, x.device):
        z, log_det = model(x)
        loss = -(unwrap(model).prior.log_prob(z).sum(-1) + log_det).mean()
        mark("forward")
        loss.backward()
        mark("backward")
    if clip:
        parameters = list(model.parameters())
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
        if x.device.type != "cpu" or norm > clip:  # a GPU would be waited for here: it multiplies by 1 instead
            clip_grads_with_norm_(parameters, clip, norm, foreach=True)
    mark("clip")
    optimiser.step()
    mark("optimiser")
    return loss.detach()
