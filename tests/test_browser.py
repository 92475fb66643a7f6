"""The explorer in a real browser: JupyterLab (and Voila, where installed) on loopback, Debian's Chromium, Playwright.

One server, one page and one kernel serve nearly all of it; each test runs the explorer's cell again and so begins afresh.
With ``NICE_SCREENSHOTS=folder`` the tests leave pictures of every tab there.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from nicelib.explorer.controls import pixels_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium found: apt-get install chromium")

NOTEBOOK = ROOT / "notebooks" / "07_sample_explorer.ipynb"
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {
        "windowingMode": "none"
    },  # every cell is in the page
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
}
TABS = ("Sample", "Code space", "Layers", "Spectrum", "Likelihood", "Inpainting")
LIMIT = 60  # seconds that any wait may last


def start_server(command, url, folder):
    """A server process that has answered at url; its output is in folder / 'server.log'."""
    environment = os.environ | {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment["IPYTHONDIR"] = str(folder / "ipython")
    with open(folder / "server.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return process
        except urllib.error.HTTPError:  # it answers
            return process
        except OSError:
            time.sleep(0.25)
            if process.poll() is not None:
                break
    process.kill()
    pytest.fail((folder / "server.log").read_text(encoding="utf-8")[-2000:])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


FRAMES = "[...document.querySelectorAll('.nice .play canvas')].map((c) => c.toDataURL())"


class Explorer:
    """The explorer as a reader has it before them."""

    def __init__(self, page):
        self.page, self.errors = page, []
        page.set_default_timeout(1000 * LIMIT)
        page.on("pageerror", lambda error: self.errors.append(f"page: {error}"))
        page.on("console", self._console)

    def _console(self, message):
        resource = "Failed to load resource" in message.text  # a favicon, an update check: not ours
        if message.type == "error" and not resource:
            self.errors.append(f"console: {message.text}")

    @property
    def root(self):
        return self.page.locator(".nice")

    def control(self, label):
        return self.root.locator(".left").get_by_label(label, exact=True)

    def button(self, label):
        return self.root.get_by_role("button", name=re.compile(f"^({label}|[0-9]+ {label})$"))

    def tab(self, title):
        self.root.get_by_role("tab", name=title, exact=True).click()
        self.settle()

    def panel(self, title):
        return self.root.locator("figure", has=self.page.get_by_text(title, exact=True)).last

    def drawn(self):
        """Which picture stands there: tab and number."""
        return self.page.evaluate(
            "() => (v => v && v.getAttribute('aria-label') + v.dataset.drawn)(document.querySelector('.nice .view'))"
        )

    def until(self, script, what, arg=None, limit=LIMIT):
        """Wait until the script is true in the page, which is what should come about."""
        try:
            self.page.wait_for_function(script, arg=arg, timeout=1000 * limit)
        except sync_api.TimeoutError:
            pytest.fail(f"waited {limit} s in vain: {what}; errors: {self.errors}")

    def settle(self):
        """Wait until the picture is that of the controls as they are."""
        self.until(
            "() => document.querySelector('.nice .view[aria-busy=false] section')", "the picture never came to rest"
        )

    def changes(self, act):
        """act() brings a new picture."""
        before = self.drawn()
        act()
        self.until(
            "was => (v => v.getAttribute('aria-label') + v.dataset.drawn !== was)(document.querySelector('.nice .view'))",
            "no new picture",
            before,
        )
        self.settle()

    def press(self, label, key, times=1):
        for _ in range(times):
            self.control(label).press(key)

    def notice(self):
        return self.root.locator(".said").inner_text()

    def said(self):
        """The line of numbers, without what it says of the picture before."""
        return re.sub(r" \(before: .*?\)", "", self.root.locator(".line").first.inner_text())

    def frames(self):
        """What the player's two screens show."""
        return self.page.evaluate(f"JSON.stringify({FRAMES})")

    def milliseconds(self, label, key, presses=11):
        """From the release of a key to the new picture in the page: one number a press."""
        tiles = self.root.locator(".gallery .tile")
        self.page.evaluate(
            """() => {
                window.times = [];
                document.addEventListener('keyup', () => { window.released = performance.now(); }, true);
                new MutationObserver(() => {
                    requestAnimationFrame(() => window.times.push(performance.now() - window.released));
                }).observe(document.querySelector('.nice .view'), { attributes: true, attributeFilter: ['data-drawn'] });
            }"""
        )
        for i in range(presses):
            (tiles.nth(i) if label == "gallery" else self.control(label)).press(key)
            self.until(f"window.times.length > {i}", f"no picture after press {i} of {key}")
        return self.page.evaluate("window.times")


def look_through_samples(explorer):
    explorer.settle()
    for key in ("ArrowLeft", "ArrowRight"):
        explorer.changes(lambda key=key: explorer.press("temperature", key, 3))
    explorer.changes(lambda: explorer.button("New samples").click())
    assert explorer.control("seed").input_value() == "1"
    explorer.button("Save as PNG").click()
    explorer.page.get_by_text("saved ").wait_for()
    explorer.button("Copy as code").click()
    explorer.page.get_by_text("copied: explorer.sample.show(seed=1)").wait_for()
    explorer.changes(lambda: explorer.button("Reset").click())
    assert explorer.control("seed").input_value() == "0"
    explorer.root.get_by_role("button", name=re.compile("^36 samples, image 2:")).click()  # hand it over
    explorer.changes(lambda: explorer.root.locator(".hand").get_by_role("button", name="Likelihood").click())
    assert explorer.root.get_by_role("tab", selected=True).inner_text() == "Likelihood"
    explorer.tab("Sample")


def walk(explorer, kernel=None):
    explorer.root.get_by_role("tab", name="Sample", exact=True).focus()  # by keyboard alone
    explorer.page.keyboard.press("ArrowRight")
    explorer.changes(lambda: explorer.page.keyboard.press("Enter"))
    gallery = explorer.root.get_by_role("group", name="Gallery of real digits")
    explorer.changes(lambda: gallery.get_by_role("button", name=re.compile("^a 3, number")).first.click())
    assert explorer.root.locator(".chain button").count() == 3
    gallery.get_by_role("button").first.focus()
    explorer.page.keyboard.press("ArrowRight")
    explorer.page.keyboard.press("ArrowDown")
    explorer.changes(lambda: explorer.page.keyboard.press("Enter"))
    assert explorer.root.locator(".chain button").last.get_attribute("title").startswith("a 1, number 51.")
    explorer.changes(lambda: explorer.root.locator(".chain button").last.click())  # out again
    assert explorer.root.locator(".chain button").count() == 3
    if kernel:
        os.kill(kernel, signal.SIGSTOP)  # whatever moves now moves without it
    try:
        explorer.button("Play").click()
        for _ in range(4):
            explorer.until(f"was => JSON.stringify({FRAMES}) !== was", "the walk does not move", explorer.frames())
        explorer.button("Pause").click()
        rest = explorer.frames()
        explorer.page.wait_for_timeout(300)
        assert explorer.frames() == rest
        time_slider = explorer.root.locator(".time input")
        time_slider.press("Home")
        codes, pixels = json.loads(explorer.frames())
        assert codes == pixels != json.loads(rest)[0]  # both walks begin at the same digit
    finally:
        if kernel:
            os.kill(kernel, signal.SIGCONT)
    explorer.tab("Layers")
    before = explorer.frames()
    explorer.root.locator(".time input").press("PageUp")
    assert explorer.frames() != before
    explorer.changes(lambda: explorer.button("New code").click())


PIXELS = "pad => pad.toDataURL()"


def turn_and_draw(explorer):
    explorer.tab("Spectrum")
    explorer.changes(lambda: explorer.press("k kept", "PageDown"))
    explorer.changes(lambda: explorer.press("its z", "ArrowLeft"))
    explorer.tab("Likelihood")
    pad = explorer.root.get_by_role("application")
    explorer.page.wait_for_timeout(1000)  # the digit stands for a while
    explorer.changes(lambda: explorer.button("Clear the pad").click())
    empty = explorer.said()
    assert "likelier than 499 of 500" in empty
    assert re.search(r"\(before: 2,[0-9]{3} nats; 3[0-9]{2} more\)", line(explorer)), (
        "clearing the pad is compared with nothing"
    )
    nothing = pad.evaluate(PIXELS)
    box = pad.bounding_box()

    def draw():
        explorer.page.mouse.move(box["x"] + 80, box["y"] + 40)
        explorer.page.mouse.down()
        for y in range(50, 180, 10):
            explorer.page.mouse.move(box["x"] + 120, box["y"] + y)
        explorer.page.mouse.up()

    explorer.changes(draw)
    drawn = explorer.said()
    assert drawn != empty
    explorer.page.mouse.move(box["x"] + 160, box["y"] + 160)
    outlined = pad.evaluate(PIXELS)
    explorer.page.mouse.move(box["x"] + 60, box["y"] + 160)
    assert pad.evaluate(PIXELS) != outlined  # the pen's outline goes with the pointer
    explorer.button("Erase").click()
    explorer.changes(draw)
    explorer.page.mouse.move(0, 0)
    assert explorer.said() == empty and pad.evaluate(PIXELS) == nothing  # no rim of the stroke is left
    explorer.changes(lambda: explorer.button("Undo").click())
    assert explorer.said() == drawn
    explorer.changes(lambda: explorer.button("Undo").click())
    assert explorer.said() == empty
    explorer.button("Pen").click()
    pad.focus()

    def draw_by_keyboard():
        for key in ("Space", *["ArrowRight"] * 5, "Space"):
            explorer.page.keyboard.press(key)

    explorer.changes(draw_by_keyboard)
    by_keyboard = explorer.said()
    explorer.changes(lambda: explorer.button("Reset").click())
    assert explorer.said() != by_keyboard
    explorer.changes(lambda: explorer.button("Undo").click())  # a drawing that was replaced is not lost
    assert explorer.said() == by_keyboard
    pad.focus()
    explorer.page.keyboard.press("Tab")  # the pad lets go
    assert not pad.evaluate("pad => pad === document.activeElement")
    explorer.changes(lambda: explorer.press("turn", "ArrowRight"))
    assert "applied: turn 5" in explorer.said()
    explorer.panel("nats a pixel gives").locator("canvas").hover(position={"x": 3, "y": 3})
    explorer.page.get_by_text(re.compile("^row 0, column 0: [0-9.]+ nats$")).wait_for()
    explorer.changes(lambda: explorer.button("Reset").click())
    assert "applied" not in explorer.said()


