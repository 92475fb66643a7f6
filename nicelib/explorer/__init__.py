"""The sample explorer: tabs of controls, each with one picture drawn from the model."""

import gc
import math
import weakref
from typing import Any

import torch
from torch import Tensor

from nicelib.analysis import one_logistic_a_pixel
from nicelib.bijection import check_tensor
from nicelib.checkpoints import unwrap
from nicelib.data import dequantise, load_digits, load_pixels
from nicelib.errors import InputError
from nicelib.explorer.code_space import CodeSpace
from nicelib.explorer.controls import TOUR, pixels_of, text_of
from nicelib.explorer.inpainting import Inpainting
from nicelib.explorer.layers import Layers
from nicelib.explorer.life import Page, Shown, Worker, close_page, weak
from nicelib.explorer.likelihood import Likelihood
from nicelib.explorer.sample import Sample
from nicelib.explorer.spectrum import Spectrum
from nicelib.explorer.tab import Tab
from nicelib.model import NICE
from nicelib.plotting import use_style
from nicelib.pretrained import load_pretrained

__all__ = ["SampleExplorer"]

#: the shipped model as long as some explorer has it, so that the cell can be run again at no cost
_shipped: weakref.WeakValueDictionary[str, NICE] = weakref.WeakValueDictionary()


