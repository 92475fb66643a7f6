"""The tab "Code space": from one real digit to another, through their codes and through their pixels."""

import ipywidgets as widgets
import torch
from torch import Tensor

from nicelib.analysis import walks
from nicelib.explorer.tab import Drawing, Explored, Tab, as_png, panels, show_images
from nicelib.plotting import GREEN, RED


class CodeSpace(Tab):
    title = "Code space"
    look_for = (
        "Is halfway between two codes a digit? Slide from digit a to digit b, once in code space (back through f<sup>-1</sup>) "
        "and once in pixels, a cross-fade. Watch the curve: which path does the model find likelier?"
    )

    def __init__(self, explorer: Explored) -> None:
        controls = {
            "a": explorer.digit_slider(1 / 25, "digit a (number)"),
            "b": explorer.digit_slider(3 / 4, "digit b (number)"),
            "t": widgets.FloatSlider(0.5, min=0, max=1, step=0.02, description="t, from a (0) to b (1)"),
        }
        self._walk: tuple[tuple[int, int], dict[str, Tensor]] | None = None
        super().__init__(explorer, controls, *controls.values())

    def walk(self, a: int, b: int) -> dict[str, Tensor]:
        """:func:`nicelib.analysis.walks` between two of the explorer's digits, in 51 steps; the last one is kept."""
        if not self._walk or self._walk[0] != (a, b):
            self._walk = (a, b), walks(self.model, self.explorer.noisy(self.explorer.digits[[a, b]]))
        return self._walk[1]

    def draw(self, a: int, b: int, t: float) -> Drawing:
        walk, i, ts, nats = self.walk(a, b), round(50 * t), torch.linspace(0, 1, 51).numpy(), {}
        figure, at = panels({"C": 0.8, "P": 0.8, "ccpp.nnnnnnn": 1.4})
        for path, ends, style, colour in (("code", "codes", "-", GREEN), ("pixels", "pixels", "--", RED)):
            strip, big, along = at[path[0].upper()], at[path[0]], walk[f"{path}_nats"].cpu().numpy()
            show_images(strip, walk[path][::5], self.side, f"straight line between the {ends}", column=t * 10)
            show_images(big, walk[path][i : i + 1], self.side, f"{path}, t = {t:.2f}")
            at["n"].plot(ts, along, style, color=colour, label=f"between the {ends}")
            at["n"].plot(ts[i], along[i], "o", color=colour)
            nats[path] = along[i]
        at["n"].set(xlabel="t", title="log-likelihood (nats)")
        text = f"at t = {t:.2f}: <b>{nats['code']:.1f} nats</b> by the codes, {nats['pixels']:.1f} by the pixels"
        return as_png(figure), text