def inpaint(explorer):
    explorer.tab("Inpainting")
    explorer.changes(lambda: explorer.control("hidden").select_option("left"))
    explorer.changes(lambda: explorer.control("hidden").select_option("nothing: use the brush"))
    assert "nothing is hidden" in explorer.said()
    explorer.changes(lambda: explorer.button("Undo").click())
    explorer.button("Hide").click()
    explorer.changes(lambda: explorer.root.get_by_role("application").click(position={"x": 150, "y": 120}))
    assert explorer.control("hidden").evaluate("s => s.selectedOptions[0].text") == "your brush"
    explorer.changes(lambda: explorer.control("steps").press("Home"))
    explorer.changes(lambda: explorer.button("Start").click())
    explorer.page.get_by_text("step 50 of 50").wait_for()
    explorer.changes(lambda: explorer.control("steps").press("End"))
    explorer.button("Start").click()
    stop = "document.querySelector('.nice [data-do=stop]').disabled"
    explorer.until(f"() => !{stop}", "the run does not start")
    explorer.button("Stop").click()
    explorer.until(f"() => {stop}", "the run does not stop")
    explorer.page.get_by_text("press Start anew, or Go on").wait_for()
    stands = explorer.page.get_by_text("of 3000").inner_text().split()[1]
    assert stands != "3000"
    explorer.button("Go on").click()
    explorer.until(f"() => !{stop}", "the run does not go on")
    ahead = f"() => Number(/^step ([0-9]+)/.exec(document.querySelector('.nice .line').textContent)[1]) > {stands}"
    explorer.until(ahead, "the run stands still, or began afresh")
    explorer.button("Stop").click()
    explorer.page.get_by_text("press Start anew, or Go on").wait_for()
    stands = explorer.page.get_by_text("of 3000").inner_text().split()[1]
    explorer.button("Copy as code").click()  # a line that runs to the end, and says so
    explorer.page.get_by_text(re.compile(f"^copied: .*# to step 3000; the page stands at step {stands}$")).wait_for()


def compare_and_tour(explorer):
    explorer.tab("Sample")
    explorer.changes(lambda: explorer.button("one logistic a pixel").click())
    assert explorer.root.locator(".view h4").all_inner_texts() == ["the shipped model", "one logistic a pixel"]
    explorer.changes(lambda: explorer.button("one logistic a pixel").click())
    assert explorer.root.locator(".view section").count() == 1
    explorer.changes(lambda: explorer.press("temperature", "ArrowLeft", 4))
    mine, tour = explorer.said(), explorer.root.get_by_role("group", name="A tour").get_by_role("button").all()
    said = []
    for stop in tour:
        stop.click()
        explorer.settle()
        say = explorer.root.locator(".say")
        asked, before = say.inner_text(), explorer.drawn()
        assert stop.get_attribute("aria-pressed") == "true" and "?" in asked and say.locator("b").count() == 0
        explorer.button("Show answer").click()
        told = say.locator("b").text_content()  # of a run it is seen at its end
        assert told not in asked and say.get_by_role("button", name="Show answer").count() == 0
        explorer.settle()
        said.append((told, explorer.drawn() != before))
    assert len({told for told, _ in said}) == len(tour) == 13 and sum(moved for _, moved in said) >= 7
    tour[11].click()  # from a tab of other controls
    explorer.settle()
    explorer.button("Leave the tour").click()
    explorer.settle()  # all as it was before
    assert explorer.root.get_by_role("tab", selected=True).inner_text() == "Sample"
    assert explorer.said() == mine and explorer.root.locator(".view section").count() == 1
    tour[6].click()
    explorer.tab("Likelihood")  # to go on by oneself leaves it too
    assert "applied" not in explorer.said() and "likelier than 499" not in explorer.said()
    assert explorer.root.locator(".tour [aria-pressed=true]").count() == 0
    explorer.tab("Inpainting")  # also after a walk through the tabs
    explorer.button("Back to stop 7").click()
    explorer.settle()
    assert "7 of 13" in explorer.root.locator(".say").inner_text()
    explorer.button("Leave the tour").click()
    explorer.tab("Sample")
    explorer.changes(lambda: explorer.button("Reset").click())


def compare_with_the_last_reading(explorer):
    explorer.tab("Likelihood")
    explorer.page.wait_for_timeout(1000)  # the reading stands for a while
    before = explorer.said().split(" nats")[0]
    for _ in range(3):  # quickly, as a hand pulls a slider
        explorer.changes(lambda: explorer.press("turn", "ArrowRight"))
    line = explorer.root.locator(".line").first.inner_text()
    assert f"(before: {before} nats" in line and not line.startswith(before)
    assert explorer.panel("among real digits").get_by_text("before", exact=True).count() == 1
    explorer.button("Copy as code").click()
    explorer.page.get_by_text("copied: explorer.likelihood.show(turn=15)").wait_for()
    explorer.changes(lambda: explorer.root.get_by_role("application").click(position={"x": 60, "y": 60}))
    explorer.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    explorer.button("Copy as code").click()
    explorer.page.get_by_text(re.compile("^copied: .*image=.*characters")).wait_for()  # its beginning: it is long
    code = explorer.page.evaluate("navigator.clipboard.readText()")
    pixels = pixels_of(re.search('image="(.*?)"', code)[1], 784)  # the drawing, in a few characters
    assert len(code) < 400 and 100 < (pixels > 0).sum() < 250
    explorer.changes(lambda: explorer.button("Reset").click())
    explorer.tab("Sample")


def line(explorer):
    return explorer.root.locator(".line").first.inner_text()


def test_before_compares_what_is_alike(explorer):
    """A slider, a stroke and an answer are compared with what stood there; another image, stop, number or tab is not."""

    def settled(act):
        explorer.page.wait_for_timeout(1000)  # the reading before it stands for a while
        explorer.changes(act)
        return "(before: " in line(explorer), explorer.root.get_by_text("before", exact=True).count() > 0

    tour = explorer.root.get_by_role("group", name="A tour").get_by_role("button")
    digit = explorer.root.get_by_role("button", name=re.compile("^a 2, number")).first
    assert settled(lambda: explorer.press("images", "Home")) == (False, False)
    assert settled(lambda: explorer.press("temperature", "ArrowLeft")) == (True, True)
    explorer.tab("Likelihood")
    assert settled(lambda: explorer.press("turn", "ArrowLeft")) == (True, True)
    assert settled(digit.click) == (False, False) and explorer.control("turn").input_value() == "0"
    assert settled(lambda: explorer.root.get_by_role("application").click()) == (True, True)
    assert settled(lambda: explorer.button("Reset").click()) == (False, False)
    assert settled(lambda: explorer.press("turn", "ArrowLeft")) == (True, True)
    assert settled(tour.nth(7).click) == (False, False)
    assert settled(lambda: explorer.button("Show answer").click()) == (True, True)
    assert settled(tour.nth(8).click) == (False, False)
    assert settled(lambda: explorer.button("Leave the tour").click()) == (False, False)
    assert settled(lambda: explorer.press("turn", "ArrowRight", 2)) == (True, True)
    explorer.changes(lambda: explorer.button("Reset").click())
    explorer.page.wait_for_timeout(1000)
    whole, box = line(explorer).split(" nats")[0], explorer.root.get_by_role("application").bounding_box()
    explorer.page.mouse.move(box["x"] + 20, box["y"] + 20)
    explorer.page.mouse.down()
    for y in (40, 60):  # a slow hand: what it has drawn by then stands for a while
        explorer.page.mouse.move(box["x"] + 20, box["y"] + y)
        explorer.settle()
        explorer.page.wait_for_timeout(1000)
    explorer.page.mouse.move(box["x"] + 20, box["y"] + 90)
    explorer.page.mouse.up()
    explorer.settle()
    assert f"(before: {whole} nats" in line(explorer), f"a stroke is compared with its own beginning: {line(explorer)}"


