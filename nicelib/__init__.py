"""NICE: Non-linear Independent Components Estimation (Dinh, Krueger, Bengio 2014, arXiv 1410.8516), step by step."""

import lazy_loader

__version__ = "2.0.0"
# Names are imported when they are first used, as __init__.pyi says: the command line's help need not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
