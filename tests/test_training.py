import contextlib
import copy
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from nicelib import NICE, RECIPES, InputError, TrainConfig, dequantise, initialise_from_data, load_pixels, train
from nicelib.checkpoints import load_model, read_header
from nicelib.evaluation import evaluate
from nicelib.training import lr_factor, make_optimiser, shift_images, train_step
from nicelib.training.batches import draw_batch, order_of_epoch, stream
from nicelib.training.device import pick_precision, precisions
from nicelib.training.graph import WARM_UP, CapturedStep, can_record
from nicelib.training.loop import _Run
from nicelib.training.resume import _checksum

TINY = {"dataset": "mnist-sample", "mid_dim": 32, "hidden": 1, "batch_size": 100, "max_iter": 2}
TINY |= {"device": "cpu", "precision": "highest"}
TIMED = ("images_per_s", "seconds")


def run(out=None, resume=False, model=None, **settings):
    return list(train(TrainConfig(**(TINY | settings)), out=out, resume=resume, model=model))


def without_times(history):
    return [{k: v for k, v in record.items() if k not in TIMED} for record in history]


def command(out, *flags):
    settings = [f"--{k}={v}" for k, v in TINY.items() if k != "max_iter"]
    return [sys.executable, "-m", "nicelib", "train", *settings, f"--out={out}", *map(str, flags)]


@pytest.mark.parametrize("latent", ["logistic", "normal"])
def test_initialise_from_data(latent):
    x = dequantise(load_pixels(), torch.Generator().manual_seed(0))
    model = NICE(mid_dim=20, hidden=2, latent=latent)
    before = model.log_prob(x).mean()
    count = sum(p.numel() for p in model.parameters())
    initialise_from_data(model, x)
    z, _ = model(x)
    assert z.mean(0).abs().max() < 1e-3
    assert torch.allclose(z.var(0), model.prior.variance, rtol=1e-3)
    assert model.log_prob(x).mean() > before + 1000
    assert sum(p.numel() for p in model.parameters()) == count
    assert torch.allclose(model.layers[0].unit, x.std(0))
    assert (model.inverse(z) - x).abs().max() < 1e-5


def test_conditioners_read_centred_inputs():
    x = dequantise(load_pixels())
    model = NICE(mid_dim=20, hidden=1)
    initialise_from_data(model, x)
    h = x
    for layer in model.layers[:-1]:
        assert layer.conditioner[0](torch.where(layer.mask, h, 0)).mean(0).abs().max() < 1e-4
        assert (layer.conditioner[-1].bias[layer.mask] == 0).all()  # what nothing reads stays as it was
        h = layer(h)[0]


def test_reproducible_from_its_seed():
    first, again, other = run(), run(), run(seed=1)
    assert without_times(first) == without_times(again) != without_times(other)
    assert first[1]["train"] > first[0]["train"] > 1000 and first[1]["held_out"] > first[0]["held_out"]


def test_every_seed_has_an_order_and_noise_of_its_own():
    """On the CPU too, whose generator reads 32 bits of a seed."""
    config, generator = TrainConfig(**TINY), torch.Generator()
    seeds = [0, 1, 2, 3, 4, 2**31, 2**32 - 1]
    orders = [order_of_epoch(generator, dataclasses.replace(config, seed=s), 1, 50).tolist() for s in seeds]
    assert len(set(map(tuple, orders))) == len(seeds)
    streams = {stream(s, what, i) for s in seeds for what in ("order", "noise") for i in range(1000)}
    assert len(streams) == 14_000 and max(streams) < 2**32
    noise = [torch.rand(8, generator=generator.manual_seed(stream(s, "noise", 1))).tolist() for s in seeds]
    assert len(set(map(tuple, noise))) == len(seeds)


def test_records_and_files(tmp_path):
    out = tmp_path / "deep" / "run"
    history = run(out, max_iter=3, save_every=2)
    assert {p.name for p in out.iterdir()} == {
        "best.safetensors",
        "epoch_0002.safetensors",
        "history.json",
        "resume.pt",
    }
    assert json.loads((out / "history.json").read_text(encoding="utf-8"))["history"] == history
    assert set(history[0]) == {"epoch", "train", "held_out", "lr", *TIMED}
    best = max(r["held_out"] for r in history)
    loaded = load_model(out / "best.safetensors")
    assert evaluate(loaded, load_pixels("mnist-sample", "test"), seed=0).nats == pytest.approx(best, abs=1e-6)


def test_on_step_sees_the_start_and_every_step():
    seen, model = [], TrainConfig(**TINY).build()
    held_out = load_pixels("mnist-sample", "test")

    def on_step(done, total, losses):
        if done == 0:
            assert 1100 < evaluate(model, held_out).nats < 1250  # the start from data is already made
        seen.append((done, total, losses.tolist()))

    history = list(train(TrainConfig(**TINY), model=model, on_step=on_step))
    assert [done for done, _, _ in seen] == [*range(46), *range(45, 91)] and {total for _, total, _ in seen} == {90}
    assert [len(losses) for _, _, losses in seen] == [*range(46), *range(46)]
    for record, (_, _, losses) in zip(history, (seen[45], seen[-1]), strict=True):
        assert record["train"] == pytest.approx(-sum(losses) / 45)


