"""A training step as one CUDA graph: its some hundred kernels are launched once a step, not one by one from Python.

Replayed on the same memory: batch and learning rates are copied to where the recording reads them, weights and Adam's
moments change in place. Noise and order are drawn outside, as ever.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nicelib.errors import InputError
from nicelib.model import NICE

WARM_UP = 3  # ordinary steps of the run before the recording: they make Adam's moments and the libraries' workspaces


def can_record(wanted: str, model: nn.Module | None, device: torch.device, world: int) -> bool:
    """Whether a step of ``model`` (None: a fresh NICE) becomes a graph, as ``wanted``: off, auto (where it can) or on.

    InputError for ``"on"`` where it cannot.
    """
    reason = ""
    if device.type != "cuda":
        reason = f"the run is on {device.type}, which has none"
    elif world > 1:
        reason = f"{world} processes share every step"
    elif model is not None and not isinstance(model, NICE):
        reason = f"the model is wrapped ({type(model).__name__})"
    elif model is not None and any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        reason = "the model has hooks, which a replay does not call"
    if reason and wanted == "on":
        raise InputError(f"cuda_graph = 'on', but {reason}; expected a plain NICE on one GPU: leave it on auto")
    return wanted != "off" and not reason


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all runs: for every stream that it has seen, cuBLAS keeps a workspace on the device."""
    return torch.cuda.Stream(device)


class CapturedStep:
    """``step(x) -> loss``, replayed from a CUDA graph after its first steps; the numbers are those of the step itself.

    The loss that a call returns is overwritten by the next.

    Args:
        step: a training step without random numbers: (B, D) -> the loss, a tensor on the device.
        optimiser: the fused Adam that ``step`` calls; its learning rates may change between calls.
        device: the GPU.
    """

    x: Tensor
    loss: Tensor

    def __init__(
        self, step: Callable[[Tensor], Tensor], optimiser: torch.optim.Optimizer, device: torch.device
    ) -> None:
        self.step, self.optimiser, self.device = step, optimiser, device
        self.rates = [torch.zeros((), dtype=torch.float32, device=device) for _ in optimiser.param_groups]
        self.graph, self.calls = torch.cuda.CUDAGraph(), 0

    def __call__(self, x: Tensor) -> Tensor:
        """One step on a batch of the size that the first calls had."""
        self.calls += 1
        if self.calls <= WARM_UP:  # on the stream of the recording, as torch asks for before one
            stream, current = _side_stream(self.device), torch.cuda.current_stream(self.device)
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                loss = self.step(x)
            current.wait_stream(stream)
            return loss
        if self.calls == WARM_UP + 1:
            self._record(x)
        for rate, group in zip(self.rates, self.optimiser.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.x.copy_(x)
        self.graph.replay()
        return self.loss

    def _record(self, x: Tensor) -> None:
        self.x = x.clone()
        self.optimiser.zero_grad(set_to_none=True)  # so that the recording makes the gradients in memory of its own
        groups = self.optimiser.param_groups
        before = [{name: group[name] for name in ("lr", "capturable")} for group in groups]
        try:  # Adam reads its learning rates from the device; afterwards its groups are as they were, for the files
            for rate, group in zip(self.rates, groups, strict=True):
                group |= {"lr": rate, "capturable": True}
            with torch.cuda.device(self.device), torch.cuda.graph(self.graph, stream=_side_stream(self.device)):
                self.loss = self.step(self.x)  # recorded, not executed
        finally:
            for group, was in zip(groups, before, strict=True):
                group |= was
