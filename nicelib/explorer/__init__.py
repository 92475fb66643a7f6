"""The sample explorer: tabs of controls, each with one picture drawn from the model."""

import gc
import weakref
from typing import Any

import torch
from torch import Tensor

from nicelib.explorer.code_space import CodeSpace
from nicelib.explorer.explored import Explored
from nicelib.explorer.inpainting import Inpainting
from nicelib.explorer.layers import Layers
from nicelib.explorer.life import Page, Shown, close_page, weak
from nicelib.explorer.likelihood import Likelihood
from nicelib.explorer.sample import Sample
from nicelib.explorer.spectrum import Spectrum
from nicelib.explorer.tab import Tab
from nicelib.explorer.tour import tour
from nicelib.model import NICE
from nicelib.plotting import use_style

__all__ = ["SampleExplorer"]


class SampleExplorer(Shown, Explored):
    """Play with trained models: ``SampleExplorer()`` as the last line of a cell shows it.

    The tabs are attributes: ``explorer.sample.set(temperature=0.7)`` moves a slider as a hand would, and
    ``explorer.sample.show(temperature=0.7)`` puts the tab's picture on a page without widgets, and moves nothing.

    It lives as long as it has a name or stands on the page; then it frees its models and widget, as :meth:`close` does.

    Args:
        model: a NICE of square images, or several by name, ``{"shipped": load_pretrained(), "my own": model}``, to see them
            side by side; default: the shipped weights, and one logistic a pixel to compare.
        digits: uint8 (N, D), the real images to play with, held out from training; default: the 500 of ``mnist-sample``.
        labels: (N,), their classes, for the gallery.

    Raises:
        InputError: missing or damaged weights or digits; images that are not square, too few or of another size.
    """

    def __init__(
        self, model: NICE | dict[str, NICE] | None = None, digits: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        gc.collect()  # an earlier explorer without a name: its model is too large to wait for its turn
        use_style()
        labels = self._explore(model, digits, labels)
        self.sample, self.code_space, self.layers = Sample(self), CodeSpace(self), Layers(self)
        self.spectrum, self.likelihood, self.inpainting = Spectrum(self), Likelihood(self), Inpainting(self)
        tabs = (self.sample, self.code_space, self.layers, self.spectrum, self.likelihood, self.inpainting)
        self.tabs: dict[str, Tab] = {tab.name: tab for tab in tabs}
        fields = ("name", "title", "look_for", "takes", "controls", "actions")
        self.page = Page(
            side=self.side,
            digits=self.digits.numpy().tobytes(),
            classes=_classes(len(self.digits), labels),
            tabs=[{field: getattr(tab, field) for field in fields} for tab in tabs],
            tour=tour(self.digits) if self.digits.shape == (500, 784) else [],
            models=list(self.models),
            chosen=list(self.models)[:1],
            values={tab.name: {name: c["value"] for name, c in tab.controls.items()} for tab in tabs},
            tab="sample",
        )
        self.page.observe(weak(self._changed), ["values", "chosen", "tab"])
        self.page.on_msg(weak(self._message))
        self._close = weakref.finalize(self, close_page, self.page)
        self._close.atexit = False
        self._changed()

    def settle(self) -> None:
        """Wait until everything asked for is drawn."""
        self.worker.settle()

    def close(self) -> None:
        """Take it off the page and free its models, digits and widget; the picture under way is drawn to its end."""
        if self._close.alive:
            self.inpainting.stop()
            self.worker.close()
            self._close()
            self.models, self.shipped, self.digits = {}, None, self.digits[:0]
            self._codes.clear()

    def _changed(self, _: object = None) -> None:
        tab = self.tabs[self.page.tab]
        if tab.asked != (tab.loud(tab.values), self.page.chosen):  # else its picture is there, and a run goes on
            tab.request()

    def _message(self, _: object, content: dict[str, Any], __: object) -> None:
        tab = self.tabs[self.page.tab]
        if content.get("do") in ("save", *(action for _, _, action in tab.actions if isinstance(action, str))):
            getattr(tab, content["do"])()

    def __repr__(self) -> str:
        if self.worker.closed:
            return "SampleExplorer, closed"
        parameters = sum(p.numel() for p in self.model.parameters())
        return f"SampleExplorer: a model of {parameters:,} parameters, {len(self.digits):,} real digits"


def _classes(count: int, labels: Tensor | None) -> list[tuple[str, list[int]]]:
    """The gallery's columns: a class each, or ten columns without names."""
    names = labels if labels is not None else torch.arange(count) % 10
    columns = [(str(int(n)), (names == n).nonzero().flatten().tolist()) for n in names.unique()]
    return [(name if labels is not None else "", numbers) for name, numbers in columns]
