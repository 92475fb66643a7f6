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
        length, many = z.norm(dim=1), number > 1
        text = f"{f'mean log-likelihood of these {number}' if many else 'its log-likelihood'}: <b>{nats.mean():,.0f} nats</b>"
        text += f", from {nats.min():,.0f} to {nats.max():,.0f}" * many
        text += f"; {'their codes have on average' if many else 'its code has'} length |z| = {length.mean():.1f}"
        samples = images(f"{number} sample{'s' * many}", x, math.ceil(math.sqrt(number)), captions)
        return [(1, [samples, gauge(self.explorer, model, length, RED, "these samples")])], text
