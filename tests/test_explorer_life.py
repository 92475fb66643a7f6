"""What becomes of an explorer that is closed, replaced or hit by an error: memory goes back, and pictures go on."""

import contextvars
import gc
import io
import json
import subprocess
import sys
import threading
import weakref

import comm
import ipywidgets
import pytest
from conftest import ROOT
from PIL import Image
from test_explorer import make_explorer

from nicelib import InputError


def registered():
    """How many widgets and connections to a page the kernel keeps."""
    return len(ipywidgets.Widget.widgets), len(comm.get_comm_manager().comms)


def settle_and_leave(explorer):
    explorer.settle()


def close_at_once(explorer):
    explorer.close()


def close_twice(explorer):
    explorer.settle()
    explorer.close()
    explorer.close()


def close_while_inpainting(explorer):
    explorer.inpainting.controls["steps"].value = 3000
    explorer.inpainting.start()
    explorer.close()


def leave_after_every_tab(explorer):
    for tab in explorer.tabs:
        tab.show(**({"steps": 50} if tab is explorer.inpainting else {}))
    explorer.sample.next_seed()
    explorer.likelihood.digit.value = 5
    explorer.settle()


def leave_after_an_error(explorer):
    explorer.sample.draw = lambda **_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        explorer.sample.show()


@pytest.mark.parametrize(
    "use",
    [settle_and_leave, close_at_once, close_twice, close_while_inpainting, leave_after_every_tab, leave_after_an_error],
    ids=lambda use: use.__name__,
)
@pytest.mark.filterwarnings("ignore:Widget.widgets is deprecated")
def test_an_explorer_that_is_closed_or_left_frees_everything(use):
    gc.collect()
    before = registered()
    explorer = make_explorer()
    parts = [weakref.ref(part) for part in (explorer, explorer.model, explorer.sample, explorer.likelihood.pad)]
    assert registered()[0] > before[0] + 50
    use(explorer)
    del explorer
    gc.collect()
    assert [part() for part in parts] == [None] * 4
    assert registered() == before


def test_a_closed_explorer_frees_its_model_though_it_has_a_name():
    explorer = make_explorer()
    model = weakref.ref(explorer.model)
    explorer.close()
    gc.collect()
    assert model() is None
    assert repr(explorer) == "SampleExplorer, closed" and list(explorer._repr_mimebundle_()) == ["text/plain"]
    with pytest.raises(InputError, match="this explorer is closed"):
        explorer.sample.show()
    explorer.sample.controls["temperature"].value = 0.5  # nothing to draw, nothing to wait for
    explorer.settle()


def test_without_the_garbage_collectors_turn_no_more_than_two_live():
    """A name given anew: the old model goes when the next one comes, however large the rest of the kernel is."""
    models, alive = [], []
    gc.disable()
    try:
        for _ in range(4):
            explorer = make_explorer()
            explorer.settle()
            models.append(weakref.ref(explorer.model))
            alive.append(sum(model() is not None for model in models))
    finally:
        gc.enable()
    assert alive == [1, 2, 2, 2]


def test_one_tab_keeps_its_explorer():
    tab = make_explorer().sample
    gc.collect()
    assert tab.show(temperature=0.5).data and tab.explorer.worker.closed is False


CELLS = """
import gc, weakref
from IPython.core.interactiveshell import InteractiveShell
import ipywidgets, torch
from nicelib import NICE

shell, models, counts = InteractiveShell.instance(), [], []
shell.user_ns |= {{"models": models, "weakref": weakref, "NICE": NICE, "torch": torch}}
shell.run_cell("from nicelib.explorer import SampleExplorer", store_history=True)
shell.run_cell("digits = torch.zeros(9, 16, dtype=torch.uint8)", store_history=True)
for run in range(5):
    for cell in {cells!r}:
        done = shell.run_cell(cell, store_history=True)
        done.raise_error()
        del done
    gc.collect()
    counts.append([sum(model() is not None for model in models), len(ipywidgets.widgets.widget._instances)])
print("COUNTS", counts)
"""
MADE = "explorer = SampleExplorer(NICE(dim=16, mid_dim=4, hidden=1), digits); models.append(weakref.ref(explorer.model)); explorer.settle()"


