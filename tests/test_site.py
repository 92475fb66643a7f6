"""The site builds without a warning, a network or a run, and what is on its pages is all its own."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from importlib.util import find_spec

import pytest
from conftest import ROOT

EXTRA = ("sphinx", "myst_nb", "furo", "sphinx-mathjax-offline", "sphinx_copybutton")
if missing := [name for name in EXTRA if not find_spec(name)]:
    pytest.skip(f"needs the docs extra (no {', '.join(missing)})", allow_module_level=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "HTTP", "HTTPS")}
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-c", "docs", ".", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | nowhere, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and not done.stderr, done.stderr
    return out


def read(path):
    return unescape(path.read_text(encoding="utf-8"))


def test_every_notebook_is_a_page_with_its_saved_pictures_described_and_its_solutions_folded(site):
    front = read(site / "index.html")
    for path in ROOT.glob("notebooks/*.ipynb"):
        page = read(site / "notebooks" / f"{path.stem}.html")
        assert f"notebooks/{path.stem}.html" in front
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        pictures = [o for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
        alts = re.findall(r'<img alt="(.*?)"', page, re.S)
        described = [
            o["metadata"]["image/png"]["alt"] for o in pictures if o["metadata"].get("image/png", {}).get("alt")
        ]
        assert len(alts) >= len(pictures) > 0 and not set(described) - set(alts), path
        folded = sum(c["metadata"].get("jupyter", {}).get("source_hidden", False) for c in cells)
        assert page.count('<details class="admonition hide') == folded, path


def test_nothing_is_fetched(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(https?:[^"]*)"', read(page))
        assert not loaded, (page, loaded)
    (script,) = set(
        re.findall(r'src="\.\./(_static/mathjax/[^"?]*)', read(site / "notebooks" / "02_additive_coupling.html"))
    )
    assert (site / script).stat().st_size > 500_000


def test_the_reference_has_formulas_and_links(site):
    page = read(site / "docs" / "api.html")
    assert page.count('class="math notranslate nohighlight"') > 5
    for name in ("model.NICE.log_prob", "coupling.AdditiveCoupling", "data.dequantise", "training.loop.train"):
        assert f'id="nicelib.{name}"' in page and page.count(f'href="#nicelib.{name}"') > 1
