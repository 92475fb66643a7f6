"""A flow of two coordinates in motion: points and the grid under them on their way to the code, and back."""

import io
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from nicelib.errors import InputError
from nicelib.model import NICE
from nicelib.plotting import BLUE, ORANGE, PURPLE
from nicelib.scaling import Scaling

#: from left to right: colours that say where a point comes from
JOURNEY = LinearSegmentedColormap.from_list("journey", [BLUE, PURPLE, ORANGE])

WIDTH, HEIGHT, FOOT = 640, 420, 64  # pixels; the captions stand in the foot
BANDS = 10  # colours of points: few, as every shade costs bytes
INK, LINE, PAPER = "#222222", "#C4CAD3", "#FFFFFF"


def what_it_does(layer: Any) -> str:
    """The caption of a layer of two coordinates; 0 goes to the right, 1 upwards."""
    if isinstance(layer, Scaling):
        return "each axis is stretched"
    return "every row slides sideways" if layer.mask[1] else "every column slides up or down"


def _palette() -> Image.Image:
    shades: list[Any] = [to_rgb(PAPER), to_rgb(ORANGE)]
    for colour, steps in [(to_rgb(INK), 4), (to_rgb(LINE), 2)] + [
        (JOURNEY(i / (BANDS - 1))[:3], 2) for i in range(BANDS)
    ]:
        shades += [tuple(1 - (1 - c) * k / steps for c in colour) for k in range(1, steps + 1)]
    image = Image.new("P", (1, 1))
    image.putpalette([round(255 * c) for shade in shades for c in shade])
    return image


def _path(model: NICE, x: Tensor, sheet: tuple[float, float]) -> list[Tensor]:
    """The points, and behind them the lines of a grid of 81 points each, before every layer and after the last."""
    line = torch.linspace(-1, 1, 81)
    across, up = (torch.linspace(-a, a, round(a / 0.4) * 2 + 1) for a in sheet)
    grid = [torch.stack([a.expand(81), sheet[1] * line], 1) for a in across]
    grid += [torch.stack([sheet[0] * line, b.expand(81)], 1) for b in up]
    path = [torch.cat([x, *grid]).to(model.scaling.log_scale)]
    for layer in model.layers:
        path.append(layer(path[-1])[0])
    return path


@torch.no_grad()
def flow_gif(model: NICE, x: Tensor, there: int = 8, back: int = 4, sheet: tuple[float, float] = (2.0, 1.2)) -> bytes:
    """Animate the journey of points through the layers, to the code and back, as a GIF of 640 x 420 pixels.

    Between two layers every point goes straight to where the next one puts it. On the way through an additive layer each
    frame is itself a shear, so areas are right at every moment.

    Args:
        model: a flow with ``dim=2``.
        x: (N, 2); a few hundred points. They are coloured from left to right and keep their colours.
        there, back: frames a layer; about 13 kB each.
        sheet: half the width and height of the grid that is carried along.

    Raises:
        InputError: points or a model of another dimension.
    """
    if x.ndim != 2 or x.shape[1] != 2 or model.dim != 2:
        raise InputError(f"x of shape {tuple(x.shape)}, a model with dim={model.dim}; expected (N, 2) and dim=2")
    path = _path(model, x, sheet)
    aspect = WIDTH / (HEIGHT - FOOT)
    reach = [max((h[: len(x)].abs().quantile(0.995, 0) / torch.tensor([aspect, 1.0])).tolist()) for h in path]
    view = [1.2 * max(reach[:-1])] * (len(path) - 1) + [1.15 * reach[-1]]  # zoom out in the last layer, the scaling
    look: dict[str, Any] = {"dpi": 100, "facecolor": PAPER, "layout": "none"}
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), **look)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, FOOT / HEIGHT, 1, 1 - FOOT / HEIGHT))
    ax.set_axis_off()
    lines = LineCollection([], colors=LINE, linewidths=0.7)
    ax.add_collection(lines)
    band = x[:, 0].argsort().argsort() * BANDS // len(x)
    dots = [ax.plot([], [], "o", ms=4.2, mew=0, color=JOURNEY(i / (BANDS - 1)))[0] for i in range(BANDS)]
    caption = figure.text(0.5, 43 / HEIGHT, "", ha="center", va="center", fontsize=13, color=INK)
    stops = ["x", *(f"layer {i}" for i in range(len(path) - 2)), "scaling", "z"]
    middle, box = (len(stops) - 1) / 2, {"boxstyle": "round,pad=0.3"}
    chips: list[Any] = [
        figure.text(0.5 + 0.125 * (i - middle), 16 / HEIGHT, stop, ha="center", va="center", fontsize=9, bbox=box)
        for i, stop in enumerate(stops)
    ]
    frames, pauses, palette = [], [], _palette()

    def draw(k: int, t: float, stop: int, text: str, pause: int) -> None:
        t = t * t * (3 - 2 * t)  # starts and stops gently
        h = path[k].lerp(path[k + 1], t)
        height = view[k] + (view[k + 1] - view[k]) * t
        ax.set(xlim=(-height * aspect, height * aspect), ylim=(-height, height))
        for i, dot in enumerate(dots):
            dot.set_data(*h[: len(x)][band == i].T)
        lines.set_segments(list(h[len(x) :].view(-1, 81, 2).numpy()))
        caption.set_text(text)
        for i, chip in enumerate(chips):
            chip.get_bbox_patch().set(fc=ORANGE if i == stop else PAPER, ec="none")
        canvas.draw()
        pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        frames.append(pixels.quantize(palette=palette, dither=Image.Dither.NONE))
        pauses.append(pause)

    last = len(path) - 2
    draw(0, 0, 0, f"x: {len(x)} data points", 1800)
    for k, layer in enumerate(model.layers):
        for i in range(1, there + 1):
            draw(k, i / there, k + 1, f"{stops[k + 1]}: {what_it_does(layer)}", 70 if i < there else 500)
    draw(last, 1, last + 2, "z: their code, a cloud of noise", 1800)
    for k in reversed(range(last + 1)):
        for i in range(1, back + 1):
            draw(k, 1 - i / back, k + 1, "and back, exactly: every step undone", 70 if i < back else 150)
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0, optimize=False)
    return file.getvalue()
