"""The tab "Code space": a walk along real digits, through their codes and through their pixels, that plays in the page."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nicelib.analysis import walks
from nicelib.explorer.scene import chart, images, line, play
from nicelib.explorer.tab import Drawing, Tab
from nicelib.model import NICE
from nicelib.plotting import GREEN, GREY, RED

STEPS = 20  # on the way from one image to the next; the page blends what lies between


class CodeSpace(Tab):
    name = "code_space"
    _legs: dict[tuple[int, bytes], dict[str, Tensor]] = {}

    def walk(self, model: NICE, images: list[int | str]) -> dict[str, Tensor]:
        """:func:`nicelib.analysis.walks` from image to image; image i is frame ``STEPS * i``; the newest legs are kept."""
        legs: dict[int, Any] = {}
        for a, b in pairwise(map(self.explorer.pixels, images)):
            key = id(model), torch.cat((a, b)).numpy().tobytes()
            ends = [self.explorer.noisy(end, model) for end in (a, b)]  # each by itself: the same in both its legs
            legs[len(legs)] = key, self._legs.get(key) or walks(model, torch.cat(ends), STEPS + 1)
        self._legs = dict(legs.values())
        return {name: torch.cat([leg[name][min(i, 1) :] for i, (_, leg) in legs.items()]) for name in legs[0][1]}

    def draw(self, model: NICE, chain: list[int | str], t: float) -> Drawing:
        walk, legs = self.walk(model, chain), len(chain) - 1
        places = torch.arange(STEPS * legs + 1).double() / (STEPS * legs)
        pair = (("code", "codes", GREEN, False), ("pixels", "pixels", RED, True))
        chosen = places[::STEPS], walk["code_nats"][::STEPS], GREY
        lines = [line(*chosen, "straight, digit to digit", dash=True), line(*chosen, dots=True)]
        lines += [line(places, walk[f"{p}_nats"], c, f"between {ends}", dash=d, follow=True) for p, ends, c, d in pair]
        tracks = {ends: walk[path] for path, ends, _, _ in pair}
        name = {n: f"a{'n' * (c[:1] == '8')} {c or 'digit'}" for c, ns in self.explorer.page.classes for n in ns}
        names = [(i / legs, name.get(image, "an image")) for i, image in enumerate(chain)]
        player = play(tracks, chart("log-likelihood (nats)", lines, "t", xticks=names))
        few = torch.linspace(0, STEPS * legs, legs * math.ceil(10 / legs) + 1).round().long()  # the chosen among them
        rows = [(0.5, [player])] + [(0.2, [images(title, x[few])]) for title, x in tracks.items()]
        now = [f'<b class="now">{np.interp(t, places, walk[p + "_nats"].cpu()):,.0f}</b> nats' for p, *_ in pair]
        return rows, f'at t = <b class="now">{t:.2f}</b>: {now[0]} between codes, {now[1]} between pixels'
