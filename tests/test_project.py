"""The files around the code agree with each other."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CONDA_NAMES = {"torch": "pytorch"}


def name_and_bound(requirement):
    return tuple(requirement.split(">="))


def test_environment_yml_is_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    conda, pip = text.split("- pip:\n")
    listed = {name_and_bound(line) for line in re.findall(r"^  - (\S+)$", conda, re.M)}
    wanted = {(CONDA_NAMES.get(n, n), *rest) for n, *rest in map(name_and_bound, project["dependencies"])}
    assert wanted <= listed
    tests = {name_and_bound(r) for r in project["optional-dependencies"]["test"]}
    assert listed - wanted - tests == {
        ("python", project["requires-python"].removeprefix(">=")),
        ("pip",),
        ("conda-forge",),
    }
    assert pip.split() == ["-", "-e", ".[test]"]


def test_the_files_named_in_pyproject_are_there():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["license"] == "MIT AND CC-BY-SA-3.0"
    assert [(ROOT / name).read_text(encoding="utf-8").split()[0] for name in settings["project"]["license-files"]] == [
        "MIT",
        "Creative",
    ]
    for pattern in settings["tool"]["setuptools"]["package-data"]["nicelib"]:
        assert list((ROOT / "nicelib").glob(pattern)), pattern


def test_readme_commands_do_all_their_set_up():
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert len(commands) == 2
    assert all(c.startswith('python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && ') for c in commands)
    assert "jupyter lab notebooks/01_masks.ipynb" in commands[0]
    assert commands[1].endswith(".venv/bin/pytest && .venv/bin/pytest --nbval notebooks/")


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links and all((ROOT / link).exists() for link in links)


def test_the_cells_named_in_the_readme_are_proofs():
    lines = [
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if " cell" in line and line.startswith("|")
    ]
    named = [
        (notebook, int(number))
        for line in lines
        for notebook, numbers in re.findall(r"\((notebooks/\w+\.ipynb)\) cells? ([\d and]+)", line)
        for number in re.findall(r"\d+", numbers)
    ]
    assert len(lines) > 10 and len(named) > len(lines)
    for notebook, number in named:
        cells = json.loads((ROOT / notebook).read_text(encoding="utf-8"))["cells"]
        (cell,) = [c for c in cells if c.get("execution_count") == number]
        assert "assert" in "".join(cell["source"]), (notebook, number)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_a_clean_run(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < (1_500_000 if "motion" in path.stem else 1_000_000)  # one holds an animation
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    assert not any(o["output_type"] == "error" for c in code for o in c["outputs"])
    assert not any("widget" in mime for c in code for o in c["outputs"] for mime in o.get("data", {}))  # dead on a page
    ignored = sum("nbval-ignore-output" in c["metadata"].get("tags", []) for c in code)
    assert ignored <= len(code) / 3
    assert any("assert" in "".join(c["source"]) for c in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_links_lead_somewhere(path):
    text = "".join(
        "".join(c["source"])
        for c in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if c["cell_type"] == "markdown"
    )
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)\)", text)
    assert links and all((path.parent / link).exists() for link in links)


def opened_in_the_locales_encoding(source):
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func)
        given = [*call.args, *(k.value for k in call.keywords)]
        binary = name.endswith("open") and any(
            re.fullmatch("[rwxa+]*b[rwxa+]*", ast.unparse(a).strip("'")) for a in given
        )
        text = re.search(r"(^|\.)(open|fdopen|read_text|write_text)$", name) and not name.startswith("Image.")
        if text and not binary and "encoding" not in [k.arg for k in call.keywords]:
            yield ast.unparse(call)


def test_text_files_are_read_as_utf8_on_every_machine():
    python = [p for folder in ("nicelib", "tests", "results") for p in (ROOT / folder).rglob("*.py")]
    sources = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in python}
    for path in NOTEBOOKS:
        cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        text = "\n".join("".join(c["source"]) for c in cells)
        sources[path.relative_to(ROOT)] = re.sub(r"^\s*[%!].*$", "pass", text, flags=re.M)
    found = {
        str(path): calls for path, source in sources.items() if (calls := list(opened_in_the_locales_encoding(source)))
    }
    assert len(sources) > 20 and not found, "say encoding='utf-8'"
    for call in ("open(x)", "open(x, 'w')", "p.open()", "p.read_text()", "p.write_text(t)", "open(x, mode='a')"):
        assert list(opened_in_the_locales_encoding(call)), call
    for call in (
        "open(x, 'rb')",
        "open(x, mode='r+b')",
        "open(x, encoding='utf-8')",
        "Image.open(x)",
        "p.read_bytes()",
    ):
        assert not list(opened_in_the_locales_encoding(call)), call


def test_ruff():
    ruff = shutil.which("ruff") or shutil.which("ruff", path=str(ROOT / ".venv" / "bin"))
    ruff = [ruff] if ruff else [sys.executable, "-m", "ruff"]
    for arguments in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *arguments, "nicelib", "tests", "notebooks"], cwd=ROOT, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stdout
