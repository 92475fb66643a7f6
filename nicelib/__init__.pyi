# What nicelib gives by name; __init__.py imports each when it is first asked for.
from .bijection import Bijection
from .coupling import AdditiveCoupling, AffineCoupling, make_conditioner
from .data import bits_per_dim, dequantise, load_digits, load_pixels, quantise
from .errors import InputError
from .importers import import_state_dict
from .masks import checkerboard_mask, half_mask, parity_mask
from .model import NICE
from .pretrained import load_pretrained
from .prior import StandardLogistic, StandardNormal
from .scaling import Scaling
from .training import RECIPES, TrainConfig, initialise_from_data, train

__version__: str
__all__ = ["NICE", "RECIPES", "AdditiveCoupling", "AffineCoupling", "Bijection", "InputError", "Scaling"]
__all__ += ["StandardLogistic", "StandardNormal", "TrainConfig", "bits_per_dim", "checkerboard_mask"]
__all__ += ["dequantise", "half_mask", "import_state_dict", "initialise_from_data", "load_digits", "load_pixels"]
__all__ += ["load_pretrained", "make_conditioner", "parity_mask", "quantise", "train"]