def test_every_step_has_noise_of_its_own():
    """A model that sees the same noise again and again could learn the noise."""
    seen = []
    model = TrainConfig(**TINY).build()
    model.register_forward_pre_hook(lambda _, x: seen.append(x[0] * 256 % 1) if torch.is_grad_enabled() else None)
    run(model=model)
    noise = torch.stack(seen).flatten(1)  # (steps, B * D): every step, its images in a row
    assert len(noise) == 90 and torch.corrcoef(noise).fill_diagonal_(0).abs().max() < 0.03
    assert torch.corrcoef(seen[0]).fill_diagonal_(0).abs().max() < 0.2  # nor do the images of a batch share any


def test_given_model_is_trained_in_place():
    model = TrainConfig(**TINY).build()
    history = run(model=model)
    assert history[-1]["held_out"] > 1300 and model.scaling.log_scale.abs().max() > 1
    x = dequantise(load_pixels()[:1000])
    assert (model.inverse(model(x)[0]) - x).abs().max() < 1e-4


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    """The folder of a run of six epochs that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(out, "--max_iter", 6, "--save_every", 1), check=True, capture_output=True)
    return out


def assert_same_end(whole, broken):
    ends = [json.loads((out / "history.json").read_text(encoding="utf-8"))["history"] for out in (whole, broken)]
    assert len(ends[0]) == 6 and without_times(ends[0]) == without_times(ends[1])
    for name in ("best.safetensors", "epoch_0006.safetensors"):
        a, b = (load_model(out / name).state_dict() for out in (whole, broken))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert not list(broken.glob("*.tmp"))


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_resumed_ends_on_the_same_numbers(tmp_path, never_killed, signal_number):
    flags = ("--max_iter", 6, "--save_every", 1)
    broken = tmp_path / "broken"
    process = subprocess.Popen(command(broken, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(2):
        process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(signal_number)
    _, errors = process.communicate()
    assert process.returncode == (130 if signal_number == signal.SIGINT else -signal.SIGKILL)
    if signal_number == signal.SIGINT:
        assert "continue with the same command and --resume" in errors and str(broken) in errors
        state = torch.load(broken / "resume.pt", weights_only=True)["state"]
        assert 1 <= state["epoch"] < 6
    subprocess.run(command(broken, *flags, "--resume"), check=True, capture_output=True)
    assert_same_end(never_killed, broken)


def test_killed_twice_at_random_moments(tmp_path, never_killed):
    """Checkpoints two epochs apart: what was done since the last one is done again, to the same bits."""
    out = tmp_path / "run"
    flags = ("--max_iter", 6, "--save_every", 2, "--resume")
    delays = [random.uniform(0, 0.4) for _ in range(2)]
    print("killed after", delays)  # pytest shows it where the test fails
    for delay in delays:
        process = subprocess.Popen(command(out, *flags), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.communicate()
    subprocess.run(command(out, *flags), check=True, capture_output=True)
    assert_same_end(never_killed, out)


def test_resume_in_the_middle_of_an_epoch_is_exact(tmp_path):
    """Ctrl-C between two steps: the step count is in the checkpoint, and nothing is repeated."""
    whole = run(tmp_path / "whole")
    steps = 0

    def stop_after_sixty(*_):
        nonlocal steps
        steps += 1
        if steps == 60:
            os.kill(os.getpid(), signal.SIGINT)

    model = TrainConfig(**TINY).build()
    model.register_forward_hook(stop_after_sixty)
    with pytest.raises(KeyboardInterrupt, match=r"epoch 2 after step 1\d of 45"):
        run(tmp_path / "broken", model=model)
    assert torch.load(tmp_path / "broken" / "resume.pt", weights_only=True)["state"]["step"] > 0
    rest = run(tmp_path / "broken", resume=True)
    assert without_times(rest) == without_times(whole[1:])


def test_an_interrupt_between_epochs_loses_nothing(tmp_path, monkeypatch):
    """Ctrl-C while the held-out images are evaluated: the epoch is finished and saved first."""
    whole = run(tmp_path / "whole")

    def interrupted_evaluate(*args, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("nicelib.training.loop.evaluate", interrupted_evaluate)
        with pytest.raises(KeyboardInterrupt, match="stopped after epoch 1"):
            run(tmp_path / "broken")
    assert without_times(run(tmp_path / "broken", resume=True)) == without_times(whole[1:])


def test_a_finished_run_has_nothing_to_resume(tmp_path):
    run(tmp_path, max_iter=1)
    assert run(tmp_path, max_iter=1, resume=True) == []


def test_a_run_is_not_overwritten(tmp_path):
    run(tmp_path, max_iter=1)
    for name in (None, "resume.pt", "history.json"):
        if name:
            (tmp_path / name).unlink()
        with pytest.raises(InputError, match="already holds a run; add --resume"):
            run(tmp_path, max_iter=1)


def test_resume_refuses_other_settings(tmp_path):
    run(tmp_path, max_iter=1)
    for change in ({"lr": 0.5}, {"mid_dim": 16}, {"coup_type": "affine"}):
        name = next(iter(change))
        with pytest.raises(InputError, match=f"other settings .*{name} was"):
            run(tmp_path, max_iter=1, resume=True, **change)
    with pytest.raises(InputError, match=r"other settings \(mid_dim was 32, is 16\)"):
        run(tmp_path, max_iter=1, resume=True, model=NICE(mid_dim=16, hidden=1))
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)
    saved["machine"] = "cuda x 2"  # its noise was another
    saved["sha256"] = _checksum(saved)
    torch.save(saved, tmp_path / "resume.pt")
    with pytest.raises(InputError, match=r"other settings \(machine was 'cuda x 2', is 'cpu x 1'\)"):
        run(tmp_path, max_iter=1, resume=True)


@pytest.mark.parametrize("part", ["state", "scheduler", "config", "optimiser", "model", "losses"])
def test_a_resume_file_in_which_anything_changed_is_refused(tmp_path, part):
    run(tmp_path, max_iter=1)
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)
    if part == "state":
        saved[part]["best"] += 1
    elif part == "scheduler":
        saved[part]["last_epoch"] += 1
    elif part == "config":
        saved[part]["lr"] *= 2
    elif part == "optimiser":
        saved[part]["param_groups"][0]["weight_decay"] = 0.5
    elif part == "model":
        saved[part]["scaling.log_scale"][3] += 1
    else:
        saved[part][3] += 1
    torch.save(saved, tmp_path / "resume.pt")
    with pytest.raises(InputError, match=r"is damaged \(its checksum is wrong\)"):
        run(tmp_path, max_iter=1, resume=True)


def test_infinite_loss_stops_and_keeps_the_last_checkpoint(tmp_path):
    settings = {"schedule": "constant", "clip": 0.0, "save_every": 1}
    run(tmp_path, max_iter=1, **settings)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(
        InputError, match=r"loss is (nan|inf|-inf) in epoch 1 at step \d+ of 45; .*--lr, or --clip 200$"
    ):
        run(lr=1e20, **settings)
    with pytest.raises(InputError, match=r"try a smaller --lr$"):
        run(lr=1e20, **settings | {"clip": 200.0})
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)
    saved["config"]["max_iter"] = 2
    saved["model"]["scaling.log_scale"][:] = torch.nan
    saved["sha256"] = _checksum(saved)
    torch.save(saved, tmp_path / "resume.pt")
    before["resume.pt"] = (tmp_path / "resume.pt").read_bytes()
    with pytest.raises(InputError, match=r"loss is nan in epoch 2 at step 1 of 45; the last good checkpoint is in"):
        run(tmp_path, max_iter=2, resume=True, **settings)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_weights_broken_by_the_last_step_are_in_no_file(tmp_path):
    """One step an epoch: its loss is fine, the weights it leaves are not."""
    with pytest.raises(
        InputError, match=r"loss is nan on held-out images in epoch 1 after step 1; .*try a smaller --lr"
    ):
        run(tmp_path, batch_size=4500, lr=1e30, schedule="constant", clip=0.0, save_every=1)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_after_the_loss_broke_keeps_the_good_checkpoint(tmp_path):
    steps = 0

    def break_then_stop(module, *_):
        nonlocal steps
        steps += 1
        if steps == 60:
            module.scaling.log_scale.data[:] = torch.nan
        if steps == 62:
            os.kill(os.getpid(), signal.SIGINT)

    model = TrainConfig(**TINY).build()
    model.register_forward_hook(break_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, model=model, save_every=1)
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert saved["state"]["epoch"] == 1 and saved["state"]["step"] == 0
    assert all(t.isfinite().all() for t in saved["model"].values())


def test_settings_that_change_no_number_may_change(tmp_path):
    run(tmp_path, max_iter=1)
    assert run(tmp_path, max_iter=1, resume=True, sample_size=4, save_every=7) == []


def test_batch_that_does_not_split_over_the_processes(monkeypatch):
    monkeypatch.setattr("nicelib.training.loop.start_process", lambda device: (2, 0, torch.device("cpu")))
    with pytest.raises(InputError, match="batch_size = 75; expected a multiple of the 2 processes"):
        run(batch_size=75)


def test_default_settings_are_the_notes():
    config = TrainConfig()
    notes = dict(
        dataset="mnist", batch_size=200, latent="logistic", max_iter=50, sample_size=64, lr=1e-3, momentum=0.9, decay=0.999,
        coupling=4, save_every=5, coup_type="additive", mid_dim=1000, hidden=5,
    )  # fmt: skip
    assert all(getattr(config, name) == value for name, value in notes.items())
    assert all(TrainConfig(**recipe) for recipe in RECIPES.values())


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "x"}, {"latent": "x"}, {"coup_type": "x"}, {"batch_size": 0}, {"max_iter": -1}, {"sample_size": 0},
        {"coupling": 0}, {"save_every": 0}, {"mid_dim": 0}, {"hidden": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"momentum": 1.0},
        {"decay": -0.1}, {"weight_decay": -1.0}, {"clip": -1.0}, {"eps": 0.0}, {"seed": -1}, {"protocol": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_settings_are_named(change):
    with pytest.raises(InputError, match=f"{next(iter(change))} = .*expected"):
        TrainConfig(**change)


def test_batch_larger_than_the_data():
    with pytest.raises(InputError, match="batch_size = 5000; expected at most the 4500"):
        run(batch_size=5000)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_where_there_is_none():
    with pytest.raises(InputError, match="device = 'cuda' is not on this machine, where torch sees 0 CUDA devices"):
        run(device="cuda")
    with pytest.raises(
        InputError, match=r"device = 'toaster' is not on this machine, .*; expected auto, cpu, cuda or cuda:N"
    ):
        run(device="toaster")


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@needs_gpu
def test_trains_on_a_gpu():
    history = run(device="cuda")
    assert history[-1]["held_out"] == pytest.approx(run(device="cpu")[-1]["held_out"], abs=30)


@needs_gpu
@pytest.mark.parametrize("precision", ["highest", "high", "bf16"])
def test_a_cuda_graph_gives_the_same_numbers(precision):
    settings = {"device": "cuda", "precision": precision, "shift": 0.3}
    assert without_times(run(cuda_graph="on", **settings)) == without_times(run(cuda_graph="off", **settings))
    assert without_times(run(cuda_graph="auto", **settings)) == without_times(run(cuda_graph="off", **settings))


@needs_gpu
@pytest.mark.parametrize(("first", "then"), [("on", "on"), ("on", "off"), ("off", "on")])
def test_resume_with_and_without_a_cuda_graph(tmp_path, first, then):
    settings = {"device": "cuda", "precision": "high"}
    whole = run(cuda_graph="off", **settings)
    with contextlib.closing(train(TrainConfig(**TINY | settings | {"cuda_graph": first}), out=tmp_path)) as records:
        next(records)
    rest = run(tmp_path, resume=True, cuda_graph=then, **settings)
    assert without_times(rest) == without_times(whole[1:])


def test_the_script_for_a_gpu_runs_without_one(tmp_path):
    """Every line of it but those of CUDA, so that its time on a GPU is not spent on a slip."""
    script = [sys.executable, str(ROOT / "results" / "gpu.py"), "--tiny", "--device", "cpu"]
    subprocess.run([*script, "--out", str(tmp_path / "gpu.json")], check=True, capture_output=True)
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert set(found["same_numbers"]["bf16"]) == {"off_again_against_off", "last_loss"}
    assert found["same_numbers"]["highest"]["off_again_against_off"] == 0
    assert [run["seed"] for run in found["sprints"]] == [0, 0, 1, 2, 0, 1, 2]
    assert set(found["speed"]["50"]) > {"plain", "plain, images on the device", "nicelib, float32", "nicelib, bfloat16"}
    assert all(len(loop["rounds"]) == 3 for batch in found["speed"].values() for loop in batch.values())


def test_the_script_beside_other_libraries(tmp_path):
    pytest.importorskip("zuko")
    script = [sys.executable, str(ROOT / "results" / "beside_libraries.py"), "--tiny", "--rounds", "1", "--steps", "1"]
    done = subprocess.run(
        [*script, "--device", "cpu", "--json", str(tmp_path / "b.json")], check=True, capture_output=True
    )
    found = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    # 784 scales, and the dead halves of the first and last layer's weights
    parameters = found["additive"]["parameters"]
    assert parameters["nicelib"] - parameters["zuko"] == 784 + 4 * 392 * (8 + 8 + 1)
    assert all(len(values) == 1 for row in list(found["affine"].values())[1:] for values in row.values())
    assert done.stdout.count(b"nicelib") == done.stdout.count(b"zuko") == 10


def test_a_cuda_graph_where_there_can_be_none():
    gpu = torch.device("cuda")
    with pytest.raises(
        InputError, match=r"cuda_graph = 'on', but the run is on cpu, which has none; .*leave it on auto"
    ):
        run(cuda_graph="on")
    with pytest.raises(InputError, match="but 2 processes share every step"):
        can_record("on", None, gpu, 2)
    with pytest.raises(InputError, match=r"but the model is wrapped \(OptimizedModule\)"):
        can_record("on", torch.compile(NICE(dim=4, mid_dim=4, hidden=1)), gpu, 1)
    assert [can_record(wanted, None, gpu, 1) for wanted in ("off", "auto", "on")] == [False, True, True]
    assert not can_record("auto", None, torch.device("cpu"), 1) and not can_record("auto", None, gpu, 2)
    model = NICE(dim=4, mid_dim=4, hidden=1)
    assert can_record("on", model, gpu, 1)
    model.couplings[0].register_forward_pre_hook(lambda *_: None)
    assert not can_record("auto", model, gpu, 1)
    with pytest.raises(InputError, match="the model has hooks, which a replay does not call; expected a plain NICE"):
        can_record("on", model, gpu, 1)


@pytest.fixture
def acted_graphs(monkeypatch):
    """CUDA's streams and graphs acted on the CPU: a recording is undone, a replay does it again on the same tensors."""

    class Graph:
        def replay(self):
            groups = self.owner.optimiser.param_groups
            outside = [dict(group) for group in groups]
            for kept, now in ((self.inside, groups), (outside, groups)):
                for was, group in zip(kept, now, strict=True):
                    group |= was
                if kept is self.inside:
                    self.owner.loss.copy_(self.owner.step(self.owner.x))

    @contextlib.contextmanager
    def record(graph, stream):
        optimiser = graph.owner.optimiser
        tensors = [p.data for group in optimiser.param_groups for p in group["params"]]
        tensors += [t for state in optimiser.state.values() for t in state.values()]
        before = [t.clone() for t in tensors]
        graph.inside = [dict(group) for group in optimiser.param_groups]
        yield
        for tensor, was in zip(tensors, before, strict=True):
            tensor.copy_(was)

    waits = SimpleNamespace(wait_stream=lambda other: None)
    for name, act in {
        "CUDAGraph": Graph, "graph": record, "Stream": lambda device: waits, "current_stream": lambda device: waits,
        "stream": lambda stream: contextlib.nullcontext(), "device": lambda device: contextlib.nullcontext(),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, act)


