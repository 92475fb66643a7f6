"""What people met elsewhere does not happen here: each kind of fault with a test that failed before it was mended."""

import contextlib
import errno
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
import torch
from torch.nn.utils import prune
from torch.overrides import TorchFunctionMode

from nicelib import (
    NICE,
    InputError,
    StandardLogistic,
    StandardNormal,
    TrainConfig,
    dequantise,
    initialise_from_data,
    load_pixels,
    train,
)
from nicelib.analysis import (
    decode,
    disturb,
    keep_widest,
    ks_distances,
    nats_per_pixel,
    one_logistic_a_pixel,
    states,
    turn_dimension,
    walks,
    widest_first,
)
from nicelib.animation import flow_gif
from nicelib.bijection import check_generator
from nicelib.checkpoints import load_model, read_header, save_model, write_atomically
from nicelib.cli import main
from nicelib.evaluation import evaluate
from nicelib.exercises import check
from nicelib.explorer import SampleExplorer
from nicelib.importers import import_state_dict, read_mean, read_state_dict
from nicelib.inpainting import hidden_part, inpaint
from nicelib.training import is_main_process, lr_factor, make_optimiser, matmul_precision, shift_images
from nicelib.training.resume import write_resume

fcntl = pytest.importorskip("fcntl")  # these emulate Windows and Apple elsewhere

TINY = {"dataset": "mnist-sample", "mid_dim": 8, "hidden": 1, "batch_size": 500, "max_iter": 1, "device": "cpu"}
TINY |= {"precision": "highest"}
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


def test_whoever_may_read_the_folders_files_may_read_a_new_one(tmp_path):
    """Whatever library writes it: one that makes its own file makes it for the owner alone."""
    before = os.umask(0o027)
    try:
        save_model(NICE(16, mid_dim=4, hidden=1), tmp_path / "m")
        list(train(TrainConfig(**TINY), out=tmp_path / "run"))
        write_atomically(tmp_path / "text", lambda path: path.write_text("a", encoding="utf-8"))
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 5 and {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


@pytest.mark.parametrize("kind", ["pipe", "folder", "/dev/zero"])
def test_what_never_ends_is_not_read(kind, tmp_path):
    path = kind if kind.startswith("/") else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    for read in (load_model, read_header, read_state_dict, read_mean):
        with pytest.raises(InputError, match="cannot be read"):
            read(path)


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
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read().decode()
    assert process.returncode == 141 and "Traceback" not in error
    assert "continue with the same command and --resume" in error
    assert (tmp_path / "run" / "resume.pt").exists()


def test_a_reader_that_has_gone_is_told_of_though_every_flush_says_so_again(tmp_path, monkeypatch, capsys):
    class Gone(io.StringIO):
        def flush(self):
            if self.getvalue():
                raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Gone())
    assert main(["train", *FLAGS, "--out", str(tmp_path / "run")]) == 141
    assert "nobody reads the output; continue with" in capsys.readouterr().err


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
    shifts = NICE(mid_dim=8, hidden=1)  # whose scales alone are as they were
    with torch.no_grad():
        shifts.couplings[2].conditioner[-1].bias[400] = 0.1
    with pytest.raises(InputError, match="not fresh"):
        initialise_from_data(shifts, x)
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
        z = torch.tensor(exact, dtype=torch.float64)  # and back: what lies below a number far out
        assert prior.cdf(z).item() == pytest.approx(u, rel=1e-9, abs=0)
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


# Siblings: the same kinds of fault in other places.


