"""The tab "Sample": draws from the model, each with its own log-likelihood."""

import math

import torch

from nicelib.analysis import decode
from nicelib.explorer.scene import images
from nicelib.explorer.tab import Drawing, Tab, gauge
from nicelib.model import NICE
from nicelib.plotting import RED


class Sample(Tab):
    name = "sample"

    def draw(self, model: NICE, seed: int, number: int, temperature: float) -> Drawing:
        z = temperature * model.prior.sample((number, model.dim), torch.Generator().manual_seed(seed))
        x, nats = decode(model, z.to(model.scaling.log_scale))
        captions = [f"{value:,.0f}" for value in nats.tolist()]
        text = f"mean log-likelihood of these {number}: <b>{nats.mean():,.1f} nats</b>"
        if number > 1:
            text += f", from {nats.min():,.1f} to {nats.max():,.1f}"
        length = z.norm(dim=1)
        text += f"; their codes have length |z| = {length.mean():.1f}"
        samples = images(f"{number} samples", x, math.ceil(math.sqrt(number)), captions)
        return [(1, [samples, gauge(self.explorer, model, length, RED, "these samples")])], text
