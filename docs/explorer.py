"""Photograph the explorer: ``python docs/explorer.py``, for docs/cli.md, and for notebook 07 as long as it has not run.

It needs what tests/test_browser.py needs: JupyterLab, Playwright and a Chromium.
"""

import base64
import sys
import tempfile
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_browser import CHROMIUM, NOTEBOOK, Lab, run_cell

ALT = "The explorer before it runs: tour, tabs, a gallery of real digits, controls, samples and where their codes lie"


def main() -> None:
    lab = Lab(Path(tempfile.mkdtemp()))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        explorer = lab.opened(browser, "cell.ipynb")
        run_cell(explorer)
        explorer.root.evaluate(
            "(n, words) => n.insertAdjacentHTML('afterbegin', `<b style='display: block; text-align: center; "
            "font-size: 17px; padding: 4px; background: #ffe9b8; color: #222'>${words}</b>`)",
            "This is a picture. Run the cell, with Shift and Enter, and it can be played with.",
        )
        explorer.page.mouse.move(2, 2)
        explorer.page.evaluate("dispatchEvent(new Event('resize'))")  # below the banner there is less room
        explorer.root.evaluate("n => n.scrollIntoView()")
        still = explorer.root.screenshot()
        explorer.root.locator("b").first.evaluate("b => b.remove()")
        explorer.tab("Likelihood")
        explorer.page.evaluate("dispatchEvent(new Event('resize'))")
        explorer.page.wait_for_timeout(300)
        explorer.root.screenshot(path=Path(__file__).with_suffix(".png"))
        browser.close()
    lab.close()
    book = nbformat.read(NOTEBOOK, 4)
    (cell,) = (one for one in book.cells if one.source.endswith("SampleExplorer()\nexplorer"))
    (output,) = cell.outputs
    data = {"image/png": base64.b64encode(still).decode(), "text/plain": output.data["text/plain"]}
    output.data, output.metadata = data, {"image/png": {"alt": ALT, "width": 1000}}
    NOTEBOOK.write_text(nbformat.writes(book, ensure_ascii=False).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
