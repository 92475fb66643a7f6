"""The tab "Spectrum": which dimensions of the code carry the digits, and what one of them does."""

import torch
from matplotlib.colors import Normalize

from nicelib.analysis import keep_widest, turn_dimension, widest_first
from nicelib.explorer.controls import Control
from nicelib.explorer.scene import CHANGE, chart, field, images, line
from nicelib.explorer.tab import Drawing, Tab
from nicelib.model import NICE
from nicelib.plotting import BLUE, ORANGE


class Spectrum(Tab):
    name = "spectrum"

    def table(self) -> dict[str, Control]:
        rungs = (*range(21), 25, 30, 40, 50, 60, 80, 100, 150, 200, 250, 300, 400, 500, 600)  # fine where it counts
        ladder = [k for k in rungs if k < self.dim] + [self.dim]
        some = torch.linspace(0, len(self.explorer.digits) - 1, 10).long()
        self.some, controls = self.explorer.digits[some], super().table()
        controls["k"] |= {"value": min(ladder, key=lambda k: abs(k - 20)), "high": self.dim, "options": ladder}
        controls["rank"] |= {"high": self.dim - 1, "options": [rank - 1 for rank in ladder[1:]]}
        return controls

    def draw(self, model: NICE, k: int, image: int | str, rank: int, value: float) -> Drawing:
        real = torch.cat((self.explorer.pixels(image), self.some))
        z, _ = model(self.explorer.noisy(real, model))
        turned = turn_dimension(model, z[:1], rank, value)
        *kept, before, after = model.inverse(torch.cat((keep_widest(model, z, k), z[:1], turned))).cpu()
        order, change = widest_first(model), after - before
        spread, d = (-model.scaling.log_scale).exp()[order].cpu(), int(order[rank])
        most, bottom, top = change.abs().max().item(), spread.min().item(), 2 * spread.max().item()
        moved, ends = int((change.abs() > 0.02).sum()), Normalize(min(-most, -0.5), max(most, 0.5), clip=True)
        ranks, few = torch.arange(1, self.dim + 1), max(k, 1)
        lines = [line(ranks[:few], spread[:few], BLUE, f"the {k} kept", fill=True), line(ranks, spread, BLUE)]
        lines.append(line([rank + 1], [spread[rank].item()], ORANGE, "turned", dots=True))
        curve = chart("spectrum, 1 / exp(s)", lines, "rank + 1 (log)", (1, self.dim), (bottom, top), log="xy")
        own = [images(f"its z = {z[0, d]:.1f}", before[None]), images(f"z = {value:g}", after[None])]
        rows = [(0.2, [images("your image, and real digits", real)])]
        rows.append((0.2, [images(f"what {k} of {self.dim} dimensions explain", torch.stack(kept))]))
        return [*rows, (0.45, [curve, *own, field("change", change, ends, CHANGE, "of white")])], (
            f"rank {rank}: its place is row {d // self.side}, column {d % self.side}; 1 / exp(s) = {spread[rank]:.4f}; turning it "
            f"moves <b>{moved} pixel{'s' * (moved != 1)}</b> by more than 0.02 of white, the farthest by {most:.2f} (unclipped)"
        )
