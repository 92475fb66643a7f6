"""Figures in one palette: image grids, training curves, the chain of a flow's parts."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from nicelib.bijection import check_tensor
from nicelib.checkpoints import write_atomically
from nicelib.data import quantise
from nicelib.errors import InputError, at_least, one_of

#: the colours of ``tutorial.mplstyle``
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
#: the flow from left to right, as :func:`where_we_are` draws it
PARTS = ("x", "coupling × 4", "scaling", "z", "prior", "log p(x)")


def use_style() -> None:
    """Set matplotlib's defaults for every figure of the tutorial."""
    plt.style.use("nicelib.tutorial")


def show(figure: Figure, alt: str, **place: Any) -> None:
    """Put a figure on the page at twice the resolution, with a description for those who do not see it, and close it.

    Args:
        figure: as wide on the page as it is in inches, at its own dots per inch.
        alt: what the picture says, in a sentence.
        place: ``display_id`` and ``update``, as IPython's ``display``: a later picture may take this one's place.
    """
    from IPython.display import display
    from PIL import Image

    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=2 * figure.dpi)
    # 256 colours of its own: no eye sees the difference, and a page of figures weighs two fifths
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)
    width, height = (figure.get_size_inches() * figure.dpi).round().astype(int).tolist()
    metadata = {"image/png": {"width": width, "height": height, "alt": alt}}
    display({"image/png": file.getvalue()}, raw=True, metadata=metadata, **place)
    plt.close(figure)


def where_we_are(*here: str) -> None:
    """Draw :data:`PARTS` as a chain of boxes, today's coloured: the head of each notebook; InputError at another name."""
    for part in here:
        one_of("part", part, PARTS)
    figure, last = plt.figure(figsize=(8.5, 0.75), layout="none"), None
    for part in PARTS:  # each box stands the same step behind the end of the one before it
        arrow = {"arrowstyle": "<-", "color": GREY, "relpos": (0, 0.5), "shrinkA": 2, "shrinkB": 9} if last else None
        box = {"boxstyle": "round,pad=0.55", "fc": ORANGE if part in here else "#EEEEEE", "ec": GREY}
        at: dict[str, Any] = {"xy": (1 if last else 0, 0.5), "xytext": (68 if last else 9, 0), "va": "center"}
        at |= {"xycoords": last or "figure fraction", "textcoords": "offset points", "bbox": box, "arrowprops": arrow}
        last = figure.add_artist(Annotation(part, **at, fontsize=12, weight="bold" if part in here else "normal"))
    show(figure, f"The flow as a chain: {', '.join(PARTS)}. This notebook: {' and '.join(here)}.")


def image_grid(images: Tensor, columns: int = 8, height: int = 28, width: int = 28, pad: int = 2) -> np.ndarray:
    """Tile images (N, height * width), ``columns`` in a row, into one uint8 array, with ``pad`` grey pixels around each.

    They are uint8 pixels or floats on [0, 1); values outside are clamped for the picture.
    """
    columns, height, width = at_least(1, columns=columns, height=height, width=width)
    (pad,) = at_least(0, pad=pad)
    fits = lambda x: x.ndim > 0 and not x.is_meta and (x.is_floating_point() or x.dtype == torch.uint8)  # noqa: E731
    check_tensor("images", images, "uint8 pixels or floats", fits)
    if images.numel() != len(images) * height * width:
        raise InputError(f"images of shape {tuple(images.shape)}; expected (N, {height * width}): {height} x {width}")
    pixels = quantise(images.detach()) if images.is_floating_point() else images
    tiles = pixels.cpu().numpy().reshape(-1, height, width)
    columns = min(columns, len(tiles)) or 1
    grid = np.full((-(-len(tiles) // columns) * (height + pad) + pad, columns * (width + pad) + pad), 128, np.uint8)
    for i, image in enumerate(tiles):
        top, left = pad + (i // columns) * (height + pad), pad + (i % columns) * (width + pad)
        grid[top : top + height, left : left + width] = image
    return grid


def save_images(images: Tensor, path: str | Path, columns: int = 8, zoom: int = 2) -> None:
    """Write a PNG of the images as a grid, each pixel ``zoom`` pixels wide; arguments as :func:`image_grid`."""
    from PIL import Image

    (zoom,) = at_least(1, zoom=zoom)
    picture = Image.fromarray(image_grid(images, columns).repeat(zoom, 0).repeat(zoom, 1))
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))


def show_images(images: Tensor, columns: int = 8, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw images (N, 784) as a grid without axes; arguments as :func:`image_grid`."""
    grid = image_grid(images, columns)
    if ax is None:
        _, ax = plt.subplots(figsize=(grid.shape[1] / 40, grid.shape[0] / 40 + 0.4))
    ax.imshow(grid, cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
    ax.set_title(title)
    return ax


def plot_history(history: list[dict], ax: Axes) -> None:
    """Draw the records of :func:`nicelib.train`, and the paper's MNIST test log-likelihood when they come near it."""
    epochs = [r["epoch"] for r in history]
    ax.plot(epochs, [r["train"] for r in history], "o-", ms=3, color=BLUE, label="train (mean over the epoch)")
    ax.plot(epochs, [r["held_out"] for r in history], "o-", ms=3, color=RED, label="held-out")
    if max(r["train"] for r in history) > 1700:
        ax.axhline(1980.50, color=GREY, ls="--", lw=1, label="paper, MNIST test: 1980.50")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="log-likelihood (nats)", title="Training")
    ax.legend()
