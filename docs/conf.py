"""The site: this repository as pages. Nothing is executed, nothing fetched: ``sphinx-build -W -c docs . site``."""

import re
import shutil
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import nicelib  # noqa: E402

project, author, language = "NICE, step by step", "the contributors", "en"
copyright = "the contributors, under the MIT licence; MNIST's digits under CC BY-SA 3.0"
version = release = nicelib.__version__
html_title, html_theme = f"{project} {version}", "furo"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx-mathjax-offline", "sphinx_copybutton"]
root_doc = "README"
include_patterns = [
    "README*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "results/README.md",
    "notebooks/*.ipynb",
    "nicelib/*/*.md",
]

nb_execution_mode = "off"
nb_custom_formats = {".ipynb": ["conf.read_notebook", {}, False]}
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4

autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_rtype = False
nitpicky = True  # a reference that leads nowhere is an error ...
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|np|matplotlib|pathlib|collections|IPython|ipywidgets|Tensor|nn|Axes|Figure|Path).*")
]  # ... but for libraries'


def read_notebook(text):
    """A notebook whose hidden cells are folded, and whose pictures are described, on the page too."""
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # Jupyter's anchors keep a heading's capitals, the page's do not
            cell.source = re.sub(r"(?<=\]\()[^)\s]*#[^)\s]+", lambda link: lowered(link[0]), cell.source)
        hidden = cell.metadata.get("jupyter", {})
        if hidden.get("source_hidden"):  # a figure's code, or a solution with what it prints
            tag = "hide-cell" if hidden.get("outputs_hidden") else "hide-input"
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), tag]
        for output in cell.get("outputs", []):
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return notebook


def lowered(link):
    page, anchor = link.split("#")
    return link if "://" in page else f"{page}#{anchor.lower()}"


def add_contents(app, docname, source):
    """The README is the front page; it gets the list of all pages."""
    if docname == root_doc:
        pages = [path.relative_to(ROOT).with_suffix("").as_posix() for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
        more = [
            "docs/paper-to-code",
            "results/README",
            "docs/api",
            "docs/cli",
            "The weights <nicelib/weights/MODEL_CARD>",
            "The digits <nicelib/digits/README>",
            "CHANGELOG",
            "CONTRIBUTING",
            "中文 <README.zh-CN>",
        ]
        for caption, names in {"Notebooks": pages, "More": more}.items():
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n"


def find_by_last_name(app, env, node, contnode):
    """``InputError`` and ``nicelib.train`` lead to where the name is defined."""
    if node.get("refdomain") == "py" and not node.get("refspecific"):
        node["refspecific"] = True
        name = node["reftarget"].split(".")[-1]
        return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, node["reftype"], name, node, contnode)


def copy_front_page(app, error):
    if not error:
        shutil.copy(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app):
    app.connect("source-read", add_contents)
    app.connect("missing-reference", find_by_last_name)
    app.connect("build-finished", copy_front_page)