def test_steps_around_a_recording_are_the_ordinary_steps(acted_graphs):
    """The batch and the learning rates reach the recording, and Adam's groups are afterwards as a file needs them."""
    config, ends = TrainConfig(lr=1e-2, scale_lr=3.0), []
    batches = torch.rand(WARM_UP + 4, 20, 8, generator=torch.Generator().manual_seed(0))
    for captured in (False, True):
        torch.manual_seed(0)
        model = NICE(dim=8, mid_dim=4, hidden=1)
        optimiser = make_optimiser(model, config)
        step = lambda x, m=model, o=optimiser: train_step(m, o, x, clip=1.0)  # noqa: E731
        if captured:
            step = CapturedStep(step, optimiser, torch.device("cpu"))
            step.graph.owner = step
        losses = []
        for i, x in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] *= 1 - 2.0**-i / 2
                group["lr"] = torch.tensor(group["lr"]).item()
            losses.append(step(x).item())
        ends.append((losses, model.state_dict(), optimiser.state_dict()))
    (losses, weights, adam), (others, same_weights, same_adam) = ends
    assert losses == others and len(set(losses)) == len(batches)
    assert all(torch.equal(t, same_weights[name]) for name, t in weights.items())
    assert adam["param_groups"] == same_adam["param_groups"] and adam["param_groups"][0]["capturable"] is False
    assert all(
        torch.equal(t, same_adam["state"][i][k]) for i, moments in adam["state"].items() for k, t in moments.items()
    )


