"""How the explorer lives: a worker that draws in the background, the widget, and memory that goes back."""

import contextvars
import gc
import re
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython import get_ipython


def shared(kind: Any, *start: Any) -> Any:
    return kind(*start).tag(sync=True)


class Page(anywidget.AnyWidget):
    """All that stands on the page. ``values`` holds every tab's controls; each tab's picture is a trait of its name."""

    # as text: given the path itself, anywidget would keep every page for the life of the kernel
    _esm = "".join((Path(__file__).parent / f"{name}.js").read_text(encoding="utf-8") for name in ("parts", "explorer"))
    _css = (Path(__file__).parent / "explorer.css").read_text(encoding="utf-8")
    side = shared(traitlets.Int)
    digits = shared(traitlets.CBytes)
    classes = shared(traitlets.List)  # of the gallery: [its name, numbers of its digits]
    tabs, tour, models, chosen = (shared(traitlets.List) for _ in range(4))
    values = shared(traitlets.Dict)
    tab, called = (shared(traitlets.Unicode) for _ in range(2))  # called: its name in the notebook
    stop = shared(traitlets.Int, -1)  # of the tour
    before = shared(traitlets.Dict)  # what the tour's end brings back
    sample, code_space, layers, spectrum, likelihood, inpainting = (shared(traitlets.Dict) for _ in range(6))


def close_page(page: Page) -> None:
    """Closed alone, a widget leaves its layout in ipywidgets' registry."""
    for widget in (page.layout, page):
        with suppress(Exception):
            widget.close()


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
                thread = threading.Thread(target=contextvars.copy_context().run, args=(self._work,), daemon=True)
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

    page: Page
    _by_cell: dict[str, tuple[int, list["Shown"]]] = {}

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        if self.page.comm is None:  # closed
            return {"text/plain": repr(self)}
        if shell := get_ipython():
            self.page.called = next((n for n, v in shell.user_ns.items() if v is self and n[0] != "_"), "your_explorer")
            parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
            cell = parent.get("metadata", {}).get("cellId") or shell.user_ns["In"][-1]
            run, shown = self._by_cell.get(cell, (0, []))
            self._by_cell[cell] = shell.execution_count, [*shown, self] if run == shell.execution_count else [self]
            shell.events.register("post_run_cell", _forget)
        data: Any = self.page._repr_mimebundle_(**options)
        return data[0] | {"text/plain": repr(self)}


def _forget(_: object) -> None:
    """IPython keeps every result for the life of the kernel (Out[5], _5, _): leave it one that frees what it stands for."""
    shell = get_ipython()
    for memory in (shell.user_ns, shell.user_ns_hidden, shell.user_ns["Out"], vars(shell.displayhook)):
        for name, value in list(memory.items()):
            if issubclass(type(value), Shown) and re.fullmatch(r"_+|_?\d+", str(name)):  # no proxy's type
                memory[name] = weakref.proxy(value)
    gc.collect()  # what the cell showed before


def weak(method: Callable[..., None]) -> Callable[..., None]:
    """A widget's callback that does not keep its object alive, as ipywidgets keeps every widget until it is closed."""
    reference = weakref.WeakMethod(method)

    def call(*args: object) -> None:
        if bound := reference():
            bound(*args)

    return call
