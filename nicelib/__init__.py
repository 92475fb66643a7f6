"""NICE: Non-linear Independent Components Estimation (Dinh, Krueger, Bengio 2014, arXiv 1410.8516), step by step."""

from nicelib.bijection import Bijection
from nicelib.coupling import AdditiveCoupling, AffineCoupling, make_conditioner
from nicelib.data import bits_per_dim, dequantise, load_digits, load_pixels, quantise
from nicelib.errors import InputError
from nicelib.importers import import_state_dict
from nicelib.masks import checkerboard_mask, half_mask, parity_mask
from nicelib.model import NICE
from nicelib.pretrained import load_pretrained
from nicelib.prior import StandardLogistic, StandardNormal
from nicelib.scaling import Scaling
from nicelib.training import RECIPES, TrainConfig, initialise_from_data, train

__all__ = [
    "NICE",
    "RECIPES",
    "AdditiveCoupling",
    "AffineCoupling",
    "Bijection",
    "InputError",
    "Scaling",
    "StandardLogistic",
    "StandardNormal",
    "TrainConfig",
    "bits_per_dim",
    "checkerboard_mask",
    "dequantise",
    "half_mask",
    "import_state_dict",
    "initialise_from_data",
    "load_digits",
    "load_pixels",
    "load_pretrained",
    "make_conditioner",
    "parity_mask",
    "quantise",
    "train",
]