def test_precision():
    before = torch.get_float32_matmul_precision()
    run(max_iter=1, precision="bf16")
    assert torch.get_float32_matmul_precision() == before
    usual, *others = precisions(torch.device("cpu"))
    assert usual == "highest" and others in ([], ["bf16"])


@pytest.mark.parametrize(("ratio", "picked"), [(0.95, "highest"), (0.89, "bf16"), (2.0, "highest")])
def test_bfloat16_is_picked_where_it_saves_a_tenth(monkeypatch, ratio, picked):
    seconds = {"usual": [9.0, 3.0, 3.1], "other": [9.0, 3.1 * ratio, 3.0 * ratio]}
    monkeypatch.setattr("nicelib.training.device.timed", lambda step, times, device: next(step))
    steps = {
        name: iter([*values, *1000 * [50.0]])
        for name, values in zip(("highest", "bf16"), seconds.values(), strict=True)
    }
    monkeypatch.setattr(time, "perf_counter", iter(range(100)).__next__)
    assert pick_precision(steps, torch.device("cpu")) == (
        picked, f"precision {picked}: a step takes 3000.0 ms in highest, {3000 * ratio:.1f} ms in bf16"
    )  # fmt: skip


def test_auto_measures_once_and_the_run_keeps_it(tmp_path, monkeypatch, caplog):
    """Its steps leave weights and noise as they were: the run is the one that names what it picked."""
    monkeypatch.setattr("nicelib.training.loop.precisions", lambda device: ["highest", "bf16"])
    named = run(precision="bf16")

    def pick(steps, device):
        assert list(steps) == ["highest", "bf16"]
        assert len({steps[name]().item() for name in ("highest", "bf16", "bf16")}) == 2  # two precisions, one start
        return "bf16", "because"

    with monkeypatch.context() as patch, caplog.at_level("INFO", "nicelib"):
        patch.setattr("nicelib.training.loop.pick_precision", pick)
        with contextlib.closing(train(TrainConfig(**TINY | {"precision": "auto"}), out=tmp_path)) as records:
            assert without_times([next(records)]) == without_times(named[:1])
    assert caplog.messages == ["because"]
    assert json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))["config"]["precision"] == "bf16"
    monkeypatch.setattr("nicelib.training.loop.pick_precision", None)
    with pytest.raises(InputError, match=r"other settings \(precision was 'bf16', is 'highest'\)"):
        run(tmp_path, resume=True)
    assert without_times(run(tmp_path, resume=True, precision="auto")) == without_times(named[1:])