def test_what_is_printed_to_keeps_its_settings_and_its_pipe(tmp_path):
    """main() called from Python: a reader that has gone, a full device, a name that the encoding lacks."""
    code = """
import os, sys
from nicelib.cli import main
out, errors = sys.stdout, sys.stdout.errors
status = main(sys.argv[1:])
assert sys.stdout is out and out.errors == errors and os.fstat(1)
print(status, file=sys.stderr)
"""
    read, write = os.pipe()
    os.close(read)
    name = "数字.png" if sys.getfilesystemencoding() == "utf-8" else "a.png"  # in the C locale no file has such a name
    sample = ["sample", "--sample-size", "1", "--out", str(tmp_path / name)]
    for argv, stdout, status in (
        (["summary", "--mid-dim", "8"], write, "141"),
        (["summary", "--mid-dim", "8"], os.open("/dev/full", os.O_WRONLY), "2"),
        (sample, subprocess.PIPE, "0"),
    ):
        done = subprocess.run([sys.executable, "-c", code, *argv], stdout=stdout, stderr=subprocess.PIPE,
                              env=os.environ | {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"})  # fmt: skip
        assert done.returncode == 0 and done.stderr.decode().split()[-1] == status, done.stderr
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr
    assert (tmp_path / name).exists() and (b"u6570" in done.stdout or name == "a.png")


def test_without_streams(tmp_path):
    """pythonw and services have neither stdout nor stderr."""
    code = "import sys; sys.stdout = sys.stderr = None; from nicelib.cli import main"
    for argv in (["summary", "--mid-dim", "8"], ["train", *FLAGS, "--out", str(tmp_path / "run")]):
        assert subprocess.run([sys.executable, "-c", f"{code}; sys.exit(main({argv}))"]).returncode == 0


def test_a_device_behind_a_link_and_the_rights_of_what_is_replaced(tmp_path):
    """/dev/stdout and what a shell makes of >(command) lead to names that no folder has."""
    done = subprocess.run(
        [sys.executable, "-m", "nicelib", "sample", "--sample-size", "1", "--out", "/dev/fd/2"], cwd=tmp_path,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr.startswith(b"\x89PNG"), done.stderr
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o640)
    write_atomically(tmp_path / "file", lambda path: path.write_bytes(b"new"))
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["a\0b", 3, None, b"a", "n" * 300])
def test_what_can_be_no_path_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = NICE(4, mid_dim=2, hidden=1)
    calls = [lambda: save_model(model, name), lambda: load_model(name), lambda: read_state_dict(name)]
    if name is not None:  # the default
        calls += [lambda: load_pixels("mnist", data_dir=name, download=False)]
        calls += [lambda: next(train(TrainConfig(**TINY), out=name))]
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert not re.search("damaged|delete", str(caught.value)), str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_folder_holds_two_runs_of_one_program(tmp_path, monkeypatch):
    """A later run takes the folder from an unfinished one, which then writes no more; chdir moves neither."""
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(**TINY | {"max_iter": 4})
    first = train(config, out="run")
    next(first)
    second = train(config, out="run", resume=True)
    next(second)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="belongs to a later run"):
        next(first)
    assert [record["epoch"] for record in second] == [2, 3, 4]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_training_does_not_depend_on_the_mode_around_it(around):
    alone = next(train(TrainConfig(**TINY)))["held_out"]
    with around():
        record = next(train(TrainConfig(**TINY)))
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    with around():
        assert (grad, inference) == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    assert record["held_out"] == pytest.approx(alone, abs=2)  # evaluation follows the autocast that is asked for


def test_numbers_of_numpy_outside_the_settings(tmp_path):
    model, pixels = NICE(16, mid_dim=8, hidden=1), torch.zeros(6, 16, dtype=torch.uint8)
    plainly = evaluate(model, pixels, 2, 1, 4)
    numpys = evaluate(model, pixels, *np.array([2, 1, 4]))
    assert numpys.nats == plainly.nats and type(numpys.draws) is int
    save_model(model, tmp_path / "m", nats=np.float32(1.5), table=np.eye(2), ten=torch.tensor(10))
    assert read_header(tmp_path / "m") == {
        "config": model.config, "nats": 1.5, "table": [[1, 0], [0, 1]], "ten": 10,
    }  # fmt: skip
    for header in ({"x": object()}, {"config": 1}, {"format": "x"}):
        with pytest.raises(InputError, match=f"^{next(iter(header))} = "):
            save_model(model, tmp_path / "m", **header)
    for bad in (1.5, "2", None, True, 0):
        with pytest.raises(InputError, match=r"^draws = .*expected"):
            evaluate(model, pixels, draws=bad)


@pytest.mark.parametrize("wrong", [0, np.random.default_rng(0), torch.tensor(3), "cpu"], ids=lambda w: type(w).__name__)
def test_a_generator_that_is_none_of_torchs_is_named(wrong):
    pixels, x, model = torch.zeros(2, 16, dtype=torch.uint8), torch.rand(2, 16), NICE(16, mid_dim=8, hidden=1)
    hidden = hidden_part("top", 4)
    for call in (
        lambda: dequantise(pixels, wrong),
        lambda: shift_images(pixels, 0.5, wrong),
        lambda: model.sample(2, generator=wrong),
        lambda: StandardNormal().sample((2, 3), wrong),
        lambda: hidden_part("random 75%", 4, wrong),
        lambda: next(inpaint(model, x, hidden, generator=wrong)),
    ):
        with pytest.raises(InputError, match=r"^generator = .*; expected None or torch\.Generator\('cpu'\)"):
            call()