class SampleExplorer(Shown):
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
        with torch.device("cpu"):  # whatever torch's default device is; the worker's thread has none
            if ours := model is None:
                shipped = _shipped.setdefault("one", _shipped.get("one") or load_pretrained())
                start = one_logistic_a_pixel(load_pixels("mnist-sample", "train"))
                model = {"the shipped model": shipped, "one logistic a pixel": start}
            models = model if isinstance(model, dict) else {"this model": model}
            self.models = {name: unwrap(one) for name, one in models.items()}
            if digits is None:
                digits, labels = load_digits("mnist-sample", "test")
            self._check(digits, labels)
            self.digits = digits.cpu()
            self.side, self.worker = math.isqrt(self.digits.shape[1]), Worker()
            self._runs: dict[int, Any] = {}  # of inpainting, put aside while a tour is on
            self._codes: dict[int, tuple[Tensor, Tensor]] = {}
            tabs = Sample(self), CodeSpace(self), Layers(self), Spectrum(self), Likelihood(self), Inpainting(self)
            self.sample, self.code_space, self.layers, self.spectrum, self.likelihood, self.inpainting = tabs
            self.tabs: dict[str, Tab] = {tab.name: tab for tab in tabs}
            self.page = Page(
                side=self.side,
                digits=self.digits.numpy().tobytes(),
                classes=_classes(len(self.digits), labels),
                tabs=[tab.words | {"controls": tab.controls} for tab in tabs],
                tour=_tour(self.digits) if ours and self.digits.shape == (500, 784) else [],
                models=list(self.models),
                chosen=list(self.models)[:1],
                values={tab.name: {name: c["value"] for name, c in tab.controls.items()} for tab in tabs},
                tab="sample",
            )
        self.page.comm._reply_subshell_for = None  # or ipykernel 7.4 lets the page wait for the cell that runs
        self.page.observe(weak(self._changed), ["values", "chosen", "tab"])
        self.page.observe(weak(self._toured), "stop")
        self.page.on_msg(weak(self._message))
        weakref.finalize(self, self.worker.close)  # at Python's exit too: torch aborts if it still computes then
        self._close = weakref.finalize(self, close_page, self.page)
        self._close.atexit = False
        self._changed()

    @property
    def model(self) -> NICE:
        """The first of the models."""
        return next(iter(self.models.values()))

    @property
    def chosen(self) -> dict[str, NICE]:
        """The models that are shown."""
        return {name: self.models[name] for name in self.page.chosen}

    def noisy(self, pixels: Tensor, model: NICE | None = None) -> Tensor:
        """Dequantised pixels in the model's dtype, on its device; the same noise every time."""
        return dequantise(pixels.cpu(), torch.Generator().manual_seed(0)).to((model or self.model).scaling.log_scale)

    def pixels(self, value: int | str) -> Tensor:
        """An image as a control holds it -> uint8 (1, D)."""
        return self.digits[value][None] if isinstance(value, int) else pixels_of(value, self.side**2)

    @torch.no_grad()
    def held_out(self, model: NICE) -> tuple[Tensor, Tensor]:
        """Of each of the digits log p in nats and ``|z|``, the length of its code: (N,), (N,); measured once a model."""
        if id(model) not in self._codes:
            z, log_det = model(self.noisy(self.digits, model))
            self._codes[id(model)] = (model.prior.log_prob(z).sum(1) + log_det).cpu(), z.norm(dim=1).cpu()
        return self._codes[id(model)]

    def settle(self) -> None:
        """Wait until everything asked for is drawn."""
        self.worker.settle()

    def close(self) -> None:
        """Take it off the page and free its models, digits and widget; the picture under way is drawn to its end."""
        if self._close.alive:
            self.inpainting.stop()
            self.worker.close()
            self._close()
            self.models, self.digits, self._codes, self.inpainting.runs = {}, self.digits[:0], {}, {}

    def _changed(self, _: object = None) -> None:
        tab = self.tabs[self.page.tab]
        if tab.asked != (tab.loud(tab.values), self.page.chosen):  # else its picture is there, and a run goes on
            tab.request()

    def _toured(self, change: dict[str, Any]) -> None:
        """Each stop of the tour begins without a run; its end brings back what was run before it."""
        tab = self.inpainting
        tab.stop()
        self._runs = tab.kept if change["old"] < 0 else self._runs
        tab.kept, tab.runs, tab.asked = self._runs if change["new"] < 0 else {}, {}, None
        self.page.inpainting = {}
        self._changed()

    def _message(self, _: object, content: dict[str, Any], __: object) -> None:
        tab = self.tabs[self.page.tab]
        if content.get("do") in ("save", *(action for _, _, action in tab.words["actions"] if isinstance(action, str))):
            getattr(tab, content["do"])()

    def _check(self, digits: Any, labels: Any) -> None:
        if not self.models:
            raise InputError("no model; expected a NICE, or several by name")
        for model in self.models.values():
            if math.isqrt(model.dim) ** 2 != model.dim:
                raise InputError(f"dim = {model.dim}; the explorer draws square images: expected 784 or another square")
            for p in model.parameters():
                if p.is_meta or p.dtype not in (torch.float32, torch.float64):
                    raise InputError(f"a model in {p.dtype} on {p.device}; expected float32 or float64: model.float()")
            wanted = f"torch.uint8 (N, {model.dim}) with N at least 2, for a model of dim = {model.dim}"
            fits = lambda d: d.shape[1:] == (model.dim,) and len(d) > 1 and d.dtype == torch.uint8 and not d.is_meta  # noqa: B023, E731
            check_tensor("digits", digits, wanted, fits)
        if labels is not None:
            whole = lambda n: n.shape == digits.shape[:1] and torch.can_cast(n.dtype, torch.int64)  # noqa: E731
            check_tensor("labels", labels, f"whole numbers ({len(digits)},), one a digit", whole)

    def __repr__(self) -> str:
        if self.worker.closed:
            return "SampleExplorer, closed"
        parameters = sum(p.numel() for p in self.model.parameters())
        return f"SampleExplorer: {parameters:,} parameters, {len(self.digits):,} real digits. To play, run its cell."


def _classes(count: int, labels: Tensor | None) -> list[tuple[str, list[int]]]:
    """The gallery's columns: a class each, or ten columns without names."""
    names = labels if labels is not None else torch.arange(count) % 10
    return [(str(int(n)) if labels is not None else "", (names == n).nonzero()[:, 0].tolist()) for n in names.unique()]


def _tour(digits: Tensor) -> list[dict[str, Any]]:
    """The tour of tabs.toml, for the 500 digits of ``mnist-sample``."""
    speck = digits[370].index_fill(0, torch.tensor(0), 40)  # of 255: a dark grey, in the corner
    bold = torch.max_pool2d(digits[400].view(1, 28, 28).float(), 2, 1, 1)[:, :28, :28]  # each stroke is a pixel broader
    made = {"empty": 0 * speck, "speck": speck, "bold": bold.byte().flatten()}
    filled = lambda moved: {k: text_of(made[v]) if v in [*made] else v for k, v in moved.items()}  # noqa: E731
    return [stop | {name: filled(stop.get(name, {})) for name in ("values", "then")} for stop in TOUR]
