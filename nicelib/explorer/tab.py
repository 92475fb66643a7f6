"""What the tabs share: values of controls, a picture drawn in the background, the same picture without a page."""

import math
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nicelib import plotting
from nicelib.checkpoints import write_atomically
from nicelib.errors import InputError
from nicelib.explorer.controls import TABS, Control, checked, table
from nicelib.explorer.scene import Panel, Row, as_figure, chart, histogram, plain, share_axes, upright
from nicelib.model import NICE
from nicelib.plotting import BLUE, GREY

Drawing = tuple[list[Row], str]  # rows of panels and a line of HTML


class Tab:
    """Controls, one picture and one line of numbers; subclasses say what to draw from the controls' values."""

    name: str  # the explorer's attribute, the page's, and its words' in tabs.toml

    def __init__(self, explorer: Any) -> None:
        self.explorer, self.side, self.dim = explorer, explorer.side, explorer.side**2
        self.error: BaseException | None = None
        self.drawn = 0  # pictures so far
        self.asked: Any = None  # what the newest of them is of
        self.words, self.controls = {"takes": "", "actions": [], **TABS[self.name], "name": self.name}, self.table()

    def table(self) -> dict[str, Control]:
        """The controls by name."""
        return table(self.name, len(self.explorer.digits) - 1)

    def draw(self, model: NICE, *args: Any, **values: Any) -> Drawing:
        """The values of the controls -> a picture. Runs in the background, without gradients."""
        raise NotImplementedError

    end: Callable[..., Drawing] = lambda self, *args, **values: self.draw(*args, **values)  # for a page without widgets

    @property
    def values(self) -> dict[str, Any]:
        if self.explorer.worker.closed:
            raise InputError("this explorer is closed; SampleExplorer() opens another")
        return self.explorer.page.values[self.name]

    def checked(self, values: dict[str, Any]) -> dict[str, Any]:
        for name in values:
            if name not in self.controls:
                raise InputError(f"{name!r} is no control of this tab; expected one of {', '.join(self.controls)}")
        return {name: checked(name, self.controls[name], v, self.explorer.digits) for name, v in values.items()}

    def set(self, **values: Any) -> None:
        """Move controls on the page, as a hand would: ``explorer.sample.set(temperature=0.7)``.

        Raises:
            InputError: no control of that name, a value that it cannot have, or the explorer is closed.
        """
        page = self.explorer.page
        page.values = page.values | {self.name: self.values | self.checked(values)}
        if page.tab != self.name:
            self.request()

    def request(self) -> None:
        """Ask for a new picture of the controls as they are now."""
        values, chosen = dict(self.values), self.explorer.chosen
        of = self.asked = self.loud(values), list(chosen)
        self.explorer.worker.submit(self, lambda: self.put(lambda: self.scenes(chosen, values, self.draw), of))

    def loud(self, values: dict[str, Any]) -> dict[str, Any]:
        """Without those that the page takes care of by itself."""
        return {name: value for name, value in values.items() if not self.controls[name].get("quiet")}

    def scenes(
        self, models: dict[str, NICE], values: dict[str, Any], draw: Callable[..., Drawing]
    ) -> list[dict[str, Any]]:
        drawn = {name: draw(model, **self.checked(values)) for name, model in models.items()}
        share_axes(list(drawn.values()))
        return [{"name": name, "rows": rows, "text": text} for name, (rows, text) in drawn.items()]

    def put(self, draw: Callable[[], list[dict[str, Any]]], of: Any, running: bool = False) -> bool:
        """Draw and show these values and models: was it drawn? An error becomes the text below the last picture."""
        page, picture = self.explorer.page, None
        try:
            with torch.no_grad():
                said = getattr(page, self.name).get("said", "") if running else ""  # what was saved meanwhile, say
                picture = {"scenes": draw(), "said": said, "of": of, "drawn": self.drawn + 1}  # all differ: all sent
            setattr(page, self.name, picture | {"running": running})
            self.error, self.drawn = None, self.drawn + 1
        except BaseException as error:  # nobody above this thread would see it
            self.error = error
            with suppress(Exception):
                self.tell(said=f"{type(error).__name__}: {error}", of=of, running=False)
        return bool(picture)

    def tell(self, **more: Any) -> None:
        """Change what stands beside the picture."""
        setattr(self.explorer.page, self.name, getattr(self.explorer.page, self.name) | more)

    def figure(self, **values: Any) -> Figure:
        """The picture for a page without widgets, whatever the page shows, and it stays as it is.

        Args:
            values: of the controls, by name; the others are as Reset leaves them. Images: a digit's number, or pixels (D,).
                ``models``: the names of those to show side by side, if not the first alone.

        Raises:
            InputError: no control of that name, a value that it cannot have, or the explorer is closed.
        """
        return as_figure(*self._still(values))

    def show(self, **values: Any) -> None:
        """Put :meth:`figure` into the page, with a description."""
        scenes, t = self._still(values)
        titles = ", ".join(panel["title"] for _, panels in scenes[0]["rows"] for panel in panels if panel["title"])
        said = "; ".join(f"{scene['name']}: {plain(scene)}" for scene in scenes)
        plotting.show(as_figure(scenes, t), f"The tab {self.words['title']} ({titles}). {said}.")

    def _still(self, values: dict[str, Any]) -> tuple[list[dict[str, Any]], float]:
        every = {name: self.controls[name]["value"] for name in self.values}
        names = [n] if isinstance(n := values.pop("models", list(self.explorer.models)[:1]), str) else n
        if not names or not set(names) <= set(self.explorer.models):
            raise InputError(f"models = {names!r}; expected some of {', '.join(self.explorer.models)}")
        values, models = every | self.checked(values), {name: self.explorer.models[name] for name in names}
        with torch.no_grad(), torch.device("cpu"):
            return self.scenes(models, values, self.end), values.get("t", 0)

    def save(self) -> None:
        """Write the picture to a new file in the current folder; the line below it says where, or why not."""

        def write() -> None:
            self.tell(said="saving the picture …")
            try:
                path = next(p for n in count(1) if not (p := Path(f"nice_{self.name}_{n}.png").absolute()).exists())
                with torch.no_grad():
                    figure = as_figure(self.scenes(chosen, values, self.draw), values.get("t", 0))
                write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=160))
                self.tell(said=f"saved {path.name} beside the notebook, in {path.parent}")
            except Exception as error:  # the folder has gone, or is full
                self.tell(said=f"not saved: {error}")

        values, chosen = dict(self.values), self.explorer.chosen
        self.explorer.worker.submit(("save", self.drawn), write)


def gauge(explorer: Any, model: NICE, length: Tensor, colour: str, label: str) -> Panel:
    """Histograms of |z|, of 1,000 draws from the prior and of the real digits, with the lengths (N,) of some codes."""
    draws = model.prior.sample((1000, model.dim), torch.Generator().manual_seed(0)).norm(dim=1)
    at = [float(f"{m * draws.mean():.0e}") for m in (0.1, 0.4, 1, 2, 5, 16, 50)]  # one scale for all models
    digits, low, high = explorer.held_out(model)[1], at[0], at[-1]
    bins = torch.logspace(math.log10(low), math.log10(high), 50)
    lines = [histogram(digits, bins, GREY, "real digits"), histogram(draws, bins, BLUE, "the prior's draws")]
    own = upright(length[0].item(), colour, label, low, high)
    lines.append(histogram(length, bins, colour, label) | {"fill": False} if len(length) > 1 else own)
    ticks = [(math.log10(v), f"{'≤ ' * (v == low)}{'≥ ' * (v == high)}{v:,.6g}") for v in at]
    return chart("code length |z|", lines, "|z| (log); each scaled to its peak", (low, high), 0, log="x", xticks=ticks)