def test_undo_in_every_tab(explorer):
    """A change of any control is one step, also what a hand pulls in one go; Ctrl Z works wherever the focus is."""
    undo = explorer.button("Undo")
    controls = {
        "Sample": lambda: explorer.press("temperature", "Home"),
        "Code space": lambda: explorer.root.locator(".gallery .tile").nth(4).click(),
        "Layers": lambda: explorer.root.locator(".gallery .tile").nth(4).click(),
        "Spectrum": lambda: explorer.press("its z", "ArrowLeft"),
        "Likelihood": lambda: explorer.root.locator(".gallery .tile").nth(4).click(),
        "Inpainting": lambda: explorer.control("rule").select_option("paper"),
    }
    for title, act in controls.items():
        explorer.tab(title)
        before = explorer.said()
        assert undo.is_disabled(), title
        explorer.changes(act)
        if title != "Inpainting":  # its start is the same by any rule
            assert explorer.said() != before, title
        explorer.changes(lambda: explorer.page.keyboard.press("Control+z"))
        assert explorer.said() == before and undo.is_disabled(), title
    explorer.tab("Likelihood")
    before, box = explorer.said(), explorer.control("turn").bounding_box()
    explorer.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    explorer.page.mouse.down()
    for x in range(5, 50, 5):
        explorer.page.mouse.move(box["x"] + box["width"] / 2 + x, box["y"] + box["height"] / 2)
    explorer.page.mouse.up()
    explorer.settle()
    assert explorer.said() != before
    explorer.changes(lambda: undo.click())
    assert explorer.said() == before and undo.is_disabled()
    for _ in range(4):  # presses one after the other
        explorer.changes(lambda: explorer.press("noise", "ArrowRight"))
    explorer.page.wait_for_timeout(1200)
    explorer.changes(lambda: explorer.press("noise", "ArrowRight"))
    explorer.changes(lambda: undo.click())
    assert explorer.control("noise").input_value() == "0.04"
    explorer.changes(lambda: undo.click())
    assert explorer.said() == before and undo.is_disabled()
    focused = explorer.page.evaluate("document.activeElement.textContent")
    assert focused == "Undo", f"the focus is lost on {focused!r}"
    explorer.button("Undo").click(force=True)  # once too often
    for key in ("Control+Shift+Z", "Control+y"):  # what was taken back comes again
        explorer.changes(lambda key=key: explorer.page.keyboard.press(key))
    assert explorer.control("noise").input_value() == "0.05" and undo.is_enabled()
    explorer.changes(lambda: undo.click())
    explorer.changes(lambda: explorer.press("turn", "ArrowRight"))  # another way on: nothing to come again
    now = explorer.said()
    explorer.page.keyboard.press("Control+Shift+Z")
    explorer.page.wait_for_timeout(200)
    explorer.settle()
    assert explorer.said() == now


def test_a_picture_is_kept_to_compare_with(explorer):
    """Until it is let go, whatever comes; in a stop of the tour that is the question's."""
    explorer.tab("Likelihood")
    keep = explorer.button("Keep")
    whole = line(explorer).split(" nats")[0]
    keep.click()
    assert keep.get_attribute("aria-pressed") == "true"
    explorer.changes(lambda: explorer.button("Clear the pad").click())
    explorer.changes(lambda: explorer.press("turn", "ArrowRight"))
    assert f"(kept: {whole} nats" in line(explorer), line(explorer)
    assert explorer.panel("among real digits").get_by_text("kept", exact=True).count() == 1
    explorer.tab("Sample")
    explorer.tab("Likelihood")
    assert f"(kept: {whole} nats" in line(explorer), line(explorer)
    tour = explorer.root.get_by_role("group", name="A tour").get_by_role("button")
    tour.nth(7).click()
    explorer.settle()
    explorer.button("Show answer").click()
    explorer.settle()
    assert "kept" not in line(explorer) and "(before: " in line(explorer), "a stop is compared with its own question"
    explorer.changes(lambda: explorer.button("Leave the tour").click())
    assert f"(kept: {whole} nats" in line(explorer), line(explorer)
    keep.click()
    assert "kept" not in line(explorer) and keep.get_attribute("aria-pressed") == "false"
    tour.nth(9).click()
    explorer.settle()
    asked = line(explorer).split(" nats")[0]
    explorer.button("Show answer").click()
    explorer.settle()
    for _ in range(3):
        explorer.changes(lambda: explorer.press("shift down", "ArrowRight"))
        explorer.page.wait_for_timeout(900)
    assert "58 more" in line(explorer), "the difference is left to mental arithmetic"
    told, before = line(explorer).split(" nats")[0], f"(before: {asked} nats"
    assert before in line(explorer), line(explorer)
    assert float(told.replace(",", "")) > float(asked.replace(",", "")), "as the answer says: its place, not its shape"


def test_jupyters_own_keys_and_the_menu(explorer, lab):
    """Ctrl S saves the notebook from in here; plain keys stay; a menu does not stay when its image goes."""
    book = lab.folder / "cell.ipynb"
    was = book.stat().st_mtime_ns
    explorer.control("temperature").focus()
    explorer.page.keyboard.press("Control+s")
    limit = time.monotonic() + LIMIT
    while book.stat().st_mtime_ns == was and time.monotonic() < limit:
        explorer.page.wait_for_timeout(100)
    assert book.stat().st_mtime_ns != was, "Ctrl S does not save"
    cells = explorer.page.locator(".jp-Cell").count()
    for key in "bbdd":
        explorer.page.keyboard.press(key)
    assert explorer.page.locator(".jp-Cell").count() == cells, "a plain key reaches the notebook"
    hand = explorer.root.locator(".hand")
    for tiles in (".view .tile", ".gallery .tile"):
        for tile in (
            explorer.root.locator(tiles).nth(at) for at in (1, 8)
        ):  # no second click to close the first's menu
            tile.click()
            assert hand.is_visible()
            menu, group = hand.bounding_box(), tile.locator("..").bounding_box()
            beside = menu["x"] >= group["x"] + group["width"] or menu["y"] >= group["y"] + group["height"]
            assert beside, f"the menu {menu} covers other images of {tiles}"
    explorer.root.locator(".view .tile").first.click()
    explorer.page.set_viewport_size({"width": 1280, "height": 420})
    for end in ("false", "true"):
        explorer.page.wait_for_timeout(400)
        explorer.root.evaluate(f"n => n.scrollIntoView({end})")
    explorer.page.wait_for_timeout(200)
    assert not hand.is_visible(), "the menu stands beside another image"
    explorer.page.set_viewport_size(SIZE)
    explorer.tab("Likelihood")
    order = explorer.page.evaluate(
        "[...document.querySelectorAll('.nice .body :is([role=application], input:not(.typed), .gallery)')].map((n) => n.className || n.role || n.type)"
    )
    assert order == ["application", "gallery", "range", "range", "range", "range"], (
        f"not as the eye meets them: {order}"
    )
    pad = explorer.root.get_by_role("application")
    explorer.button("Clear the pad").click()
    explorer.settle()
    clean = pad.evaluate(PIXELS)
    explorer.page.keyboard.press("ArrowRight")
    assert pad.evaluate(PIXELS) != clean, "the pen that the keys move is not to be seen"


def test_what_was_here_comes_back(explorer):
    """The cell run again, after a restart or by mistake, offers the settings and drawings that stood in the page."""
    offer = explorer.button("Bring back what was here")
    run_cell(explorer)
    if offer.count():  # of an earlier test
        offer.click()
        explorer.settle()
    explorer.tab("Sample")
    explorer.press("temperature", "Home")
    explorer.tab("Likelihood")
    explorer.changes(lambda: explorer.root.get_by_role("application").click(position={"x": 30, "y": 30}))
    drawn = explorer.said()
    explorer.root.get_by_role("group", name="A tour").get_by_role(
        "button"
    ).first.click()  # whose values are not the reader's
    explorer.settle()
    run_cell(explorer)
    assert explorer.said() != drawn and offer.count() == 1
    explorer.changes(offer.click)
    explorer.settle()
    assert explorer.said() == drawn and offer.count() == 0
    explorer.tab("Sample")
    assert explorer.control("temperature").input_value() == "0"
    run_cell(explorer)
    explorer.changes(lambda: explorer.press("temperature", "ArrowLeft"))
    assert offer.count() == 1, "a first click loses what was there"
    explorer.changes(offer.click)
    assert explorer.control("temperature").input_value() == "0"
    explorer.changes(offer.click)  # what had been done since then is not lost
    assert explorer.control("temperature").input_value() == "0.95", "Bring back destroys what is there"


def test_a_question_does_not_show_its_answer(explorer):
    """What a stop's question asks for is out of sight until "Show answer"; of a walk, what was not yet played."""
    seen = "s => getComputedStyle(document.querySelector(`.nice ${s}`)).visibility"
    tour = explorer.root.get_by_role("group", name="A tour").get_by_role("button")
    kept = {2: ".view .tile", 3: ".view .tile", 8: ".field canvas"}
    largest = (
        "Math.max(...[...document.querySelectorAll('.nice .view canvas')].map((c) => c.getBoundingClientRect().width))"
    )
    for stop in range(13):
        tour.nth(stop).click()
        explorer.settle()
        if stop == 7:
            explorer.button("Erase").click()
        if stop == 8:
            pen = explorer.button("Pen").get_attribute("aria-pressed")
            assert pen == "true", "the eraser is still in hand at the next stop"
        for hidden in {2, 3, 8} & {stop}:
            assert explorer.page.evaluate(seen, kept[hidden]) == "hidden", stop
        for label, here in (("k kept", stop != 5), ("rank", stop != 4)):
            if stop in (4, 5):  # what has no part in the question is not there
                assert explorer.control(label).is_visible() == here, f"stop {stop + 1}: {label}"
        assert explorer.root.locator(".line").first.is_visible() == (stop != 4)
        place = explorer.root.locator(".view").bounding_box()["y"]
        wide = explorer.page.evaluate(largest)
        if stop == 2:
            clip = "getComputedStyle(document.querySelector('.nice .play svg')).clipPath"
            closed = explorer.page.evaluate(clip)
            explorer.root.locator(".time input").press("End")
            assert explorer.page.evaluate(clip) != closed != "none"
        explorer.button("Show answer").click()
        explorer.settle()
        moved = explorer.root.locator(".view").bounding_box()["y"] - place
        assert moved == 0, f"stop {stop + 1}: the answer moves the picture by {moved} pixels"
        now = explorer.page.evaluate(largest)
        assert stop == 12 or now > 0.98 * wide, f"stop {stop + 1}: the answer shrinks its image from {wide} to {now}"
        for shown in {2, 3, 8} & {stop}:
            assert explorer.page.evaluate(seen, kept[shown]) == "visible", stop
        if stop == 8:
            rings = "(r => Math.max(...r.map(([r, g, b]) => r - b)))([...Array(280 * 280).keys()].map((i) => pad.slice(4 * i, 4 * i + 3)))"
            script = f"(c => {{ const pad = [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; return {rings}; }})"
            assert explorer.page.evaluate(f"{script}(document.querySelector('.nice .pad canvas'))") > 100, (
                "no ring on the pad"
            )
        explorer.page.wait_for_timeout(100)
        high = explorer.root.evaluate("n => n.clientHeight")
        assert high < 720 - 110, f"stop {stop + 1}: a part of it is below the fold, {high}"