@pytest.mark.parametrize(
    ("cells", "alive"),
    [
        ([f"{MADE}\nexplorer"], 1),
        ([MADE, "explorer"], 1),
        ([MADE, "explorer.sample", "1 + 1", "_"], 1),
        ([f"{MADE}\ndisplay(explorer)", "_ = None"], 1),
        ([f"{MADE}\nexplorer", "explorer.close()"], 0),
        ([f"{MADE}; first = explorer\n{MADE}\ndisplay(first, explorer); del first, explorer"], 2),
    ],
    ids=["shown", "shown below", "a tab shown", "displayed", "closed", "two without a name"],
)
def test_a_cell_run_again_frees_what_it_showed(cells, alive):
    done = subprocess.run(
        [sys.executable, "-c", CELLS.format(cells=cells)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert "COUNTS" in done.stdout, done.stderr
    counts = json.loads(done.stdout.split("COUNTS")[1])
    assert [models for models, _ in counts] == [alive] * 5
    assert counts[-1] == counts[0]  # widgets too


class Failing:
    """The next ``times`` updates of a widget fail, as in a kernel that finds no message to answer in this thread."""

    def __init__(self, monkeypatch, widget, times=1):
        self.left, send = times, type(widget).send_state

        def send_state(this, *args, **kwargs):
            if this is widget and self.left and threading.current_thread() is not threading.main_thread():
                self.left -= 1
                raise LookupError("no parent header in this thread")
            return send(this, *args, **kwargs)

        monkeypatch.setattr(type(widget), "send_state", send_state)


@pytest.fixture
def settled(monkeypatch):
    """An explorer whose wait has an end, if only by an error."""
    explorer = make_explorer()

    def settle():
        waiting = threading.Thread(target=explorer.worker.settle, daemon=True)
        waiting.start()
        waiting.join(30)
        assert not waiting.is_alive(), "settle() never returns"

    monkeypatch.setattr(explorer, "settle", settle)
    explorer.settle()
    return explorer


@pytest.mark.parametrize("part", ["picture", "text"])
@pytest.mark.parametrize("tab", ["sample", "code_space", "spectrum", "likelihood", "inpainting"])
def test_a_failed_update_costs_one_picture(settled, tab, part, monkeypatch):
    tab = getattr(settled, tab)
    fail = Failing(monkeypatch, getattr(tab, part), times=2 if part == "text" else 1)
    before, tab.picture.value, tab.text.value = tab.drawn, b"", ""  # equal ones are not sent
    tab.request()
    settled.settle()
    assert fail.left == 0 and isinstance(tab.error, LookupError) and tab.drawn == before
    tab.request()  # nothing is wrong any more
    settled.settle()
    assert tab.error is None and tab.drawn == before + 1
    assert Image.open(io.BytesIO(tab.show().data)).width > 100


def test_a_picture_that_did_not_reach_the_page_is_sent_again(settled, monkeypatch):
    tab, sent = settled.sample, []
    Failing(monkeypatch, tab.picture)
    tab.controls["temperature"].value = 0.5
    settled.settle()
    send = type(tab.picture).send_state
    monkeypatch.setattr(type(tab.picture), "send_state", lambda this, key=None: (sent.append(key), send(this, key)))
    tab.request()  # the same picture again
    settled.settle()
    assert sent == ["value"]


@pytest.mark.parametrize(("part", "times"), [("picture", 1), ("text", 1), ("text", 2), ("progress", 1)])
def test_a_failed_update_does_not_end_a_run(settled, part, times, monkeypatch):
    tab = settled.inpainting
    tab.seconds_a_picture = 0.01
    tab.controls["steps"].value = 50
    settled.settle()
    fail = Failing(monkeypatch, getattr(tab, part), times)
    tab.start()
    settled.settle()
    assert fail.left == 0 and not tab.running and len(tab.nats) == 51
    assert tab.error is None and "step 50 of 50" in tab.text.value


@pytest.mark.parametrize("error", [ValueError("<b>"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_whatever_drawing_raises_costs_one_picture(settled, error, monkeypatch):
    def draw(**_):
        raise error

    tab = settled.spectrum
    monkeypatch.setattr(tab, "draw", draw)
    tab.request()
    settled.settle()
    assert type(error).__name__ in tab.text.value and "<b></b>" not in tab.text.value
    with pytest.raises(type(error)):
        tab.show()
    monkeypatch.undo()
    assert tab.show().data


def test_a_job_that_fails_by_itself_costs_no_other(settled):
    settled.worker.submit("broken", lambda: 1 / 0)
    assert settled.sample.show(seed=5).data
    settled.worker.submit("broken", sys.exit)
    assert settled.sample.show(seed=6).data


def test_no_thread_to_be_had_costs_one_picture(settled, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        settled.worker.submit("first", print)
    monkeypatch.undo()
    assert settled.sample.show(seed=7).data


def test_a_job_may_wait_for_the_others_without_hanging(settled):
    done = threading.Event()
    settled.worker.submit("waits", lambda: (settled.worker.settle(), done.set()))
    assert done.wait(10)


def test_the_worker_has_the_callers_context(settled):
    """ipykernel 7.0 keeps there the message that a widget's update answers."""
    parent, seen = contextvars.ContextVar("parent"), []
    parent.set("header")
    settled.worker.submit("looks", lambda: seen.append(parent.get()))
    settled.worker.settle()
    assert seen == ["header"]
