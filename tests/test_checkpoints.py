import os
import pickle
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from nicelib import NICE, InputError, TrainConfig, train
from nicelib.checkpoints import load_model, read_header, save_model, write_atomically


@pytest.fixture
def saved(tmp_path, small_model):
    save_model(small_model, tmp_path / "model.safetensors", metrics={"held_out": 1.5})
    return tmp_path / "model.safetensors"


def test_round_trip(saved, small_model):
    loaded = load_model(saved)
    x = torch.rand(9, 8)
    assert torch.equal(loaded.log_prob(x), small_model.log_prob(x))
    assert read_header(saved) == {"config": small_model.config, "metrics": {"held_out": 1.5}}


def test_units_are_saved_with_the_weights(tmp_path, small_model):
    small_model.layers[0].unit[:] = 7
    save_model(small_model, tmp_path / "m.safetensors")
    assert (load_model(tmp_path / "m.safetensors").layers[0].unit == 7).all()


def test_a_model_loads_in_float32_whatever_the_default(saved):
    torch.set_default_dtype(torch.float64)
    try:
        assert {p.dtype for p in load_model(saved).parameters()} == {torch.float32}
    finally:
        torch.set_default_dtype(torch.float32)


def test_half_precision_halves_the_file(tmp_path):
    model = NICE(dim=64, mid_dim=64, hidden=2)
    save_model(model, tmp_path / "full")
    save_model(model, tmp_path / "half", dtype=torch.float16)
    assert (tmp_path / "half").stat().st_size < 0.6 * (tmp_path / "full").stat().st_size
    loaded = load_model(tmp_path / "half")
    assert loaded.scaling.log_scale.dtype == torch.float32 and loaded.layers[0].mask.dtype == torch.bool


def test_truncated(saved):
    whole = saved.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:size])
        with pytest.raises(InputError, match="not a weights file of nicelib, or is damaged"):
            load_model(saved)


@pytest.mark.parametrize("position", [0, 7, 8, 60, 400])
def test_corrupted_header(saved, position):
    content = bytearray(saved.read_bytes())
    content[position] ^= 0xFF
    saved.write_bytes(content)
    with pytest.raises(InputError, match="not a weights file of nicelib, or is damaged"):
        load_model(saved)


def test_foreign(tmp_path):
    save_file({"w": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="not a weights file of nicelib"):
        load_model(tmp_path / "foreign.safetensors")


def test_missing(tmp_path):
    with pytest.raises(InputError, match="no weights file"):
        load_model(tmp_path / "none.safetensors")


def test_weights_that_may_not_be_read_are_not_called_missing(tmp_path, small_model, monkeypatch):
    save_model(small_model, tmp_path / "m")

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        load_model(tmp_path / "m")


def test_weights_of_another_architecture(tmp_path, small_model, monkeypatch):
    monkeypatch.setattr("nicelib.checkpoints.check_config", lambda model: None)  # writes what save_model refuses
    small_model.config = small_model.config | {"mid_dim": 17}
    save_model(small_model, tmp_path / "m")
    with pytest.raises(InputError, match="do not fit the architecture in its header"):
        load_model(tmp_path / "m")
    for config in ({"dim": 7}, {"depth": 3}, {"dim": "eight"}, [8], "x", None):
        small_model.config = config
        save_model(small_model, tmp_path / "m")
        with pytest.raises(InputError, match="do not fit the architecture in its header"):
            load_model(tmp_path / "m")


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def resume_from(folder):
    config = TrainConfig(dataset="mnist-sample", mid_dim=8, hidden=1, max_iter=1, device="cpu", precision="highest")
    return list(train(config, out=folder, resume=True))


@pytest.fixture(scope="module")
def resume_bytes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    resume_from(folder)
    return (folder / "resume.pt").read_bytes()


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    trap = tmp_path / "ran"
    torch.save({"config": Malice(trap)}, tmp_path / "resume.pt")
    with pytest.raises(InputError, match="not a resume file of nicelib, or is damaged"):
        resume_from(tmp_path)
    (tmp_path / "resume.pt").write_bytes(pickle.dumps(Malice(trap)))
    with pytest.raises(InputError, match="not a resume file of nicelib, or is damaged"):
        resume_from(tmp_path)
    with pytest.raises(InputError, match="not a weights file of nicelib"):
        load_model(tmp_path / "resume.pt")
    assert not trap.exists()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 500, lambda b: b[:-30]])
def test_damaged_resume_file(tmp_path, damage):
    resume_from(tmp_path)
    path = tmp_path / "resume.pt"
    path.write_bytes(damage(path.read_bytes()))
    kept = path.read_bytes()
    with pytest.raises(InputError, match=r"resume.pt is not a resume file of nicelib, or is damaged"):
        resume_from(tmp_path)
    assert path.read_bytes() == kept


