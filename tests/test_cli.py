import json
import re
import subprocess
import sys
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nicelib
from nicelib import NICE
from nicelib.checkpoints import save_model
from nicelib.cli import main
from nicelib.training.bench import ADAM_BYTES, FLOP, PHASES

TINY = [
    "--dataset",
    "mnist-sample",
    "--mid_dim",
    "32",
    "--hidden",
    "1",
    "--batch_size",
    "100",
    "--device",
    "cpu",
    "--precision",
    "highest",
]


def call(capsys, *argv):
    try:
        status = main([str(a) for a in argv])
    except SystemExit as stop:  # argparse leaves this way
        status = stop.code
    return status, *capsys.readouterr()


def refuse(capsys, *argv):
    """The call fails with one line on stderr and nothing on stdout."""
    status, out, err = call(capsys, *argv)
    assert status == 2 and out == "" and err.count("\n") == 1 and re.match(r"nicelib( \w+)?: error: ", err)
    return err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", *TINY, "--max_iter", "2", "--sample_size", "9", "--out", str(out)]) == 0
    return out


def test_train_prints_rising_nats_and_writes_pictures(tmp_path, capsys):
    out = tmp_path / "run"
    status, text, _ = call(capsys, "train", *TINY, "--max_iter", 2, "--out", out)
    nats = [float(n) for n in re.findall(r"train +([\d.]+) nats  test +[\d.]+ nats  \d+ images/s", text)]
    assert status == 0 and len(nats) == 2 and nats[1] > nats[0] > 1000
    for name in ("samples.png", "curve.png"):
        with Image.open(out / name) as picture:
            dark, bright = picture.convert("L").getextrema()
            assert dark < bright and (picture.size == (484, 484) or name == "curve.png")  # 8 x 8 images


def test_evaluate_writes_the_nats_of_each_image(trained, tmp_path, capsys):
    path = tmp_path / "nats.safetensors"
    status, text, _ = call(capsys, "evaluate", trained / "best.safetensors", "--draws", 2, "--per-image", path)
    nats = load_file(path)["nats"]
    assert status == 0 and nats.shape == (500,)
    assert abs(nats.mean().item() - float(re.search(r"test: (-?[\d.]+) ", text)[1])) < 0.01
    assert "could not write" in call(capsys, "evaluate", trained / "best.safetensors", "--per-image", tmp_path)[2]


def test_the_notes_thirteen_flags_in_both_spellings(tmp_path, capsys):
    flags = {
        "dataset": "mnist-sample", "batch_size": 150, "latent": "normal", "max_iter": 1, "sample_size": 4, "lr": 2e-3,
        "momentum": 0.8, "decay": 0.99, "coupling": 3, "save-every": 1, "coup-type": "affine", "mid-dim": 16, "hidden": 2,
    }  # fmt: skip
    for separator in "-_":
        out = tmp_path / separator
        argv = [f"--{name.replace('-', separator).replace('_', separator)}={value}" for name, value in flags.items()]
        assert call(capsys, "train", *argv, "--device=cpu", "--out", out)[0] == 0
        config = json.loads((out / "history.json").read_text(encoding="utf-8"))["config"]
        assert {name: config[name.replace("-", "_")] for name in flags} == flags
        assert (out / "epoch_0001.safetensors").exists()


def test_a_recipe_and_a_flag_beside_it(tmp_path, capsys):
    out = tmp_path / "run"
    argv = ["train", "--mid-dim=8", "--recipe", "sample", "--hidden=1", "--max-iter=1", "--out", out]
    assert call(capsys, *argv)[0] == 0
    config = json.loads((out / "history.json").read_text(encoding="utf-8"))["config"]
    assert config["batch_size"] == 50 and config["lr"] == 2e-3 and config["max_iter"] == 1


def test_a_folder_is_no_file_and_a_word_no_seed(trained, capsys):
    assert "could not write '.': that is a folder" in refuse(
        capsys, "sample", trained / "best.safetensors", "--out", "."
    )
    for seed in ("x", "-1", "1.5", 2**32):
        assert f"seed = {seed}; expected 0 to 2^32 - 1" in refuse(capsys, "sample", f"--seed={seed}")


