"""The files around the code agree with each other."""

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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "environment.yml").read_text()
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
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["license"] == "MIT AND CC-BY-SA-3.0"
    assert [(ROOT / name).read_text().split()[0] for name in settings["project"]["license-files"]] == [
        "MIT",
        "Creative",
    ]
    for pattern in settings["tool"]["setuptools"]["package-data"]["nicelib"]:
        assert list((ROOT / "nicelib").glob(pattern)), pattern


def test_readme_commands_do_all_their_set_up():
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.M)
    assert len(commands) == 2
    assert all(c.startswith('python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && ') for c in commands)
    assert "jupyter lab notebooks/01_masks.ipynb" in commands[0]
    assert commands[1].endswith(".venv/bin/pytest && .venv/bin/pytest --nbval notebooks/")


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links and all((ROOT / link).exists() for link in links)


def test_the_cells_named_in_the_readme_are_proofs():
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if " cell" in line and line.startswith("|")]
    named = [
        (notebook, int(number))
        for line in lines
        for notebook, numbers in re.findall(r"\((notebooks/\w+\.ipynb)\) cells? ([\d and]+)", line)
        for number in re.findall(r"\d+", numbers)
    ]
    assert len(lines) > 10 and len(named) > len(lines)
    for notebook, number in named:
        cells = json.loads((ROOT / notebook).read_text())["cells"]
        (cell,) = [c for c in cells if c.get("execution_count") == number]
        assert "assert" in "".join(cell["source"]), (notebook, number)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_a_clean_run(path):
    notebook = json.loads(path.read_text())
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
    text = "".join("".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)\)", text)
    assert links and all((path.parent / link).exists() for link in links)


def test_ruff():
    ruff = shutil.which("ruff") or shutil.which("ruff", path=str(ROOT / ".venv" / "bin"))
    ruff = [ruff] if ruff else [sys.executable, "-m", "ruff"]
    for arguments in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *arguments, "nicelib", "tests", "notebooks"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
