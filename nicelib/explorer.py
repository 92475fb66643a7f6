"""The sample explorer of notebook 07: five tabs of controls, each with one picture drawn from the model."""

import html
import io
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anywidget
import ipywidgets as widgets
import torch
import traitlets
from IPython import display
from ipywidgets.widgets.widget_description import DescriptionWidget
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nicelib.analysis import disturb, keep_widest, nats_per_pixel, turn_dimension, walks, widest_first
from nicelib.checkpoints import write_atomically
from nicelib.data import bits_per_dim, dequantise, load_pixels, quantise
from nicelib.errors import InputError
from nicelib.evaluation import evaluate
from nicelib.inpainting import PARTS, RULES, hidden_part, inpaint
from nicelib.model import NICE
from nicelib.plotting import BLUE, GREEN, GREY, ORANGE, RED, image_grid, use_style
from nicelib.pretrained import load_pretrained, load_test_nats


class SampleExplorer(widgets.VBox):
    """Play with a trained model: ``SampleExplorer()`` as the last line of a cell shows it.

    The tabs are attributes, and so are their controls by name: ``explorer.sample.controls["temperature"].value = 0.7``
    moves a slider as a hand would, and ``explorer.sample.show(temperature=0.7)`` gives the tab's picture without widgets.

    Args:
        model: any NICE of square images; default: the shipped weights.
        digits: uint8 (N, D), the real images to play with, held out from training; default: the 500 of ``mnist-sample``.

    Raises:
        InputError: missing or damaged weights or digits; images that are not square, too few or of another size.
    """

    def __init__(self, model: NICE | None = None, digits: Tensor | None = None) -> None:
        shipped = model is None
        self.model = load_pretrained() if shipped else model
        self.digits = load_pixels("mnist-sample", "test") if digits is None else digits
        self.side = math.isqrt(self.model.dim)
        if self.side**2 != self.model.dim:
            raise InputError(
                f"dim = {self.model.dim}; the explorer draws square images: expected 784, or another square"
            )
        if self.digits.shape[1:] != (self.model.dim,) or len(self.digits) < 2 or self.digits.dtype != torch.uint8:
            raise InputError(
                f"digits of shape {tuple(self.digits.shape)} and dtype {self.digits.dtype}; "
                f"expected torch.uint8 (N, {self.model.dim}) with N at least 2, for a model of dim = {self.model.dim}"
            )
        self.digits = self.digits.cpu()
        self.test_nats = load_test_nats() if shipped else None
        use_style()
        self.worker = _Worker()
        self.sample = Sample(self)
        self.code_space = CodeSpace(self)
        self.spectrum = Spectrum(self)
        self.likelihood = Likelihood(self)
        self.inpainting = Inpainting(self)
        self.tabs = (self.sample, self.code_space, self.spectrum, self.likelihood, self.inpainting)
        self._tab_bar = widgets.Tab(self.tabs, titles=[tab.title for tab in self.tabs], selected_index=0)
        self._tab_bar.observe(lambda change: self._open(self.tabs[change["new"]]), "selected_index")
        super().__init__([self._tab_bar])
        self._open(self.sample)

    def noisy(self, pixels: Tensor) -> Tensor:
        """Dequantised pixels in the model's dtype, on its device; the same noise every time."""
        x = dequantise(pixels, torch.Generator().manual_seed(0))
        return x.to(self.model.scaling.log_scale)

    def settle(self) -> None:
        """Wait until everything asked for is drawn."""
        self.worker.settle()

    def _open(self, tab: "Tab") -> None:
        if not tab.drawn:  # else its picture is there, and a run of inpainting goes on
            tab.request()

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.model.parameters())
        return f"SampleExplorer: a model of {parameters:,} parameters, {len(self.digits):,} real digits"


