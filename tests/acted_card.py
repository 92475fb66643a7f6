"""A GPU that the CPU acts, for what cannot run without one: take_over() does it to torch.cuda's streams and graphs.

A recorded step is undone, as a CUDA graph's is not carried out, and a replay does it again, operation by operation, on
the same memory. What lies outside a recording, Python's numbers above all, a replay does not see.
"""

import contextlib
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import nicelib.training.loop


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Recording(TorchDispatchMode):
    """Notes every operation, and what the memory from outside held before the first that touches it."""

    def __init__(self, graph):
        super().__init__()
        self.done, self.made, self.before = graph.done, set(), {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for memory in (tensor.untyped_storage() for tensor in tensors((args, kwargs))):
            if memory.data_ptr() not in self.made | self.before.keys():
                self.before[memory.data_ptr()] = memory, memory.clone()
        results = function(*args, **(kwargs or {}))
        self.made |= {tensor.untyped_storage().data_ptr() for tensor in tensors(results)} - self.before.keys()
        self.done.append((function, args, kwargs or {}, results))
        return results


class Graph:
    def __init__(self):
        self.done = []

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, results in self.done:
            for was, now in zip(tensors(results), tensors(function(*args, **kwargs)), strict=True):
                if was.data_ptr() != now.data_ptr():
                    was.copy_(now)


@contextlib.contextmanager
def record(graph, stream=None):
    with Recording(graph) as recording:
        yield
    for memory, was in recording.before.values():
        memory.copy_(was)


def nothing(*_):
    return contextlib.nullcontext()


def take_over():
    waits = SimpleNamespace(wait_stream=nothing)
    torch.cuda.CUDAGraph, torch.cuda.graph = Graph, record
    torch.cuda.Stream = torch.cuda.current_stream = lambda *_: waits
    torch.cuda.stream = torch.cuda.device = torch.cuda.reset_peak_memory_stats = nothing
    torch.cuda.memory_allocated, torch.cuda.max_memory_allocated = lambda: 10_000_000, lambda: 450_000_000
    card = SimpleNamespace(name="an acted card", total_memory=8e9, major=8, minor=6)
    torch.cuda.get_device_properties = lambda device: card
    nicelib.training.loop.can_record = lambda wanted, *_: wanted != "off"
