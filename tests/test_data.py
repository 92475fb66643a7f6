import gzip
import hashlib
import math
import os
import re
import shutil
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from nicelib import InputError, bits_per_dim, data, dequantise, load_digits, load_pixels, quantise
from nicelib.data import held_out_split, side_of


def test_sample_splits():
    (train, train_labels), (test, test_labels) = (
        load_digits("mnist-sample", "train"),
        load_digits("mnist-sample", "test"),
    )
    assert train.shape == (4500, 784) and test.shape == (500, 784) and train.dtype == torch.uint8
    assert train.max() == 255 and train.min() == 0
    assert train_labels.bincount().tolist() == [450] * 10 and test_labels.bincount().tolist() == [50] * 10
    assert not {bytes(row) for row in train.numpy()} & {bytes(row) for row in test.numpy()}


def test_the_samples_pixels_and_labels_are_what_they_were_first():
    pixels, labels = data._read_sample()
    assert pixels.shape == (5000, 784) and pixels.dtype == torch.uint8 and labels.dtype == torch.int64
    known = "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f"
    assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == known
    assert labels.tolist() == [digit for digit in range(10) for _ in range(500)]


def test_the_sample_is_the_first_500_of_each_class_of_mnists_training_file(mnist_dir):
    all_pixels, all_labels = load_digits("mnist", "train", mnist_dir, download=False, protocol="notes")
    pixels, labels = data._read_sample()
    for digit in range(10):
        assert torch.equal(pixels[labels == digit], all_pixels[all_labels == digit][:500])


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "other pixels", "other size", "folder"])
def test_a_damaged_sample_is_named(damage, tmp_path, monkeypatch):
    path = tmp_path / "mnist_sample.png"
    whole = data.SAMPLE.read_bytes()
    if damage in ("other pixels", "other size"):
        with Image.open(data.SAMPLE) as shipped:
            picture = shipped.copy()
        if damage == "other pixels":
            picture.putpixel((14, 14), picture.getpixel((14, 14)) ^ 1)
        else:
            picture = picture.crop((0, 0, 28, 28))
        picture.save(path)
    elif damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "cut": whole[:500_000], "text": b"not a picture"}[damage])
    monkeypatch.setattr(data, "SAMPLE", path)
    data._read_sample.cache_clear()
    with pytest.raises(
        InputError, match=r"mnist_sample\.png cannot be read \(.+\); install the package again"
    ) as caught:
        load_digits("mnist-sample")
    assert "\n" not in str(caught.value)


def test_full_splits(mnist_dir):
    load = lambda split, protocol="paper": load_pixels("mnist", split, mnist_dir, download=False, protocol=protocol)  # noqa: E731
    assert [len(load(s)) for s in ("train", "validation", "test")] == [50_000, 10_000, 10_000]
    notes = load("train", "notes")
    assert torch.equal(notes, torch.cat([load("train"), load("validation")]))
    sample_test = {bytes(row) for row in load_pixels("mnist-sample", "test").numpy()}
    paper = {bytes(row) for row in load("train").numpy()}
    reference = {bytes(row) for row in load("train", "reference").numpy()}
    assert len(load("train", "reference")) == 49_500
    assert sample_test <= paper and not sample_test & reference
    assert reference | sample_test == paper


def test_data_dir_comes_from_the_environment(mnist_dir, monkeypatch):
    monkeypatch.setenv("NICE_DATA_DIR", str(mnist_dir))
    assert load_pixels("mnist", "test", download=False).shape == (10_000, 784)