def test_auto_has_nothing_to_measure_where_there_is_one_precision(monkeypatch, caplog):
    monkeypatch.setattr("nicelib.training.loop.precisions", lambda device: ["highest"])
    monkeypatch.setattr("nicelib.training.loop.pick_precision", lambda *_: pytest.fail("measured"))
    with caplog.at_level("INFO", "nicelib"):
        assert without_times(run(max_iter=1, precision="auto")) == without_times(run(max_iter=1))
    assert not caplog.messages


@pytest.mark.parametrize(("schedule", "half_way"), [("linear", 0.5 / 0.9), ("one-cycle", None), ("constant", 1.0)])
def test_the_learning_rate_falls_over_the_whole_run(schedule, half_way):
    """Not over an epoch: after one of two epochs it stands where the schedule has it half way."""
    first, last = run(max_iter=2, schedule=schedule, lr=1e-4)
    half_way = lr_factor(45, 90, schedule) if half_way is None else half_way
    assert first["lr"] == pytest.approx(1e-4 * half_way)
    assert last["lr"] == pytest.approx(1e-4 if schedule == "constant" else 0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "what"), [(torch.rand(1, 4), "1 images"), (torch.full((3, 4), float("nan")), "images with NaN or infinity")]
)
def test_what_cannot_start_a_model(x, what):
    with pytest.raises(InputError, match=f"{what} cannot start a model"):
        initialise_from_data(NICE(dim=4, mid_dim=4, hidden=1), x)


