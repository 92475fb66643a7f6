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

from nicelib.analysis import states
from nicelib.bijection import check_tensor
from nicelib.checkpoints import unwrap
from nicelib.errors import InputError, at_least
from nicelib.model import NICE
from nicelib.plotting import BLUE, ORANGE, PURPLE

#: colours that say where a point comes from, from left to right
JOURNEY = LinearSegmentedColormap.from_list("journey", [BLUE, PURPLE, ORANGE])

WIDTH, HEIGHT, FOOT = 640, 420, 64  # pixels; the captions stand in the foot
ASPECT = WIDTH / (HEIGHT - FOOT)
INK, LINE, PAPER = "#222222", "#C4CAD3", "#FFFFFF"
PLAIN: Any = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are
SHEET = (2.0, 1.2)  # half the width and height of the grid that is carried along, in lines of 81 points


@torch.no_grad()
def flow_gif(model: NICE, x: Tensor, there: int = 8, back: int = 4) -> bytes:
    """Animate the journey of points through the layers, to the code and back, as a GIF of 640 x 420 pixels.

    Between two layers every point goes straight to where the next one puts it. On the way through an additive layer each
    frame is itself a shear, so areas are right at every moment.

    Args:
        model: a flow with ``dim=2``.
        x: (N, 2); a few hundred points. They are coloured from left to right and keep their colours.
        there, back: frames a layer; about 13 kB each.

    Raises:
        InputError: points or a model of another dimension.
    """
    if (model := unwrap(model)).dim != 2:
        raise InputError(f"a model with dim={model.dim}; expected dim=2")
    check_tensor("x", x, "finite (N, 2), dim=2", lambda x: x.shape[1:] == (2,) and len(x) and x.isfinite().all())
    there, back = at_least(1, there=there, back=back)
    film = _Film(model, x.float().cpu())
    last = len(model.layers) - 1
    film.shoot(0, 0, 0, f"x: {len(x)} data points", 1800)
    slides = ("every column slides up or down", "every row slides sideways")
    for k, what in enumerate([*(slides[layer.mask[1]] for layer in model.couplings), "each axis is stretched"]):
        for i in range(1, there + 1):
            film.shoot(k, i / there, k + 1, f"{film.stops[k + 1]}: {what}", 70 if i < there else 500)
    film.shoot(last, 1, last + 2, "z: their code, a cloud of noise", 1800)
    for k in reversed(range(last + 1)):
        for i in range(1, back + 1):
            film.shoot(k, 1 - i / back, k + 1, "and back, exactly: every step undone", 70 if i < back else 150)
    return film.gif()


class _Film:
    """The path of points and grid through the layers, and a figure that shows one moment of it after another."""

    def __init__(self, model: NICE, x: Tensor) -> None:
        across, up = (torch.linspace(-half, half, round(half / 0.4) * 2 + 1, **PLAIN) for half in SHEET)
        line = torch.linspace(-1, 1, 81, **PLAIN)
        grid = [torch.cartesian_prod(across, SHEET[1] * line), torch.cartesian_prod(up, SHEET[0] * line).flip(1)]
        self.path, self.n = states(model, torch.cat([x, *grid]).to(model.scaling.log_scale)).float().cpu(), len(x)
        reach = [(h[: self.n].abs().quantile(0.995, 0) / x.new_tensor([ASPECT, 1.0])).max() for h in self.path]
        self.view = [1.2 * max(reach[:-1])] * len(model.layers) + [1.15 * reach[-1]]  # the scaling zooms out
        self.stops = ["x", *(f"layer {i}" for i in range(len(model.layers) - 1)), "scaling", "z"]
        look: dict[str, Any] = {"dpi": 100, "facecolor": PAPER, "layout": "none"}
        figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), **look)
        self.canvas = FigureCanvasAgg(figure)
        self.ax = figure.add_axes((0, FOOT / HEIGHT, 1, 1 - FOOT / HEIGHT))
        self.ax.set_axis_off()
        self.lines = LineCollection([], colors=LINE, linewidths=0.7)
        self.ax.add_collection(self.lines)
        band = x[:, 0].argsort().argsort() * 10 // len(x)  # few colours, and few shades of each: all cost bytes
        self.dots = self.ax.scatter(x[:, 0], x[:, 1], s=18, lw=0, c=band, cmap=JOURNEY, zorder=3)
        text: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
        self.caption = figure.text(0.5, 43 / HEIGHT, "", fontsize=13, **text)
        box, middle = {"boxstyle": "round,pad=0.3"}, (len(self.stops) - 1) / 2
        self.chips: list[Any] = [
            figure.text(0.5 + 0.125 * (i - middle), 16 / HEIGHT, stop, fontsize=9, bbox=box, **text)
            for i, stop in enumerate(self.stops)
        ]
        colours = [to_rgb(INK), to_rgb(LINE), to_rgb(ORANGE), *JOURNEY(np.linspace(0, 1, 10))[:, :3]]
        shades = np.linspace(to_rgb(PAPER), colours, 3) * 255
        self.palette = Image.new("P", (1, 1))
        self.palette.putpalette(shades.round().astype(np.uint8).tobytes())
        self.frames: list[Image.Image] = []
        self.pauses: list[int] = []

    def shoot(self, k: int, t: float, stop: int, text: str, pause: int) -> None:
        """A frame: share t of the way through layer k, the stop that is lit, the caption, milliseconds."""
        t = t * t * (3 - 2 * t)  # starts and stops gently
        h = self.path[k].lerp(self.path[k + 1], t)
        height = float(self.view[k] + (self.view[k + 1] - self.view[k]) * t**4)  # the points outgrow it first
        self.ax.set(xlim=(-height * ASPECT, height * ASPECT), ylim=(-height, height))
        self.dots.set_offsets(h[: self.n])
        self.lines.set_segments(list(h[self.n :].view(-1, 81, 2).numpy()))
        self.caption.set_text(text)
        for i, chip in enumerate(self.chips):
            chip.get_bbox_patch().set(fc=ORANGE if i == stop else PAPER, ec="none")
        self.canvas.draw()
        picture = Image.frombuffer("RGBA", (WIDTH, HEIGHT), self.canvas.buffer_rgba()).convert("RGB")
        self.frames.append(picture.quantize(palette=self.palette, dither=Image.Dither.NONE))
        self.pauses.append(pause)

    def gif(self) -> bytes:
        file = io.BytesIO()
        self.frames[0].save(
            file, "GIF", save_all=True, append_images=self.frames[1:], duration=self.pauses, loop=0, optimize=False
        )
        return file.getvalue()
