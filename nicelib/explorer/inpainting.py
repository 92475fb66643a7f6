"""The tab "Inpainting": fill in what is hidden by climbing log p (paper, section 5.2)."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import ipywidgets as widgets
import torch
from IPython import display
from torch import Tensor

from nicelib.explorer.tab import Drawing, Explored, Tab, as_png, button, panels, show_images
from nicelib.inpainting import PARTS, RULES, hidden_part, inpaint
from nicelib.plotting import BLUE, GREY


class Inpainting(Tab):
    title = "Inpainting"
    look_for = (
        "Can the model guess what it cannot see? Start, and the hidden pixels climb log p from uniform noise, four tries at once. "
        "The paper's rule takes equal steps in every pixel: see it overshoot. The preconditioned one fits them to each pixel."
    )
    tries = 4
    seconds_a_picture = 0.25

    def __init__(self, explorer: Explored) -> None:
        controls = {
            "digit": explorer.digit_slider(1 / 25, "digit (number)"),
            "part": widgets.Dropdown(options=PARTS, value="top", description="hidden part"),
            "rule": widgets.Dropdown(options=RULES, description="rule"),
            "steps": widgets.IntSlider(200, 50, 3000, step=50, description="steps"),
            "seed": widgets.BoundedIntText(0, 0, 2**31 - 1, description="seed"),
        }
        self.start_button = button("Start", "play", self.start, button_style="primary")
        self.stop_button = button("Stop", "stop", self.stop, disabled=True)
        self.progress = widgets.IntProgress(0, 0, 200, description="progress")
        self.nats: list[Tensor] = []  # of the tries, step by step
        self._run = 0  # the run that may go on; another number stops it
        self._turn = threading.RLock()  # between a run's end and a hand that stops it or starts another
        buttons = widgets.HBox([self.start_button, self.stop_button])
        super().__init__(explorer, controls, *controls.values(), buttons, self.progress)

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
        values = self.values()
        with self._turn:
            self._run += 1
            self._set_running(True)
            self.nats, self.progress.max, self.progress.value = [], values["steps"], 0
            self._next(self._run, self._pictures(self._run, self.nats, **values), self.nats)

    def stop(self) -> None:
        """Leave the picture as it is; nothing happens when no run is under way."""
        with self._turn:
            self._run += 1
            self._set_running(False)

    def show(self, **values: object) -> display.Image:
        """As :meth:`Tab.show`, after a whole run."""
        super().show(**values)
        self.start()
        return self.finished()

    def draw(self, **values: Any) -> Drawing:
        return next(self._pictures(0, [], **values))

    def _next(self, run: int, pictures: Iterator[Drawing], nats: list[Tensor]) -> None:
        """Queue some steps and a picture; other tabs are served between."""

        def job() -> None:
            if run != self._run:
                return
            drawn = self.put(lambda: next(pictures))
            with self._turn:
                if run != self._run:
                    return
                with suppress(Exception):
                    self.progress.value = len(nats) - 1
                if drawn and len(nats) <= self.progress.max:
                    self._next(run, pictures, nats)
                else:
                    self._set_running(False)

        self.explorer.worker.submit((self, run), job)  # a request of the same tab does not wait in its place

    def _pictures(
        self, run: int, nats: list[Tensor], digit: int, part: str, rule: str, steps: int, seed: int
    ) -> Iterator[Drawing]:
        """The start, then whatever some steps have made of it, to the end; ``nats`` grows by the tries' log p a step."""
        generator, end = torch.Generator().manual_seed(seed), 0.0
        hidden = hidden_part(part, self.side, generator)
        real = self.explorer.noisy(self.explorer.digits[digit : digit + 1])
        goal = self.model.log_prob(real).item()
        for x, now in inpaint(self.model, real.expand(self.tries, -1), hidden, rule, steps, generator):
            nats.append(now.cpu())
            if time.monotonic() > end or len(nats) > steps or run != self._run:
                text = (
                    f"step {len(nats) - 1} of {steps}: <b>{now.mean():,.0f} nats</b> on average, from {now.min():,.0f} to "
                    f"{now.max():,.0f}; the real digit has {goal:,.0f}"
                )
                yield self._picture(real.cpu(), hidden, x, torch.stack(nats), goal), text
                end = time.monotonic() + self.seconds_a_picture

    def _picture(self, real: Tensor, hidden: Tensor, x: Tensor, nats: Tensor, goal: float) -> bytes:
        step, ticks = len(nats) - 1, (-100_000, -10_000, 0, 1000, 2000)
        figure, at = panels({"rrrvvv.ttttttttttt": 1.4, "..cccccccccccccccc": 1.3})
        show_images(at["r"], real, self.side, "real")
        show_images(at["v"], torch.where(hidden, 0.5, real), self.side, "what is visible")
        show_images(at["t"], x, self.side, f"{self.tries} tries, after {step} step{'s' * (step != 1)}")
        at["c"].plot(nats.numpy(), color=BLUE, lw=1, alpha=0.7)
        at["c"].axhline(goal, color=GREY, ls="--", lw=1.5, label="the real digit")
        at["c"].set_yscale("symlog", linthresh=2000, linscale=1.5)
        at["c"].set_yticks(ticks, [f"{tick:,}" for tick in ticks])
        at["c"].minorticks_off()
        title = "log p of the image (nats): visible pixels are fixed, so only the hidden ones change it"
        at["c"].set(xlabel="step", title=title, xlim=(0, max(step, 1)))
        return as_png(figure)

    def _set_running(self, running: bool) -> None:
        self.stop_button.disabled = not running
        self.start_button.description = "Start again" if running else "Start"
