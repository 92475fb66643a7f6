"""What becomes of an explorer that is closed, replaced or hit by an error: memory goes back, and pictures go on."""

import contextvars
import gc
import json
import shutil
import subprocess
import sys
import threading
import weakref

import comm
import ipywidgets
import pytest
import torch
from conftest import ROOT
from test_explorer import make_explorer, make_model

from nicelib import NICE, InputError
from nicelib.explorer import SampleExplorer


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
    explorer.page.tab = "inpainting"
    explorer.inpainting.set(steps=3000)
    explorer.inpainting.start()
    explorer.close()


def leave_after_every_tab(explorer):
    for name, tab in explorer.tabs.items():
        explorer.page.tab = name
        tab.figure(**({"steps": 50} if name == "inpainting" else {}))
    explorer.sample.save()
    explorer.likelihood.set(image=5)
    explorer.settle()


def leave_after_an_error(explorer):
    explorer.sample.draw = lambda *_, **__: 1 / 0
    explorer.sample.request()
    explorer.settle()
    assert isinstance(explorer.sample.error, ZeroDivisionError)


@pytest.mark.parametrize(
    "use",
    [settle_and_leave, close_at_once, close_twice, close_while_inpainting, leave_after_every_tab, leave_after_an_error],
    ids=lambda use: use.__name__,
)
@pytest.mark.filterwarnings("ignore:Widget.widgets is deprecated")
def test_an_explorer_that_is_closed_or_left_frees_everything(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a picture is saved here
    gc.collect()
    before = registered()
    explorer = make_explorer()
    parts = [weakref.ref(part) for part in (explorer, explorer.model, explorer.sample, explorer.page)]
    assert registered()[0] == before[0] + 2  # the page and its layout
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
        explorer.sample.figure()
    for use in (explorer.sample.set, explorer.spectrum.set, explorer.inpainting.start, explorer.likelihood.save):
        with pytest.raises(InputError, match="this explorer is closed"):
            use()
    explorer.settle()  # nothing to wait for


@pytest.mark.parametrize("device", ["meta", "cuda"])
def test_it_draws_whatever_torchs_default_device_is(device):
    model, digits = make_model(), torch.zeros(30, 64, dtype=torch.uint8)
    torch.set_default_device(device)
    try:
        explorer = SampleExplorer(model, digits)
        for tab in explorer.tabs.values():
            tab.set(**({"image": digits[0], "steps": 50} if tab.name == "inpainting" else {}))
            assert tab.figure()
        explorer.settle()
        assert [tab.error for tab in explorer.tabs.values()] == [None] * 6
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("dim", [4, 16])
def test_the_smallest_images_have_all_tabs(dim):
    explorer = SampleExplorer(NICE(dim=dim, mid_dim=4, hidden=1), torch.zeros(5, dim, dtype=torch.uint8))
    assert all(tab.figure() for tab in explorer.tabs.values())


DIGITS, LABELS = torch.zeros(5, 16, dtype=torch.uint8), torch.arange(5)


@pytest.mark.parametrize(
    ("dtype", "digits", "labels", "said"),
    [
        (torch.float16, DIGITS, LABELS, "a model in torch.float16"),
        (torch.bfloat16, DIGITS, LABELS, "a model in torch.bfloat16"),
        (torch.float32, DIGITS.numpy(), LABELS, "digits of type ndarray"),
        (torch.float32, DIGITS.tolist(), LABELS, "digits of type list"),
        (torch.float32, DIGITS.to("meta"), LABELS, "digits of shape"),
        (torch.float32, DIGITS, LABELS.numpy(), "labels of type ndarray"),
        (torch.float32, DIGITS, LABELS.tolist(), "labels of type list"),
        (torch.float32, DIGITS, LABELS / 0, "labels of shape .* dtype torch.float32; expected whole numbers"),
        (torch.float32, DIGITS, LABELS[:4], r"labels of shape \(4,\)"),
    ],
)
def test_what_it_cannot_show_is_refused_in_words(dtype, digits, labels, said):
    with pytest.raises(InputError, match=said):
        SampleExplorer(NICE(16, mid_dim=2, hidden=1).to(dtype), digits, labels)


def test_numbers_that_count_are_whole():
    explorer = make_explorer()
    for tab, value in (("sample", {"seed": 1.5}), ("sample", {"number": 2.5}), ("spectrum", {"rank": 0.5})):
        with pytest.raises(InputError, match="expected a whole number from"):
            getattr(explorer, tab).figure(**value)


def test_saving_says_where_or_why_not(tmp_path, monkeypatch):
    explorer, folder = make_explorer(), tmp_path / "folder"
    explorer.settle()
    folder.mkdir()
    monkeypatch.chdir(folder)
    explorer.sample.save()
    explorer.settle()
    assert explorer.page.sample["said"].startswith("saved ") and list(folder.iterdir())
    shutil.rmtree(folder)  # and we are in it
    explorer.sample.save()
    explorer.settle()
    monkeypatch.chdir(tmp_path)
    assert explorer.page.sample["said"].startswith("not saved: ")


@pytest.mark.parametrize("then", ["pass", "ex.page.tab = 'inpainting'; ex.inpainting.start()"], ids=["draws", "climbs"])
def test_python_ends_well_while_it_draws(then):
    """A thread in torch's code when Python ends would abort it."""
    code = f"from nicelib.explorer import SampleExplorer; ex = SampleExplorer(); {then}; print('done')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


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
    assert tab.figure(temperature=0.5) and tab.explorer.worker.closed is False


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
        ([MADE, "explorer", "1 + 1", "_"], 1),
        ([f"{MADE}\ndisplay(explorer)", "_ = None"], 1),
        ([f"{MADE}\nexplorer", "explorer.close()"], 0),
        ([f"{MADE}; first = explorer\n{MADE}\ndisplay(first, explorer); del first, explorer"], 2),
    ],
    ids=["shown", "shown below", "shown and left", "displayed", "closed", "two without a name"],
)
def test_a_cell_run_again_frees_what_it_showed(cells, alive):
    done = subprocess.run(
        [sys.executable, "-c", CELLS.format(cells=cells)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert "COUNTS" in done.stdout, done.stderr
    counts = json.loads(done.stdout.split("COUNTS")[1])
    assert [models for models, _ in counts] == [alive] * 5
    assert counts[-1] == counts[0]  # widgets too


def test_the_page_knows_its_name_in_the_notebook():
    """For "Copy as code": the line of one explorer must not draw another's picture."""
    make = "SampleExplorer(NICE(dim=16, mid_dim=4, hidden=1), digits)"
    cells = f"explorer = {make}", f"mine = {make}\nmine", "[mine._repr_mimebundle_(), mine.page.called][1]", make
    script = CELLS.format(cells=[*cells, "unnamed = _.page.called; print('NAMES', mine.page.called, unnamed)"])
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "NAMES mine your_explorer" in done.stdout, done.stdout + done.stderr


def test_what_was_saved_outlives_the_next_picture_of_a_run(settled):
    tab = settled.inpainting
    settled.page.tab = "inpainting"
    settled.settle()
    tab.tell(said="saved")
    for running, said in ((True, "saved"), (False, "")):
        tab.put(lambda: [], None, running=running)
        assert settled.page.inpainting["said"] == said


class Failing:
    """The next ``times`` updates of the page fail, as in a kernel that finds no message to answer in this thread."""

    def __init__(self, monkeypatch, page, times=1):
        self.left, send = times, type(page).send_state

        def send_state(this, *args, **kwargs):
            if this is page and self.left and threading.current_thread() is not threading.main_thread():
                self.left -= 1
                raise LookupError("no parent header in this thread")
            return send(this, *args, **kwargs)

        monkeypatch.setattr(type(page), "send_state", send_state)


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


@pytest.mark.parametrize("times", [1, 2])  # the picture, or the line that says what happened too
@pytest.mark.parametrize("tab", ["sample", "code_space", "layers", "spectrum", "likelihood", "inpainting"])
def test_a_failed_update_costs_one_picture(settled, tab, times, monkeypatch):
    settled.page.tab, tab = tab, getattr(settled, tab)
    settled.settle()
    fail, before = Failing(monkeypatch, settled.page, times), tab.drawn
    tab.request()
    settled.settle()
    assert fail.left == 0 and isinstance(tab.error, LookupError) and tab.drawn == before
    tab.request()  # nothing is wrong any more
    settled.settle()
    assert tab.error is None and tab.drawn == before + 1
    assert getattr(settled.page, tab.name)["scenes"] and not getattr(settled.page, tab.name)["said"]


def test_a_picture_that_did_not_reach_the_page_is_sent_again(settled, monkeypatch):
    tab, sent = settled.sample, []
    Failing(monkeypatch, settled.page, times=2)
    tab.set(temperature=0.5)
    settled.settle()
    send = type(settled.page).send_state
    monkeypatch.setattr(type(settled.page), "send_state", lambda this, key=None: (sent.append(key), send(this, key)))
    tab.request()  # the same picture again
    settled.settle()
    assert "sample" in str(sent)


@pytest.mark.parametrize("times", [1, 2])
def test_a_failed_update_does_not_hang_a_run(settled, times, monkeypatch):
    settled.page.tab, tab = "inpainting", settled.inpainting
    tab.seconds_a_picture = 0.01
    tab.set(steps=50)
    settled.settle()
    fail = Failing(monkeypatch, settled.page, times)
    tab.start()
    settled.settle()
    assert fail.left == 0 and not tab.running
    tab.start()
    settled.settle()
    assert (
        len(tab.nats["this model"]) == 51
        and tab.error is None
        and "step 50 of 50" in settled.page.inpainting["scenes"][0]["text"]
    )


@pytest.mark.parametrize("error", [ValueError("<b>"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_whatever_drawing_raises_costs_one_picture(settled, error, monkeypatch):
    def draw(*_, **__):
        raise error

    settled.page.tab, tab = "spectrum", settled.spectrum
    settled.settle()
    monkeypatch.setattr(tab, "draw", draw)
    tab.request()
    settled.settle()
    assert settled.page.spectrum["said"].startswith(type(error).__name__)
    with pytest.raises(type(error)):
        tab.figure()
    monkeypatch.undo()
    tab.request()
    settled.settle()
    assert tab.error is None and not settled.page.spectrum["said"]


def test_a_job_that_fails_by_itself_costs_no_other(settled):
    settled.worker.submit("broken", lambda: 1 / 0)
    count = settled.sample.drawn
    settled.sample.set(seed=5)
    settled.settle()
    settled.worker.submit("broken", sys.exit)
    settled.sample.set(seed=6)
    settled.settle()
    assert settled.sample.drawn == count + 2


def test_no_thread_to_be_had_costs_one_picture(settled, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        settled.worker.submit("first", print)
    monkeypatch.undo()
    count = settled.sample.drawn
    settled.sample.set(seed=7)
    settled.settle()
    assert settled.sample.drawn == count + 1


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
