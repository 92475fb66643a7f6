# What nicelib gives by name; __init__.py imports each when it is first asked for.
from .bijection import Bijection as Bijection
from .coupling import AdditiveCoupling as AdditiveCoupling
from .coupling import AffineCoupling as AffineCoupling
from .coupling import make_conditioner as make_conditioner
from .data import bits_per_dim as bits_per_dim
from .data import dequantise as dequantise
from .data import load_digits as load_digits
from .data import load_pixels as load_pixels
from .data import quantise as quantise
from .errors import InputError as InputError
from .importers import import_state_dict as import_state_dict
from .masks import checkerboard_mask as checkerboard_mask
from .masks import half_mask as half_mask
from .masks import parity_mask as parity_mask
from .model import NICE as NICE
from .pretrained import load_pretrained as load_pretrained
from .prior import StandardLogistic as StandardLogistic
from .prior import StandardNormal as StandardNormal
from .scaling import Scaling as Scaling
from .training import RECIPES as RECIPES
from .training import TrainConfig as TrainConfig
from .training import initialise_from_data as initialise_from_data
from .training import train as train

__version__: str
