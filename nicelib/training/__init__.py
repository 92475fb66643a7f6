"""Training: settings, the start from data, the loop, exact resume, and the speed of a step."""

from nicelib.training.batches import draw_batch, shift_images
from nicelib.training.device import is_main_process, matmul_precision, resolve_device, resolve_precision
from nicelib.training.loop import lr_factor, make_optimiser, train, train_step
from nicelib.training.settings import PRECISIONS, RECIPES, SCHEDULES, TrainConfig
from nicelib.training.start import initialise_from_data

__all__ = [
    "PRECISIONS",
    "RECIPES",
    "SCHEDULES",
    "TrainConfig",
    "draw_batch",
    "initialise_from_data",
    "is_main_process",
    "lr_factor",
    "make_optimiser",
    "matmul_precision",
    "resolve_device",
    "resolve_precision",
    "shift_images",
    "train",
    "train_step",
]
