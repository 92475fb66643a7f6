"""Pixels: where they come from, dequantisation, and bits per dimension (paper, section 5.1).

Pixels are uint8 (N, 784), the whole set in memory. What each split holds:

====================  =========  =====================================  ==================  ======================
data set              protocol   train                                  validation          test
====================  =========  =====================================  ==================  ======================
mnist, fashion-mnist  paper      first 50,000 of the training file      its last 10,000     the 10,000 test images
mnist, fashion-mnist  notes      60,000                                 none                the 10,000 test images
mnist                 reference  first 50,000 less mnist-sample's test  its last 10,000     the 10,000 test images
mnist-sample          any        first 450 of each class                none                last 50 of each class
====================  =========  =====================================  ==================  ======================

``mnist-sample`` is the first 500 digits of each class of MNIST's training file, inside the package (``digits/``, with its
source and licence): it needs no network.
"""

import math
import os
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from nicelib.bijection import check_generator, check_tensor
from nicelib.errors import InputError, as_path, at_least, cause, one_of

DATASETS = ("mnist", "fashion-mnist", "mnist-sample")  #: the data sets
PROTOCOLS = ("paper", "notes", "reference")  #: how a set is split
SPLITS = ("train", "validation", "test")  #: the parts of a set
SAMPLE = Path(__file__).parent / "digits" / "mnist_sample.png"


def load_pixels(
    dataset: str = "mnist-sample",
    split: str = "train",
    data_dir: str | Path | None = None,
    download: bool = True,
    protocol: str = "paper",
) -> Tensor:
    """The images of one split as uint8 (N, 784), values 0..255.

    Args:
        dataset, split, protocol: names in :data:`DATASETS`, :data:`SPLITS`, :data:`PROTOCOLS`; see the module's table.
        data_dir: folder in torchvision's layout (``MNIST/raw/...``); default: the environment variable NICE_DATA_DIR,
            else ``data``. Files already there are used as they are.
        download: fetch missing files through torchvision.

    Raises:
        InputError: an unknown name, a split that the protocol does not have, missing or damaged files.

    >>> load_pixels("mnist-sample", "test").shape
    torch.Size([500, 784])
    """
    return load_digits(dataset, split, data_dir, download, protocol)[0]


def load_digits(
    dataset: str = "mnist-sample",
    split: str = "train",
    data_dir: str | Path | None = None,
    download: bool = True,
    protocol: str = "paper",
) -> tuple[Tensor, Tensor]:
    """As :func:`load_pixels`, with the labels: uint8 (N, 784) and int64 (N,)."""
    one_of("dataset", dataset, DATASETS)
    one_of("split", split, SPLITS)
    one_of("protocol", protocol, PROTOCOLS)
    if split == "validation" and held_out_split(dataset, protocol) == "test":
        raise InputError(f"{dataset} has no validation split under the {protocol} protocol; use split 'test'")
    if dataset == "mnist-sample":
        pixels, labels = _read_sample()
        chosen = (_rank_in_class(labels) < 450) == (split == "train")
        return pixels[chosen], labels[chosen]
    if protocol == "reference" and dataset != "mnist":
        raise InputError(f"the reference protocol leaves mnist-sample's digits out of mnist; {dataset} has none")
    pixels, labels = _read_torchvision(dataset, split != "test", data_dir, download)
    if split == "test" or protocol == "notes":
        return pixels, labels
    chosen = (torch.arange(len(labels), device=labels.device) < 50_000) == (split == "train")
    if split == "train" and protocol == "reference":
        rank = _rank_in_class(labels)
        chosen &= (rank < 450) | (rank >= 500)  # mnist-sample's test digits are left out
    return pixels[chosen], labels[chosen]


def held_out_split(dataset: str, protocol: str) -> str:
    """What a training run watches: validation where there is one, else test.

    >>> held_out_split("mnist", "paper"), held_out_split("mnist-sample", "paper")
    ('validation', 'test')
    """
    return "test" if dataset == "mnist-sample" or protocol == "notes" else "validation"