def test_large_is_larger(explorer):
    """On a small screen too: more of it is picture, nothing must be scrolled, and after a tour it rests."""
    explorer.root.get_by_role("group", name="A tour").get_by_role("button").last.click()
    explorer.tab("Sample")  # with a button more in the tour's row
    explorer.button("Large").click()
    explorer.until("() => document.fullscreenElement?.matches('.nice')", "it does not fill the screen")
    explorer.page.wait_for_timeout(300)
    changes = """() => new Promise((done) => {
        let count = 0;
        new MutationObserver((all) => (count += all.length)).observe(document.querySelector('.nice'), { attributes: true });
        setTimeout(() => done(count), 700);
    })"""
    assert explorer.page.evaluate(changes) == 0, "the layout never rests"
    explorer.button("Leave large").click()
    explorer.until("() => !document.fullscreenElement", "it does not come back")
    area = "[...document.querySelectorAll('.nice .view canvas, .nice .plot')].reduce((sum, c) => (b => sum + b.width * b.height)(c.getBoundingClientRect()), 0)"
    for models in (1, 2):
        for title in TABS:
            explorer.tab(title)
            before = explorer.page.evaluate(area)
            explorer.button("Large").click()
            explorer.until("() => document.fullscreenElement?.matches('.nice')", "it does not fill the screen")
            explorer.page.wait_for_timeout(200)
            large, over = explorer.page.evaluate(area), explorer.root.evaluate("n => n.scrollHeight - n.clientHeight")
            assert large > 1.1 * before, f"{title}, {models} models: {large / before:.2f} times the picture"
            assert over <= 0, f"{title}, {models} models: {over} px below the edge"
            explorer.button("Leave large").click()
            explorer.until("() => !document.fullscreenElement", "it does not come back")
        explorer.changes(lambda: explorer.button("one logistic a pixel").click())


def test_a_sliders_number_can_be_typed(explorer):
    """To the unit where the slider goes in steps; what cannot be is told so; Undo takes back what was typed."""
    explorer.tab("Spectrum")
    slide, typed = explorer.control("rank"), explorer.control("rank, typed")
    slide.focus()
    for key in "371":  # by keyboard alone
        explorer.page.keyboard.press(key)
    explorer.page.keyboard.press("Enter")
    explorer.settle()
    assert "rank 371:" in explorer.said() and slide.get_attribute("aria-valuetext") == "371"
    typed.fill("9999")
    typed.press("Tab")
    assert "rank = 9999? It takes whole numbers from 0 to 783; taken: 783" in explorer.notice()
    assert typed.input_value() == "783"
    explorer.changes(lambda: slide.press("ArrowLeft"))
    assert typed.input_value() == "599" and "rank 599:" in explorer.said()
    explorer.tab("Likelihood")
    explorer.changes(lambda: explorer.control("noise, typed").fill("0.123"))
    explorer.control("noise, typed").press("Tab")
    assert "applied: noise 0.123" in explorer.said() and explorer.notice() == ""
    explorer.changes(lambda: explorer.button("Undo").click())
    assert explorer.control("noise, typed").input_value() == "0" and "applied" not in explorer.said()


def test_the_answer_is_taken_back_by_undo(explorer):
    explorer.root.get_by_role("group", name="A tour").get_by_role("button").nth(6).click()
    explorer.settle()
    explorer.changes(lambda: explorer.press("turn", "ArrowRight"))
    explorer.changes(lambda: explorer.button("Show answer").click())
    told = explorer.root.locator(".say b")
    assert told.count() == 1 and "499 of 500" in explorer.said()
    explorer.changes(lambda: explorer.button("Undo").click())
    assert told.count() == 0 and "applied: turn 5" in explorer.said(), "the answer's words stand over the question"
    explorer.changes(lambda: explorer.page.keyboard.press("Control+Shift+z"))
    assert told.count() == 1 and "499 of 500" in explorer.said()


def test_t_by_hand_is_undone(explorer):
    """One pull is one step, by pointer or keys, and so is a click on a layer's image."""
    undo, slide = explorer.button("Undo"), explorer.root.locator(".time input")
    explorer.tab("Code space")
    assert undo.is_disabled()
    box = slide.bounding_box()
    slide.click(position={"x": 0.8 * box["width"], "y": box["height"] / 2})
    pulled = float(slide.input_value())
    slide.press("End")
    for then in (pulled, 0.5):
        undo.click()
        assert abs(float(slide.input_value()) - then) < 0.002, f"Undo goes to t = {slide.input_value()}, not {then}"
    assert undo.is_disabled()
    explorer.tab("Layers")
    explorer.root.get_by_role("button", name=re.compile("image 3: layer 2")).first.click()
    undo.click()
    assert float(slide.input_value()) == 0 and undo.is_disabled()


def test_the_answer_of_a_run_waits_for_its_end(explorer):
    told = "getComputedStyle(document.querySelector('.nice .say b')).visibility"
    explorer.root.get_by_role("group", name="A tour").get_by_role("button").nth(11).click()
    explorer.settle()
    explorer.button("Show answer").click()
    assert explorer.page.evaluate(told) == "hidden", "it tells the end before the run has begun"
    explorer.page.get_by_text(re.compile("^step [1-9][0-9]* of 200:")).wait_for()
    assert "step 200" in line(explorer) or explorer.page.evaluate(told) == "hidden"
    explorer.page.get_by_text("step 200 of 200:").wait_for()
    explorer.until(f"() => {told} === 'visible'", "the run has ended, and no answer")
    explorer.button("Leave the tour").click()
    explorer.button("Back to stop 12").click()
    explorer.settle()
    assert explorer.root.locator(".say b").count() == 0, "the answer over noise: its run is over"
    explorer.changes(lambda: explorer.button("Show answer").click())
    explorer.button("Stop").click()
    explorer.page.get_by_text("press Start anew").wait_for()
    assert explorer.page.evaluate(told) == "hidden", "the end of a run that was stopped before"
    explorer.button("Leave the tour").click()
    explorer.tab("Layers")
    assert explorer.button("Back to stop 12").count() == 0, "the way back to a tour that was left stays for ever"


def test_the_explorer_answers_while_another_cell_runs(lab, browser):
    """After "Run All" the page's messages go to the kernel's subshell, not behind the cells that wait."""
    has = {name: tuple(map(int, version(name).split(".")[:2])) for name in ("ipykernel", "jupyterlab")}
    if has["ipykernel"] < (7, 0) or has["jupyterlab"] < (4, 4):
        pytest.skip("no subshells before ipykernel 7 and JupyterLab 4.4")
    book = nbformat.read(lab.folder / "cell.ipynb", 4)
    wait = "import time\nfrom pathlib import Path\nwhile not Path('enough').exists():\n    time.sleep(0.1)"
    book.cells += [nbformat.v4.new_code_cell(wait) for _ in range(2)]
    nbformat.write(book, lab.folder / "busy.ipynb")
    explorer = lab.opened(browser, "busy.ipynb")
    for item in ("Run", "Run All Cells"):
        explorer.page.get_by_role("menuitem", name=item, exact=True).click()
    explorer.until(
        "() => document.querySelector('.nice .view section')", "no first picture while other cells run", limit=20
    )
    for title in ("Code space", "Likelihood"):
        explorer.tab(title)
    assert explorer.root.locator(".view section").count() == 1
    waiting = explorer.page.locator(".jp-CodeCell .jp-InputPrompt", has_text="[*]").count()
    assert waiting, "the other cells ended first: nothing was tried"
    (lab.folder / "enough").touch()
    busy = "[...document.querySelectorAll('.jp-InputPrompt')].some((p) => p.textContent.includes('[*]'))"
    explorer.until(f"() => !{busy}", "the cells that wait never end")
    explorer.page.close()


def test_models_are_undone_and_a_stop_begins_with_one(explorer):
    sections, undo = explorer.root.locator(".view section"), explorer.button("Undo")
    explorer.changes(lambda: explorer.button("one logistic a pixel").click())
    explorer.changes(lambda: undo.click())
    assert sections.count() == 1 and undo.is_disabled()
    explorer.tab("Spectrum")
    explorer.root.get_by_role("group", name="A tour").get_by_role("button").last.click()
    explorer.settle()
    assert explorer.root.locator(".view .chart").first.is_hidden(), "nine samples, and charts that nobody asked for"
    for back in ("Reset", "Undo"):
        explorer.button("Show answer").click()
        explorer.until("() => document.querySelectorAll('.nice .view section').length === 2", "no second model")
        explorer.changes(lambda back=back: explorer.button(back).click())
        assert sections.count() == 1, f"{back} leaves the answer's model beside the question"
    explorer.changes(lambda: explorer.button("one logistic a pixel").click())
    explorer.button("Leave the tour").click()  # tab and models change at once
    explorer.settle()
    assert explorer.root.get_by_role("tab", selected=True).inner_text() == "Spectrum" and sections.count() == 1


