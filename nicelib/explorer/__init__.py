"""The sample explorer: five tabs of controls, each with one picture drawn from the model."""

import weakref

import ipywidgets as widgets
from torch import Tensor

from nicelib.analysis import nats_per_pixel
from nicelib.explorer.code_space import CodeSpace
from nicelib.explorer.inpainting import Inpainting
from nicelib.explorer.likelihood import Likelihood
from nicelib.explorer.sample import Sample
from nicelib.explorer.spectrum import Spectrum
from nicelib.explorer.tab import Explored, Shown, Tab, close_widgets, weak
from nicelib.model import NICE
from nicelib.plotting import use_style

__all__ = ["SampleExplorer", "nats_per_pixel"]


class SampleExplorer(Shown, Explored):
    """Play with a trained model: ``SampleExplorer()`` as the last line of a cell shows it.

    The tabs are attributes, and so are their controls by name: ``explorer.sample.controls["temperature"].value = 0.7``
    moves a slider as a hand would, and ``explorer.sample.show(temperature=0.7)`` gives the tab's picture without widgets.

    It lives as long as it has a name or stands on the page; then it frees its model and widgets, as :meth:`close` does.

    Args:
        model: any NICE of square images; default: the shipped weights.
        digits: uint8 (N, D), the real images to play with, held out from training; default: the 500 of ``mnist-sample``.

    Raises:
        InputError: missing or damaged weights or digits; images that are not square, too few or of another size.
    """

    def __init__(self, model: NICE | None = None, digits: Tensor | None = None) -> None:
        super().__init__(model, digits)
        use_style()
        self.sample = Sample(self)
        self.code_space = CodeSpace(self)
        self.spectrum = Spectrum(self)
        self.likelihood = Likelihood(self)
        self.inpainting = Inpainting(self)
        self.tabs: tuple[Tab, ...] = (self.sample, self.code_space, self.spectrum, self.likelihood, self.inpainting)
        self.box = self._tab_bar = widgets.Tab(
            [tab.box for tab in self.tabs], titles=[tab.title for tab in self.tabs], selected_index=0
        )
        self._tab_bar.observe(weak(self._open), "selected_index")
        self._close = weakref.finalize(self, close_widgets, self.box)
        self._close.atexit = False
        self._open()

    def close(self) -> None:
        """Take it off the page and free its model, digits and widgets; the picture under way is drawn to its end."""
        if self._close.alive:
            self.inpainting.stop()
            self.worker.close()
            self._close()
            del self.model, self.digits

    def _open(self) -> None:
        tab = self.tabs[self._tab_bar.selected_index]
        if not tab.drawn:  # else its picture is there, and a run of inpainting goes on
            tab.request()

    def __repr__(self) -> str:
        if self.worker.closed:
            return "SampleExplorer, closed"
        parameters = sum(p.numel() for p in self.model.parameters())
        return f"SampleExplorer: a model of {parameters:,} parameters, {len(self.digits):,} real digits"
