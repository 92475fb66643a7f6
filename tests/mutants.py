"""Do the tests notice? One expression of a maths module is changed at a time, and the fast tests run against it.

Run by hand, it takes half an hour or so on one core:

    nice -n 10 python tests/mutants.py                     # the sample that the figure is of
    nice -n 10 python tests/mutants.py --only masks --number 30 --seed 1

Each mutant is tried in a copy of the package, in a process of its own that already holds torch, by the tests that concern
its module, the quick ones of each file first, until one fails. It counts as killed where one does, or does not end. A
survivor that gives the same numbers is listed in EQUIVALENT, with the reason.
"""

import argparse
import ast
import copy
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE = 600  # seconds for one mutant
DURATIONS = "durations.json"  # of the tests on the package as it is, by their names

DEFAULTS = "test_faults.py::test_no_number_depends_on_torchs_defaults"
#: modules, and the test files that must notice what is changed in them (beside the module's own doctests)
MODULES = {
    "bijection": ["test_bijections", "test_config"],
    "masks": ["test_masks", "test_bijections", "test_config"],
    "coupling": ["test_bijections", "test_config", "test_model"],
    "scaling": ["test_bijections", "test_config"],
    "prior": ["test_prior", "test_faults", "test_model"],
    "model": ["test_model", "test_config", "test_checkpoints"],
    "data": ["test_data", DEFAULTS],
    "evaluation": ["test_evaluation", DEFAULTS],
    "inpainting": ["test_inpainting", DEFAULTS],
    "analysis": ["test_analysis", DEFAULTS],
    "training/batches": ["test_training", DEFAULTS],
    "training/start": ["test_training", "test_faults"],
    "training/loop": ["test_training", "test_faults"],
}
#: tests that start processes, wait, or need the full model: not among the fast ones
SLOW = (
    "killed or full_mnist or full_model or peak_memory or goes_away or belongs_to_one_run or disk "
    "or code_page or launchers or shipped or dead_parameters or costs_no_arithmetic or row_by_row or exported "
    "or without_streams or the_script or what_is_printed_to or behind_a_link or too_little_memory"
)

SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NAMES = {
    "all": "any", "any": "all", "min": "max", "max": "min", "sin": "cos", "cos": "sin", "zeros": "ones", "sqrt": "square",
    "zeros_like": "ones_like", "new_zeros": "new_ones", "mean": "sum", "sum": "mean", "exp": "log1p", "log": "exp",
    "floor": "ceil", "floor_": "ceil_", "round": "floor", "std": "var", "add_": "sub_", "softplus": "relu", "rand": "randn",
}  # fmt: skip

#: survivors that change no result: "module: before -> after   [line]", and why
EQUIVALENT = {
    "training/loop: temporary.write_text(text, encoding='utf-8') -> temporary.write_text(text)   "
    '[write_atomically(out / "history.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))]': (
        "JSON is written in ASCII"
    ),
    "training/loop: torch.zeros -> torch.ones   "
    "[self.losses = torch.zeros(self.steps, device=self.device, dtype=torch.float32)]": (
        "every loss that is read was written before"
    ),
    "prior: 2 -> 3   [return torch.where(u == 0, eps / 4, torch.where(u == 1, 1 - eps / 2, u))]": (
        "1 - eps / 3 is rounded to the number next to 1, which 1 - eps / 2 is"
    ),
    "masks: torch.arange(height)[:, None] + torch.arange(width) -> torch.arange(height)[:, None] - torch.arange(width)   "
    "[return ((torch.arange(height)[:, None] + torch.arange(width)) % 2 == colour).flatten()]": (
        "a sum and a difference are both even or both odd"
    ),
    "coupling: -1 -> 1   [shift, raw = self._condition(x, 2 * self.dim).chunk(2, dim=-1)]": (
        "of a matrix, dimension 1 is the last"
    ),
    "training/loop: distributed.broadcast_object_list(picked, device=self.device) -> distributed.broadcast_object_list(picked)"
    "   [distributed.broadcast_object_list(picked, device=self.device)]": "on a CPU; NCCL asks for the device",
}