def test_evaluate_and_sample(trained, tmp_path, capsys):
    status, text, _ = call(capsys, "evaluate", trained / "best.safetensors", "--draws", 2, "--device", "cpu")
    found = re.fullmatch(
        r"mnist-sample test: ([\d.]+) \+- ([\d.]+) nats, ([\d.]+) bits/dim \(500 images, 2 noise draws\)\n", text
    )
    assert status == 0 and 1300 < float(found[1]) < 1600
    _, text, _ = call(capsys, "evaluate", trained / "best.safetensors", "--draws", 1, "--importance", 4)
    assert "1 noise draw, importance-weighted over 4" in text and float(text.split()[2]) > float(found[1]) + 1
    argv = ["sample", trained / "best.safetensors", "--sample_size", 6, "--out"]
    assert call(capsys, *argv, tmp_path / "a.png")[0] == call(capsys, *argv, tmp_path / "b.png")[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert call(capsys, *argv, tmp_path / "c.png", "--temperature", 0.5)[0] == 0
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_summary(capsys):
    status, text, _ = call(capsys, "summary")
    assert status == 0 and "Total params: 22,295,920" in text
    assert text.count("Linear: ") == 24 and text.count("LeakyReLU: ") == 20 and text.count("Scaling: ") == 1


def test_bench(capsys, tmp_path, all_cores):
    argv = ("--rounds", 1, "--steps", 1, "--batch-size", 50, "--device", "cpu", "--json", tmp_path / "bench.json")
    status, text, _ = call(capsys, "bench", *argv)
    assert status == 0 and re.search(r"nicelib, float32: \d+ images/s .* ratio to the plain loop: \d\.\d\d\n", text)
    assert re.search(r"ms a step: data \d+\.\d, forward \d.*, optimiser \d", text) and "of the floor" in text
    found = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["loops"]
    ours = {name: values[0] for name, values in found["highest"].items()}
    assert sum(ours[phase] for phase in PHASES) == pytest.approx(50 / ours["images_per_s"], rel=0.05)
    assert ours["ratio"] == pytest.approx(ours["images_per_s"] / found["plain"]["images_per_s"][0])
    assert ours["floor"] == pytest.approx(50 * FLOP / ours["products"] + ADAM_BYTES / ours["copies"])
    assert 0 < ours["share"] < 1.5


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "nicelib", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(c in done.stdout for c in ("train", "evaluate", "sample", "summary", "bench"))


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_do_not_wait_for_torch(flag):
    code = (
        "import sys; from nicelib.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout == f"nicelib {nicelib.__version__}\n" or "evaluate" in done.stdout


def test_what_the_package_gives_by_name_is_there():
    assert {"NICE", "train", "load_pretrained"} <= set(nicelib.__all__)
    assert all(getattr(nicelib, name).__doc__ for name in nicelib.__all__)
    with pytest.raises(AttributeError):
        nicelib.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dataset", "cifar"], "'cifar'"),
        (["--latent", "cauchy"], "'cauchy'"),
        (["--coup-type", "cubic"], "'cubic'"),
        (["--coup_type", "cubic"], "'cubic'"),
        (["--batch_size", "-5"], "batch_size = -5"),
        (["--max_iter", "0"], "max_iter = 0"),
        (["--mid-dim", "-1"], "mid_dim = -1"),
        (["--hidden", "0"], "hidden = 0"),
        (["--coupling", "0"], "coupling = 0"),
        (["--sample_size", "0"], "sample_size = 0"),
        (["--save-every", "0"], "save_every = 0"),
        (["--lr", "much"], "'much'"),
        (["--lr", "-1"], "lr = -1"),
        (["--batch_size", "5000"], "batch_size = 5000"),
        (["--device", "toaster"], "toaster"),
        (["--device", "meta"], "device = 'meta' is not on this machine"),
        (["--seed", "9" * 30], "seed = 999"),
        (["--lr", "nan"], "lr = nan"),
        (["--recipe", "none"], "'none'"),
        (["--frobnicate"], "frobnicate"),
    ],
)
def test_train_refuses(tmp_path, capsys, argv, message):
    out = tmp_path / "run"
    assert message in refuse(capsys, "train", *TINY, "--out", out, *argv)
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_refuses_cuda_where_there_is_none(tmp_path, capsys):
    assert "torch sees 0 CUDA devices" in refuse(capsys, "train", *TINY, "--device", "cuda", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_out_whose_parent_is_a_file(trained, tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "could not create" in refuse(capsys, "train", *TINY, "--out", tmp_path / "file" / "run")
    weights = trained / "best.safetensors"
    assert "could not write" in refuse(capsys, "sample", weights, "--out", tmp_path / "file" / "samples.png")
    assert (tmp_path / "file").read_text(encoding="utf-8") == ""


def test_bad_weights(tmp_path, capsys):
    (tmp_path / "x.safetensors").write_bytes(b"junk")
    assert "damaged" in refuse(capsys, "evaluate", tmp_path / "x.safetensors")
    assert "no weights file" in refuse(capsys, "sample", tmp_path / "y.safetensors", "--out", tmp_path / "s.png")
    assert not (tmp_path / "s.png").exists()


def test_bad_numbers(trained, tmp_path, capsys):
    weights = trained / "best.safetensors"
    assert "draws = 0" in refuse(capsys, "evaluate", weights, "--draws", 0)
    assert "importance = 0" in refuse(capsys, "evaluate", weights, "--importance", 0)
    assert "sample_size = 0" in refuse(capsys, "sample", weights, "--sample-size", 0)
    for temperature in ("-1", "nan", "inf"):
        error = refuse(capsys, "sample", weights, "--temperature", temperature, "--out", tmp_path / "s.png")
        assert f"temperature = {temperature}" in error
    for seed in ("-1", "9" * 30):
        assert f"seed = {seed}" in refuse(capsys, "sample", weights, "--seed", seed, "--out", tmp_path / "s.png")
        assert f"seed = {seed}" in refuse(capsys, "evaluate", weights, "--seed", seed)
    assert "toaster" in refuse(capsys, "evaluate", weights, "--device", "toaster")
    assert not list(tmp_path.iterdir())
    assert "rounds = 0" in refuse(capsys, "bench", "--rounds", 0)
    assert "batch_size = 0" in refuse(capsys, "bench", "--batch-size", 0)


def test_weights_of_another_size(tmp_path, capsys):
    weights = tmp_path / "small.safetensors"
    save_model(NICE(dim=8, mid_dim=8, hidden=1), weights)
    assert "expected (B, 8)" in refuse(capsys, "evaluate", weights, "--device", "cpu")
    assert "expected (N, 784)" in refuse(capsys, "sample", weights, "--out", tmp_path / "samples.png")
    assert list(tmp_path.iterdir()) == [weights]


def test_no_data_and_no_network(tmp_path, capsys, monkeypatch):
    def no_network(*_args, **_kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    monkeypatch.setenv("NICE_DATA_DIR", str(tmp_path / "data"))
    error = refuse(capsys, "train", "--dataset", "mnist", "--out", tmp_path / "run")
    assert "the download failed" in error and "connect to the network" in error and "mnist-sample" in error
    assert not list(tmp_path.iterdir())


def test_truncated_data_file(tmp_path, capsys):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\0\0\x08\x03\0\0\xea\x60\0\0\0\x1c\0\0\0\x1c" + bytes(784))
    argv = ["train", "--dataset", "mnist", "--data-dir", tmp_path / "data", "--out", tmp_path / "run"]
    assert "damaged" in refuse(capsys, *argv)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite(tmp_path, capsys):
    argv = ["train", *TINY, "--lr", "1e30", "--schedule", "constant", "--clip", 0, "--out", tmp_path / "run"]
    assert re.search(r"loss is nan in epoch 1 at step \d+ of 45; .*try a smaller --lr", refuse(capsys, *argv))
    assert not list((tmp_path / "run").iterdir())


def test_train_on_full_mnist(mnist_dir, tmp_path, capsys):
    """Ten steps an epoch of a small model on the real files."""
    argv = ["train", *TINY, "--dataset", "mnist", "--batch_size", 5000, "--max_iter", 2, "--data-dir", mnist_dir]
    status, text, _ = call(capsys, *argv, "--out", tmp_path / "run")
    nats = [float(n) for n in re.findall(r"train +([\d.]+) nats  validation +[\d.]+ nats", text)]
    assert status == 0 and len(nats) == 2 and nats[1] > nats[0] > 1000
    assert {"best.safetensors", "samples.png", "curve.png"} <= {p.name for p in (tmp_path / "run").iterdir()}
