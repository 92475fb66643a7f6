"""The tab "Sample": draws from the model, each with its own log-likelihood."""

import math

import torch

from nicelib.analysis import decode
from nicelib.explorer.controls import Control, number, slider
from nicelib.explorer.explored import gauge
from nicelib.explorer.scene import images
from nicelib.explorer.tab import Drawing, Tab
from nicelib.model import NICE
from nicelib.plotting import RED


class Sample(Tab):
    name, title = "sample", "Sample"
    look_for = (
        "What has the model learnt? Every image is f<sup>-1</sup>(temperature &times; z), z from the prior, with its nats below. "
        "Lower the temperature: the likelihood rises, yet the digits do not get better. Click one to hand it to another tab."
    )
    actions = [("New samples", "Take the next seed", {"seed": 1})]

    def table(self) -> dict[str, Control]:
        return {
            "seed": number("seed", "Which random numbers: the same seed draws the same codes z, for every model"),
            "number": slider("images", 36, 1, 100, 1, "How many images to draw"),
            "temperature": slider(
                "temperature", 1.0, 0, 1.5, 0.05, "What z is multiplied by: 0 gives the mode, 1 the model"
            ),
        }

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
