"""The scripts under results/: what each fault breaks, and a runner that ends in time."""

import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from test_what_it_learnt import recorded

from nicelib import NICE, RECIPES, TrainConfig, bits_per_dim, dequantise, evaluation, train
from nicelib.checkpoints import read_header
from nicelib.pretrained import WEIGHTS
from nicelib.training import batches
from nicelib.training.bench import ADAM_BYTES, FLOP

sys.path.insert(0, str(ROOT / "results"))

import all_runs
import faults
import reproduce

TINY = reproduce.TINY | {"max_iter": 1}
PIXELS = torch.randint(0, 256, (6, 784), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def noise_of(name):
    parts = faults.Sprint()
    faults.TRAINED[name](parts)
    return parts.noise(PIXELS, torch.Generator().manual_seed(0)) * 256 - PIXELS


def test_the_unbroken_program_is_the_sprint():
    record = faults.run_fault("sprint", seed=1, **TINY)
    (own,) = train(TrainConfig(**(RECIPES["sprint"] | TINY | {"seed": 1})))
    assert record["history"] == [[1, round(own["train"], 2), round(own["held_out"], 2)]]
    assert record["reported"] == record["right"] == record["history"][-1][2]


def test_each_noise_is_broken_as_its_name_says():
    one = noise_of("one_noise_vector")
    assert one.std(0).max() < 1e-4 and one.min() >= 0 and one.max() > 0.9
    two = started("one_noise_vector").scaling.log_scale  # ninety batches: nothing looks like a pixel without noise
    assert two.max() < 9
    half = noise_of("half_the_bin")
    assert half.std(0).min() > 1e-3 and half.max() <= 0.5
    assert noise_of("no_noise").abs().max() == 0
    white = torch.full((3, 784), 255, dtype=torch.uint8)
    parts = faults.Sprint()
    faults.over_255_clamped(parts)
    assert (parts.noise(white, None) == 1).all() and noise_of("over_255_clamped").max() > 1
    assert (reproduce.one_vector_clamped(white) == 1).all()
    black = reproduce.one_vector_clamped(torch.zeros_like(white))
    assert torch.equal(black[0], black[1]) and 0.9 / 256 < black.max() < 1 / 256


def test_a_noise_is_put_in_and_taken_out_again():
    before = batches.dequantise
    with pytest.raises(RuntimeError), reproduce.noise_in(reproduce.one_vector_clamped, batches, evaluation):
        assert batches.dequantise is evaluation.dequantise is reproduce.one_vector_clamped
        raise RuntimeError
    assert batches.dequantise is evaluation.dequantise is before is dequantise


def started(name):
    parts = faults.Sprint()
    parts.settings |= TINY
    faults.TRAINED[name](parts)
    return faults.start(TrainConfig(**(parts.settings | {"init": "zero"})), parts)


def test_each_model_is_broken_as_its_name_says():
    sound = started("sprint")
    assert not started("scales_from_zero").scaling.log_scale.any()
    assert abs(started("scales_from_normal").scaling.log_scale.std() - 1) < 0.1 < sound.scaling.log_scale.mean()
    assert [m.out_features for m in started("four_small_linear_layers").couplings[0].conditioner[::2]] == [100] * 3 + [
        784
    ]
    assert len(started("three_couplings").couplings) == 3
    kept = [layer.mask.tolist() for layer in started("masks_that_stay").couplings]
    assert kept[0] == kept[1] == kept[2] == kept[3] != [layer.mask.tolist() for layer in sound.couplings][1]
    assert type(started("gaussian_prior").prior).__name__ == "StandardNormal"
    x = torch.rand(5, 784, generator=torch.Generator().manual_seed(0))
    last = started("relu_at_the_end").couplings[0]
    assert (last(x)[0] - x).min() >= 0 and (last(x)[0] - x).max() > 0
    forgetful = started("log_det_forgotten")
    assert not forgetful(x)[1].any()
    with torch.no_grad():
        assert torch.equal(forgetful(x)[1], sound(x)[1])


def test_what_is_reported_lies_as_said():
    record = faults.run_fault("sprint", **TINY)
    lies = {name: report["reported"] - report["right"] for name, report in record["reports"].items()}
    assert lies["bits_with_ln_128"] == pytest.approx(-1, abs=2e-3)
    assert lies["ln_256_subtracted"] == pytest.approx(-4347.419, abs=0.01)
    assert lies["samples_from_a_gaussian"] == pytest.approx(309, abs=10)
    last = record["history"][-1]
    assert lies["training_mean_as_test"] == pytest.approx(last[1] - last[2], abs=0.01)
    record = faults.run_fault("log_det_forgotten", **TINY)
    assert record["reported"] < -784 * 1.386 < record["right"]


def test_programs_start_as_they_say():
    config, model = reproduce.prepare(reproduce.PROGRAMS["notes-first-own-noise"], **TINY)
    assert abs(model.scaling.log_scale.std() - 1) < 0.1 and (config.batch_size, config.eps) == (256, 1e-8)
    assert model.couplings[0].conditioner[-1].weight.abs().max().item() == pytest.approx(16**-0.5, abs=1e-3)
    config, model = reproduce.prepare(reproduce.PROGRAMS["paper-authors-start"], **TINY)
    weights = torch.cat([p.flatten() for p in model.parameters()])
    assert weights.abs().max() <= 0.01 and not model.scaling.log_scale.any() and config.activation == "relu"


def pretend(monkeypatch, held_out, end=None):
    """A training loop that says these numbers, one an epoch, and writes the epoch into the weights."""

    def train(config, out, resume, model):
        for epoch, nats in enumerate(held_out, 1):
            torch.nn.init.constant_(model.scaling.log_scale, epoch)
            yield {"epoch": epoch, "train": 0.0, "held_out": nats}
        if end:
            raise end

    monkeypatch.setattr(reproduce, "train", train)


@pytest.mark.parametrize(
    ("held_out", "end", "epochs", "stopped"),
    [
        ([1, 3, 2, 2, 2, 2], None, 5, "risen for 3"),
        ([1, 3], None, 2, "at its end"),
        ([1, 3, 2], KeyboardInterrupt("stopped"), 3, "the time was up"),
        ([1, 3, 2], reproduce.InputError("the loss is nan; nothing more"), 3, "the loss is nan"),
    ],
)
def test_a_run_ends_for_a_reason_and_keeps_its_best_weights(monkeypatch, held_out, end, epochs, stopped):
    pretend(monkeypatch, held_out, end)
    model = NICE(dim=4, mid_dim=2, hidden=1)
    run = reproduce.follow(TrainConfig(), model, patience=3)
    assert len(run.history) == epochs and stopped in run.stopped
    assert run.best == [2, 0.0, 3] and run.weights["scaling.log_scale"].eq(2).all()


def test_a_run_that_explodes_is_not_waited_for(monkeypatch):
    pretend(monkeypatch, [1] + [-1e9] * 50)
    assert len(reproduce.follow(TrainConfig(), NICE(dim=4, mid_dim=2, hidden=1), patience=100).history) == 21


def test_every_planned_run_has_a_prediction_and_settings():
    planned = json.loads((ROOT / "results" / "planned.json").read_text(encoding="utf-8"))
    predicted = {entry["what"] for entry in planned if entry["predicted"]}
    assert {run.row for run in all_runs.PLAN} <= predicted
    assert len({run.name for run in all_runs.PLAN}) == len(all_runs.PLAN)
    config = next(run for run in all_runs.PLAN if run.row == "affine coupling").config()
    assert (config.coup_type, config.max_iter, config.protocol) == ("affine", 34, "reference")


def run_all(tmp_path, *arguments):
    command = [sys.executable, "results/all_runs.py", "--tiny", "--out", str(tmp_path), *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, encoding="utf-8")


def records(tmp_path):
    found = json.loads((tmp_path / "all_runs.json").read_text(encoding="utf-8"))
    return {f"{run['row']}, seed {run['seed']}": run for run in found["runs"]}, found


def test_the_runner_collects_every_run_and_judges_the_best(tmp_path):
    names = [
        "notes, first program, its own noise, seed 0",
        "further, 100",
        "further, strong",
        "fault three_couplings, seed 0",
    ]
    run_all(tmp_path, "--max-iter", "1", "--jobs", "2", "--seconds", "300", "--only", *names).communicate()
    runs, found = records(tmp_path)
    assert len(runs) == 4 and not found["not_started"] and {run["stopped"] for run in runs.values()} == {"at its end"}
    further = [run for run in runs.values() if run["row"].startswith("further")]
    assert [run["best"][2] for run in further if "test" in run] == [max(run["best"][2] for run in further)]
    first = runs[names[0]]
    assert abs(first["test"]["nats"] - first["history"][-1][2]) < 5 and first["test"]["draws"] == 10
    assert first["held_out_by_own_noise"] != first["history"][-1][2]
    assert runs[names[3]]["right"] == runs[names[3]]["history"][-1][2]


def test_the_runner_ends_in_time(tmp_path):
    options = ["--max-iter", "100000", "--jobs", "1", "--seconds", "24", "--wind-down", "12"]
    began = time.monotonic()
    run_all(tmp_path, *options, "--only", "paper, seed 0", "normal prior, seed 0").communicate()
    runs, found = records(tmp_path)
    assert time.monotonic() - began < 40  # with Python's own start
    assert found["not_started"] == ["normal prior, seed 0"]
    (run,) = runs.values()
    if run.get("history"):  # on a machine that is not too slow for a first epoch
        assert run["stopped"] == "the time was up" and run["test"]["draws"] == 10


def test_the_runner_loses_no_run_that_is_killed_and_none_when_it_is_interrupted_itself(tmp_path):
    runner = run_all(tmp_path, "--max-iter", "100000", "--jobs", "2", "--seconds", "200", "--only", "paper, seed")
    while len(records(tmp_path)[0] if (tmp_path / "all_runs.json").exists() else ()) < 2 or not all(
        run.get("history") for run in records(tmp_path)[0].values()
    ):
        time.sleep(0.5)
        assert runner.poll() is None
    children = subprocess.run(["pgrep", "-P", str(runner.pid)], capture_output=True, encoding="utf-8").stdout.split()
    os.kill(int(children[0]), signal.SIGKILL)
    time.sleep(1)
    runner.send_signal(signal.SIGTERM)
    runner.communicate(timeout=60)
    runs, _ = records(tmp_path)
    stopped = sorted(run["stopped"] for run in runs.values() if run.get("history"))
    assert "its process ended with -9" in stopped and "the time was up" in stopped


@pytest.mark.parametrize("mends", [True, False])
def test_a_run_that_fails_is_tried_once_more_without_a_graph(tmp_path, monkeypatch, mends):
    script = tmp_path / "script.py"
    script.write_text(
        "import json, pathlib, sys\n"
        f"if not ('--eager' in sys.argv and {mends}): sys.exit('CUDA error: capture')\n"
        "folder = pathlib.Path(sys.argv[-2] if sys.argv[-1] == '--eager' else sys.argv[-1])\n"
        "record = {'row': 'halves', 'seed': 0, 'stopped': 'at its end', 'seconds': 1, 'history': [[1, 2, 3]]}\n"
        "(folder / 'halves, seed 0.json').write_text(json.dumps(record), encoding='utf-8')\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(all_runs, "HERE", script)
    monkeypatch.setattr(sys, "argv", ["all_runs.py"])
    args = all_runs.arguments(["--only", "halves", "--out", str(tmp_path), "--seconds", "60"])
    all_runs.Runner(args, tmp_path).run()
    run = records(tmp_path)[0]["halves, seed 0"]
    assert (run["stopped"] == "at its end") == mends and ("capture" in run.get("log", "")) != mends


#: what others report, and what a line of arithmetic gives: in no run of this project's
OTHERS = {1980.50, 1933.89, 1932.70, 4.34, 4.356, 4.441, 4.443}


def measured():
    """Every number of runs.json that is no curve, with what the tables make of them: means, spreads, differences, bits."""
    runs = json.loads((ROOT / "results" / "runs.json").read_text(encoding="utf-8"))
    found, seeds = set(), {}
    for run in runs:
        for name, number in run.items():
            if isinstance(number, int | float):
                found.add(float(number))
                seeds.setdefault((run["group"], run["what"], name), []).append(number)
        if "train_by_epoch" in run:
            held_out = run.get("validation_by_epoch") or run["test_by_epoch"]
            at = run.get("best_epoch", len(held_out)) - 1
            found |= {run["train_by_epoch"][at], run["train_by_epoch"][at] - held_out[at]}
            found |= {run["train_by_epoch"][-1], held_out[-1], held_out[at] - held_out[-1]}
    mean = {key: statistics.mean(numbers) for key, numbers in seeds.items()}
    sound = mean["fault", "The sprint as it is", "validation"]
    shipped = mean["shipped recipe", "shipped recipe", "validation"]
    several = [key for key, numbers in seeds.items() if len(numbers) > 1]
    found |= {mean[key] for key in several} | {statistics.stdev(seeds[key]) for key in several}
    found |= {mean[key] - sound for key in several}
    found |= {v - shipped for (group, _, name), v in mean.items() if group == "variant" and name == "validation"}
    reports = [run["reports"] for run in runs if "reports" in run]
    found |= {statistics.mean(r[name]["reported"] - r[name]["right"] for r in reports) for name in reports[0]}
    header = read_header(WEIGHTS)
    found |= {header[split][name] for split in ("test", "validation") for name in ("nats", "standard_error")}
    found.add(statistics.stdev(run["validation"] for run in runs if run["group"] == "sprint"))
    return found | {bits_per_dim(v) for v in found if abs(v) < 4000}


def numbers_in(text, least=100.0):
    """The numbers of a text, code and links aside: (as written, value, half a unit of its last digit); integers from ``least``."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|\$[^$]*\$", " ", text).replace("\u2212", "-")
    for written in re.findall(r"(?<![\w.,/-])[-+]?\d[\d,]*(?:\.\d+)?(?![\w/])", text):
        digits = written.replace(",", "").lstrip("+")
        whole, _, part = digits.partition(".")
        zeros = 0 if part else len(whole) - len(whole.rstrip("0"))
        if part or abs(float(digits)) >= least:
            yield written, float(digits), 0.5 * 10.0 ** (zeros if not part else -len(part))


def unfounded(text, pool, **least):
    return [
        written
        for written, value, half in numbers_in(text, **least)
        if not any(abs(abs(value) - abs(known)) <= half * 1.001 for known in pool)
    ]


def test_the_numbers_of_results_are_those_of_the_runs():
    page = (ROOT / "results" / "README.md").read_text(encoding="utf-8").split("## Speed")[0]
    page, learnt = page.split("## What the shipped weights learnt")
    record = json.loads((ROOT / "results" / "what_it_learnt.json").read_text(encoding="utf-8"))
    rejected = 784 * record["independence"]["not_logistic"]["codes"]["rejected_at_5_percent"]
    known = {*recorded(record), rejected, 784, 0.1, 0.5}
    assert not unfounded(learnt, known) and unfounded(learnt.replace("2242.45", "2242.54"), known)
    rare = {1465, -1448, 1517, -102_109, 1451, -1311, 1807}  # results/rare_ink.py prints them
    settings = {0.99, 5.1, 0.01, 0.2, 2.11, 304.1}  # the last is notebook 08's integral
    assert not unfounded(page, measured() | OTHERS | rare | settings, least=math.inf)
    assert unfounded(page.replace("2413.57", "2413.75"), measured() | OTHERS | rare | settings, least=math.inf)


def test_the_numbers_of_the_speed_section_are_those_of_the_records():
    """Medians, least and most of each row of values, as they are and in ms, GFLOP/s and thousands."""
    cpu, gpu = (json.loads((ROOT / "results" / name).read_text(encoding="utf-8")) for name in ("cpu.json", "gpu.json"))
    pool: set[float] = set()

    def gather(node):
        values = node.values() if isinstance(node, dict) else node
        if isinstance(node, list) and node and all(isinstance(v, int | float) for v in node):
            values = [statistics.median(node), min(node), max(node)]
        for value in values:
            if isinstance(value, dict | list):
                gather(value)
            elif isinstance(value, int | float):
                pool.update((value, 1e3 * value, value / 1e9))

    gather([cpu, gpu])
    floor = FLOP * 200 / gpu["machine"]["product_high"] + ADAM_BYTES / gpu["machine"]["copy"]
    pool |= {1e3 * floor, 200 / gpu["speed"]["200"]["nicelib, TF32, graph"]["images_per_s"] * 1e3, 1980.50}
    page = (ROOT / "results" / "README.md").read_text(encoding="utf-8").split("## Speed")[1]
    page = page.replace("torch 2.14.1", "")
    assert not unfounded(page, pool, least=201)
    assert unfounded(page.replace("56.5", "55.6").replace("122,362", "122,632"), pool, least=201) == ["55.6", "122,632"]


def test_the_numbers_of_notebook_08_are_its_outputs_or_those_of_the_runs():
    path = ROOT / "notebooks" / "08_break_it_yourself.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    printed = "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))
    pool = measured() | OTHERS | {value for _, value, _ in numbers_in(printed, least=0.0)}
    settings = {
        128,
        255,
        256,
        784,
        500,
        4500,
        250,
        300,
        1500,
        50_000,
        60_000,
        10_000,
        40_000,
        0.001,
        5.1,
        2014,
        1410.8516,
    }
    arithmetic = {1.81, 7.3, 1950.00, 3.4117, -2366.92, 1e6, 1e8, 2413}  # the last an exercise's answer
    assert not unfounded(prose, pool | settings | arithmetic)
    assert unfounded(prose.replace("2413.57", "2413.75"), pool | settings | arithmetic)