def write_idx(path, array):
    """A file in the format of MNIST's own."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture(scope="module")
def stand_in_dir(tmp_path_factory):
    """Files of the real sizes in torchvision's layout; each image carries its own number in its first two pixels."""
    root = tmp_path_factory.mktemp("stand-in")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (root / "FashionMNIST").symlink_to(root / "MNIST")
    for name, n in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((n, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(n) // 256, np.arange(n) % 256
        images[:, 27, 27] = name == "t10k"
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", (np.arange(n) % 10).astype(np.uint8))
    yield root
    shutil.rmtree(root)


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_files_already_there_are_used_and_split_as_the_table_says(dataset, stand_in_dir, tmp_path, monkeypatch):
    def fetched(*_args, **_kwargs):
        raise AssertionError("something was fetched")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetched)
    monkeypatch.setenv("NICE_DATA_DIR", str(stand_in_dir))
    wanted = {"train": range(50_000), "validation": range(50_000, 60_000), "test": range(10_000)}
    for split, numbers in wanted.items():
        pixels, labels = load_digits(dataset, split)
        assert pixels.dtype == torch.uint8 and pixels.shape == (len(numbers), 784)
        assert torch.equal(pixels[:, 0].int() * 256 + pixels[:, 1], torch.tensor(numbers).int())
        assert torch.equal(labels, torch.tensor(numbers) % 10)
        assert (pixels[:, -1] == (split == "test")).all()
    assert len(load_pixels(dataset, "train", protocol="notes")) == 60_000
    if dataset == "mnist":  # the stand-in's digits come in turn: 50 of each class are mnist-sample's test digits
        numbers = torch.tensor([n for n in range(50_000) if not 4500 <= n < 5000])
        pixels = load_pixels(dataset, "train", protocol="reference")
        assert torch.equal(pixels[:, 0].int() * 256 + pixels[:, 1], numbers.int())
    with pytest.raises(InputError, match=r"no .*mnist files in"):  # the argument wins over the environment
        load_pixels(dataset, "train", tmp_path, download=False)


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("left", [0, 10, 5000])
def test_a_truncated_file_is_named(kind, left, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        write_idx(raw / f"{name}-images-idx3-ubyte", np.zeros((10, 28, 28), np.uint8))
        write_idx(raw / f"{name}-labels-idx1-ubyte", np.zeros(10_000, np.uint8))
    cut = next(raw.glob(f"t10k-{kind}*"))
    cut.write_bytes(cut.read_bytes()[:left])
    with pytest.raises(
        InputError, match=r"mnist files in .*(damaged.*delete them and run again|expected 10000 images.*name another)"
    ):
        load_pixels("mnist", "test", tmp_path)
    assert cut.stat().st_size == left


def test_held_out_split():
    assert held_out_split("mnist", "paper") == "validation" and held_out_split("mnist", "notes") == "test"
    assert held_out_split("mnist-sample", "paper") == "test"


def test_dequantise_stays_in_each_pixels_bin():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(2000, 1)
    x = dequantise(pixels, torch.Generator().manual_seed(0))
    assert x.dtype == torch.float32 and x.min() >= 0 and x.max() < 1
    assert torch.equal(quantise(x), pixels)
    noise = x.double() * 256 - pixels
    assert noise.min() >= 0 and noise.max() < 1
    assert abs(noise.mean() - 0.5) < 0.005 and abs(noise.var() - 1 / 12) < 0.002


def test_noise_is_fresh_for_every_pixel_image_and_pass():
    pixels = torch.zeros(50, 64, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    first, second = dequantise(pixels, generator), dequantise(pixels, generator)
    assert (first != second).float().mean() > 0.99
    assert (first[0] != first[1]).float().mean() > 0.9 and (first[:, 0] != first[:, 1]).float().mean() > 0.9


@pytest.mark.parametrize("pixels", [torch.rand(2, 4), torch.zeros(2, 4, dtype=torch.int64)])
def test_dequantise_wants_bytes(pixels):
    with pytest.raises(InputError, match=r"expected torch.uint8, values 0..255"):
        dequantise(pixels)


def test_bits_per_dim():
    assert bits_per_dim(1980.50) == pytest.approx(4.356, abs=5e-4)
    assert bits_per_dim(0.0) == 8.0  # the uniform density
    assert bits_per_dim(784 * math.log(256)) == pytest.approx(0)  # all its mass in one bin of each pixel


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "cifar"}, "dataset = 'cifar'; expected one of mnist"),
        ({"split": "dev"}, "split = 'dev'"),
        ({"protocol": "x"}, "protocol = 'x'"),
        ({"split": "validation"}, "no validation split"),
        ({"dataset": "fashion-mnist", "protocol": "reference"}, "reference protocol"),
    ],
)
def test_unknown_names(arguments, message):
    with pytest.raises(InputError, match=message):
        load_pixels(**arguments)