def test_resume_file_of_something_else(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "resume.pt")
    with pytest.raises(InputError, match="not a resume file of nicelib"):
        resume_from(tmp_path)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("config", "x"), ("config", [1]), ("config", torch.zeros(2)), ("model", None), ("optimiser", {}), ("optimiser", None),
        ("scheduler", None), ("state", {}), ("state", None), ("state", "x"), ("losses", None), ("losses", torch.zeros(3)),
    ],
    ids=str,
)  # fmt: skip
def test_resume_file_with_a_strange_part(tmp_path, resume_bytes, part, value):
    path = tmp_path / "resume.pt"
    path.write_bytes(resume_bytes)
    torch.save(torch.load(path, weights_only=True) | {part: value}, path)
    with pytest.raises(InputError, match=r"not a resume file of nicelib, or is damaged|other settings"):
        resume_from(tmp_path)


def test_resume_file_that_is_not_a_dictionary(tmp_path):
    for content in ([1, 2], torch.zeros(3), "text"):
        torch.save(content, tmp_path / "resume.pt")
        with pytest.raises(InputError, match="not a resume file of nicelib, or is damaged"):
            resume_from(tmp_path)


def test_resume_file_whose_weights_do_not_fit(tmp_path):
    resume_from(tmp_path)
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)
    saved["model"] = NICE(mid_dim=9, hidden=1).state_dict()
    torch.save(saved, tmp_path / "resume.pt")
    with pytest.raises(InputError, match="not a resume file of nicelib, or is damaged"):
        resume_from(tmp_path)


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("before", encoding="utf-8")

    def half_written(temporary):
        temporary.write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"could not write .*No space left on device.*untouched"):
        write_atomically(path, half_written)
    assert path.read_text(encoding="utf-8") == "before" and list(tmp_path.iterdir()) == [path]


def limited(limit, *argv):
    """Run a command under a file-size limit; it must fail with one line, which is returned."""
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f"from nicelib.cli import main; sys.exit(main({list(map(str, argv))}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("nicelib: error: ")
    return done.stderr


@pytest.mark.parametrize("limit", [200_000, 400_000], ids=["weights", "resume"])
def test_a_disk_that_fills_up(tmp_path, limit):
    """A file-size limit stops the weights (and, larger, the resume file) half way."""
    out = tmp_path / "run"
    flags = "--dataset mnist-sample --mid_dim 8 --hidden 1 --max_iter 1 --save_every 1 --device cpu".split()
    error = limited(limit, "train", "--out", out, *flags)
    stopped_at = "best.safetensors" if limit == 200_000 else "resume.pt"
    assert f"could not write {out / stopped_at}" in error and "free some space" in error
    assert (out / "best.safetensors").exists() == (stopped_at == "resume.pt")
    assert not list(out.glob("*.tmp")) and not (out / "resume.pt").exists()
    for whole in out.glob("*.safetensors"):
        load_model(whole)


def test_parent_is_a_file(tmp_path, small_model):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="could not write"):
        save_model(small_model, tmp_path / "file" / "model.safetensors")


def test_a_disk_that_fills_up_in_a_resumed_run_leaves_the_earlier_files(tmp_path):
    settings = {"dataset": "mnist-sample", "mid_dim": 8, "hidden": 1, "max_iter": 2, "save_every": 1, "device": "cpu"}
    settings |= {"precision": "highest"}
    config, steps = TrainConfig(**settings), []

    def stop(*_):
        steps.append(1)
        if len(steps) == 30:  # in the second epoch
            os.kill(os.getpid(), signal.SIGINT)

    model = config.build()
    model.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        list(train(config, out=tmp_path, model=model))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert set(before) == {"best.safetensors", "epoch_0001.safetensors", "history.json", "resume.pt"}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    assert "could not write" in limited(100_000, "train", "--out", tmp_path, "--resume", *flags)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert [record["epoch"] for record in train(config, out=tmp_path, resume=True)] == [2]


def test_a_disk_that_fills_up_leaves_the_earlier_picture(tmp_path):
    save_model(NICE(mid_dim=8, hidden=1), tmp_path / "model.safetensors")
    picture = tmp_path / "samples.png"
    picture.write_text("before", encoding="utf-8")
    error = limited(1000, "sample", tmp_path / "model.safetensors", "--out", picture)
    assert (
        "could not write" in error
        and picture.read_text(encoding="utf-8") == "before"
        and len(list(tmp_path.iterdir())) == 2
    )


def flip(path, tensor):
    """Flip one bit inside the tensor's own bytes, wherever the file holds them."""
    whole, inside = bytearray(path.read_bytes()), tensor.contiguous().numpy().tobytes()
    place = whole.find(inside)
    assert place > 0
    whole[place + len(inside) // 2] ^= 4
    path.write_bytes(whole)


def test_a_flipped_bit_in_the_weights_is_refused(saved, small_model):
    flip(saved, small_model.state_dict()["coupling_0.conditioner.0.weight"])
    with pytest.raises(InputError, match="checksum is wrong"):
        load_model(saved)


def test_a_flipped_bit_in_a_resume_file_is_refused(tmp_path):
    resume_from(tmp_path)
    flip(tmp_path / "resume.pt", torch.load(tmp_path / "resume.pt", weights_only=True)["model"]["scaling.log_scale"])
    with pytest.raises(InputError, match=r"resume.pt is not a resume file of nicelib, or is damaged"):
        resume_from(tmp_path)
