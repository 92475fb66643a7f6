"""The tab "Code space": a walk along real digits, through their codes and through their pixels, that plays in the page."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from nicelib.analysis import walks
from nicelib.explorer.scene import chart, images, line, play
from nicelib.explorer.tab import Drawing, Tab
from nicelib.model import NICE
from nicelib.plotting import GREEN, RED

FRAMES = 31  # on the way from one image to the next; the page blends what lies between


class CodeSpace(Tab):
    name = "code_space"
    _legs: dict[tuple[int, bytes], dict[str, Tensor]] = {}

    def walk(self, model: NICE, images: list[int | str]) -> dict[str, Tensor]:
        """:func:`nicelib.analysis.walks` from image to image, one after the other; the newest legs are kept."""
        legs: dict[int, Any] = {}
        for a, b in pairwise(images):
            pixels = torch.cat((self.explorer.pixels(a), self.explorer.pixels(b)))
            key = id(model), pixels.numpy().tobytes()
            leg = self._legs.get(key) or walks(model, self.explorer.noisy(pixels, model), FRAMES)
            legs[len(legs)] = key, leg
        self._legs = dict(legs.values())
        return {name: torch.cat([leg[name] for _, leg in legs.values()]) for name in leg}

    def draw(self, model: NICE, chain: list[int | str], t: float) -> Drawing:
        walk = self.walk(model, chain)
        places = torch.linspace(0, 1, len(walk["code"]))
        pair = (("code", "codes", GREEN, False), ("pixels", "pixels", RED, True))
        lines = [line(places, walk[f"{p}_nats"], c, f"between {ends}", dash=d, follow=True) for p, ends, c, d in pair]
        tracks = {f"between the {ends}": walk[path] for path, ends, _, _ in pair}
        player = play(tracks, chart("log-likelihood (nats)", lines, "t"))
        few = torch.linspace(0, len(places) - 1, 11).round().long()
        rows = [(0.5, [player])] + [(0.2, [images(t, x[few]) | {"given": "pix" in t}]) for t, x in tracks.items()]
        nats = [walk[f"{path}_nats"][round(t * (len(places) - 1))] for path in ("code", "pixels")]
        now = [f'<b class="now">{value:,.1f}</b> nats' for value in nats]  # the page keeps them at its own t
        return rows, f'at t = <b class="now">{t:.2f}</b>: {now[0]} between the codes, {now[1]} between the pixels'
