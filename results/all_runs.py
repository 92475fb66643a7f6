"""Every run of the table, several at once, within a time (python results/all_runs.py --seconds 540 --jobs 6 --out DIR).

DIR/all_runs.json holds every run's history; it is written anew whenever a run ends, and every few seconds. When the time is
nearly up, what still runs is interrupted: it judges its best weights on test, where its row asks for that, and ends.
Predictions stand in planned.json, committed before.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from faults import TRAINED, run_fault
from reproduce import PROGRAMS, TINY, Run, follow, own_measure, prepare

from nicelib import RECIPES, TrainConfig, dequantise, load_pixels
from nicelib.checkpoints import load_model, save_model, write_atomically
from nicelib.cli import _given, _parser
from nicelib.data import held_out_split
from nicelib.evaluation import evaluate

HERE = Path(__file__).resolve()
SHIPPED = "nicelib train --recipe reference"
FASHION = f"{SHIPPED} --protocol paper --dataset fashion-mnist"
FURTHER = "nicelib train --protocol reference --lr 2e-3"
WIND_DOWN = 30.0  # seconds kept for judging on test what was interrupted, and the best of the further runs


@dataclass(frozen=True)
class Planned:
    """A run: its row in the table, the command that makes it, its seed; when to judge it on test; when to give up."""

    row: str
    command: str
    seed: int = 0
    test: str = ""  # "at its end", "if best" (of its row, on validation), or never
    patience: int = 0

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.seed}"

    def config(self) -> TrainConfig:
        """The settings that the command gives, without the machine's."""
        words = shlex.split(self.command)
        if words[0] == "nicelib":
            args = _parser().parse_args(words[1:])
            settings = RECIPES.get(getattr(args, "recipe", None), {}) | _given(args, TrainConfig)
        else:
            settings = PROGRAMS[words[2]].settings if "reproduce.py" in words[1] else RECIPES["sprint"]
        return TrainConfig(**settings)

    def work(self) -> float:
        """How long it is, in steps of 200 images; on a GPU a step of 50 takes nearly as long."""
        config = self.config()
        images = {"notes": 60_000, "paper": 50_000, "reference": 49_500}[config.protocol]
        steps = config.max_iter * (images // config.batch_size)
        return steps * (0.85 + 0.15 * config.batch_size / 200) * (1.3 if config.coup_type == "affine" else 1.0)


def program(name: str) -> str:
    return f"python results/reproduce.py {name} runs/{name}"


def fault(name: str) -> str:
    return f"python results/faults.py {name}"


#: in the order in which they start: the long ones first, then what matters most
PLAN = [
    Planned("paper", program("paper-torch-start"), test="at its end", patience=100),
    Planned("further, 200 epochs", f"{FURTHER} --max-iter 200 --weight-decay 0.3 --shift 0.8", test="if best"),
    Planned("further, 100 epochs", f"{FURTHER} --max-iter 100 --weight-decay 0.2 --shift 0.7", test="if best"),
    Planned("notes, first program, its own noise", program("notes-first-own-noise"), test="at its end"),
    Planned("notes, second program", program("notes-second"), test="at its end"),
    *(Planned("shipped recipe", SHIPPED, seed, "at its end") for seed in (1, 2)),
    Planned("notes, first program, right noise", program("notes-first"), test="at its end"),
    Planned("affine coupling", f"{SHIPPED} --coup-type affine", test="at its end"),
    Planned("paper, nicelib's start", "nicelib train --recipe paper", test="at its end", patience=100),
    *(Planned(f"fault {name}", fault(name)) for name in TRAINED),
    Planned("paper, authors' start", program("paper-authors-start"), test="at its end", patience=100),
    Planned("normal prior", f"{SHIPPED} --latent normal"),
    Planned("checkerboard", f"{SHIPPED} --mask checkerboard"),
    Planned("halves", f"{SHIPPED} --mask halves"),
    Planned("three layers", f"{SHIPPED} --coupling 3"),
    Planned("Fashion-MNIST", FASHION, test="at its end"),
    Planned(
        "Fashion-MNIST, affine", f"{FASHION} --coup-type affine", test="at its end"
    ),
    *(Planned(f"fault {name}", fault(name), seed) for seed in (1, 2) for name in TRAINED),
    Planned("shipped recipe", SHIPPED, 0, "at its end"),
    *(Planned("notes, second program", program("notes-second"), seed, "at its end") for seed in (1, 2)),
    Planned("affine coupling", f"{SHIPPED} --coup-type affine", 1, "at its end"),
    Planned("affine, weight decay 1", f"{SHIPPED} --coup-type affine --weight-decay 1 --shift 0.7"),
    *(Planned("normal prior", f"{SHIPPED} --latent normal", seed) for seed in (1, 2)),
    *(Planned("paper", program("paper-torch-start"), seed, "at its end", 100) for seed in (1, 2)),
    Planned("further, batches of 100", f"{FURTHER} --batch-size 100 --max-iter 100 --weight-decay 0.3 --shift 0.8", test="if best"),
    Planned("further, strong decay", f"{FURTHER} --max-iter 200 --weight-decay 0.6 --shift 0.8", test="if best"),
    Planned("further, 400 epochs", f"{FURTHER} --max-iter 400 --weight-decay 0.3 --shift 0.8", test="if best"),
    *(Planned("notes, first program, right noise", program("notes-first"), seed, "at its end") for seed in (1, 2)),
    *(Planned("notes, first program, its own noise", program("notes-first-own-noise"), seed, "at its end") for seed in (1, 2)),
]  # fmt: skip


# --- one run, in a process of its own ---------------------------------------------------------------------------------


def changes_for(args: argparse.Namespace) -> dict[str, Any]:
    """What the runner adds to a run's own settings: how to use the card, and how small a test is."""
    changes: dict[str, Any] = {"cuda_graph": "off"} if args.eager else {}
    changes |= TINY if args.tiny else {}
    return changes | ({"max_iter": args.max_iter} if args.max_iter else {})


def do(planned: Planned, changes: dict[str, Any], folder: Path) -> None:
    """Make a run; its record goes to a file of its own in ``folder``, every two seconds and at its end."""
    began = time.monotonic()
    path = folder / f"{planned.name}.json"
    record: dict[str, Any] = {"row": planned.row, "command": planned.command, "seed": planned.seed}

    def write(run: Run | None = None, at_least: float = 2.0) -> None:
        if run:
            record.update(history=run.history, best=run.best, stopped="still running")
        if time.monotonic() - write.last > at_least:  # type: ignore[attr-defined]
            record["seconds"] = round(time.monotonic() - began, 1)
            write_atomically(path, lambda temporary: temporary.write_text(json.dumps(record), encoding="utf-8"))
            write.last = time.monotonic()  # type: ignore[attr-defined]

    write.last = began  # type: ignore[attr-defined]
    if planned.row.startswith("fault "):
        record |= run_fault(planned.row.removeprefix("fault "), planned.seed, write, **changes)
    else:
        record |= run_and_judge(planned, changes, write, path.with_suffix(".safetensors"))
    write(at_least=-1)


def run_and_judge(planned: Planned, changes: dict[str, Any], write: Any, weights: Path) -> dict[str, Any]:
    """Train, then judge on test by ten draws of noise, once: the last weights where nothing was held out, else the best."""
    noise = dequantise
    if planned.command.startswith("nicelib"):
        config = dataclasses.replace(planned.config(), seed=planned.seed, **changes)
        model = config.build()
    else:
        made_as = PROGRAMS[planned.command.split()[2]]
        noise = made_as.noise
        config, model = prepare(made_as, planned.seed, **changes)
    run = follow(config, model, noise, planned.patience, after_epoch=write)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    record: dict[str, Any] = {"history": run.history, "best": run.best, "stopped": run.stopped}
    if not run.history:
        return record
    if config.protocol != "notes":
        model.load_state_dict(run.weights)
    if planned.test == "at its end":
        record["test"] = on_test(model, config)
    if planned.test == "if best":
        save_model(model, weights)
    if noise is not dequantise:
        split = held_out_split(config.dataset, config.protocol)
        record["held_out_by_own_noise"] = round(own_measure(model, load_pixels(config.dataset, split), noise), 2)
    return record


def on_test(model: Any, config: TrainConfig) -> dict[str, float]:
    result = evaluate(model, load_pixels(config.dataset, "test"), draws=10)
    return {"nats": round(result.nats, 2), "standard_error": round(result.standard_error, 2), "draws": 10}


# --- the runner -------------------------------------------------------------------------------------------------------


class Runner:
    """Runs as processes, ``jobs`` at once, until all are done or the time is."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.began = time.monotonic()
        self.end = self.began + args.seconds
        self.until = self.end - args.wind_down
        self.running: dict[int, subprocess.Popen] = {}
        self.done: dict[str, dict[str, Any]] = {}
        self.earlier: dict[str, dict[str, Any]] = {}
        if args.skip:
            records = json.loads(args.skip.read_text(encoding="utf-8"))["runs"]
            self.earlier = {f"{r['row']}, seed {r['seed']}": r for r in records if r["stopped"] == "at its end"}
        self.without_graph: set[int] = set()  # runs that failed once, perhaps for that
        self.waiting = [i for i, planned in enumerate(PLAN) if self.wanted(planned)]
        self.paces: list[float] = []  # seconds a step of 200 images, among as many others as run here
        self.written = 0.0

    def wanted(self, planned: Planned) -> bool:
        chosen = not self.args.only or any(part in planned.name for part in self.args.only)
        return chosen and planned.name not in self.earlier

    def pace(self) -> float:
        return statistics.median(self.paces) if self.paces else 0.0

    def fits(self, planned: Planned) -> bool:
        """Whether a run would end in time, as far as the others' pace says; one with patience is worth any minute."""
        left = self.until - time.monotonic()
        return left > 60 if planned.patience and not self.args.tiny else left > self.pace() * planned.work()

    def start(self) -> None:
        """Start what fits, in the plan's order."""
        for i in list(self.waiting):
            if len(self.running) >= self.args.jobs:
                return
            if self.fits(PLAN[i]):
                self.waiting.remove(i)
                log = open(self.folder / f"{i}.log", "wb")
                command = [sys.executable, str(HERE), *sys.argv[1:], "--one", str(i), "--folder", str(self.folder)]
                command += ["--eager"] if i in self.without_graph else []
                # a group of its own, so that an interrupt at the keyboard reaches the runner alone
                self.running[i] = subprocess.Popen(command, stdout=log, stderr=log, process_group=0)
                log.close()
                self.say(f"started {PLAN[i].name}")

    def collect(self) -> None:
        """Take the records of runs that have ended, however they ended."""
        for i, process in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[i]
            record = self.record(i)
            if process.returncode > 0 and i not in self.without_graph and time.monotonic() < self.until:
                self.without_graph.add(i)
                self.waiting.insert(0, i)
                self.say(f"again, without a graph: {PLAN[i].name}")
                continue
            if process.returncode:
                tail = (self.folder / f"{i}.log").read_text(encoding="utf-8", errors="replace").strip()[-600:]
                record |= {"stopped": f"its process ended with {process.returncode}", "log": tail}
            elif record["stopped"] == "at its end":
                self.paces.append(record["seconds"] / PLAN[i].work())  # without Python's start
            self.done[PLAN[i].name] = record
            last = record.get("history") or [[]]
            self.say(f"ended {PLAN[i].name}: {record['stopped']}; {last[-1]} {record.get('test', '')}")
            self.write()

    def record(self, i: int) -> dict[str, Any]:
        """What a run has written of itself so far."""
        path = self.folder / f"{PLAN[i].name}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        return {
            "row": PLAN[i].row,
            "command": PLAN[i].command,
            "seed": PLAN[i].seed,
            "stopped": "before its first epoch",
        }

    def stop(self) -> None:
        """Interrupt what still runs; kill what does not end within the wind-down."""
        self.say(f"time is up: {len(self.running)} runs are interrupted, {len(self.waiting)} never started")
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        kill_at = time.monotonic() + self.args.wind_down / 2
        while self.running and time.monotonic() < kill_at:
            time.sleep(0.1)
            self.collect()
        for process in self.running.values():
            process.kill()
            process.wait()
        self.collect()

    def judge_the_best(self) -> None:
        """Of the further runs, the one that is best on validation, and it alone, sees test."""
        tried = [r for r in self.done.values() if (self.folder / f"{name_of(r)}.safetensors").exists()]
        if not tried:
            return
        best = max(tried, key=lambda record: record["best"][2])
        i = next(i for i, planned in enumerate(PLAN) if planned.name == name_of(best))
        command = [sys.executable, str(HERE), *sys.argv[1:], "--judge", str(i), "--folder", str(self.folder)]
        try:
            left = max(5.0, self.end - time.monotonic())
            made = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=left, check=True)
            best["test"] = json.loads(made.stdout.splitlines()[-1])
        except (subprocess.SubprocessError, ValueError, IndexError) as error:
            best["test_failed"] = str(error)[-300:]
        self.say(f"the best further run on validation is {name_of(best)}: {best['best']}, {best.get('test')}")

    def write(self) -> None:
        records = [*self.earlier.values(), *self.done.values(), *(self.record(i) for i in self.running)]
        cuda = torch.cuda.is_available()
        machine = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
        content = {
            "machine": f"{machine}, {os.cpu_count()} cores, torch {torch.__version__}",
            "commit": self.args.commit,
            "how": f"{self.args.jobs} runs at once, MPS {'on' if 'CUDA_MPS_PIPE_DIRECTORY' in os.environ else 'off'}",
            "seconds": round(time.monotonic() - self.began, 1),
            "not_started": [PLAN[i].name for i in self.waiting],
            "runs": records,
        }
        text = json.dumps(content).replace('{"row"', '\n{"row"')
        write_atomically(
            self.args.out / "all_runs.json", lambda temporary: temporary.write_text(text, encoding="utf-8")
        )
        self.written = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def run(self) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            while (self.waiting or self.running) and time.monotonic() < self.until:
                self.collect()
                self.start()
                if not self.running:
                    break  # nothing that is left fits into the time
                if time.monotonic() - self.written > 5:
                    self.write()
                time.sleep(0.1)
        except KeyboardInterrupt:
            self.say("interrupted")
        self.stop()
        self.judge_the_best()
        self.write()