def test_a_clicker_leads_through_the_tour(explorer):
    """In Large, PageDown shows the answer, then the next stop; PageUp the stop before, as it was left."""
    say, key = explorer.root.locator(".say"), explorer.page.keyboard.press
    key("PageDown")
    assert not re.match("[0-9]+ of 13", say.inner_text()), "outside Large the key is the notebook's"
    explorer.button("Large").click()
    explorer.until("() => document.fullscreenElement?.matches('.nice')", "it does not fill the screen")
    assert explorer.page.evaluate("document.activeElement.textContent") != "Leave large", "Enter would leave it again"
    explorer.root.locator(".view .line").first.click()
    for keys, begins, answered in (
        ("PageDown", "1 of", 0),
        ("PageDown", "1 of", 1),
        ("PageDown", "2 of", 0),
        ("PageUp", "1 of", 1),
        ("PageDown", "2 of", 0),
        ("PageDown", "2 of", 1),
    ):
        key(keys)
        explorer.settle()
        assert say.inner_text().startswith(begins) and say.locator("b").count() == answered, (keys, say.inner_text())
    explorer.root.locator(".view .tile").first.click()
    assert explorer.root.locator(".hand").is_visible()
    key("PageDown")
    explorer.settle()
    assert not explorer.root.locator(".hand").is_visible(), "an old sample's menu covers the next stop"
    explorer.button("Play").click()  # whatever has the focus goes with its stop, and the keys stay
    for begins in ("3 of", "4 of"):
        key("PageDown")
        explorer.settle()
        assert say.inner_text().startswith(begins), say.inner_text()
    key("PageDown")
    explorer.until("() => Number(document.querySelector('.nice .time input').value) > 0.1", "nothing is seen to move")
    assert say.locator("b").count() == 0, "the answer, and the walk was never seen"
    key("PageDown")
    explorer.settle()
    assert say.inner_text().startswith("4 of") and say.locator("b").count() == 1
    explorer.root.get_by_role("group", name="A tour").get_by_role("button").nth(10).click()
    explorer.settle()
    key("PageDown")
    explorer.settle()
    explorer.button("Erase").click()
    explorer.root.locator(".pad canvas").click(position={"x": 130, "y": 200})
    explorer.settle()
    for begins in ("12 of", "12 of"):
        key("PageDown")
        explorer.settle()
        assert say.inner_text().startswith(begins), "the clicker is dead after a stroke"
    explorer.page.get_by_text("step 200 of 200:").wait_for()
    for begins, answered in (("12 of", 0), ("11 of", 1), ("11 of", 0)):
        key("PageUp")
        explorer.settle()
        assert say.inner_text().startswith(begins) and say.locator("b").count() == answered, begins
    explorer.root.get_by_role("group", name="A tour").get_by_role("button").last.click()  # rehearsed to the end
    explorer.settle()
    explorer.button("Show answer").click()
    explorer.settle()
    explorer.button("Leave the tour").click()
    explorer.settle()
    key("PageDown")
    explorer.settle()
    assert say.inner_text().startswith("1 of"), "the clicker is dead after a tour that was left with its answer"
    explorer.button("Leave large").click()


def test_layers_tint_what_they_shift(explorer):
    """On the way to layer 1 its columns are orange, all others the grey is grey; none on the way to z, none at rest."""
    explorer.tab("Layers")
    coloured = """() => [...document.querySelectorAll('.nice .play canvas')].map((canvas) => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, 28, 28), columns = new Set();
        for (let i = 0; i < 784; i++) if (data[4 * i] !== data[4 * i + 2]) columns.add(i % 2 ? 'odd' : 'even');
        return [...columns].join(' ');
    })"""
    slide = explorer.root.locator(".time input")
    ways = {
        0: ("", ""),
        0.1: ("even", ""),
        0.2: ("", ""),
        0.3: ("odd", "odd"),
        0.5: ("even", "even"),
        0.9: ("", "even"),
        1: ("", ""),
    }
    for t, expected in ways.items():
        slide.fill(str(t))
        assert tuple(explorer.page.evaluate(coloured)) == expected, t


def test_the_gallery_turns_whole_pages(explorer):
    more, back, at = explorer.button("More digits"), explorer.button("Back"), explorer.root.locator(".gallery > span")
    for turn, stands in (
        (more, "4 to 6"),
        *[(more, "")] * 15,
        (more, "1 to 3"),
        (back, "48 to 50"),
        (back, "46 to 48"),
    ):
        turn.click()
        assert at.inner_text().startswith(stands), f"{at.inner_text()}; expected {stands}"
    assert explorer.root.locator(".gallery .tile").last.get_attribute("title") == "a 9, number 497"


def test_undo_gives_back_all_values_of_its_tab(explorer):
    undo, pad = explorer.button("Undo"), explorer.root.get_by_role("application")
    explorer.tab("Likelihood")
    assert undo.is_disabled()
    explorer.changes(lambda: pad.click(position={"x": 30, "y": 30}))
    dotted = line(explorer).split(" nats")[0]
    explorer.changes(lambda: explorer.press("turn", "ArrowRight"))
    explorer.changes(lambda: explorer.button("Reset").click())
    explorer.tab("Sample")
    explorer.tab("Likelihood")  # its history is still there
    explorer.changes(lambda: undo.click())
    assert explorer.control("turn").input_value() == "5"  # Reset is one step
    explorer.changes(lambda: undo.click())
    assert line(explorer).split(" nats")[0] == dotted
    pad.focus()
    explorer.changes(lambda: explorer.page.keyboard.press("Control+z"))
    assert line(explorer).split(" nats")[0] != dotted and undo.is_disabled()
    explorer.tab("Inpainting")
    assert undo.is_disabled()
    explorer.button("Hide").click()
    explorer.changes(lambda: pad.click(position={"x": 100, "y": 140}))
    explorer.changes(lambda: undo.click())
    assert explorer.control("hidden").input_value() == "top"


def test_the_keyboard_keeps_its_place(explorer):
    def focus():
        return explorer.page.evaluate("document.activeElement.textContent")

    def press(*keys):
        for key in keys:
            explorer.page.keyboard.press(key)
        explorer.settle()
        return focus()

    explorer.root.get_by_role("tab", name="Sample").focus()
    assert press("End", "Enter") == "Inpainting"
    assert explorer.root.get_by_role("tab", selected=True).inner_text() == "Inpainting"
    explorer.root.get_by_role("group", name="A tour").get_by_role("button").first.focus()
    assert press("ArrowRight", "Enter") == "Show answer" and press("Enter") == "Next"
    assert press("Enter") == "Show answer" and "3 of 13" in explorer.root.locator(".say").inner_text()
    explorer.button("Next").dblclick()
    explorer.settle()
    assert "4 of 13" in explorer.root.locator(".say").inner_text(), "a double click goes one stop on"
    explorer.button("Leave the tour").focus()
    assert press("Enter") == "Inpainting"
    explorer.root.get_by_role("group", name="Models").get_by_role("button").last.focus()
    assert press("Enter") == "one logistic a pixel"
    gallery = explorer.root.get_by_role("group", name="Gallery of real digits").get_by_role("button")
    gallery.first.focus()
    press("Enter")
    explorer.root.locator(".view .tile").first.focus()
    assert press("Enter") == "Layers"  # in the menu beside it
    explorer.root.locator(".hand").get_by_role("button", name="start").focus()
    assert press("Enter") == "Code space"  # handed over
    chain = explorer.root.locator(".chain button")
    gallery.nth(3).focus()
    press("Enter")
    chain.nth(1).focus()
    press("Enter")  # out
    assert chain.count() == 2 and chain.nth(1).evaluate("b => b === document.activeElement")
    gallery.first.focus()
    place = "[...document.querySelectorAll('.gallery button')].indexOf(document.activeElement)"
    for keys, at in ((["End"], 9), (["ArrowDown", "Home"], 10), (["ArrowDown", "ArrowDown"], 30), (["ArrowUp"], 20)):
        press(*keys)
        assert explorer.page.evaluate(place) == at, keys


def test_the_page_says_what_it_did(explorer):
    explorer.button("the shipped model").click()
    assert "one model stays on" in explorer.notice()
    hand = explorer.root.locator(".hand")
    explorer.root.locator(".gallery .tile").nth(3).click()
    assert hand.is_visible() and "Likelihood" in hand.inner_text()  # Sample takes no image: where to, then?
    explorer.page.keyboard.press("Escape")
    assert not hand.is_visible()
    assert explorer.page.evaluate("document.activeElement.matches('.gallery .tile')"), "the focus is lost"
    explorer.page.wait_for_timeout(300)
    last = explorer.root.locator(".view .tile").last  # at the lower edge, where a click scrolls the page
    last.click()
    explorer.root.evaluate("n => n.closest('.jp-WindowedPanel-outer, .jp-Notebook').dispatchEvent(new Event('scroll'))")
    assert hand.is_visible(), "the scroll that brought the image closes its menu, or the menu before it had one to come"
    edge, size = hand.bounding_box(), explorer.page.viewport_size
    assert edge["y"] + edge["height"] <= size["height"] and edge["x"] + edge["width"] <= size["width"], edge
    explorer.page.mouse.click(5, 5)
    assert not hand.is_visible()
    explorer.tab("Code space")
    chain, digit = explorer.root.locator(".chain button"), explorer.root.locator(".gallery .tile").first
    chain.first.click()
    assert chain.count() == 2 and "needs two images" in explorer.notice()
    for _ in range(6):
        explorer.changes(lambda: digit.click())
    assert chain.count() == 8 and explorer.notice() == ""
    explorer.changes(lambda: digit.click())
    assert chain.count() == 8 and "the oldest went" in explorer.notice()
    explorer.changes(lambda: chain.first.click())
    assert chain.count() == 7 and explorer.notice() == ""


