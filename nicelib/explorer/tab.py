"""What the tabs share: the model they explore, a worker that draws in the background, controls, panels of a figure."""

import contextvars
import gc
import html
import io
import math
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import ipywidgets as widgets
import torch
from IPython import display, get_ipython
from ipywidgets.widgets.widget_description import DescriptionWidget
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from nicelib.data import dequantise, load_pixels
from nicelib.errors import InputError
from nicelib.model import NICE
from nicelib.plotting import ORANGE, image_grid
from nicelib.pretrained import load_pretrained, load_test_nats

Drawing = tuple[bytes, str]  # a PNG and a line of HTML


class Worker:
    """Draws in the background, so that the page answers meanwhile; a newer job of the same key replaces one that waits."""

    def __init__(self) -> None:
        self.closed = False
        self._waiting: dict[object, Callable[[], object]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None  # None: idle

    def submit(self, key: object, job: Callable[[], object]) -> None:
        with self._changed:
            if self.closed:
                return
            self._waiting[key] = job
            if self._thread is None:  # in the caller's context: some kernels keep there what messages need
                run = contextvars.copy_context().run
                thread = threading.Thread(target=run, args=(self._work,), daemon=True)
                thread.start()
                self._thread = thread

    def settle(self) -> None:
        """Wait until no job waits or runs; a job that calls this does not wait for itself."""
        with self._changed:
            self._changed.wait_for(lambda: self._thread in (None, threading.current_thread()))

    def close(self) -> None:
        """Drop what waits, let the job under way end, take no more."""
        with self._changed:
            self.closed = True
            self._waiting.clear()
        self.settle()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
                job = self._waiting.pop(next(iter(self._waiting)))
            with suppress(BaseException):  # a tab shows what its drawing raises; whatever else fails costs one job
                job()
            del job  # or its tab would outlive settle() by a moment


class Shown:
    """What a cell shows: it lives as long as it has a name, or until the cell is run again."""

    box: widgets.Box
    _by_cell: dict[str, tuple[int, list["Shown"]]] = {}

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        if self.box.comm is None:  # closed
            return {"text/plain": repr(self)}
        if shell := get_ipython():
            parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
            cell = parent.get("metadata", {}).get("cellId") or shell.user_ns["In"][-1]
            run, shown = self._by_cell.get(cell, (0, []))
            self._by_cell[cell] = shell.execution_count, [*shown, self] if run == shell.execution_count else [self]
            shell.events.register("post_run_cell", _forget)
        return self.box._repr_mimebundle_(**options) | {"text/plain": repr(self)}


def _forget(_: object) -> None:
    """IPython keeps every result for the life of the kernel (Out[5], _5, _): leave it one that frees what it stands for."""
    shell = get_ipython()
    for memory in (shell.user_ns, shell.user_ns_hidden, shell.user_ns["Out"], vars(shell.displayhook)):
        for name, value in list(memory.items()):
            if (
                type(value) is not weakref.ProxyType
                and isinstance(value, Shown)
                and re.fullmatch(r"_+|_?\d+", str(name))
            ):
                memory[name] = weakref.proxy(value)
    gc.collect()  # what the cell showed before


class Explored:
    """What all tabs work on: the model, real digits, and the worker that draws."""

    def __init__(self, model: NICE | None, digits: Tensor | None) -> None:
        gc.collect()  # an earlier explorer without a name: its model is too large to wait for its turn
        self.model = load_pretrained() if model is None else model
        self.test_nats = load_test_nats() if model is None else None
        self.digits = (load_pixels("mnist-sample", "test") if digits is None else digits).cpu()
        self.side, self.worker, dim = math.isqrt(self.model.dim), Worker(), self.model.dim
        if self.side**2 != dim:
            raise InputError(f"dim = {dim}; the explorer draws square images: expected 784, or another square")
        if self.digits.shape[1:] != (dim,) or len(self.digits) < 2 or self.digits.dtype != torch.uint8:
            raise InputError(
                f"digits of shape {tuple(self.digits.shape)} and dtype {self.digits.dtype}; "
                f"expected torch.uint8 (N, {dim}) with N at least 2, for a model of dim = {dim}"
            )

    def noisy(self, pixels: Tensor) -> Tensor:
        """Dequantised pixels in the model's dtype, on its device; the same noise every time."""
        return dequantise(pixels, torch.Generator().manual_seed(0)).to(self.model.scaling.log_scale)

    def settle(self) -> None:
        """Wait until everything asked for is drawn."""
        self.worker.settle()

    def digit_slider(self, share: float, description: str) -> widgets.IntSlider:
        last = len(self.digits) - 1
        return widgets.IntSlider(int(share * last), 0, last, description=description)


class Tab(Shown):
    """Controls, one picture and one line of numbers; subclasses say what to draw from the controls' values."""

    title: str
    look_for: str  # one or two sentences above the controls

    def __init__(self, explorer: Explored, controls: dict[str, widgets.ValueWidget], *shown: widgets.Widget) -> None:
        self.explorer, self.side, self.controls = explorer, explorer.side, controls
        self.error: BaseException | None = None
        self.drawn = 0  # pictures so far
        self.picture = widgets.Image(format="png", layout={"max_width": "100%", "align_self": "flex-start"})
        self.text = widgets.HTML()
        for control in controls.values():
            control.observe(weak(self.request), "value")
        rows = widgets.HBox(shown, layout={"flex_flow": "row wrap"})
        for control in within(rows):
            if isinstance(control, DescriptionWidget):
                control.style.description_width, control.layout.width = "150px", "390px"
        self.box = widgets.VBox([widgets.HTML(f"<p>{self.look_for}</p>"), rows, self.text, self.picture])

    @property
    def model(self) -> NICE:
        return self.explorer.model

    def draw(self, *args: Any, **values: Any) -> Drawing:
        """The values of the controls -> a PNG and a line of HTML. Runs in the background, without gradients."""
        raise NotImplementedError

    def values(self) -> dict[str, Any]:
        return {name: control.value for name, control in self.controls.items()}

    def request(self) -> None:
        """Ask for a new picture of the controls as they are now."""
        values = self.values()
        self.explorer.worker.submit(self, lambda: self.put(lambda: self.draw(**values)))

    def put(self, draw: Callable[[], Drawing]) -> bool:
        """Draw now and show the result: was it drawn? An error becomes the line of text, and the last picture stays."""
        png, again = b"", self.error is not None
        try:
            with torch.no_grad():
                png, text = draw()
            self.picture.value, self.text.value = png, text
            if again:  # the page may have missed the last one, and an equal one is not sent by itself
                self.picture.send_state("value")
            self.error = None
            self.drawn += 1
        except BaseException as error:  # nobody above this thread would see it
            self.error = error
            with suppress(Exception):
                self.text.value = f"<b>{type(error).__name__}: {html.escape(str(error))}</b>"
        return bool(png)

    def show(self, **values: object) -> display.Image:
        """Set controls by name, wait, and return the picture for a page without widgets.

        Raises:
            InputError: no control of that name, or the explorer is closed. Whatever drawing raised is raised here again.
        """
        if self.explorer.worker.closed:
            raise InputError("this explorer is closed; SampleExplorer() opens another")
        for name, value in values.items():
            if name not in self.controls:
                raise InputError(f"{name!r} is no control of this tab; expected one of {', '.join(self.controls)}")
            self.controls[name].value = value
        self.request()
        return self.finished()

    def finished(self) -> display.Image:
        """The picture once everything asked for is drawn."""
        self.explorer.settle()
        if self.error:
            raise self.error
        return display.Image(self.picture.value, format="png")


def weak(method: Callable[[], None]) -> Callable[[object], None]:
    """A widget's callback that does not keep its object alive, as ipywidgets keeps every widget until it is closed."""
    reference = weakref.WeakMethod(method)

    def call(_: object) -> None:
        if bound := reference():
            bound()

    return call


def within(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    """A widget and all in it, layouts and styles too."""
    yield widget
    for value in widget.trait_values().values():
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, widgets.Widget):
                yield from within(inner)


def close_widgets(widget: widgets.Widget) -> None:
    """Close all of it: closed alone, a box leaves what is in it in ipywidgets' registry."""
    for inner in list(within(widget)):
        with suppress(Exception):
            inner.close()


def button(description: str, icon: str, action: Callable[[], None], **options: object) -> widgets.Button:
    new = widgets.Button(description=description, icon=icon, **options)
    new.on_click(weak(action))
    return new


def panels(rows: dict[str, float], gap: float = 0.4) -> tuple[Figure, dict[str, Axes]]:
    """An empty figure, 9 inches wide, and its axes by letter.

    A row is a string and its height (inches): ``"aab."`` gives half of the width to a, a quarter to b, and leaves the rest
    free, say for the numbers at an axis. Rows have 1, 2, 3, 4, 6, 9, 12, 18 or 36 letters; ``gap`` (inches) holds titles.
    """
    heights, above, below = list(rows.values()), 0.3, 0.5
    height = above + sum(heights) + gap * (len(heights) - 1) + below
    place = {"left": 0.01, "right": 0.98, "top": 1 - above / height, "bottom": below / height}
    space = {"wspace": 0, "hspace": gap * len(heights) / sum(heights)}
    mosaic = "\n".join("".join(letter * (36 // len(row)) for letter in row) for row in rows)
    figure = Figure(figsize=(9, height), layout="none")  # type: ignore[arg-type]  # which the stubs leave out
    return figure, figure.subplot_mosaic(mosaic, height_ratios=heights, gridspec_kw=place | space)


def show_map(ax: Axes, image: Any, title: str, **colours: Any) -> AxesImage:
    ax.set_axis_off()
    ax.set_title(title, y=1.0, fontsize=10)  # a place of its own choice would take as long as all the rest
    return ax.imshow(image, **colours)


def show_images(ax: Axes, images: Tensor, side: int, title: str, column: float | None = None) -> None:
    """A row of images; ``column`` marks a place along it."""
    show_map(ax, image_grid(images, len(images), side, side), title, cmap="gray", vmin=0, vmax=255)
    if column is not None:
        ax.plot([2 + (side + 2) * column + side / 2], [-1.5], "v", color=ORANGE, ms=6, clip_on=False)


def as_png(figure: Figure) -> bytes:
    """The finished figure, with a legend where lines have names."""
    for ax in figure.axes:
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, pil_kwargs={"compress_level": 1})
    return file.getvalue()