def name_of(record: dict[str, Any]) -> str:
    return f"{record['row']}, seed {record['seed']}"


@contextlib.contextmanager
def several_on_one_card(wanted: bool, folder: Path) -> Iterator[bool]:
    """NVIDIA's MPS, where it is asked for and works: kernels of several processes then run side by side."""
    if not wanted or not shutil.which("nvidia-cuda-mps-control"):
        yield False
        return
    names = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
    os.environ |= dict.fromkeys(names, str(folder))
    probe = [sys.executable, "-c", "import torch; print(torch.ones(9, device='cuda').sum().item())"]
    try:
        subprocess.run(["nvidia-cuda-mps-control", "-d"], timeout=20, check=True)
        subprocess.run(probe, timeout=60, check=True, stdout=subprocess.DEVNULL)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"MPS does not work here ({error}): without it", flush=True)
        end_mps(names)
    try:
        yield names[0] in os.environ
    finally:
        if names[0] in os.environ:
            end_mps(names)


def end_mps(names: tuple[str, ...]) -> None:
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", timeout=10, check=False)
    for name in names:
        os.environ.pop(name, None)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=540, help="all in all, judging on test included")
    parser.add_argument("--wind-down", type=float, default=WIND_DOWN, help="of these, for what comes after training")
    parser.add_argument("--jobs", type=int, default=6, help="runs at once")
    parser.add_argument("--out", type=Path, default=Path("runs/all"))
    parser.add_argument("--only", nargs="+", help="runs whose name holds one of these")
    parser.add_argument("--skip", type=Path, help="an earlier all_runs.json: what ended there is taken over")
    parser.add_argument("--commit", default=None, help="what the repository is at")
    parser.add_argument("--mps", action="store_true", help="start NVIDIA's MPS, where it works")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs")
    parser.add_argument("--tiny", action="store_true", help="small models on the embedded digits, for tests")
    parser.add_argument("--max-iter", type=int, help="epochs of every run, for tests")
    parser.add_argument("--list", action="store_true", help="print the plan and its sizes, run nothing")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--judge", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main() -> None:
    args = arguments()
    if args.list:
        for planned in PLAN:
            print(f"{planned.work() / 1000:7.1f}k steps  {planned.name}: {planned.command}")
        return
    if args.one is not None:
        do(PLAN[args.one], changes_for(args), args.folder)
        return
    if args.judge is not None:
        planned = PLAN[args.judge]
        config = dataclasses.replace(planned.config(), **changes_for(args))
        model = load_model(args.folder / f"{planned.name}.safetensors").to(
            "cuda" if torch.cuda.is_available() else "cpu"
        )
        print(json.dumps(on_test(model, config)))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, several_on_one_card(args.mps, Path(folder)) as side_by_side:
        if args.mps and not side_by_side:  # they take turns: more of them would only make the long ones late
            args.jobs = min(args.jobs, 6)
        Runner(args, Path(folder)).run()


if __name__ == "__main__":
    main()
