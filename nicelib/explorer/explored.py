"""What the tabs work on: models, real digits, and what is typical of them."""

import math

import torch
from torch import Tensor

from nicelib.analysis import one_logistic_a_pixel
from nicelib.data import dequantise, load_digits, load_pixels
from nicelib.errors import InputError
from nicelib.explorer.controls import pixels_of
from nicelib.explorer.life import Page, Worker
from nicelib.explorer.scene import Panel, chart, histogram, upright
from nicelib.model import NICE
from nicelib.plotting import BLUE, GREY
from nicelib.pretrained import load_pretrained


class Explored:
    """Models by name, real digits, the page and the worker that draws."""

    page: Page

    def _explore(
        self, model: NICE | dict[str, NICE] | None, digits: Tensor | None, labels: Tensor | None
    ) -> Tensor | None:
        self.shipped: NICE | None = None  # the shipped model, if it was not given
        if model is None:
            start = one_logistic_a_pixel(load_pixels("mnist-sample", "train"))
            self.shipped = load_pretrained()
            model = {"the shipped model": self.shipped, "one logistic a pixel": start}
        self.models = dict(model) if isinstance(model, dict) else {"this model": model}
        if digits is None:
            digits, labels = load_digits("mnist-sample", "test")
        self.digits = digits.cpu()
        self._check()
        self.side, self.worker = math.isqrt(self.digits.shape[1]), Worker()
        self._codes: dict[str, tuple[Tensor, Tensor]] = {}
        return labels

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
        generator = torch.Generator().manual_seed(0)
        return dequantise(pixels.cpu(), generator).to((model or self.model).scaling.log_scale)

    def pixels(self, value: int | str) -> Tensor:
        """An image as a control holds it -> uint8 (1, D)."""
        return self.digits[value][None] if isinstance(value, int) else pixels_of(value, self.side**2)

    @torch.no_grad()
    def held_out(self, model: NICE) -> tuple[Tensor, Tensor]:
        """Of each of the digits log p in nats and |z|, the length of its code: (N,), (N,); measured once a model."""
        name = next(name for name, one in self.models.items() if one is model)
        if name not in self._codes:
            z, log_det = model(self.noisy(self.digits, model))
            nats = model.prior.log_prob(z).sum(1) + log_det
            self._codes[name] = nats.cpu(), z.norm(dim=1).cpu()
        return self._codes[name]

    def _check(self) -> None:
        if not self.models:
            raise InputError("no model; expected a NICE, or several by name")
        for model in self.models.values():
            if math.isqrt(model.dim) ** 2 != model.dim:
                raise InputError(
                    f"dim = {model.dim}; the explorer draws square images: expected 784, or another square"
                )
            if self.digits.shape[1:] != (model.dim,) or len(self.digits) < 2 or self.digits.dtype != torch.uint8:
                raise InputError(
                    f"digits of shape {tuple(self.digits.shape)} and dtype {self.digits.dtype}; "
                    f"expected torch.uint8 (N, {model.dim}) with N at least 2, for a model of dim = {model.dim}"
                )


def gauge(explorer: Explored, model: NICE, length: Tensor, colour: str, label: str) -> Panel:
    """Histograms of |z|, of 1,000 draws from the prior and of the real digits, with the lengths (N,) of some codes."""
    draws = model.prior.sample((1000, model.dim), torch.Generator().manual_seed(0)).norm(dim=1)
    digits = explorer.held_out(model)[1]
    low, high = 0.3 * draws.min().item(), max(digits.max().item(), 4 * draws.max().item())
    bins = torch.logspace(math.log10(low), math.log10(high), 50)
    lines = [histogram(digits, bins, GREY, "real digits"), histogram(draws, bins, BLUE, "draws from the prior")]
    if len(length) > 1:
        lines.append(histogram(length, bins, colour, label))
    else:
        lines.append(upright(length.item(), colour, label, low, high))
    return chart("|z|: how far from the mode", lines, "|z|", (low, high), 0, log="x")