def test_a_generator_of_another_device_is_named():
    check_generator(torch.Generator(), "cpu")
    with pytest.raises(InputError, match=r"^generator = .*; expected None or torch\.Generator\('cuda:1'\)"):
        check_generator(torch.Generator(), "cuda:1")


def test_wrapped_models_are_understood_wherever_a_model_is_asked_for():
    pixels, plain = torch.zeros(6, 16, dtype=torch.uint8), NICE(16, mid_dim=8, hidden=1)
    hidden = torch.arange(16) < 8
    for wrapped in (torch.nn.DataParallel(plain), torch.compile(plain, backend="eager")):
        assert evaluate(wrapped, pixels).nats == evaluate(plain, pixels).nats
        assert len(list(inpaint(wrapped, torch.rand(2, 16), hidden, steps=1))) == 2
    x = torch.rand(2, 16)
    calls = [lambda m: evaluate(m, pixels).per_image, lambda m: nats_per_pixel(m, x), lambda m: decode(m, x)[1]]
    calls += [lambda m: states(m, x), lambda m: walks(m, x, 3)["code"], lambda m: keep_widest(m, x, 3), widest_first]
    calls += [lambda m: turn_dimension(m, x, 3, 1.0)]
    calls += [lambda m: make_optimiser(m, TrainConfig()).param_groups[2]["params"][0]]
    for call in calls:
        assert torch.equal(call(torch.nn.DataParallel(plain)), call(plain))
    for call in (*calls, lambda m: initialise_from_data(m, x), lambda m: flow_gif(m, x[:, :2])):
        with pytest.raises(InputError, match="model of type Linear; expected a NICE"):
            call(torch.nn.Linear(2, 2))


def test_a_flipped_digit_in_a_files_header_is_refused(tmp_path):
    save_model(NICE(16, mid_dim=8, hidden=1, coup_type="affine", bound=2.0), tmp_path / "m")
    whole = (tmp_path / "m").read_bytes()
    changed = whole.replace(b'\\"bound\\": 2.0', b'\\"bound\\": 3.0')
    assert changed != whole
    (tmp_path / "m").write_bytes(changed)
    with pytest.raises(InputError, match="checksum is wrong"):
        load_model(tmp_path / "m")