class _Worker:
    """Draws in the background, so that the page answers meanwhile; a tab's newer request replaces one that waits."""

    def __init__(self) -> None:
        self._waiting: dict[object, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._busy = False

    def submit(self, key: object, job: Callable[[], None]) -> None:
        with self._changed:
            self._waiting[key] = job
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._work, daemon=True).start()

    def settle(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._busy = False
                    self._changed.notify_all()
                    return
                job = self._waiting.pop(next(iter(self._waiting)))
            job()


class Tab(widgets.VBox):
    """Controls, one picture and one line of numbers; subclasses say what to draw from the controls' values."""

    title: str
    look_for: str  # one or two sentences above the controls

    def __init__(
        self, explorer: SampleExplorer, controls: dict[str, widgets.ValueWidget], *extra: widgets.Widget
    ) -> None:
        self.explorer, self.model, self.side = explorer, explorer.model, explorer.side
        self.controls = controls
        self.error: Exception | None = None
        self.drawn = 0  # pictures so far
        self.picture = widgets.Image(format="png", layout={"max_width": "100%", "align_self": "flex-start"})
        self.text = widgets.HTML()
        for control in controls.values():
            if isinstance(control, DescriptionWidget):
                _lay_out(control)
            control.observe(lambda change: self.request(), "value")
        rows = widgets.HBox([*controls.values(), *extra], layout={"flex_flow": "row wrap"})
        super().__init__([widgets.HTML(f"<p>{self.look_for}</p>"), rows, self.text, self.picture])

    def draw(self, **values: object) -> tuple[bytes, str]:
        """The values of the controls -> a PNG and a line of HTML. Runs in the background, without gradients."""
        raise NotImplementedError

    def request(self) -> None:
        """Ask for a new picture of the controls as they are now."""
        values = {name: control.value for name, control in self.controls.items()}
        self.explorer.worker.submit(self, lambda: self.put(lambda: self.draw(**values)))

    def put(self, draw: Callable[[], tuple[bytes, str]]) -> None:
        """Draw now and show the result; an error becomes the line of text, and the last picture stays."""
        try:
            with torch.no_grad():
                png, text = draw()
        except Exception as error:  # nobody above this thread would see it
            self.error = error
            self.text.value = f"<b>{type(error).__name__}: {html.escape(str(error))}</b>"
            return
        self.error = None
        self.picture.value, self.text.value = png, text
        self.drawn += 1

    def show(self, **values: object) -> display.Image:
        """Set controls by name, wait, and return the picture for a page without widgets.

        Raises:
            InputError: no control of that name. Whatever drawing raised is raised here again.
        """
        for name, value in values.items():
            if name not in self.controls:
                raise InputError(f"{name!r} is no control of this tab; expected one of {', '.join(self.controls)}")
            self.controls[name].value = value
        self.request()
        self.explorer.settle()
        if self.error:
            raise self.error
        return display.Image(self.picture.value, format="png")


class Sample(Tab):
    """Draws from the model, each with its own log-likelihood."""

    title = "Sample"
    look_for = (
        "What has the model learnt? Every image is f<sup>-1</sup>(temperature &times; z), z from the logistic prior, with its "
        "log-likelihood in nats below. Lower the temperature: the likelihood rises, yet the digits do not get better."
    )

    def __init__(self, explorer: SampleExplorer) -> None:
        new = widgets.Button(description="New samples", icon="random", tooltip="Take the next seed")
        save = widgets.Button(description="Save as PNG", icon="save", tooltip="Write this picture beside the notebook")
        new.on_click(lambda _: self.next_seed())
        save.on_click(lambda _: self.save())
        self.new_button, self.save_button = new, save
        controls = {
            "seed": widgets.BoundedIntText(0, 0, 2**31 - 1, description="seed"),
            "number": widgets.IntSlider(64, 1, 100, description="number of images"),
            "temperature": widgets.FloatSlider(1.0, min=0, max=1.5, step=0.05, description="temperature"),
        }
        super().__init__(explorer, controls, widgets.HBox([new, save]))

    def next_seed(self) -> None:
        seed = self.controls["seed"]
        seed.value = (seed.value + 1) % (seed.max + 1)

    def save(self) -> None:
        """Write the picture to the current folder, once it is drawn; the line of text says where, or why not."""
        seed, temperature = self.controls["seed"].value, self.controls["temperature"].value
        path = Path(f"nice_samples_seed{seed}_t{temperature:.2f}.png").absolute()

        def write() -> None:
            if self.error:  # the picture is of earlier values, and the line of text says why
                return
            try:
                write_atomically(path, lambda temporary: temporary.write_bytes(self.picture.value))
                self.text.value = f"saved {html.escape(str(path))}"
            except InputError as error:
                self.text.value = f"<b>{html.escape(str(error))}</b>"

        self.explorer.worker.submit(("save", path), write)

    def draw(self, seed: int, number: int, temperature: float) -> tuple[bytes, str]:
        x = self.model.sample(number, temperature, torch.Generator().manual_seed(seed))
        nats = self.model.log_prob(x).cpu()
        text = f"mean log-likelihood of these {number}: <b>{nats.mean():.1f} nats</b>"
        if number > 1:
            text += f", from {nats.min():.1f} to {nats.max():.1f}"
        return _png(_captioned(x, nats, self.side)), text


class CodeSpace(Tab):
    """Two real digits, the straight line between their codes, and the one between their pixels."""

    title = "Code space"
    look_for = (
        "Is halfway between two codes a digit? Slide from digit a to digit b, once in code space (back through f<sup>-1</sup>) "
        "and once in pixels, a cross-fade. Watch the curve: which path does the model find likelier?"
    )

    def __init__(self, explorer: SampleExplorer) -> None:
        last = len(explorer.digits) - 1
        controls = {
            "a": widgets.IntSlider(last // 25, 0, last, description="digit a (number)"),
            "b": widgets.IntSlider(3 * last // 4, 0, last, description="digit b (number)"),
            "t": widgets.FloatSlider(0.5, min=0, max=1, step=0.02, description="t, from a (0) to b (1)"),
        }
        self._path: tuple = ()
        super().__init__(explorer, controls)

    def walk(self, a: int, b: int) -> dict[str, Tensor]:
        """Both straight lines in 51 steps: ``code`` and ``pixels`` (51, D), with ``code_nats`` and ``pixels_nats`` (51,)."""
        if not self._path or self._path[0] != (a, b):
            self._path = ((a, b), walks(self.model, self.explorer.noisy(self.explorer.digits[[a, b]])))
        return self._path[1]

    def draw(self, a: int, b: int, t: float) -> tuple[bytes, str]:
        walk = {name: value.cpu() for name, value in self.walk(a, b).items()}
        i, ts = round(50 * t), torch.linspace(0, 1, 51)
        figure = Figure(figsize=(9, 4.3), layout="none")
        for row, (path, title) in enumerate((("code", "between the codes"), ("pixels", "between the pixels"))):
            strip = figure.add_axes((0.01, 0.76 - 0.24 * row, 0.98, 0.18))
            _show(strip, walk[path][::5], self.side, 11, f"straight line {title}", column=t * 10)
            big = figure.add_axes((0.01 + 0.17 * row, 0.04, 0.15, 0.33))
            _show(big, walk[path][i : i + 1], self.side, 1, f"{path}, t = {t:.2f}")
        curve = figure.add_axes((0.44, 0.11, 0.54, 0.33))
        for path, colour, style in (("code", GREEN, "-"), ("pixels", RED, "--")):
            curve.plot(
                ts, walk[f"{path}_nats"], style, color=colour, label=f"between the {path}".replace("code", "codes")
            )
            curve.plot(ts[i], walk[f"{path}_nats"][i], "o", color=colour)
        curve.set(xlabel="t", title="log-likelihood (nats)")
        curve.legend(fontsize=8)
        nats = {path: walk[f"{path}_nats"][i].item() for path in ("code", "pixels")}
        return _png(
            figure
        ), f"at t = {t:.2f}: <b>{nats['code']:.1f} nats</b> by the codes, {nats['pixels']:.1f} by the pixels"


class Spectrum(Tab):
    """Which dimensions of the code carry the digits, and what one of them does."""

    title = "Spectrum"
    look_for = (
        "How many of the dimensions matter? Keep only the k with most variation, 1 / exp(s), and set all others to the prior's "
        "mean, 0: the pictures show what those k still explain. Then turn one dimension by hand and see which pixels move."
    )

    def __init__(self, explorer: SampleExplorer) -> None:
        dim, last = explorer.model.dim, len(explorer.digits) - 1
        controls = {
            "k": widgets.IntSlider(dim // 3, 0, dim, description="k dimensions kept"),
            "digit": widgets.IntSlider(last // 2, 0, last, description="digit to turn (number)"),
            "rank": widgets.IntSlider(0, 0, dim - 1, description="dimension, by rank"),
            "value": widgets.FloatSlider(6.0, min=-10, max=10, step=0.5, description="its z"),
        }
        super().__init__(explorer, controls)

    def keep(self, z: Tensor, k: int) -> Tensor:
        """z (B, D) with all but the k dimensions of largest 1 / exp(s) at the prior's mean."""
        return keep_widest(self.model, z, k)

    def draw(self, k: int, digit: int, rank: int, value: float) -> tuple[bytes, str]:
        order = widest_first(self.model)
        spread = (-self.model.scaling.log_scale).exp()[order]
        digits = self.explorer.digits
        some = digits[torch.linspace(0, len(digits) - 1, 10).long()]
        x = self.explorer.noisy(torch.cat((some, digits[digit : digit + 1])))
        z, _ = self.model(x)
        turned = turn_dimension(self.model, z[-1:], rank, value)
        back = self.model.inverse(torch.cat((self.keep(z[:-1], k), z[-1:], turned)))
        change = (back[-1] - back[-2]).cpu().view(self.side, self.side)

        figure = Figure(figsize=(9, 4.7), layout="none")
        _show(figure.add_axes((0.01, 0.79, 0.98, 0.16)), some, self.side, 10, "real digits")
        kept = figure.add_axes((0.01, 0.55, 0.98, 0.16))
        _show(kept, back[:-2], self.side, 10, f"what {k} of {len(spread)} dimensions explain")
        curve = figure.add_axes((0.08, 0.11, 0.36, 0.31))
        curve.semilogy(spread.cpu().numpy(), color=BLUE)
        curve.axvspan(0, k, color=BLUE, alpha=0.12, lw=0)
        curve.plot(rank, spread[rank].item(), "o", color=ORANGE)
        curve.set(xlabel="dimension, sorted (shaded: kept)", title="spectrum, 1 / exp(s)")
        before = f"its z = {z[-1, order[rank]]:.1f}"
        _show(figure.add_axes((0.48, 0.03, 0.15, 0.36)), back[-2:-1], self.side, 1, before)
        _show(figure.add_axes((0.65, 0.03, 0.15, 0.36)), back[-1:], self.side, 1, f"z = {value:.1f}")
        moved = figure.add_axes((0.82, 0.03, 0.15, 0.36))
        most = max(change.abs().max().item(), 1e-6)
        moved.imshow(change.numpy(), cmap="PuOr", vmin=-most, vmax=most)
        moved.set_axis_off()
        moved.set_title("purple: brighter\norange: darker", fontsize=9)
        row, column = divmod(order[rank].item(), self.side)
        return _png(figure), (
            f"dimension of rank {rank}: pixel in row {row}, column {column}, 1 / exp(s) = {spread[rank]:.4f}; turning it moves "
            f"<b>{(change.abs() > 0.02).sum()} pixels</b> by more than 0.02, the farthest by {change.abs().max():.2f}"
        )


class DrawingPad(anywidget.AnyWidget):
    """A square of grey pixels to draw on, by pointer or keyboard; ``pixels`` holds side * side bytes, row by row."""

    _esm = Path(__file__).parent / "drawing_pad.js"
    side = traitlets.Int(28).tag(sync=True)
    value = traitlets.CBytes().tag(sync=True)


class Likelihood(Tab):
    """How likely is an image of your own?"""

    title = "Likelihood"
    look_for = (
        "What does the model find likely? Draw a digit, or load a real one and shift, turn or dirty it. The map says which "
        "pixels surprise the model: strokes cost nats, and a few grey specks on a border that was always black cost thousands."
    )

    def __init__(self, explorer: SampleExplorer) -> None:
        side, last = explorer.side, len(explorer.digits) - 1
        first = min(370, last)
        self.pad = DrawingPad(side=side, value=explorer.digits[first].numpy().tobytes())
        clear = widgets.Button(description="Clear the pad", icon="eraser", tooltip="Start with an empty, black pad")
        clear.on_click(lambda _: self.pad.set_trait("value", bytes(side * side)))
        self.clear_button = clear
        self.digit = widgets.IntSlider(first, 0, last, description="load digit (number)", continuous_update=True)
        _lay_out(self.digit)
        self.digit.observe(self._load, "value")
        reach = side // 4
        controls = {
            "right": widgets.IntSlider(0, -reach, reach, description="shift right (pixels)"),
            "down": widgets.IntSlider(0, -reach, reach, description="shift down (pixels)"),
            "turn": widgets.IntSlider(0, -180, 180, step=5, description="turn (degrees)"),
            "noise": widgets.FloatSlider(0, min=0, max=0.3, step=0.01, description="noise (std)"),
        }
        self._held_out: Tensor | None = None
        super().__init__(explorer, controls | {"pad": self.pad}, clear)
        self.pad.layout.width = "auto"
        sliders = widgets.VBox([self.digit, *controls.values(), clear])
        self.children[1].children = [widgets.HBox([self.pad, sliders], layout={"flex_flow": "row wrap"})]

    def _load(self, change: dict) -> None:
        self.pad.value = self.explorer.digits[change["new"]].numpy().tobytes()

    def held_out_nats(self) -> Tensor:
        """Nats of each of the explorer's digits (N,), measured once."""
        if self._held_out is None:
            self._held_out = evaluate(self.model, self.explorer.digits).per_image
        return self._held_out

    def image(self, pad: bytes, right: int = 0, down: int = 0, turn: int = 0, noise: float = 0.0) -> Tensor:
        """The pad after turning (anticlockwise), shifting and adding noise: uint8 (1, D)."""
        pixels = torch.frombuffer(bytearray(pad), dtype=torch.uint8)
        if len(pixels) != self.model.dim:
            raise InputError(f"a pad of {len(pixels)} pixels; expected {self.model.dim}")
        return disturb(pixels[None], right, down, turn, noise)

    def draw(self, **values: object) -> tuple[bytes, str]:
        pixels = self.image(**values)
        x = self.explorer.noisy(pixels)
        nats = self.model.log_prob(x).item()
        z = self.model(x)[0][0].cpu()
        by_pixel = nats_per_pixel(self.model, x)[0].cpu()
        digits = self.held_out_nats()
        share = (digits < nats).double().mean().item()

        figure = Figure(figsize=(9, 4.6), layout="none")
        _show(figure.add_axes((0.01, 0.55, 0.19, 0.37)), pixels, self.side, 1, "what the model sees")
        surprise = figure.add_axes((0.24, 0.55, 0.19, 0.37))
        shown = surprise.imshow(
            by_pixel.view(self.side, self.side).numpy(), cmap="viridis", vmin=-6, vmax=math.log(256)
        )
        surprise.set_axis_off()
        surprise.set_title("nats a pixel gives", fontsize=10)
        figure.colorbar(shown, cax=figure.add_axes((0.44, 0.56, 0.012, 0.35)), extend="min")
        codes = figure.add_axes((0.57, 0.59, 0.41, 0.33))
        edges = torch.linspace(-10, 10, 41)
        codes.hist(z.clamp(-10, 10).numpy(), edges.numpy(), density=True, color=BLUE, alpha=0.5, label="its code z")
        codes.plot(
            edges,
            self.model.prior.log_prob(edges).exp(),
            color=ORANGE,
            label=f"the {self.model.config['latent']} prior",
        )
        codes.set(title="z against its prior", xlabel="z")
        codes.legend(fontsize=8)
        others = figure.add_axes((0.07, 0.11, 0.91, 0.27))
        low, high = digits.quantile(0.01).item() - 200, digits.max().item() + 200
        bins = torch.linspace(low, high, 60).numpy()
        others.hist(digits.numpy(), bins, density=True, color=GREY, alpha=0.5, label=f"{len(digits)} held-out digits")
        if self.explorer.test_nats is not None:
            density = torch.histogram(
                self.explorer.test_nats.clamp(low, high), torch.from_numpy(bins), density=True
            ).hist
            middle = (bins[1:] + bins[:-1]) / 2
            others.plot(
                middle, density.numpy(), color=BLUE, lw=1.5, label=f"{len(self.explorer.test_nats):,} of MNIST test"
            )
        inside = min(max(nats, low), high)
        label = "this image" if inside == nats else f"this image, far outside: {nats:,.0f}"
        others.axvline(inside, color=RED, lw=2, label=label)
        others.set(xlabel="log-likelihood (nats)", yticks=[], title="this image among real digits")
        others.legend(fontsize=8)
        return _png(figure), (
            f"<b>{nats:,.1f} nats</b>, {bits_per_dim(nats, self.model.dim):.2f} bits/dim: likelier than {share:.0%} of the "
            f"{len(digits)} held-out digits; the worst pixel gives {by_pixel.min():,.1f} nats"
        )


class Inpainting(Tab):
    """Fill in what is hidden by climbing log p (paper, section 5.2)."""

    title = "Inpainting"
    look_for = (
        "Can the model guess what it cannot see? Start, and the hidden pixels climb log p from uniform noise, four tries at once. "
        "The paper's rule takes equal steps in every pixel: see it overshoot. The preconditioned one fits them to each pixel."
    )
    tries = 4
    seconds_a_picture = 0.25

    def __init__(self, explorer: SampleExplorer) -> None:
        last = len(explorer.digits) - 1
        controls = {
            "digit": widgets.IntSlider(last // 25, 0, last, description="digit (number)"),
            "part": widgets.Dropdown(options=PARTS, value="top", description="hidden part"),
            "rule": widgets.Dropdown(options=RULES, description="rule"),
            "steps": widgets.IntSlider(200, 50, 3000, step=50, description="steps"),
            "seed": widgets.BoundedIntText(0, 0, 2**31 - 1, description="seed"),
        }
        self.start_button = widgets.Button(description="Start", icon="play", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.start_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())
        self.progress = widgets.IntProgress(0, 0, 200, description="progress")
        _lay_out(self.progress)
        self.nats: list[Tensor] = []  # of the tries, step by step
        self._run = 0  # the run that may go on; another number stops it
        self._turn = threading.RLock()  # between a run's end and a hand that stops it or starts another
        super().__init__(explorer, controls, widgets.HBox([self.start_button, self.stop_button]), self.progress)

    @property
    def running(self) -> bool:
        return not self.stop_button.disabled

    def request(self) -> None:
        """A control was moved: stop, and show where a run would start."""
        self.stop()
        self.progress.value = 0
        super().request()

    def start(self) -> None:
        """Begin afresh with the controls as they are."""
        values = {name: control.value for name, control in self.controls.items()}
        with self._turn:
            self._run += 1
            self._set_running(True)
            self.nats, self.progress.max, self.progress.value = [], values["steps"], 0
            self._next(self._run, self._states(**values), self.nats, values)

    def stop(self) -> None:
        """Leave the picture as it is; nothing happens when no run is under way."""
        with self._turn:
            self._run += 1
            self._set_running(False)

    def show(self, **values: object) -> display.Image:
        """As :meth:`Tab.show`, after a whole run."""
        super().show(**values)
        self.start()
        self.explorer.settle()
        if self.error:
            raise self.error
        return display.Image(self.picture.value, format="png")

    def draw(self, **values: object) -> tuple[bytes, str]:
        x, nats = next(self._states(**values))
        return self._draw(x, [nats.cpu()], values)

    def _states(self, digit: int, part: str, rule: str, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        hidden = hidden_part(part, self.side, generator)
        x = self.explorer.noisy(self.explorer.digits[digit : digit + 1]).expand(self.tries, -1)
        return inpaint(self.model, x, hidden, rule, steps, generator)

    def _next(self, run: int, states: Iterator[tuple[Tensor, Tensor]], nats: list[Tensor], values: dict) -> None:
        """Queue some steps and a picture; other tabs are served between."""

        def draw() -> tuple[bytes, str]:
            end = time.monotonic() + self.seconds_a_picture
            for state in states:
                nats.append(state[1].cpu())
                if time.monotonic() > end or run != self._run:
                    break
            return self._draw(state[0], nats, values)

        def job() -> None:
            if run != self._run:
                return
            self.put(draw)
            with self._turn:
                if run != self._run:
                    return
                self.progress.value = len(nats) - 1
                if self.error or len(nats) > values["steps"]:
                    self._set_running(False)
                else:
                    self._next(run, states, nats, values)

        self.explorer.worker.submit((self, run), job)  # a request of the same tab does not wait in its place

    def _set_running(self, running: bool) -> None:
        self.stop_button.disabled = not running
        self.start_button.description = "Start again" if running else "Start"

    def _draw(self, x: Tensor, nats: list[Tensor], values: dict) -> tuple[bytes, str]:
        pixels = self.explorer.digits[values["digit"] : values["digit"] + 1]
        real = self.explorer.noisy(pixels)
        hidden = hidden_part(values["part"], self.side, torch.Generator().manual_seed(values["seed"]))
        goal = self.model.log_prob(real).item()
        curves = torch.stack(nats)
        figure = Figure(figsize=(9, 4.0), layout="none")
        seen = torch.where(hidden, 0.5, real.cpu())
        for i, (image, title) in enumerate(((real, "real"), (seen, "what is visible"))):
            _show(figure.add_axes((0.01 + 0.165 * i, 0.56, 0.15, 0.34)), image, self.side, 1, title)
        _show(
            figure.add_axes((0.36, 0.56, 0.63, 0.34)),
            x,
            self.side,
            self.tries,
            f"{self.tries} tries, after {len(nats) - 1} step{'s' * (len(nats) != 2)}",
        )
        curve = figure.add_axes((0.12, 0.12, 0.86, 0.32))
        curve.plot(curves.numpy(), color=BLUE, lw=1, alpha=0.7)
        curve.axhline(goal, color=GREY, ls="--", lw=1.5, label="the real digit")
        curve.set_yscale("symlog", linthresh=2000, linscale=1.5)
        ticks = (-100_000, -10_000, 0, 1000, 2000)
        curve.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
        curve.minorticks_off()
        curve.set(
            xlabel="step",
            title="log p of the image (nats): visible pixels are fixed, so only the hidden ones change it",
        )
        curve.set_xlim(0, max(len(nats) - 1, 1))
        curve.legend(fontsize=8)
        now = curves[-1]
        return _png(figure), (
            f"step {len(nats) - 1} of {values['steps']}: <b>{now.mean():,.0f} nats</b> on average, from {now.min():,.0f} to "
            f"{now.max():,.0f}; the real digit has {goal:,.0f}"
        )


def _lay_out(control: DescriptionWidget) -> None:
    control.style.description_width, control.layout.width = "150px", "390px"


def _show(ax, images: Tensor, side: int, columns: int, title: str, column: float | None = None) -> None:
    """A grid of images on an axis; ``column`` marks a place along the row."""
    ax.imshow(image_grid(images, columns, side, side), cmap="gray", vmin=0, vmax=255)
    if column is not None:
        ax.plot([2 + (side + 2) * column + side / 2], [-1.5], "v", color=ORANGE, ms=6, clip_on=False)
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)


def _captioned(x: Tensor, nats: Tensor, side: int) -> Image.Image:
    """Images in rows, each with its log-likelihood below."""
    zoom, caption, pad = max(1, 64 // side), 15, 6
    tile = zoom * side
    columns = math.ceil(math.sqrt(len(x)))
    rows = -(-len(x) // columns)
    picture = Image.new("L", (columns * (tile + pad) + pad, rows * (tile + caption + pad) + pad), 255)
    write, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    pixels = quantise(x.detach()).cpu().numpy().reshape(-1, side, side).repeat(zoom, 1).repeat(zoom, 2)
    for i, image in enumerate(pixels):
        left, top = pad + (i % columns) * (tile + pad), pad + (i // columns) * (tile + caption + pad)
        picture.paste(Image.fromarray(image), (left, top))
        write.text((left + tile / 2, top + tile + 1), f"{nats[i]:.0f}", fill=40, font=font, anchor="ma")
    return picture


def _png(picture: Image.Image | Figure) -> bytes:
    file = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(file, format="png", dpi=100, pil_kwargs={"compress_level": 1})
    else:
        picture.save(file, format="PNG", compress_level=1)
    return file.getvalue()