def dequantise(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """x = (pixel + u) / 256 with u ~ Uniform[0, 1), drawn afresh for every entry (paper, section 5.1).

    A density cannot be fitted to integers: it would grow without bound at each of them. The noise spreads each integer over
    its own bin of width 1/256, so that a log-likelihood on [0, 1)^D means something for the discrete image.

    ``pixels`` uint8 (B, D) -> float32 (B, D) in [0, 1); ``generator`` is on their device.

    Raises:
        InputError: pixels of another dtype, a generator that is none of torch's.

    >>> x = dequantise(torch.full((2, 4), 255, dtype=torch.uint8))
    >>> bool((x >= 255 / 256).all() and (x < 1).all())
    True
    """
    wanted = "torch.uint8, values 0..255 (for floats in [0, 1]: (255 * x).round().to(torch.uint8))"
    check_tensor("pixels", pixels, wanted, lambda pixels: pixels.dtype == torch.uint8)
    check_generator(generator, pixels.device)
    # u in steps of 2^-16: pixel + u is then exact in float32, so x stays inside its own bin and below 1.
    noise = torch.rand(pixels.shape, generator=generator, device=pixels.device, dtype=torch.float32)
    return noise.mul_(2**16).floor_().mul_(2**-16).add_(pixels).mul_(1 / 256)


def side_of(pixels: Tensor) -> int:
    """The side of square images; :class:`InputError` unless they are uint8 (N, side * side)."""
    flat = lambda x: x.dtype == torch.uint8 and x.ndim == 2 and not x.is_meta  # noqa: E731
    square = lambda x: flat(x) and math.isqrt(x.shape[1]) ** 2 == x.shape[1] > 0  # noqa: E731
    check_tensor("pixels", pixels, "torch.uint8 (N, side * side)", square)
    return math.isqrt(pixels.shape[1])


def quantise(x: Tensor) -> Tensor:
    """The pixel whose bin holds x: floor(256 x), clamped to 0..255. Undoes :func:`dequantise`.

    >>> quantise(torch.tensor([[-0.1, 0.5, 1.2]])).tolist()
    [[0, 128, 255]]
    """
    wanted = "floating-point values, none of them NaN"
    check_tensor("x", x, wanted, lambda x: x.is_floating_point() and not x.isnan().any())
    return (x * 256).floor().clamp(0, 255).to(torch.uint8)


def bits_per_dim(nats: float, dim: int = 784) -> float:
    """Bits per dimension of the discrete image, from a log-likelihood in nats on [0, 1)^D: 8 - nats / (D ln 2).

    >>> round(bits_per_dim(1980.50), 3)
    4.356
    """
    (dim,) = at_least(1, dim=dim)
    return 8 - nats / (dim * math.log(2))


@cache
def _read_sample() -> tuple[Tensor, Tensor]:
    from PIL import Image

    try:
        with Image.open(SAMPLE) as picture:
            pixels = np.asarray(picture).reshape(50, 28, 100, 28).swapaxes(1, 2).reshape(5000, 784)
        if zlib.crc32(pixels.tobytes()) != 0xDA5FC5F0:
            raise ValueError("pixels were changed")
    except Exception as error:  # a damaged file shows as OSError, SyntaxError, ValueError, ...
        raise InputError(f"{SAMPLE} cannot be read ({cause(error)}); install the package again") from error
    return torch.from_numpy(pixels), torch.arange(10, device="cpu").repeat_interleave(500)


def _rank_in_class(labels: Tensor) -> Tensor:
    """How many images of its own class come before each: int64 (N,)."""
    return one_hot(labels).cumsum(0).gather(1, labels[:, None]).squeeze(1) - 1


def _read_torchvision(dataset: str, train: bool, data_dir: str | Path | None, download: bool) -> tuple[Tensor, Tensor]:
    from torchvision import datasets  # slow to import: only when needed

    # strip: `set NICE_DATA_DIR=C:\data && ...` on Windows keeps the space
    root = as_path(data_dir or os.environ.get("NICE_DATA_DIR", "").strip() or "data")
    kind = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[dataset]
    raw = root / kind.__name__ / "raw"
    files = f"{dataset} files in {raw}"
    elsewhere = "name another folder (NICE_DATA_DIR), or use the dataset mnist-sample"
    try:
        with suppress(FileNotFoundError):
            (raw / "train-labels-idx1-ubyte").stat()  # a folder that may not be searched looks empty to torchvision
        data = kind(str(root), train=train, download=False)
    except (OSError, MemoryError) as error:
        raise InputError(f"the {files} cannot be read ({cause(error)}); make them readable, {elsewhere}") from error
    except Exception as error:  # a damaged file shows as AssertionError, ValueError, RuntimeError, ...
        if "not found" not in str(error):
            raise InputError(f"the {files} are damaged ({cause(error)}); delete them and run again") from error
        packed = " (only .gz: unpack them)" if any(raw.glob("*-ubyte.gz")) else ""
        advice = f"connect to the network and run again, {elsewhere}"
        if not download:
            raise InputError(f"no {files}{packed}; {advice}") from None
        try:
            data = _download(kind, root, train)
        except Exception as failure:  # torchvision lets URLError, RuntimeError and OSError through
            raise InputError(f"no {files}{packed}, and the download failed ({cause(failure)}); {advice}") from failure
    expected = 60_000 if train else 10_000
    if data.data.shape != (expected, 28, 28) or len(data.targets) != expected:
        raise InputError(
            f"the {files} hold images of shape {tuple(data.data.shape)} and {len(data.targets)} labels; "
            f"expected {expected} images of 28 x 28: {elsewhere}"
        )
    return data.data.reshape(expected, 784), data.targets


def _download(kind: Any, root: Path, train: bool) -> Any:
    """torchvision's data set, fetched; folders that it made and left empty are removed."""
    raw = root / kind.__name__ / "raw"
    new = [folder for folder in (raw, raw.parent, root) if not folder.exists()]
    try:
        return kind(str(root), train=train, download=True)
    except Exception:
        for folder in new:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