def test_no_weights_that_could_not_be_loaded_are_saved(tmp_path):
    model = NICE(16, mid_dim=8, hidden=1)
    with pytest.raises(InputError, match=r"dtype = torch\.int8"):
        save_model(model, tmp_path / "m", dtype=torch.int8)
    model.scaling.log_scale.data[3] = 1e30  # beyond half precision
    with pytest.raises(InputError, match="log_scale holds NaN or infinity"):
        save_model(model, tmp_path / "m", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"history": []}',
        '{"history": [{"epoch": 1}]}',
        '{"history": 3}',
        "[" * 10**5,
        "\xff",
    ],
)
def test_a_finished_runs_history_is_read_or_named(text, tmp_path, capsys):
    (out := tmp_path / "run").mkdir()
    assert main(["train", *FLAGS, "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert (
        main(["train", *FLAGS, "--resume", "--out", str(out)]) == 0 and capsys.readouterr().out.splitlines()[-1] == said
    )
    (out / "history.json").unlink()
    if text is not None:
        (out / "history.json").write_bytes(text.encode("latin-1"))
    assert main(["train", *FLAGS, "--resume", "--out", str(out)]) == 2
    assert re.fullmatch(r"nicelib: error: \S+history\.json cannot be read[^\n]+\n", capsys.readouterr().err)


def test_a_home_is_where_every_command_looks_for_it(tmp_path):
    """``--out=~/run``: a shell leaves that as it is, and a folder called ~ is nobody's wish."""
    done = nicelib("train", *FLAGS, "--out=~/run", cwd=tmp_path, HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["home"] and (tmp_path / "home" / "run" / "curve.png").exists()


def test_a_home_that_cannot_be_written_is_no_word_of_a_commands(tmp_path):
    kept = {k: v for k, v in os.environ.items() if k not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    argv = [sys.executable, "-m", "nicelib", "sample", "--sample-size", "1"]
    done = subprocess.run(argv, cwd=tmp_path, env=kept | {"HOME": "/proc/none"}, capture_output=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_ctrl_c_while_the_images_are_read_says_that_the_run_stopped(tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("nicelib.training.loop.load_pixels", stop)
    assert main(["train", *FLAGS, "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err.startswith("nicelib: stopped; continue with the same command")


def test_threads_that_build_together_get_what_each_gets_alone():
    """A sweep over seeds by a pool of threads: torch's generator is the whole program's."""
    configs, together = [TrainConfig(**TINY, seed=seed) for seed in range(8)], threading.Barrier(8)

    def build(config):
        together.wait()
        return config.build().state_dict()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(build, configs))
    for config, state in zip(configs, found, strict=True):
        assert all(torch.equal(t, state[name]) for name, t in config.build().state_dict().items()), config.seed


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it():
    """As under nohup, or a script's "&"."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        model = TrainConfig(**TINY).build()
        model.register_forward_hook(lambda *_: os.kill(os.getpid(), signal.SIGINT))
        next(train(TrainConfig(**TINY), model=model))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("given", "said"), [({"MASTER_PORT": "x"}, b"do not meet"), ({"RANK": "2"}, b"RANK = 2")], ids=str
)
def test_launchers_variables_that_lead_nowhere(given, said, tmp_path):
    everything = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29555"}
    done = nicelib("train", *FLAGS, "--out", "a", cwd=tmp_path, **everything | given)
    assert done.returncode == 2 and b"Traceback" not in done.stderr and said in done.stderr


@pytest.mark.parametrize("rank, address", [("0", "127.0.0.1"), ("1", "192.0.2.1"), ("1", "no.such.host.invalid")])
def test_processes_that_never_come_are_not_waited_for_without_end(rank, address, monkeypatch):
    monkeypatch.setattr("nicelib.training.device.MEETING", timedelta(seconds=0.5))
    given = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": address, "MASTER_PORT": "29556"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    start = time.monotonic()
    with pytest.raises(InputError, match=f"2 processes do not meet at {address}:29556 .*start them by torchrun"):
        next(train(TrainConfig(**TINY)))
    assert time.monotonic() - start < 60 and not torch.distributed.is_initialized()


def test_too_little_memory_is_said_in_one_line(tmp_path):
    done = nicelib("sample", "--sample-size", 4_000_000_000, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"not enough memory" in done.stderr


@contextlib.contextmanager
def defaults(what):
    """What a notebook's first cell may set: a device (meta stands in for one that is not the CPU), a dtype."""
    if isinstance(what, torch.dtype):
        torch.set_default_dtype(what)
    else:
        torch.set_default_device(what)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def numbers_of_everything(folder):
    """One number of each thing that is drawn, trained, loaded or moved, each from its seed."""
    config = TrainConfig(**TINY, coup_type="affine", mask="checkerboard", latent="normal", shift=0.5)
    model = load_model(folder / "m")
    pixels, x = (
        load_pixels("mnist-sample", "test")[:9],
        torch.linspace(0, 0.9, 2 * 784, dtype=torch.float32, device="cpu"),
    )
    seeded = torch.Generator().manual_seed
    yield pixels.sum().item()
    yield [next(train(config))[name] for name in ("train", "held_out", "lr")]
    yield model.sample(3, generator=seeded(0)).sum().item()
    yield evaluate(model, pixels).nats
    yield disturb(pixels, 1, -1, 20.0, 0.1).sum().item()
    yield walks(model, x.view(2, 784), 7)["code_nats"].tolist()
    yield one_logistic_a_pixel(pixels).scaling.log_scale.sum().item()
    yield ks_distances(x[:20, None], StandardNormal()).tolist()
    yield flow_gif(TrainConfig(**TINY).build(2), x[:20].view(10, 2), 1, 1)
    yield check("An answer", 1, lambda answer: [answer == 1], "")
    for part in ("top", "random 75%"):
        hidden = hidden_part(part, generator=seeded(1))
        yield [nats.tolist() for _, nats in inpaint(model, x.view(2, 784), hidden, "paper", 1, seeded(2))]
    yield shift_images(pixels, 0.5, seeded(3)).sum().item()
    yield import_state_dict(torch.load(folder / "theirs", map_location="cpu")).config


@pytest.mark.parametrize("what", ["meta", torch.float64, torch.float16], ids=str)
def test_no_number_depends_on_torchs_defaults(what, tmp_path):
    save_model(NICE(mid_dim=8, hidden=1), tmp_path / "m")
    twin = {f"coupling_layers.{i}.m.{n}.weight": torch.ones(6, 6) for i in range(2) for n in (0, 2)}
    twin |= {name.replace("weight", "bias"): torch.ones(6) for name in twin}
    torch.save(twin | {"scaling_layer.log_scale_vector": torch.ones(1, 6)}, tmp_path / "theirs")
    plainly = list(numbers_of_everything(tmp_path))
    with defaults(what):
        assert list(numbers_of_everything(tmp_path)) == plainly


def test_inpainting_does_not_depend_on_the_mode_around_it():
    model, hidden = NICE(16, mid_dim=2, hidden=1), hidden_part("top", 4)
    for around in (torch.no_grad, torch.inference_mode):
        with around():
            assert len(list(inpaint(model, torch.rand(2, 16), hidden, steps=1))) == 2


def test_no_picture_depends_on_the_mode_around_it():
    pixels = load_pixels("mnist-sample", "test")[:9]
    plainly = disturb(pixels, 1, -1, 20.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(disturb(pixels, 1, -1, 20.0), plainly)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_flow_moves_in_any_dtype(dtype):
    model = NICE(2, mid_dim=4, hidden=1)
    assert flow_gif(model.to(dtype), torch.rand(5, 2).to(dtype), 1, 1)[:3] == b"GIF"


@pytest.mark.parametrize("wrong", ["1", float("nan"), None, -1])
def test_numbers_that_no_setting_holds_are_named_too(wrong):
    pixels, points = torch.zeros(2, 16, dtype=torch.uint8), torch.rand(5, 2)
    for name, call in {
        "share": lambda: shift_images(pixels, wrong),
        "there": lambda: flow_gif(NICE(2, mid_dim=4, hidden=1), points, there=wrong),
        "schedule": lambda: lr_factor(1, 10, wrong),
    }.items():
        with pytest.raises(InputError, match=f"^{name} = .*expected"):
            call()


def test_tensors_under_other_names_are_not_saved_and_cost_no_epoch(tmp_path):
    """What torch.nn.utils.weight_norm and prune do: the words of the layers are the same, the tensors are not."""
    model = NICE(mid_dim=8, hidden=2)
    prune.random_unstructured(model.coupling_0.conditioner[2], "weight", 0.5)
    with pytest.raises(InputError, match=r"coupling_0\.conditioner\.2\."):
        save_model(model, tmp_path / "m")
    with pytest.raises(InputError, match=r"conditioner\.2\."):
        next(train(TrainConfig(**TINY), out=tmp_path / "run", model=model))
    assert not model.scaling.log_scale.any() and not list(tmp_path.iterdir())  # not one step was taken
    next(train(TrainConfig(**TINY), model=model))


@pytest.mark.parametrize("error", ["ENOLCK", "EOPNOTSUPP"])
def test_a_folder_whose_file_system_knows_no_locks_takes_a_run(error, tmp_path, monkeypatch):
    """Some network folders: nobody else is writing there, and no other folder would help."""

    def flock(*_):
        raise OSError(getattr(errno, error), "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert next(train(TrainConfig(**TINY), out=tmp_path))["epoch"] == 1


def test_a_run_of_a_later_version_is_not_continued_without_its_settings(tmp_path):
    list(train(TrainConfig(**TINY), out=tmp_path))
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)
    saved["config"]["dropout"] = 0.5
    write_resume(tmp_path, saved)
    with pytest.raises(InputError, match=r"dropout was 0\.5, is None"):
        list(train(TrainConfig(**TINY), out=tmp_path, resume=True))


def test_a_pipe_in_place_of_a_runs_files_is_not_waited_for(tmp_path, capsys):
    list(train(TrainConfig(**TINY), out=tmp_path))
    for name in ("history.json", "resume.pt"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        assert main(["train", *FLAGS, "--resume", "--out", str(tmp_path)]) == 2
        assert re.search(f"{name} cannot be read|{name} is not", capsys.readouterr().err)


def test_a_file_may_have_any_name_that_the_folder_takes(tmp_path):
    write_atomically(tmp_path / ("n" * 250), lambda path: path.write_bytes(b"a"))
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 250]


def test_a_model_loaded_in_inference_mode_can_be_trained_and_explored(tmp_path):
    save_model(NICE(16, mid_dim=2, hidden=1), tmp_path / "m")
    with torch.inference_mode():
        model = load_model(tmp_path / "m")
    assert len(list(inpaint(model, torch.rand(2, 16), hidden_part("top", 4), steps=1))) == 2


def test_the_explorer_understands_wrapped_models():
    plain, digits = NICE(16, mid_dim=2, hidden=1), torch.zeros(5, 16, dtype=torch.uint8)
    for wrapped in (torch.nn.DataParallel(plain), torch.compile(plain, backend="eager")):
        explorer = SampleExplorer(wrapped, digits)
        assert explorer.model is plain and explorer.likelihood.figure()
        explorer.close()
    with pytest.raises(InputError, match="model of type Linear; expected a NICE"):
        SampleExplorer(torch.nn.Linear(2, 2), digits)
