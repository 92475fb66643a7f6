"""The package as a wheel that is installed, not editable, and used elsewhere; tests/packaging.sh tries much more of it."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with nothing of the repository but what its wheel holds."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    shutil.copytree(ROOT / "nicelib", source / "nicelib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    try:  # a builder that is here is enough; else pip fetches one
        here = int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        here = False
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder]
    done = subprocess.run([*pip, *["--no-build-isolation"] * here, source], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_evaluates_and_samples_elsewhere(installed, tmp_path):
    """Without a home, in the C locale, with warnings as errors."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME")}
    environment |= {"PYTHONPATH": str(installed), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONWARNINGS"] = "error"

    evaluate = ["evaluate", "--draws", "1", "--device", "cpu"]
    sample = ["sample", "--sample-size", "4", "--out", "four.png"]
    code = f"import sys, nicelib.cli as cli; print(cli.__file__); sys.exit(cli.main({evaluate}) or cli.main({sample}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    where, nats, wrote = done.stdout.splitlines()
    assert where.startswith(str(installed)) and wrote == "wrote four.png", done.stdout
    assert re.match(r"mnist-sample test: 21\d\d\.\d\d \+- ", nats)
    assert (tmp_path / "four.png").read_bytes().startswith(b"\x89PNG")
    assert (installed / "bin" / "nicelib").exists() or os.name == "nt"


def test_the_wheel_holds_every_file(installed):
    """Also those that are no Python: weights, digits, words and the explorer's page."""
    here = {path.relative_to(ROOT) for path in (ROOT / "nicelib").rglob("*") if path.is_file()}
    missing = {str(path) for path in here if "__pycache__" not in path.parts and not (installed / path).exists()}
    assert not missing, missing