def test_auto_on_this_machine(caplog):
    with caplog.at_level("INFO", "nicelib"):
        (record,) = run(max_iter=1, precision="auto")
    assert record["held_out"] == pytest.approx(run(max_iter=1)[0]["held_out"], abs=5)
    assert len(caplog.messages) == len(precisions(torch.device("cpu"))) - 1
    assert all("ms in highest" in message and "ms in bf16" in message for message in caplog.messages)


@pytest.mark.parametrize("clip", [0.5, 1e9])
def test_gradients_are_clipped_as_torch_does(clip):
    x = torch.rand(20, 8, generator=torch.Generator().manual_seed(0))
    models = [NICE(dim=8, mid_dim=4, hidden=1) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimisers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    (-models[1].log_prob(x).mean()).backward()
    norm = torch.nn.utils.clip_grad_norm_(models[1].parameters(), clip)
    optimisers[1].step()
    phases = []
    train_step(models[0], optimisers[0], x, clip, mark=phases.append)
    assert 0.5 < norm < 1e9 and phases == ["forward", "backward", "clip", "optimiser"]
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_optimiser_groups():
    config = TrainConfig(lr=1e-3, scale_lr=20, weight_decay=0.3, momentum=0.8, decay=0.95)
    model = NICE(dim=8, mid_dim=4, hidden=1)
    groups = make_optimiser(model, config).param_groups
    assert [g["weight_decay"] for g in groups] == [0.3, 0, 0] and groups[2]["lr"] == 0.02
    assert groups[0]["betas"] == (0.8, 0.95) and all(g["fused"] for g in groups)
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in model.parameters())
    assert len(groups[2]["params"]) == 1 and groups[2]["params"][0] is model.scaling.log_scale


def test_one_cycle():
    factors = [lr_factor(s, 1000, "one-cycle") for s in range(1001)]
    assert factors.index(max(factors)) == 100 and max(factors) == 1 and factors[1000] < 1e-6
    assert lr_factor(77, 1000, "constant") == 1
    line = torch.tensor([lr_factor(s, 1000, "linear") for s in range(1001)])
    assert line.argmax() == 100 and line.max() == 1 and line[1000] == 0
    assert torch.allclose(line[100:].diff(), torch.tensor(-1 / 900), atol=1e-6)


def test_two_processes_give_the_losses_of_one(tmp_path):
    """Ten steps an epoch, same images and noise: each process takes half of every batch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ("--batch_size", 450, "--max_iter", 1, "--precision", "highest")
    subprocess.run(command(tmp_path / "one", *flags), check=True, capture_output=True)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", "--master-addr=127.0.0.1"]
    two = [sys.executable, *launcher, *command(tmp_path / "two", *flags)[1:]]
    done = subprocess.run(two, check=True, capture_output=True, text=True)
    assert done.stdout.count("epoch    1/1") == 1  # one process speaks and writes
    one, two = (
        json.loads((tmp_path / n / "history.json").read_text(encoding="utf-8"))["history"][0] for n in ("one", "two")
    )
    assert two["train"] == pytest.approx(one["train"], rel=1e-3) and two["held_out"] == pytest.approx(
        one["held_out"], rel=1e-3
    )
    one, two = (torch.load(tmp_path / n / "resume.pt", weights_only=True) for n in ("one", "two"))
    assert one["losses"].shape == (10,)
    assert torch.allclose(one["losses"], two["losses"], rtol=1e-3)


def test_full_model_learns_on_full_mnist(mnist_dir, all_cores):
    """Some tens of steps of the real thing: twenty, at half the sprint's batch, with no warm-up."""
    config = TrainConfig(**RECIPES["sprint"] | {"lr": 1e-3}, device="cpu")
    pixels = load_pixels("mnist", "train", mnist_dir, download=False)
    model = config.build()
    generator = torch.Generator().manual_seed(0)
    initialise_from_data(model, dequantise(pixels[:10_000], generator))
    optimiser = make_optimiser(model, config)
    losses = []
    for step in range(20):
        x = dequantise(pixels[step * 100 : (step + 1) * 100], generator)
        loss = -model.log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        losses.append(-loss.item())
    assert losses[0] > 1000 and sum(losses[-5:]) / 5 > losses[0] + 150
    with torch.no_grad():
        x = dequantise(pixels[-1000:], generator)
        assert (model.inverse(model(x)[0]) - x).abs().max() < 1e-4