def test_no_files_and_no_network(tmp_path, monkeypatch):
    def no_network(*_args, **_kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    for download in (True, False):
        with pytest.raises(InputError, match=r"no mnist files in .*connect to the network.*mnist-sample"):
            load_pixels("mnist", "train", tmp_path / "new", download=download)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (HTTPError("https://one/", 403, "Forbidden", None, None), "HTTP Error 403: Forbidden"),
        (URLError("certificate verify failed: unable to get local issuer certificate"), "local issuer certificate"),
        (TimeoutError(), "TimeoutError"),
        (ConnectionResetError(104, "Connection reset by peer"), "reset by peer"),
        (OSError(28, "No space left on device", "raw"), "No space left on device"),
    ],
)
def test_a_failed_download_says_its_whole_cause_on_one_line(failure, reason, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise failure

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    with pytest.raises(InputError) as caught:
        load_pixels("mnist", "train", tmp_path / "new")
    assert reason in str(caught.value) and "\n" not in str(caught.value) and "no mnist files" in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("refused", ["builtins.open", "os.stat"])  # a file; the folder, whose files then seem missing
def test_files_that_may_not_be_read_are_not_called_damaged(error, refused, stand_in_dir, monkeypatch):
    before = {"builtins.open": open, "os.stat": os.stat}[refused]

    def refuse(path, *args, **kwargs):
        if "ubyte" in str(path):
            raise error
        return before(path, *args, **kwargs)

    monkeypatch.setattr(refused, refuse)
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", lambda *_, **__: None)
    with pytest.raises(InputError, match=r"mnist files in .* cannot be read .*make them readable") as caught:
        load_pixels("mnist", "train", stand_in_dir)
    assert error.strerror in str(caught.value)
    assert not re.search(r"damaged|delete|\n", str(caught.value))


def test_data_dir_as_people_write_it(stand_in_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(stand_in_dir.parent))
    monkeypatch.setenv("USERPROFILE", str(stand_in_dir.parent))
    for data_dir in (str(stand_in_dir), stand_in_dir, f"~/{stand_in_dir.name}", Path("~") / stand_in_dir.name):
        assert len(load_pixels("mnist", "test", data_dir, download=False)) == 10_000
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(stand_in_dir)
    for value in ("", " ", f"{stand_in_dir} ", f"~/{stand_in_dir.name}"):
        monkeypatch.setenv("NICE_DATA_DIR", value)
        assert len(load_pixels("mnist", "test", download=False)) == 10_000
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"mnist files in file.MNIST.raw cannot be read|no mnist files in"):
        load_pixels("mnist", "test", "file")


def test_packed_files_are_unpacked_or_named(stand_in_dir, tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (stand_in_dir / "MNIST" / "raw").iterdir():
        (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    with pytest.raises(InputError, match=r"no mnist files in .* \(only \.gz: unpack them\)"):
        load_pixels("mnist", "test", tmp_path, download=False)
    sums = [(n, hashlib.md5((raw / n).read_bytes()).hexdigest()) for n, _ in datasets.MNIST.resources]
    monkeypatch.setattr(datasets.MNIST, "resources", sums)  # else torchvision would fetch the real ones
    assert len(load_pixels("mnist", "test", tmp_path)) == 10_000


def test_damaged_file(tmp_path, mnist_dir):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "train-labels-idx1-ubyte"):
        shutil.copy(mnist_dir / "MNIST" / "raw" / name, raw)
    (raw / "train-images-idx3-ubyte").touch()
    whole = (raw / "t10k-images-idx3-ubyte").read_bytes()
    for content in (whole[:1_000_000], whole[:100], b"", b"not images at all", whole):
        (raw / "train-images-idx3-ubyte").write_bytes(content)
        advice = "name another folder" if content == whole else "delete them and run again"  # whole, but other images
        with pytest.raises(InputError, match=advice):
            load_pixels("mnist", "train", tmp_path)
        assert (raw / "train-images-idx3-ubyte").read_bytes() == content


def test_missing_files_are_fetched_unless_told_otherwise(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", lambda *a, **k: asked.append(a))
    for load in (load_pixels, load_digits):
        with pytest.raises(InputError):
            load("mnist", "train", tmp_path)
        assert asked
        asked.clear()
        with pytest.raises(InputError):
            load("mnist", "train", tmp_path, download=False)
        assert not asked


def test_the_side_of_square_images_of_bytes_and_of_no_others():
    for side in (1, 2, 3, 28):
        assert side_of(torch.zeros(2, side * side, dtype=torch.uint8)) == side
    bytes_of = lambda *shape: torch.zeros(*shape, dtype=torch.uint8)  # noqa: E731
    for bad in (
        bytes_of(2, 783),
        bytes_of(2, 6),
        bytes_of(2, 0),
        bytes_of(4),
        bytes_of(1, 2, 2),
        torch.zeros(2, 4),
        bytes_of(1, 4).to("meta"),
    ):
        with pytest.raises(InputError, match=r"expected torch\.uint8 \(N, side \* side\)"):
            side_of(bad)