def test_answers_speak_of_their_own_picture(explorer):
    """Whatever was played with before, "Show answer" shows what it speaks of; a walk that played rests, by name too."""
    tour = explorer.root.get_by_role("group", name="A tour").get_by_role("button").all()
    gallery, told = explorer.root.get_by_role("group", name="Gallery of real digits"), []
    for played in (False, True):
        tour[9].click()  # the 6, turned
        explorer.settle()
        if played:
            explorer.changes(lambda: gallery.get_by_role("button", name=re.compile("^a 4, number")).first.click())
        explorer.changes(lambda: explorer.button("Show answer").click())
        told.append(explorer.said())
    assert told[0] == told[1] and "turn 180" in told[0], f"the answer's picture: {told}"
    tour[2].click()
    explorer.settle()
    explorer.button("Play").click()
    explorer.page.wait_for_timeout(300)
    explorer.button("Show answer").click()
    assert explorer.button("Pause").count() == 0, "nothing plays, and the button says Pause"
    explorer.button("Play").click()
    explorer.page.wait_for_timeout(600)
    explorer.button("Copy as code").click()
    explorer.until("() => /t=0[.][0-9]/.test(document.querySelector('.nice .said').innerText)", "the copy forgets t")
    explorer.button("Leave the tour").click()
    explorer.settle()
    explorer.tab("Layers")
    explorer.root.locator(".view .tile").nth(3).click()
    assert explorer.root.locator(".time output").inner_text() == "image: layer 3"
    whole = {}  # x is shown with 0 as the middle grey, and handed over as the image that it is
    for at in (0, 11):
        explorer.tab("Layers")
        explorer.root.locator(".view .tile").nth(at).click()
        explorer.root.locator(".hand").get_by_role("button", name="Likelihood").click()
        explorer.settle()
        whole[at] = float(explorer.said().split(" nats")[0].replace(",", ""))
    assert whole[0] == 2268 and whole[11] > 1500, f"another image than the one that was clicked: {whole}"
    explorer.tab("Likelihood")
    was = explorer.said()
    explorer.root.locator(".pad canvas").click(button="right", position={"x": 5, "y": 5})
    explorer.page.wait_for_timeout(300)
    explorer.page.keyboard.press("Escape")
    assert explorer.said() == was, "the right mouse button draws"


def test_a_stop_is_found_as_it_was_left(explorer):
    """Its answer, what was drawn in it and Undo; afresh by its own button. And the reader's own values come back too."""
    tour = explorer.root.get_by_role("group", name="A tour").get_by_role("button")
    pad, say, back = (
        explorer.root.get_by_role("application"),
        explorer.root.locator(".say"),
        explorer.button("Back to stop 7"),
    )
    explorer.changes(lambda: explorer.press("temperature", "Home"))
    own = explorer.said()
    explorer.page.evaluate("document.querySelector('.nice').scrollIntoView(false)")
    explorer.page.mouse.wheel(0, 200)
    explorer.page.set_viewport_size({"width": 1280, "height": 620})  # its head or its foot is out of sight
    tour.nth(6).evaluate("b => b.click()")
    explorer.settle()
    top = explorer.root.evaluate("n => n.getBoundingClientRect().top")
    assert 0 <= top < 130, f"a stop's picture does not come into sight: its top is at {top}"
    explorer.page.set_viewport_size(SIZE)
    explorer.button("Show answer").click()
    explorer.settle()
    explorer.changes(lambda: pad.click(position={"x": 60, "y": 60}))
    drawn = explorer.said()
    for leave in ("Sample",), ("Sample", "Layers", "Sample"):
        for name in leave:
            explorer.tab(name)
        assert explorer.said() == own
        back.click()
        explorer.settle()
        assert "7 of 13" in say.inner_text() and say.locator("b").count() == 1, "the answer is gone"
        assert explorer.said() == drawn, f"the drawing is gone: {explorer.said()}"
        assert explorer.button("Undo").is_enabled()
    explorer.changes(lambda: explorer.button("Undo").click())
    assert "likelier than 499" in explorer.said()
    explorer.changes(lambda: explorer.button("Reset").click())  # the stop begins anew
    assert "214 of 500" in explorer.said() and explorer.button("Show answer").count() == 1
    explorer.changes(lambda: explorer.button("Undo").click())
    assert "likelier than 499" in explorer.said(), "Reset cannot be undone"
    explorer.button("Leave the tour").click()
    assert back.count() == 1, "what was drawn at the stop is gone"
    tour.nth(6).click()
    explorer.settle()
    assert "214 of 500" in explorer.said() and say.locator("b").count() == 0
    explorer.button("Show answer").click()
    tour.nth(8).click()
    explorer.settle()
    assert say.locator("b").count() == 0, "the next stop is answered before it is asked"
    explorer.changes(lambda: pad.click(position={"x": 60, "y": 60}))
    explorer.changes(lambda: explorer.button("Reset").click())
    assert "likelier than 0 of 500" in explorer.said(), "not as the stop has it"
    tour.nth(7).click()
    explorer.tab("Sample")
    assert back.count() == 0 and explorer.button("Back to stop 8").count() == 1


def test_a_broad_pen_a_shared_gallery_and_a_cross(explorer):
    explorer.tab("Likelihood")
    ink = {}
    explorer.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for pen in ("Pen", "Bold"):
        explorer.button(pen).click()
        explorer.button("Clear the pad").click()
        assert explorer.button(pen).get_attribute("aria-pressed") == "true", "Clear takes the pen away"
        explorer.changes(lambda: explorer.root.get_by_role("application").click(position={"x": 90, "y": 90}))
        explorer.button("Copy as code").click()
        explorer.page.get_by_text("copied: ").wait_for()
        code = explorer.page.evaluate("navigator.clipboard.readText()")
        ink[pen] = int(pixels_of(re.search('image="(.*?)"', code)[1], 784).float().sum()) / 255
    assert 4 < ink["Pen"] < 7 < 12 < ink["Bold"] < 20, f"ink of one dot: {ink}"
    tile = explorer.root.locator(".gallery .tile").first
    first = tile.get_attribute("title")
    explorer.button("More digits").click()
    turned = tile.get_attribute("title")
    explorer.tab("Code space")
    assert tile.get_attribute("title") == turned != first, "each tab begins the gallery anew"
    cross = explorer.root.locator(".chain .tile").first.evaluate("t => getComputedStyle(t, '::after').content")
    assert "\u00d7" in cross, f"nothing says that a click takes it out: {cross}"


def test_an_empty_page_is_empty(explorer):
    """Whatever was turned, dirtied or erased before; and the pen of exercise 2's solution then draws its dot."""
    explorer.tab("Likelihood")
    explorer.changes(lambda: explorer.press("turn", "End"))
    explorer.changes(lambda: explorer.press("noise", "End"))
    explorer.button("Erase").click()
    explorer.changes(lambda: explorer.button("Clear the pad").click())
    assert explorer.said().startswith("2,653 nats") and "applied" not in explorer.said(), explorer.said()
    for _ in range(8):
        explorer.page.keyboard.press("ArrowRight")
    explorer.changes(lambda: explorer.page.keyboard.press("Space"))
    nats, length = re.search(r"^([0-9,.]+) nats.*[|]z[|] = ([0-9.]+)", explorer.said()).groups()
    assert float(nats.replace(",", "")) > 2500 and 46 < float(length) < 59, explorer.said()
    explorer.changes(lambda: explorer.button("Undo").click())
    explorer.changes(lambda: explorer.button("Undo").click())
    assert "applied: turn 180, noise" in explorer.said(), "Undo does not bring back what was cleared"


def test_a_cell_can_be_run_by_keys_after_playing(explorer):
    """A click beside the explorer gives the keys back to Jupyter."""
    explorer.button("Reset").click()
    explorer.page.locator(".jp-CodeCell .jp-InputPrompt").first.click()
    held = explorer.page.evaluate("document.querySelector('.nice').contains(document.activeElement)")
    assert not held, "the focus stays in the explorer, and keys do not run its cell"


