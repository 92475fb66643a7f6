"""The tab "Spectrum": which dimensions of the code carry the digits, and what one of them does."""

import ipywidgets as widgets
import torch
from torch import Tensor

from nicelib.analysis import keep_widest, turn_dimension, widest_first
from nicelib.explorer.tab import Drawing, Explored, Tab, as_png, panels, show_images, show_map
from nicelib.plotting import BLUE, ORANGE


class Spectrum(Tab):
    title = "Spectrum"
    look_for = (
        "How many of the dimensions matter? Keep only the k with most variation, 1 / exp(s), and set all others to the prior's "
        "mean, 0: the pictures show what those k still explain. Then turn one dimension by hand and see which pixels move."
    )

    def __init__(self, explorer: Explored) -> None:
        dim = explorer.model.dim
        controls = {
            "k": widgets.IntSlider(dim // 3, 0, dim, description="k dimensions kept"),
            "digit": explorer.digit_slider(1 / 2, "digit to turn (number)"),
            "rank": widgets.IntSlider(0, 0, dim - 1, description="dimension, by rank"),
            "value": widgets.FloatSlider(6.0, min=-10, max=10, step=0.5, description="its z"),
        }
        super().__init__(explorer, controls, *controls.values())

    def keep(self, z: Tensor, k: int) -> Tensor:
        """:func:`nicelib.analysis.keep_widest` of the explorer's model."""
        return keep_widest(self.model, z, k)

    def draw(self, k: int, digit: int, rank: int, value: float) -> Drawing:
        digits, dim, side = self.explorer.digits, self.model.dim, self.side
        some = digits[torch.linspace(0, len(digits) - 1, 10).long()]
        z, _ = self.model(self.explorer.noisy(torch.cat((some, digits[digit : digit + 1]))))
        turned = turn_dimension(self.model, z[-1:], rank, value)
        *kept, before, after = self.model.inverse(torch.cat((self.keep(z[:-1], k), z[-1:], turned))).cpu()
        order, change = widest_first(self.model), (after - before).view(side, side)
        spread, d, most = (
            (-self.model.scaling.log_scale).exp()[order].cpu(),
            int(order[rank]),
            change.abs().max().item(),
        )

        figure, at = panels({"r": 0.75, "k": 0.75, "...sssssssssss..bbbbbb.aaaaaa.mmmmmm": 1.45}, gap=0.45)
        show_images(at["r"], some, side, "real digits")
        show_images(at["k"], torch.stack(kept), side, f"what {k} of {dim} dimensions explain")
        at["s"].semilogy(spread.numpy(), color=BLUE)
        at["s"].axvspan(0, k, color=BLUE, alpha=0.12, lw=0)
        at["s"].plot(rank, spread[rank].item(), "o", color=ORANGE)
        at["s"].set(xlabel="dimension, sorted (shaded: kept)", title="spectrum, 1 / exp(s)")
        show_images(at["b"], before[None], side, f"its z = {z[-1, d]:.1f}")
        show_images(at["a"], after[None], side, f"z = {value:.1f}")
        edge = max(most, 1e-6)
        show_map(at["m"], change.numpy(), "purple: brighter\norange: darker", cmap="PuOr", vmin=-edge, vmax=edge)
        return as_png(figure), (
            f"dimension of rank {rank}: pixel in row {d // side}, column {d % side}, 1 / exp(s) = {spread[rank]:.4f}; turning it "
            f"moves <b>{(change.abs() > 0.02).sum()} pixels</b> by more than 0.02, the farthest by {most:.2f}"
        )
