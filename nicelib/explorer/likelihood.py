"""The tab "Likelihood": how likely is an image of your own?"""

import math
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.colors import SymLogNorm

from nicelib.analysis import disturb, nats_per_pixel
from nicelib.explorer.scene import Panel, chart, field, histogram, images, line, upright
from nicelib.explorer.tab import Drawing, Tab, gauge
from nicelib.model import NICE
from nicelib.plotting import BLUE, GREY, ORANGE, RED


class Likelihood(Tab):
    name = "likelihood"

    def draw(self, model: NICE, image: int | str, **done: Any) -> Drawing:
        pixels = disturb(self.explorer.pixels(image), **done)
        x = self.explorer.noisy(pixels, model)
        by_pixel, (z, log_det) = nats_per_pixel(model, x)[0].cpu(), (part.cpu() for part in model(x))
        own, place, nats = by_pixel.sum().item(), int(by_pixel.argmin()), self.explorer.held_out(model)[0]
        even = SymLogNorm(6, linscale=1.5, vmin=-1000, vmax=6, clip=True)  # from -6 to 6; by powers of 10 below
        shown = field("nats a pixel gives", by_pixel, even, colormaps["viridis"], "nats", -6)
        worst = [int(i) for i in by_pixel.argsort()[:5] if by_pixel[i] < -100]
        near = lambda a, b: math.dist(divmod(a, self.side), divmod(b, self.side)) < 4  # noqa: E731
        shown["ring"] = [a for n, a in enumerate(worst) if not any(near(a, b) for b in worst[:n])]
        rows = [(0.5, [images("what it sees", pixels) | {"given": True}, shown, self._others(model, nats, own)])]
        rows.append((0.45, [self._code(model, z[0]), gauge(self.explorer, model, z.norm(dim=1), RED, "this image")]))
        applied = ", ".join(f"{self.controls[name]['label']} {value:g}" for name, value in done.items() if value)
        return rows, (
            f"<b>{own:,.0f} nats</b> = prior {round(own, 0) - log_det.round().item():,.0f} + log-det {log_det.item():,.0f}: "
            f"likelier than <b>{(nats < own).sum()} of {len(nats)}</b> held-out digits; "
            f"|z| = {z.norm():.1f}<span class='least'>; the least likely pixel, row {place // self.side}, column "
            f"{place % self.side}, gives {by_pixel.min():,.0f} nats</span>{'; applied: ' * bool(applied)}{applied}"
        )

    def _code(self, model: NICE, z: torch.Tensor) -> Panel:
        edges = torch.linspace(-10, 10, 41)
        prior = line(edges, model.prior.log_prob(edges).exp(), ORANGE, f"the {model.config['latent']} prior")
        ticks = [(-10, "≤ -10"), (0, "0"), (10, "≥ 10")]
        return chart("its code z", [histogram(z, edges, BLUE, "entries", True), prior], "z", (-10, 10), 0, xticks=ticks)

    def _others(self, model: NICE, nats: torch.Tensor, own: float) -> Panel:
        low, high = nats.quantile(0.01).item() - 200, nats.max().item() + 200
        bins = torch.linspace(low, high, 50)
        lines = [histogram(nats, bins, GREY, f"{len(nats)} held out"), upright(own, RED, "this image", low, high)]
        return chart("among real digits", lines, "log-likelihood (nats)", (low, high), 0)