def test_the_seed_that_stands_there_is_drawn(explorer):
    seed = explorer.control("seed")
    for typed, stands in (("-5", "0"), ("00012", "12"), ("99999999999999999999", "2147483647"), ("7", "7"), ("", "7")):
        seed.fill(typed)
        seed.blur()
        assert seed.input_value() == stands, typed
        assert ("takes whole numbers" in explorer.notice()) == (typed.lstrip("0") != stands), typed
    explorer.changes(lambda: seed.fill("3"))
    explorer.changes(lambda: seed.press("Control+z"))
    assert seed.input_value() == "0", "Ctrl Z is dead in a field"
    seed.fill("2147483647")
    explorer.changes(lambda: explorer.button("New samples").click())
    assert seed.input_value() == "0" and explorer.notice() == ""
    seed.fill("")
    explorer.button("Reset").click()
    assert seed.input_value() == "0"
    explorer.tab("Code space")
    explorer.button("Play").click()
    explorer.page.wait_for_timeout(500)
    explorer.button("Pause").click()
    explorer.button("Copy as code").click()
    explorer.page.get_by_text(re.compile(r"copied: explorer.code_space.show\(t=0\.\d{1,3}\)$")).wait_for()
    explorer.button("Play").click()
    explorer.root.locator(".time input").click(position={"x": 100, "y": 5})
    held = explorer.root.locator(".time output").inner_text()
    explorer.page.wait_for_timeout(300)
    assert explorer.root.locator(".time output").inner_text() == held, "the slider runs away from under the hand"
    explorer.button("Play").click()
    explorer.button("Reset").click()
    assert explorer.button("Play").count() == 1, "Reset, and the walk goes on"


def names_have_room(explorer):
    """Plots as narrow as no page has them: fewer names along the axes, none in another's way."""
    explorer.tab("Inpainting")
    explorer.page.evaluate("document.querySelectorAll('.nice .plot').forEach((plot) => (plot.style.width = '90px'))")
    explorer.root.evaluate("root => (root.style.width = '90%')")  # the page looks at its names again
    hidden = "[...document.querySelectorAll('.nice .plot span')].filter((n) => n.style.visibility === 'hidden').length"
    explorer.until(f"() => {hidden} > 0", "no name gives way")
    assert explorer.page.evaluate(OVERLAPS) == []
    explorer.root.evaluate("root => (root.style.width = '')")


def many_samples_are_large(explorer):
    """Of 100 images tooltips alone tell the nats; all fills the screen for a class, and comes back."""
    explorer.tab("Sample")
    explorer.changes(lambda: explorer.press("images", "End"))
    tiles = explorer.root.locator(".view .tile")
    assert tiles.count() == 100 and not "".join(tiles.all_inner_texts()).strip()
    assert explorer.root.get_by_text("100 samples: point at one for its nats").count() == 1
    assert re.search("image 100: [0-9,]+. Click", tiles.last.get_attribute("title"))
    explorer.changes(lambda: explorer.button("Reset").click())
    assert re.fullmatch("[0-9],[0-9]{3}", tiles.last.inner_text())
    explorer.button("Large").click()
    explorer.until("() => document.fullscreenElement?.matches('.nice')", "it does not fill the screen")
    shown = explorer.root.locator(".gallery .tile").evaluate_all("tiles => tiles.filter((t) => t.offsetWidth).length")
    assert shown == 30, f"{shown} digits to hand"
    explorer.button("Leave large").click()
    explorer.until("() => !document.fullscreenElement", "it does not come back")


def fits(explorer):
    """Nothing is cut off at the right, no control is without words, no picture is a stamp."""
    for title in TABS:
        explorer.tab(title)
        over = explorer.root.evaluate(
            """n => n.scrollWidth <= n.clientWidth + 1 ? [] : [...n.querySelectorAll('*')]
                .filter((m) => m.getBoundingClientRect().right > n.getBoundingClientRect().right + 1)
                .map((m) => m.outerHTML.slice(0, 200))"""
        )
        assert not over, (title, over)
        wide = explorer.page.evaluate(
            "() => [...document.querySelectorAll('.nice .tile canvas, .nice .view canvas, .nice .plot')].map((c) => c.clientWidth)"
        )
        assert min(wide) >= 22, (title, min(wide))
        nameless = explorer.page.evaluate(
            """() => [...document.querySelectorAll('.nice button, .nice input, .nice select, .nice canvas, .nice [role]')]
                .filter((n) => !(n.getAttribute('aria-label') || n.title || n.innerText) && !n.closest('button, .thumb, [role=status]'))
                .map((n) => n.outerHTML)"""
        )
        assert not nameless and "null" not in explorer.root.evaluate(
            "n => [...n.querySelectorAll('[title]')].map((m) => m.title)"
        )


class Lab:
    """JupyterLab with notebook 07, and one that holds the explorer's cell alone."""

    def __init__(self, folder):
        for name, content in SETTINGS.items():
            path = folder / "settings" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
        shutil.copy(NOTEBOOK, folder)
        cell = "from nicelib.explorer import SampleExplorer\nexplorer = SampleExplorer()\nexplorer"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=kernel)
        nbformat.write(book, folder / "cell.ipynb")
        self.folder, port = folder, free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
        command += ["--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=test", f"--ServerApp.root_dir={folder}"]
        command += ["--LabApp.expose_app_in_browser=True"]  # to choose a theme
        command += [f"--LabApp.user_settings_dir={folder / 'settings'}", f"--LabApp.workspaces_dir={folder / 'work'}"]
        self.server = start_server(command, f"{self.url}/api?token=test", folder)

    def opened(self, browser, name):
        """The page of a notebook, its kernel idle."""
        page = browser.new_page(viewport=SIZE)
        explorer = Explorer(page)
        page.goto(f"{self.url}/lab/tree/{name}?reset&token=test")
        page.locator(".jp-CodeCell").first.wait_for(state="attached")
        page.get_by_text("(ipykernel) | Idle").wait_for()  # else "Run All Cells" finds no kernel
        if page.locator("#filebrowser").is_visible():
            page.keyboard.press("Control+b")
        return explorer

    def kernel(self, name="cell.ipynb"):
        """The process of a notebook's kernel."""
        with urllib.request.urlopen(f"{self.url}/api/sessions?token=test", timeout=LIMIT) as answer:
            (one,) = (session["kernel"]["id"] for session in json.load(answer) if session["path"] == name)
        for entry in os.listdir("/proc"):
            with suppress(OSError):
                if entry.isdigit() and one.encode() in (Path("/proc") / entry / "cmdline").read_bytes():
                    return int(entry)

    def close(self):
        log = (self.folder / "server.log").read_text(encoding="utf-8")  # a kernel that is closed at work complains
        self.server.terminate()
        self.server.wait(LIMIT)
        assert "Traceback" not in log, log[max(0, log.index("Traceback") - 500) :]


SIZE = {"width": 1280, "height": 720}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def cell(lab, browser):
    return lab.opened(browser, "cell.ipynb")


def run_cell(explorer):
    """The cell run again: a new explorer, and whether it has drawn."""
    marked = "document.querySelector('.nice')?.setAttribute('data-old', '')"
    explorer.page.evaluate(marked)
    explorer.page.locator(".jp-CodeCell .jp-InputArea-editor").first.click()
    explorer.page.keyboard.press("Control+Enter")
    explorer.until("() => document.querySelector('.nice:not([data-old]) .view section')", "the cell shows no explorer")
    explorer.settle()


@pytest.fixture
def explorer(cell):
    """A new explorer in the page that all tests share."""
    cell.page.set_viewport_size(SIZE)
    cell.errors.clear()
    run_cell(cell)
    yield cell
    assert not cell.errors


@pytest.fixture(params=["Light", "Dark"])
def theme(request, cell):
    """JupyterLab in this theme, and in the light one afterwards."""

    def choose(name):
        cell.page.evaluate(f"jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {name}'}})")
        cell.page.locator(f"body[data-jp-theme-name='JupyterLab {name}']").wait_for(state="attached")

    choose(request.param)
    yield request.param
    choose("Light")


def photograph(explorer, name, **options):
    if folder := os.environ.get("NICE_SCREENSHOTS"):
        for title in TABS:
            explorer.tab(title)
            explorer.page.screenshot(path=f"{folder}/{name}_{title.replace(' ', '_')}.png", **options)


def test_everything_can_be_played(theme, explorer, lab):
    explorer.page.set_viewport_size({"width": 1400, "height": 1100})
    look_through_samples(explorer)
    turn_and_draw(explorer)
    if theme == "Light":  # the rest looks alike in both
        walk(explorer, lab.kernel() if sys.platform == "linux" else None)
        inpaint(explorer)
        compare_with_the_last_reading(explorer)
        compare_and_tour(explorer)
    many_samples_are_large(explorer)
    names_have_room(explorer)
    background = explorer.root.evaluate("n => getComputedStyle(n).backgroundColor")
    assert (sum(map(int, re.findall("[0-9]+", background)[:3])) < 200) == (theme == "Dark")
    photograph(explorer, theme)


def test_it_fits_the_page_and_grows_with_it(explorer):
    stamp = explorer.root.locator(".view .tile canvas").first.evaluate("c => c.clientWidth")
    for title in TABS:
        explorer.tab(title)
        explorer.root.scroll_into_view_if_needed()
        assert explorer.root.evaluate("n => n.clientHeight") < 720 - 130, f"{title}: a part of it is below the fold"
    fits(explorer)
    photograph(explorer, "1280")
    for width, height in ((800, 1000), (1900, 1000)):
        explorer.page.set_viewport_size({"width": width, "height": height})
        fits(explorer)
        photograph(explorer, width)
    explorer.tab("Sample")
    assert explorer.root.locator(".view .tile canvas").first.evaluate("c => c.clientWidth") > 1.3 * stamp
    explorer.page.set_viewport_size(SIZE)
    for title, panel, least in (
        ("Inpainting", "4 tries, after 0 steps", 90),
        ("Likelihood", "nats a pixel gives", 150),
    ):
        explorer.tab(title)
        wide = explorer.panel(panel).locator("canvas").first.evaluate("c => c.clientWidth")
        assert wide > least, f"{title}: {panel}, {wide} pixels wide"
    explorer.page.set_viewport_size({"width": 900, "height": 500})  # then the page scrolls
    explorer.tab("Likelihood")
    wide = explorer.panel("nats a pixel gives").locator("canvas").evaluate("c => c.clientWidth")
    assert wide > 100, f"on a small screen the map is a stamp, {wide} pixels wide"


