"""What people met elsewhere does not happen here: each kind of fault with a test that failed before it was mended."""

import json
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from nicelib import (
    NICE,
    InputError,
    StandardLogistic,
    StandardNormal,
    TrainConfig,
    initialise_from_data,
    load_pixels,
    train,
)
from nicelib.checkpoints import save_model, write_atomically
from nicelib.cli import main
from nicelib.evaluation import evaluate
from nicelib.training import is_main_process, matmul_precision

fcntl = pytest.importorskip("fcntl")  # these emulate Windows and Apple elsewhere

TINY = {"dataset": "mnist-sample", "mid_dim": 8, "hidden": 1, "batch_size": 500, "max_iter": 1, "device": "cpu"}
FLAGS = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()]


def nicelib(*argv, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "nicelib", *map(str, argv)],
        cwd=cwd, env=os.environ | environment, capture_output=True, timeout=120,
    )  # fmt: skip


def test_windows_flushes_only_what_it_may_write(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(file):
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        return real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    assert main(["sample", "--sample-size", "1", "--out", str(tmp_path / "a.png")]) == 0
    list(train(TrainConfig(**TINY), out=tmp_path / "run"))
    assert (tmp_path / "run" / "resume.pt").exists()


def test_links_are_followed_and_pipes_and_devices_written_to(tmp_path, monkeypatch):
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("real.png")
    write_atomically(tmp_path / "link.png", lambda path: path.write_bytes(b"new"))
    assert (tmp_path / "link.png").is_symlink() and (tmp_path / "real.png").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_atomically(tmp_path / "pipe", lambda path: path.write_bytes(b"through"))
    reader.join(10)
    assert read == [b"through"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    monkeypatch.setattr("nicelib.checkpoints.PATIENCE", 0.1)
    with pytest.raises(InputError, match="could not write"):
        write_atomically(tmp_path / "pipe", lambda path: path.write_bytes(b"nobody"))
    assert {p.name for p in tmp_path.iterdir()} == {"real.png", "link.png", "pipe"}


def test_two_that_write_one_file_together_leave_one_whole_file(tmp_path):
    def write(content):
        for _ in range(30):
            write_atomically(tmp_path / "file", lambda path: path.write_bytes(content))

    writers = [threading.Thread(target=write, args=(bytes([i]) * 10_000,)) for i in range(4)]
    for step in ("start", "join"):
        for writer in writers:
            getattr(writer, step)()
    assert len(set((tmp_path / "file").read_bytes())) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_folder_belongs_to_one_run(tmp_path):
    config = TrainConfig(**TINY | {"max_iter": 40})
    first = train(config, out=tmp_path / "run")
    next(first)
    other = nicelib("train", *FLAGS, "--resume", "--out", tmp_path / "run", cwd=tmp_path)
    assert other.returncode == 2 and b"is taken: another run is writing there" in other.stderr
    first.close()
    again = nicelib("train", *FLAGS, "--max-iter", 40, "--resume", "--out", tmp_path / "run", cwd=tmp_path)
    assert again.returncode == 0 and not (tmp_path / "run" / ".lock").exists()


def test_a_caller_that_stops_asking_can_go_on_later(tmp_path):
    config = TrainConfig(**TINY | {"max_iter": 3})
    whole = list(train(config))
    for _ in train(config, out=tmp_path):
        break
    rest = list(train(config, out=tmp_path, resume=True))
    assert [r["held_out"] for r in rest] == [r["held_out"] for r in whole[1:]]


def test_a_reader_that_goes_away_ends_a_run_in_good_order(tmp_path):
    command = [sys.executable, "-m", "nicelib", "train", *FLAGS, "--max-iter", "50", "--out", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read().decode()
    assert process.wait(60) == 141 and "Traceback" not in error and "continue with --resume" in error
    assert (tmp_path / "run" / "resume.pt").exists()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_the_summary_can_be_printed_in_any_code_page(tmp_path, encoding):
    done = nicelib("summary", "--mid-dim", 8, cwd=tmp_path, PYTHONUTF8="0", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and b"Total params" in done.stdout


@pytest.mark.parametrize(
    "settings",
    [
        {"max_iter": np.int64(1)}, {"mid_dim": np.int32(8)}, {"lr": np.float32(1e-3)}, {"seed": torch.tensor(1)},
        {"latent": np.str_("normal")}, {"clip": 100}, {"bound": np.float64(1)},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_of_numpy_and_torch_become_pythons(settings, tmp_path):
    config = TrainConfig(**TINY | settings)
    assert type(getattr(config, next(iter(settings)))) in (int, float, str)
    list(train(config, out=tmp_path))
    json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
    save_model(NICE(dim=np.prod((4, 4)), mid_dim=8, hidden=1), tmp_path / "m")


@pytest.mark.parametrize("name, value", [("lr", "1e-3"), ("batch_size", 500.0), ("seed", None), ("clip", 10**400)])
def test_what_is_no_number_is_named(name, value):
    with pytest.raises(InputError, match=f"^{name} = "):
        TrainConfig(**{name: value})


def test_a_model_that_is_not_fresh_is_not_started_again():
    x = torch.rand(50, 784)
    model = NICE(mid_dim=8, hidden=1)
    initialise_from_data(model, x)
    before = model.log_prob(x)
    with pytest.raises(InputError, match="not fresh"):
        initialise_from_data(model, x)
    with pytest.raises(InputError, match="init = 'zero'"):
        next(train(TrainConfig(**TINY), model=model))
    assert torch.equal(model.log_prob(x), before)
    next(train(TrainConfig(**TINY, init="zero", lr=1e-12), model=model))
    assert torch.allclose(model.log_prob(x), before, rtol=1e-4)
    for bad in (x[:1], x[:0], (255 * x).byte(), torch.full((9, 784), torch.nan)):
        with pytest.raises(InputError):
            initialise_from_data(NICE(mid_dim=8, hidden=1), bad)


@pytest.mark.parametrize("u", [1e-7, 1e-12, 1e-30])
def test_quantiles_are_right_far_out(u):
    for prior, right in ((StandardLogistic(), torch.logit), (StandardNormal(), torch.special.ndtri)):
        for dtype in (torch.float32, torch.float64):
            exact = right(torch.tensor(u, dtype=torch.float64)).item()
            assert prior.icdf(torch.tensor(u, dtype=dtype)).item() == pytest.approx(exact, rel=1e-5)
        ends = prior.icdf(torch.tensor([0.0, 1.0, -0.5, 1.5]))
        assert ends[:2].isfinite().all() and ends[2:].isnan().all()
        below_one = torch.tensor(1.0).nextafter(torch.tensor(0.0))  # the step next to 1, not the one after it
        assert ends[1] == prior.icdf(below_one)


class NoFloat64(TorchFunctionMode):
    """Apple's GPU knows no float64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return out


def test_no_float64_on_the_device(tmp_path):
    config = TrainConfig(**TINY)
    with NoFloat64():
        next(train(config, out=tmp_path))
        evaluate(config.build(), load_pixels("mnist-sample", "test"))


@pytest.mark.parametrize("wanted", ["highest", "high", "bf16"])
def test_either_way_of_setting_tf32_is_left_as_it_was(wanted):
    new = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    at_first = [b.fp32_precision for b in new]
    try:
        for setting in ("ieee", "tf32"):
            new[0].fp32_precision = setting
            with matmul_precision(wanted, torch.device("cpu")):
                assert new[0].fp32_precision == ("tf32" if wanted == "high" else "ieee")
            assert new[0].fp32_precision == setting
        for setting in ("high", "medium", "highest"):
            torch.set_float32_matmul_precision(setting)
            with matmul_precision(wanted, torch.device("cpu")):
                pass
            assert torch.get_float32_matmul_precision() == setting
    finally:
        torch.set_float32_matmul_precision("highest")
        for backend, was in zip(new, at_first, strict=True):
            backend.fp32_precision = was


def test_launchers_variables_without_a_launcher(tmp_path, monkeypatch):
    done = nicelib("train", *FLAGS, "--out", "a", cwd=tmp_path, WORLD_SIZE="2")
    assert done.returncode == 2 and b"unset WORLD_SIZE" in done.stderr and done.stderr.count(b"\n") == 1
    done = nicelib("train", *FLAGS, "--out", "b", cwd=tmp_path, WORLD_SIZE="two")
    assert done.returncode == 2 and b"WORLD_SIZE = 'two'" in done.stderr
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "1")
    assert is_main_process()