# VmHWM, not ru_maxrss: the latter survives exec, so it would hold the peak of the process that started this one.
MEMORY = r"""
import os, pathlib, re, signal, sys
from nicelib import TrainConfig, load_pixels, train
from nicelib.evaluation import evaluate
config = TrainConfig(device="cpu", precision="highest")
model, steps = config.build(), []
def stop(*_):
    steps.append(1)
    if len(steps) == 3:
        os.kill(os.getpid(), signal.SIGINT)
hook = model.register_forward_hook(stop)
try:
    next(train(config, sys.argv[1], sys.argv[2], model=model))
except KeyboardInterrupt:
    hook.remove()
evaluate(model, load_pixels("mnist", "validation", sys.argv[1])[:1000])
print(len(steps), re.search(r'VmHWM:\s+(\d+) kB', pathlib.Path('/proc/self/status').read_text(encoding="utf-8"))[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux gives it")
def test_peak_memory_of_training_on_full_mnist(mnist_dir, tmp_path, all_cores):
    """The start from data, steps, a checkpoint and an evaluation: later steps need no more."""
    argv = [sys.executable, "-c", MEMORY, mnist_dir, tmp_path / "run"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    (tmp_path / "run" / "resume.pt").unlink()
    steps, kilobytes = map(int, done.stdout.split())
    assert steps == 3 and kilobytes * 1024 < 1.5e9


def test_shifted_images_move_by_at_most_one_pixel_and_stay_integers():
    image = torch.zeros(28, 28, dtype=torch.uint8)
    image[10, 20], image[0, 5] = 200, 100
    shifted = shift_images(image.view(1, 784).repeat(400, 1), 0.5, torch.Generator().manual_seed(0)).view(-1, 28, 28)
    places = {tuple((row == 200).nonzero()[0].tolist()) for row in shifted}
    assert places == {(y, x) for y in (9, 10, 11) for x in (19, 20, 21)}
    unmoved = (shifted == image).all((1, 2)).float().mean()
    assert abs(unmoved - (0.5 + 0.5 / 9)) < 0.08
    assert not shifted[:, 27].any()  # what left at the top did not come in at the bottom


@pytest.mark.parametrize("images", [4500, 1000])
def test_an_epoch_shows_each_image_once(images, monkeypatch):
    """In batches of the size that was asked for, in an order of its own each epoch; what does not fill one waits."""
    shown = []

    def spy(pixels, *rest):
        shown.append([bytes(row) for row in pixels.numpy()])
        return draw_batch(pixels, *rest)

    pixels = load_pixels()
    monkeypatch.setattr("nicelib.training.loop.draw_batch", spy)
    monkeypatch.setattr("nicelib.training.loop.load_pixels", lambda *_, **__: pixels[:images])
    run(batch_size=300, mid_dim=4)
    steps = images // 300
    assert [len(batch) for batch in shown] == [300] * 2 * steps
    first, second = ([row for batch in shown[i * steps :][:steps] for row in batch] for i in (0, 1))
    known = {bytes(row) for row in pixels[:images].numpy()}
    assert len(set(first)) == len(set(second)) == 300 * steps and set(first) <= known and first != second


def test_one_process_of_a_machine_fetches_the_data(monkeypatch):
    for local, wanted in (("0", ["load", "load", "wait"]), ("1", ["wait", "load", "load"]), (None, ["load", "load"])):
        done = []
        monkeypatch.setattr("nicelib.training.loop.distributed.barrier", lambda done=done: done.append("wait"))
        monkeypatch.setattr(
            "nicelib.training.loop.load_pixels", lambda *_, done=done, **__: done.append("load") or torch.zeros(1)
        )
        monkeypatch.setenv("LOCAL_RANK", local or "0")
        half_made = object.__new__(_Run)
        half_made.world, half_made.config, half_made.device = (
            2 if local else 1,
            TrainConfig(**TINY),
            torch.device("cpu"),
        )
        half_made._load(None)
        assert done == wanted


@pytest.mark.parametrize("name", ["broadcast_buffers", "forward_sync_buffers"])
def test_buffers_are_not_sent_around_by_the_name_that_torch_has_for_it(name, monkeypatch):
    """torch warns of the old one, in every process; masks and units never change."""
    given = []
    wrapper = eval(f"lambda model, {name}=True: given.append({name}) or model", {"given": given})
    monkeypatch.setattr("nicelib.training.loop.DistributedDataParallel", wrapper)
    monkeypatch.setattr("nicelib.training.loop.start_process", lambda device: (2, 0, torch.device("cpu")))
    monkeypatch.setattr("nicelib.training.loop._Run._load", lambda *_: [load_pixels()[:200], load_pixels()[:50]])
    started = _Run(TrainConfig(**TINY), None, None, None)
    started.begin(False)
    assert given == [False]


def test_the_bar_says_which_epoch_it_is(capsys):
    list(train(TrainConfig(**TINY), progress=True))
    bar = capsys.readouterr().err
    assert (
        "epoch 1" in bar and "epoch 2" in bar and "/45" in bar and "\n" not in bar
    )  # an epoch that is done leaves none
    list(train(TrainConfig(**TINY)))
    assert capsys.readouterr().err == ""


def test_the_held_out_images_noise_is_of_the_runs_seed():
    config = TrainConfig(**TINY, seed=3)
    model = config.build()
    record = next(train(config, model=model))
    of_seed = [evaluate(model, load_pixels("mnist-sample", "test"), seed=seed).nats for seed in (3, 0)]
    assert record["held_out"] == of_seed[0] != of_seed[1]


def test_speed_is_of_the_steps_that_were_done(monkeypatch, capsys):
    """A resumed epoch: of its own steps alone; its bar begins where the epoch stopped."""
    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr("nicelib.training.loop.time.perf_counter", lambda: float(next(clock)))
    started = _Run(TrainConfig(**TINY), None, None, None)
    started.begin(False)
    started.state["step"] = 35
    started.do_steps(threading.Event(), True, lambda *_: None)
    assert "35/45" in capsys.readouterr().err
    assert started.images_per_s == 10 * 100 / 5 and started.state["seconds"] == 5


def test_one_bad_number_cannot_start_a_model():
    for bad in (torch.nan, torch.inf):
        x = torch.rand(50, 8)
        x[3, 2] = bad
        with pytest.raises(InputError, match="NaN or infinity"):
            initialise_from_data(NICE(dim=8, mid_dim=4, hidden=1), x)


def test_one_step_by_hand():
    """Plain Adam, the gradient of the mean nats cut to the norm that was asked for."""
    model, x = TrainConfig(mid_dim=4, hidden=1).build(8), torch.rand(20, 8, generator=torch.Generator().manual_seed(0))
    initialise_from_data(model, x)
    twin = copy.deepcopy(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    loss = train_step(model, optimiser, x, clip=0.5)
    mean = twin.log_prob(x).mean()
    assert loss.item() == pytest.approx(-mean.item(), rel=1e-5) and not loss.requires_grad
    gradients = torch.autograd.grad(mean, list(twin.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > 0.6
    for p, q, g in zip(model.parameters(), twin.parameters(), gradients, strict=True):
        assert torch.allclose(p, q + 0.5 * g / norm, atol=1e-5)


def test_what_is_written_when(tmp_path, monkeypatch):
    """A minute after the last resume.pt another one, whatever save_every says."""
    now, written = [0.0], []
    monkeypatch.setattr("nicelib.training.loop.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "nicelib.training.loop.write_resume", lambda out, content: written.append(content["state"]["epoch"])
    )
    for _ in train(TrainConfig(**TINY | {"max_iter": 6, "save_every": 100, "mid_dim": 4}), out=tmp_path):
        now[0] += 25
    assert written == [4, 6]  # at 75 seconds, and at the end


def test_the_start_is_of_ten_thousand_images_and_every_epoch_has_its_own_order(monkeypatch):
    """Order 0 picks the images of the start, order n those of epoch n: what is asked for decides every number after it."""
    asked, started = [], []
    pixels = load_pixels()[:, :4].contiguous().repeat(3, 1)

    def order(generator, config, epoch, n):
        asked.append(epoch)
        return order_of_epoch(generator, config, epoch, n)

    monkeypatch.setattr("nicelib.training.loop.load_pixels", lambda *_, **__: pixels)
    monkeypatch.setattr("nicelib.training.loop.order_of_epoch", order)
    monkeypatch.setattr("nicelib.training.loop.initialise_from_data", lambda _, x: started.append(x.shape))
    run(mid_dim=2, batch_size=5000, max_iter=3)
    assert asked == [0, 1, 2, 3] and started == [(10_000, 4)]


def test_a_seeds_streams_stay_what_they_were():
    """The shipped weights were trained from them; torch's CPU generator reads 32 bits."""
    streams = [stream(0, "order", 0), stream(0, "noise", 7), stream(3, "order", 1)]
    assert streams == [4169984787, 868389, 2234460467]


def test_images_are_moved_by_their_generator_alone():
    pixels, draw = load_pixels()[:200], lambda seed: torch.Generator().manual_seed(seed)
    for share in (0.5, 1.0):
        once = shift_images(pixels, share, draw(0))
        assert torch.equal(once, shift_images(pixels, share, draw(0)))
        assert not torch.equal(once, shift_images(pixels, share, draw(1)))


def test_of_two_equal_epochs_the_first_is_the_best(tmp_path):
    records = run(tmp_path, lr=1e-30)
    assert records[0]["held_out"] == records[1]["held_out"]
    assert read_header(tmp_path / "best.safetensors")["metrics"]["epoch"] == 1
