"""The tab "Inpainting": fill in what is hidden by climbing log p (paper, section 5.2)."""

import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nicelib.explorer.controls import Control, pixels_of, text_of
from nicelib.explorer.scene import Row, chart, images, line
from nicelib.explorer.tab import Drawing, Tab
from nicelib.inpainting import PARTS, RULES, hidden_part, inpaint
from nicelib.model import NICE
from nicelib.plotting import BLUE, GREY, ORANGE


class Inpainting(Tab):
    name = "inpainting"
    tries = 4
    seconds_a_picture = 0.25

    def __init__(self, explorer: Any) -> None:
        super().__init__(explorer)
        self.nats: dict[str, list[Tensor]] = {}  # of the tries, step by step, by model
        self.runs: dict[str, Iterator[Drawing]] = {}  # each model's run, which Stop interrupts and Go on goes on with
        self.kept: dict[int, tuple[dict[str, Any], Drawing]] = {}  # each model's newest run: its controls and picture
        self.running, self._run = False, 0  # the run that may go on; another number stops it
        self._turn = threading.RLock()  # between a run's end and a hand that stops it or starts another

    def table(self) -> dict[str, Control]:
        controls = super().table()
        controls["part"] |= {"options": PARTS, "brush": {part: text_of(self.hidden(part).byte()) for part in PARTS}}
        controls["rule"] |= {"options": RULES}
        return controls

    def hidden(self, part: str) -> Tensor:
        """Which pixels are hidden, by a part's name or a mask from the brush: bool (D,)."""
        if part in PARTS:
            return hidden_part(part, self.side, torch.Generator().manual_seed(0))
        return pixels_of(part, self.dim)[0] > 0

    def request(self) -> None:
        """Controls that were moved end the run, and show where another would start; models come and go beside it."""
        with self._turn:
            if moved := not self.asked or self.asked[0] != self.values:
                self.runs = {}
            if moved or not self.running:
                self.stop()
                super().request()
            self.asked = dict(self.values), list(self.explorer.chosen)

    def start(self) -> None:
        """Begin afresh with the controls as they are."""
        self.runs, self.nats = {}, {}
        self.go_on()

    def go_on(self) -> None:
        """Where the run was stopped; a model that has none begins one."""
        values = self.checked(self.values)
        if self.hidden(values["part"]).any():  # else there is nothing to climb
            with self._turn:
                self._run, self.running, self.asked = self._run + 1, True, (values, list(self.explorer.chosen))
                self._next(self._run, values)

    def stop(self) -> None:
        """Leave the picture as it is; nothing happens when no run is under way."""
        with self._turn:
            self._run, self.running = self._run + 1, False

    def draw(self, model: NICE, **values: Any) -> Drawing:
        of, drawing = self.kept.get(id(model), (values, None))
        rows, text = drawing if drawing and of == values else next(self._pictures([], model, **values))
        if not (self.running or f"step {values['steps']} of" in text or "nothing to fill in" in text):
            more = ", or Go on" * bool(drawing and self.runs)
            text += f"; <b>{'changed: ' * (of != values)}press Start{' anew' * bool(drawing)}{more}</b>"
        return rows, text

    def end(self, model: NICE, **values: Any) -> Drawing:
        return [*self._pictures([], model, **values)][-1]

    def _next(self, run: int, values: dict[str, Any]) -> None:
        """Queue some steps of every model and a picture; other tabs are served between."""
        kept, runs, nats, chosen = self.kept, self.runs, self.nats, self.explorer.chosen  # the tour puts them aside
        of = values, list(chosen)

        def draw() -> list[dict[str, Any]]:
            for name, model in chosen.items():
                pictures = runs.setdefault(name, self._pictures(nats.setdefault(name, []), model, **values))
                if drawing := next(pictures, None):
                    kept[id(model)] = values, drawing
            return self.scenes(chosen, values, self.draw)

        def job() -> None:
            drawn = run == self._run and self.put(draw, of, running=True)
            with self._turn:
                unfinished = of != self.asked or any(len(nats.get(name, ())) <= values["steps"] for name in chosen)
                if run == self._run and drawn and unfinished:
                    self._next(run, values)
                elif run == self._run:  # at its end, or it failed
                    self.running = False
                    self.tell(running=False)
                elif not self.running:  # stopped, and no other begun: say so
                    Tab.request(self)

        self.explorer.worker.submit((self, run), job)  # a request of the same tab does not wait in its place

    def _pictures(
        self, nats: list[Tensor], model: NICE, image: int | str, part: str, rule: str, steps: int, seed: int
    ) -> Iterator[Drawing]:
        """The start, then whatever some steps have made of it, to the end; ``nats`` grows by the tries' log p a step."""
        hidden, end, every = self.hidden(part), 0.0, max(4, steps // 80 * 2) if rule == "paper" else 1  # it leaps
        real, noise = self.explorer.noisy(self.explorer.pixels(image), model), torch.Generator().manual_seed(seed)
        goal, whose = model.log_prob(real).item(), "your" if isinstance(image, str) else "the real"
        given = {"yours" if whose == "your" else "real": real.cpu(), "visible": torch.where(hidden, 0.5, real.cpu())}
        for x, now in inpaint(model, real.expand(self.tries, -1), hidden, rule, steps if hidden.any() else 1, noise):
            nats.append(now.cpu())
            if time.monotonic() > end or len(nats) > steps:
                late = torch.stack(nats[-every:])
                text = (
                    f"step {len(nats) - 1} of {steps}: <b>{late.mean():,.0f} nats</b> on average"
                    f"{f' of the last {len(late)} steps' * (len(late) > 1)}, from {late.min():,.0f} to {late.max():,.0f}; "
                    f"{whose} image has {goal:,.0f}"
                )
                text += "; nothing is hidden: there is nothing to fill in" * (not hidden.any())
                yield self._rows(given, x, torch.stack(nats), goal, steps, every), text
                end = time.monotonic() + self.seconds_a_picture

    def _rows(self, given: Any, x: Tensor, nats: Tensor, goal: float, steps: int, every: int) -> list[Row]:
        """The first curve shows all nats, its axis as powers of 10 of what is missing; the second the last 1,000."""
        step, peak, curves = len(nats) - 1, max(goal, nats.max().item()), []
        top, sides = peak + 500, (torch.amax, torch.amin)[:every]  # of one step: alike
        at = [min(first, max(len(nats) - every, 0)) for first in range(0, len(nats), every)]  # the last is whole too
        ticks = [(-math.log10(top - v), f"{v:,}") for v in (-1_000_000, -100_000, -10_000, 0, 2000) if v < peak]
        for title, low in (("log p, squeezed below", 0), ("the last 1,000 nats", peak - 700))[: 3 - len(sides)]:
            y, level, ends = -(top - nats).clamp_min(10).log10(), -math.log10(top - goal), None
            if low:  # the paper's rule never comes near
                y, level, ends = nats, goal, (low, low + 1000)  # what lies below it lies below the picture
                title += "" if (nats > low).any() else ": not yet reached"
            drawn = torch.cat([torch.stack([side(y[i : i + every], 0) for i in at], 1) for side in sides])
            names = {0: "the tries" if every == 1 else f"highest of every {every} steps", self.tries: "lowest"}
            lines = [line(at, y, (BLUE, ORANGE)[i // self.tries], names.get(i, "")) for i, y in enumerate(drawn)]
            lines.append(line([0, steps], [level, level], GREY, "the image itself", dash=True))
            curves.append(chart(title, lines, "step", (0, steps), ends, own=goal, **({} if ends else {"ticks": ticks})))
        shown = [images(name, one) | {"given": True} for name, one in given.items()]
        shown.append(images(f"{self.tries} tries, after {step} step{'s' * (step != 1)}", x))
        return [(0.45, shown), (0.45, curves)]