def test_two_models_have_one_player_and_fit(explorer):
    explorer.changes(lambda: explorer.button("one logistic a pixel").click())
    explorer.tab("Code space")
    assert explorer.root.locator(".time").count() == 1 and explorer.root.locator(".play").count() == 2
    before = explorer.frames()
    explorer.root.locator(".time input").press("Home")
    assert all(a != b for a, b in zip(json.loads(explorer.frames()), json.loads(before), strict=True))
    now = explorer.root.locator(".line").all_inner_texts()
    assert all("t = 0.00" in line for line in now) and now[0] != now[1]
    axes = [plot.locator(".y").all_inner_texts() for plot in explorer.root.locator(".plot").all()]
    assert axes[0] == axes[1] and axes[0]
    for size in (SIZE, {"width": 800, "height": 900}):
        explorer.page.set_viewport_size(size)
        fits(explorer)
        photograph(explorer, f"two_{size['width']}")
        for title in TABS:
            explorer.tab(title)
            high = explorer.root.evaluate("n => n.clientHeight")
            assert size is not SIZE or high < 720 - 100, f"{title}: a part of it is below the fold, {high}"
            assert explorer.page.evaluate(OVERLAPS) == [], title


def test_beside_the_file_browser_all_is_seen_at_once(explorer):
    """At 1280 x 720 with JupyterLab's file browser open: numbers above their picture, two models side by side."""
    toggle = "jupyterapp.commands.execute('application:toggle-left-area'); 0"
    explorer.page.evaluate(toggle)
    try:
        assert explorer.root.evaluate("n => n.clientWidth") < 900
        for models in (1, 2):
            for title in TABS:
                explorer.tab(title)
                high = explorer.root.evaluate("n => n.clientHeight")
                assert high < 720 - 110, f"{title}, {models} models: a part of it is below the fold, {high}"
                assert explorer.page.evaluate(OVERLAPS) == [], title
                tops = explorer.page.evaluate(
                    "['.line', 'section .row'].map((s) => document.querySelector(`.nice ${s}`).getBoundingClientRect().top)"
                )
                assert tops[0] < tops[1], f"{title}: the numbers are below the picture"
                sections = explorer.page.evaluate(
                    "[...document.querySelectorAll('.nice section')].map((s) => s.getBoundingClientRect().top)"
                )
                assert len(sections) == models and len(set(sections)) == 1, f"{title}: not side by side"
                titles = explorer.root.locator(".view figcaption, .once figcaption").all_inner_texts()
                assert titles.count("real") + titles.count("what it sees") <= 1, titles  # once for both models
            fits(explorer)
            explorer.changes(lambda: explorer.button("one logistic a pixel").click())
    finally:
        explorer.page.evaluate(toggle)


#: titles, and the names along an axis, that run into each other
OVERLAPS = """() => {
    const all = [...document.querySelectorAll('.nice figcaption, .nice .view h4, .nice :is(.plot, .scale) span')].filter((n) => n.style.visibility !== 'hidden').map((n) => {
        const range = document.createRange();
        range.selectNodeContents(n);
        const clip = n.getBoundingClientRect(), { left, right, top, bottom } = range.getBoundingClientRect();
        return { text: n.textContent, left, top, bottom, right: getComputedStyle(n).overflow === 'hidden' ? Math.min(right, clip.right) : right };
    });
    return all.flatMap((a, i) => all.slice(i + 1)
        .filter((b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
        .map((b) => `${a.text} / ${b.text}`));
}"""


def test_a_page_without_its_kernel_says_so(explorer, lab):
    """The picture of a kernel that was restarted asks for the cell to be run again, within 3 seconds of a click."""
    kernel = lab.kernel() if sys.platform == "linux" else None
    if kernel:  # busy, or gone without a word
        os.kill(kernel, signal.SIGSTOP)
        try:
            explorer.press("temperature", "ArrowLeft")
            explorer.root.get_by_text("The picture waits for the kernel").wait_for(timeout=3000)
        finally:
            os.kill(kernel, signal.SIGCONT)
        explorer.settle()
        assert explorer.root.locator(".said:not(.warning)").inner_text() == ""
    explorer.page.evaluate("jupyterapp.commands.execute('kernelmenu:restart'); 0")
    explorer.page.locator(".jp-Dialog .jp-mod-accept").click()
    explorer.root.get_by_text("run this explorer's cell again").wait_for(timeout=3000)
    explorer.page.get_by_text("(ipykernel) | Idle").wait_for()
    explorer.press("temperature", "ArrowLeft")
    explorer.page.wait_for_timeout(2500)
    explorer.press("temperature", "ArrowRight")  # as the last picture, which is no sign of life
    assert explorer.notice().startswith("No kernel")  # the surer of the two
    warned, picture = (explorer.root.locator(name).bounding_box()["y"] for name in (".warning", ".view"))
    assert warned < picture
    run_cell(explorer)
    assert explorer.root.locator(".said").inner_text() == ""
    explorer.changes(lambda: explorer.press("temperature", "ArrowLeft"))


def test_run_again_and_again(explorer, lab):
    """Memory comes back; the newest explorer answers."""
    size = []
    for _ in range(10):
        run_cell(explorer)
        if sys.platform == "linux":
            status = (Path("/proc") / str(lab.kernel()) / "status").read_text(encoding="utf-8")
            size.append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024)
    assert not size or size[-1] - size[3] < 80, f"megabytes after each run: {size}"
    assert explorer.root.count() == 1
    explorer.changes(lambda: explorer.press("temperature", "ArrowLeft", 3))


def test_from_release_to_picture(explorer):
    for title, (label, key) in TIMED.items():
        explorer.tab(title)
        times = explorer.milliseconds(label, key)
        median = statistics.median(times)
        print(f"\n{title}: release to picture, median {median:.0f} ms ({min(times):.0f} to {max(times):.0f})")
        assert median < 1000  # the aim is 100 on two quiet cores; a crowded machine takes longer


TIMED = {
    "Sample": ("temperature", "ArrowLeft"),
    "Code space": ("gallery", "Space"),
    "Layers": ("code's seed", "ArrowUp"),
    "Spectrum": ("its z", "ArrowLeft"),
    "Likelihood": ("turn", "ArrowLeft"),
    "Inpainting": ("seed", "ArrowUp"),
}


def test_notebook_07_runs_to_its_end(lab, browser):
    explorer = lab.opened(browser, NOTEBOOK.name)
    page = explorer.page
    page.locator(".jp-CodeCell").first.scroll_into_view_if_needed()
    page.locator(".jp-CodeCell .jp-InputArea-prompt, .jp-CodeCell .jp-Placeholder").first.click()
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+Enter")  # as a reader begins; JupyterLab goes on to the next cell
    explorer.until("() => document.querySelector('.nice .view section')", "the first cell shows no explorer")
    explorer.settle()
    page.wait_for_timeout(500)
    box = explorer.root.bounding_box()
    assert 0 < box["y"] and box["y"] + box["height"] < SIZE["height"], (
        f"run by Shift and Enter, it is not in view: {box}"
    )
    for item in ("Run", "Run All Cells"):
        page.get_by_role("menuitem", name=item, exact=True).click()
    count = (
        "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].filter((p) => /%s/.test(p.textContent)).length"
    )
    waiting, ended = count % r"^\[\*\]", count % r"^\[\d+\]:"  # of those that are not folded
    explorer.until(f"() => {waiting} > 10", "the cells do not begin")
    while left := page.evaluate(waiting):
        explorer.until(f"left => {waiting} < left", "a cell does not end", left, 2 * LIMIT)
    assert page.evaluate(ended) > 20
    bad = page.locator(".jp-OutputArea-output[data-mime-type*=stderr], .jp-RenderedText[data-mime-type*=error]")
    assert bad.count() == 0
    explorer.root.scroll_into_view_if_needed()
    explorer.settle()
    assert explorer.control("temperature").input_value() == "1"  # the static pictures left it alone
    explorer.changes(lambda: explorer.press("temperature", "ArrowLeft", 3))
    assert not explorer.errors
    page.close()


@pytest.mark.skipif(not importlib.util.find_spec("voila"), reason="voila is not installed: pip install -e '.[voila]'")
def test_explorer_in_voila(browser, tmp_path):
    book = nbformat.read(NOTEBOOK, 4)
    last = next(i for i, cell in enumerate(book.cells) if cell.source.endswith("SampleExplorer()\nexplorer"))
    book.cells = book.cells[: last + 1]  # what follows is run in JupyterLab, above
    nbformat.write(book, tmp_path / NOTEBOOK.name)
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "voila", "--no-browser", f"--port={port}", str(tmp_path / NOTEBOOK.name)]
    server = start_server(command, f"{url}/api", tmp_path)
    try:
        explorer = Explorer(browser.new_page(viewport={"width": 1400, "height": 1100}))
        explorer.page.goto(url, timeout=5000 * LIMIT)  # Voila runs it before it answers
        explorer.root.locator(".view section").first.wait_for()
        explorer.root.scroll_into_view_if_needed()
        look_through_samples(explorer)
        walk(explorer)
        turn_and_draw(explorer)
        if folder := os.environ.get("NICE_SCREENSHOTS"):
            explorer.page.screenshot(path=f"{folder}/voila.png")
        assert not explorer.errors
    finally:
        server.terminate()
        server.wait(LIMIT)