def expressions(tree: ast.AST) -> Iterator[ast.AST]:
    """Every expression that computes: no docstring, no annotation, no message of an error."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns") or isinstance(tree, ast.Raise):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or (
                isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            ):
                continue
            if isinstance(child, ast.expr):
                yield child
            yield from expressions(child)


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """The node changed in each of the ways that are tried."""

    def changed(**fields: object) -> ast.AST:
        twin = copy.deepcopy(node)
        for name, value in fields.items():
            setattr(twin, name, value)
        return twin

    match node:
        case ast.BinOp(op=op) if type(op) in SWAPS:
            yield changed(op=SWAPS[type(op)]())
        case ast.BoolOp(op=op):
            yield changed(op=SWAPS[type(op)]())
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield changed(ops=[*ops[:i], SWAPS[type(op)](), *ops[i + 1 :]])
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield changed(body=orelse, orelse=body)
        case ast.Constant(value=bool(value)):
            yield changed(value=not value)
        case ast.Constant(value=int(value)):
            yield changed(value=value + 1)
            if value > 1:
                yield changed(value=value - 1)
        case ast.Constant(value=float(value)):
            yield changed(value=1.5 * value if value else 1.0)
        case ast.Attribute(attr=attr) if attr in NAMES:
            yield changed(attr=NAMES[attr])
        case ast.Call(args=args, keywords=keywords):
            if ast.unparse(node.func) == "torch.where" and len(args) == 3:
                yield changed(args=[args[0], args[2], args[1]])
            for i, keyword in enumerate(keywords):
                if keyword.arg not in (None, "default", "rule", "help"):
                    yield changed(keywords=[*keywords[:i], *keywords[i + 1 :]])


def mutants(module: str) -> Iterator[tuple[str, str]]:
    """What is changed, and the whole module so changed."""
    source = (ROOT / "nicelib" / f"{module}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    for node in list(expressions(tree)):
        line = source.splitlines()[node.lineno - 1].strip()
        before, fields = ast.unparse(node), dict(vars(node))
        for variant in variants(node):
            after = ast.unparse(variant)
            if before == after:
                continue
            kind = type(node)
            node.__class__, node.__dict__ = type(variant), dict(vars(variant))
            yield f"{module}: {before} -> {after}   [{line}]", ast.unparse(ast.fix_missing_locations(tree))
            node.__class__, node.__dict__ = kind, dict(fields)


class QuickFirst:
    """Orders the tests of each file by what they took before; or, where nothing is known, writes that down."""

    def __init__(self, known: Path) -> None:
        self.file, self.seconds = known, {}
        self.known = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}

    def pytest_collection_modifyitems(self, items: list) -> None:
        files = list(dict.fromkeys(item.path for item in items))
        items.sort(key=lambda item: (files.index(item.path), self.known.get(item.nodeid, 0.0)))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        if not self.known:
            self.file.write_text(json.dumps(self.seconds), encoding="utf-8")


def killed(module: str, code: str, scratch: Path, log: Path, tests: list[str]) -> bool:
    """Whether a fast test fails on the changed module; the tests run in a fork of this process."""
    target = scratch / "nicelib" / f"{module}.py"
    original = target.read_text(encoding="utf-8")
    target.write_text(code, encoding="utf-8")
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(scratch)
        sys.path[:0] = [str(scratch), str(scratch / "tests")]
        import pytest

        origin = importlib.util.find_spec("nicelib").origin
        assert origin.startswith(str(scratch)), origin
        status, order = 1, QuickFirst(scratch / DURATIONS)
        try:
            status = pytest.main([*tests, "-x", "-q", "-p", "no:cacheprovider", "-k", f"not ({SLOW})"], plugins=[order])
        finally:
            os._exit(int(status))
    end = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status != 0
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True
    finally:
        target.write_text(original, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--number", type=int, default=120, help="mutants drawn, over all modules by their size")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", choices=MODULES, help="one module")
    parser.add_argument("--again", type=Path, help="only what an earlier run, whose output this file is, saw survive")
    parser.add_argument("--list", action="store_true", help="print the mutants that would be tried, and try none")
    args = parser.parse_args()
    every = [(m, what, code) for m in ([args.only] if args.only else MODULES) for what, code in mutants(m)]
    drawn = random.Random(args.seed).sample(every, min(args.number, len(every)))
    if args.again:
        lines = args.again.read_text(encoding="utf-8").splitlines()
        survived = {line.partition(" s: ")[2] for line in lines if " SURVIVED in " in line}
        drawn = [mutant for mutant in every if mutant[1] in survived]
    print(f"{len(drawn)} of {len(every)} mutants, seed {args.seed}")
    if args.list:
        print(*(what for _, what, _ in drawn), sep="\n")
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("torch", "numpy", "pytest", "hypothesis", "torchvision", "safetensors.torch", "torchinfo"):
        importlib.import_module(name)  # nothing of nicelib: each child imports its own
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "copy"
        for name in ("nicelib", "tests"):
            shutil.copytree(ROOT / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", scratch)
        os.environ["PYTHONPATH"] = str(scratch)
        log = Path(folder) / "log"
        tests = {
            m: [f"nicelib/{m}.py", *(f"tests/{name}" + ".py" * ("::" not in name) for name in MODULES[m])]
            for m in MODULES
        }
        plain, every = (
            drawn[0][0],
            list(dict.fromkeys(test for m in dict.fromkeys(m for m, *_ in drawn) for test in tests[m])),
        )
        if killed(plain, (ROOT / "nicelib" / f"{plain}.py").read_text(encoding="utf-8"), scratch, log, every):
            sys.exit(f"the tests fail on the package as it is:\n{log.read_text(encoding='utf-8')[-3000:]}")
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        for old in (scratch / "nicelib").rglob("*.pyc"):  # what Python made of the tests may stay
            old.unlink()
        dead, equivalent, alive = 0, [], []
        for number, (module, what, code) in enumerate(drawn, 1):
            start = time.monotonic()
            reason = EQUIVALENT.get(what)
            if reason:
                equivalent.append(f"{what}: {reason}")
                state = "equivalent"
            elif killed(module, code, scratch, log, tests[module]):
                dead, state = dead + 1, "killed"
            else:
                alive.append(what)
                state = "SURVIVED"
            print(f"{number:4d} {state} in {time.monotonic() - start:.0f} s: {what}", flush=True)
    tried = dead + len(alive)
    print(f"\nkilled {dead} of {tried} ({dead / max(tried, 1):.1%}), and {len(equivalent)} that change no result")
    for title, those in (("survivors", alive), ("equivalent", equivalent)):
        print(f"{title}:", *those, sep="\n    ")


if __name__ == "__main__":
    main()
