"""The tab "Likelihood": how likely is an image of your own?"""

import math
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import torch
import traitlets
from matplotlib.axes import Axes
from torch import Tensor

from nicelib.analysis import disturb, nats_per_pixel
from nicelib.data import bits_per_dim
from nicelib.errors import InputError
from nicelib.evaluation import evaluate
from nicelib.explorer.tab import Drawing, Explored, Tab, as_png, button, panels, show_images, show_map, weak
from nicelib.plotting import BLUE, GREY, ORANGE, RED


class DrawingPad(anywidget.AnyWidget):
    """A square of grey pixels to draw on, by pointer or keyboard; ``value`` holds side * side bytes, row by row."""

    _script = Path(__file__).parent / "drawing_pad.js"
    _esm = _script.read_text(encoding="utf-8")  # given the path itself, anywidget would keep every pad
    side = traitlets.Int(28).tag(sync=True)
    value = traitlets.CBytes().tag(sync=True)


class Likelihood(Tab):
    title = "Likelihood"
    look_for = (
        "What does the model find likely? Draw a digit, or load a real one and shift, turn or dirty it. The map says which "
        "pixels surprise the model: strokes cost nats, and a few grey specks on a border that was always black cost thousands."
    )

    def __init__(self, explorer: Explored) -> None:
        reach, first = explorer.side // 4, min(370, len(explorer.digits) - 1)
        self.pad = DrawingPad(side=explorer.side, value=explorer.digits[first].numpy().tobytes())
        self.pad.layout.width = "auto"
        self.clear_button = button("Clear the pad", "eraser", self.clear, tooltip="Start with an empty, black pad")
        self.digit = widgets.IntSlider(first, 0, len(explorer.digits) - 1, description="load digit (number)")
        self.digit.observe(weak(self.load), "value")
        controls = {
            "right": widgets.IntSlider(0, -reach, reach, description="shift right (pixels)"),
            "down": widgets.IntSlider(0, -reach, reach, description="shift down (pixels)"),
            "turn": widgets.IntSlider(0, -180, 180, step=5, description="turn (degrees)"),
            "noise": widgets.FloatSlider(0, min=0, max=0.3, step=0.01, description="noise (std)"),
        }
        sliders = widgets.VBox([self.digit, *controls.values(), self.clear_button])
        self._held_out: Tensor | None = None
        super().__init__(explorer, controls | {"pad": self.pad}, self.pad, sliders)

    def load(self) -> None:
        self.pad.value = self.explorer.digits[self.digit.value].numpy().tobytes()

    def clear(self) -> None:
        self.pad.value = bytes(self.side**2)

    def held_out_nats(self) -> Tensor:
        """Nats of each of the explorer's digits (N,), measured once."""
        if self._held_out is None:
            self._held_out = evaluate(self.model, self.explorer.digits).per_image
        return self._held_out

    def image(self, pad: bytes, right: int = 0, down: int = 0, turn: int = 0, noise: float = 0.0) -> Tensor:
        """The pad after :func:`nicelib.analysis.disturb`: uint8 (1, D)."""
        pixels = torch.frombuffer(bytearray(pad), dtype=torch.uint8)
        if len(pixels) != self.model.dim:
            raise InputError(f"a pad of {len(pixels)} pixels; expected {self.model.dim}")
        return disturb(pixels[None], right, down, turn, noise)

    def draw(self, **values: Any) -> Drawing:
        pixels, digits = self.image(**values), self.held_out_nats()
        x = self.explorer.noisy(pixels)
        nats, by_pixel = self.model.log_prob(x).item(), nats_per_pixel(self.model, x)[0].cpu()

        figure, at = panels({"iiii.mmmm..zzzzzzz": 1.7, ".ddddddddddddddddd": 1.25}, gap=0.8)
        show_images(at["i"], pixels, self.side, "what the model sees")
        by_place = by_pixel.view(self.side, self.side).numpy()
        shown = show_map(at["m"], by_place, "nats a pixel gives", cmap="viridis", vmin=-6, vmax=math.log(256))
        figure.colorbar(shown, cax=at["m"].inset_axes((1.04, 0, 0.06, 1)), extend="min")
        self._draw_code(at["z"], self.model(x)[0][0].cpu())
        self._draw_others(at["d"], nats)
        share = (digits < nats).double().mean().item()
        return as_png(figure), (
            f"<b>{nats:,.1f} nats</b>, {bits_per_dim(nats, self.model.dim):.2f} bits/dim: likelier than {share:.0%} of the "
            f"{len(digits)} held-out digits; the worst pixel gives {by_pixel.min():,.1f} nats"
        )

    def _draw_code(self, ax: Axes, z: Tensor) -> None:
        edges, prior = torch.linspace(-10, 10, 41), self.model.prior.log_prob
        ax.hist(z.clamp(-10, 10).tolist(), edges.tolist(), density=True, color=BLUE, alpha=0.5, label="its code z")
        density = prior(edges).exp().numpy()
        ax.plot(edges.numpy(), density, color=ORANGE, label=f"the {self.model.config['latent']} prior")
        ax.set(title="z against its prior", xlabel="z")

    def _draw_others(self, ax: Axes, nats: float) -> None:
        digits, test = self.held_out_nats(), self.explorer.test_nats
        low, high = digits.quantile(0.01).item() - 200, digits.max().item() + 200
        bins, held_out = torch.linspace(low, high, 60), f"{len(digits)} held-out digits"
        ax.hist(digits.tolist(), bins.tolist(), density=True, color=GREY, alpha=0.5, label=held_out)
        if test is not None:
            density = torch.histogram(test.clamp(low, high), bins, density=True).hist.numpy()
            middle = ((bins[1:] + bins[:-1]) / 2).numpy()
            ax.plot(middle, density, color=BLUE, lw=1.5, label=f"{len(test):,} of MNIST test")
        inside = min(max(nats, low), high)
        label = "this image" if inside == nats else f"this image, far outside: {nats:,.0f}"
        ax.axvline(inside, color=RED, lw=2, label=label)
        ax.set(xlabel="log-likelihood (nats)", yticks=[], title="this image among real digits")
