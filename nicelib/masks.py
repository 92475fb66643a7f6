"""Masks: which entries a coupling layer keeps (paper, sections 3.2 and 5.1).

A mask is a boolean vector of length D. True marks an entry the layer keeps and reads; False, one it moves.
Each function here raises :class:`InputError` for a name or a half that it does not know, and for an odd number of entries.
"""

import math

import torch
from torch import Tensor

from nicelib.errors import InputError, at_least, one_of

#: the splits a model can have, and the halves that its layer 0 can keep, the default first
MASKS = {"parity": ("odd", "even"), "checkerboard": ("odd", "even"), "halves": ("first", "second")}


def make_mask(mask: str, dim: int, keep: str) -> Tensor:
    """A mask by its name in :data:`MASKS`, on the CPU: bool (dim,), True = kept. The checkerboard's images are square."""
    one_of("mask", mask, MASKS)
    if keep not in MASKS[mask]:
        raise InputError(f"first = {keep!r} for mask = {mask!r}; expected {' or '.join(map(repr, MASKS[mask]))}")
    with torch.device("cpu"):  # a mask has values even where a model is built on the meta device
        if mask != "checkerboard":
            return (parity_mask if mask == "parity" else half_mask)(dim, keep)
        side = math.isqrt(max(dim, 0))
        if side**2 != dim:
            raise InputError(f"dim = {dim}; expected the square of an even number for the checkerboard, such as 784")
        return checkerboard_mask(side, side, keep)


def parity_mask(dim: int, keep: str = "odd") -> Tensor:
    """Keep the ``"odd"`` or the ``"even"`` 0-based indices: the paper's split (section 5.1). bool (dim,), True = kept.

    On a row-major image of even width index parity is column parity, so the mask is vertical stripes.

    >>> parity_mask(6, keep="odd").tolist()
    [False, True, False, True, False, True]
    """
    side = _choose(dim, keep, ("even", "odd"))
    return torch.arange(dim) % 2 == side


def checkerboard_mask(height: int, width: int, keep: str = "odd") -> Tensor:
    """Keep one colour of a checkerboard, row + column ``"odd"`` or ``"even"``: bool (height * width,), row-major.

    Not in the NICE paper; Real NVP (Dinh et al. 2016, arXiv 1605.08803, section 3.4) introduced it.

    >>> checkerboard_mask(2, 4).int().view(2, 4).tolist()
    [[0, 1, 0, 1], [1, 0, 1, 0]]
    """
    height, width = at_least(1, height=height, width=width)
    colour = _choose(height * width, keep, ("even", "odd"))
    return ((torch.arange(height)[:, None] + torch.arange(width)) % 2 == colour).flatten()


def half_mask(dim: int, keep: str = "first") -> Tensor:
    """Keep the ``"first"`` or the ``"second"`` half of the indices (paper, section 3.2: x = (x_I1, x_I2)). bool (dim,).

    >>> half_mask(4, keep="second").tolist()
    [False, False, True, True]
    """
    half = _choose(dim, keep, ("first", "second"))
    return torch.arange(dim) * 2 // dim == half


def selector(mask: Tensor) -> slice | Tensor:
    """The True entries of a mask as something to index with: a slice if they are evenly spaced, else (K,) indices.

    Selecting with a slice is a view and costs nothing; the parity and half masks give one.

    >>> selector(parity_mask(784))
    slice(1, 784, 2)
    """
    indices = mask.nonzero().flatten()
    steps = indices.diff()
    if len(indices) < 2 or not bool((steps == steps[0]).all()):
        return indices
    return slice(int(indices[0]), int(indices[-1]) + 1, int(steps[0]))


def _choose(dim: int, keep: str, halves: tuple[str, str]) -> int:
    """Which of the two halves of ``dim`` entries ``keep`` names: 0 or 1."""
    (dim,) = at_least(2, dim=dim)
    if dim % 2:
        raise InputError(f"dim = {dim}; expected an even number, 2 or more: the two halves of a split have equal size")
    if keep not in halves:
        raise InputError(f"keep = {keep!r}; expected {halves[0]!r} or {halves[1]!r}")
    return halves.index(keep)
