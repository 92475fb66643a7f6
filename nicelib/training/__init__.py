"""Training: settings, the start from data, the loop, exact resume, and the speed of a step."""

from nicelib.training.batches import draw_batch, shift_images
from nicelib.training.device import is_main_process, matmul_precision, resolve_device
from nicelib.training.loop import train
from nicelib.training.settings import RECIPES, TrainConfig
from nicelib.training.start import initialise_from_data
from nicelib.training.step import lr_factor, make_optimiser, train_step

__all__ = ["RECIPES", "TrainConfig", "draw_batch", "initialise_from_data", "is_main_process", "lr_factor"]
__all__ += ["make_optimiser", "matmul_precision", "resolve_device", "shift_images", "train", "train_step"]
