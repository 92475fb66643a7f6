import math

import pytest
import torch
from PIL import Image

from nicelib import NICE, load_pixels, load_pretrained
from nicelib.checkpoints import read_header
from nicelib.cli import main
from nicelib.evaluation import evaluate
from nicelib.pretrained import WEIGHTS


def test_the_shipped_file_is_the_whole_model_in_half_precision_and_says_how_it_was_made():
    assert WEIGHTS.stat().st_size < 50e6
    model, header = load_pretrained(), read_header(WEIGHTS)
    assert model.config == NICE().config
    assert sum(p.numel() for p in model.parameters()) == 22_295_920
    assert header["train_config"]["protocol"] == "reference"  # the 500 test digits were left out of training
    assert header["command"].startswith("nicelib train --protocol reference")
    assert header["test"]["draws"] == 10 and header["test"]["images"] == 10_000 and header["test"]["nats"] > 2110


def test_the_embedded_digits_get_the_nats_in_the_header():
    result, told = (
        evaluate(load_pretrained(), load_pixels("mnist-sample", "test"), 2),
        read_header(WEIGHTS)["sample_test"],
    )
    assert abs(result.nats - told["nats"]) < 0.5 * told["standard_error"]
    assert not math.isnan(result.standard_error)


def test_the_full_test_set_gets_the_nats_in_the_header(mnist_dir):
    result, told = evaluate(load_pretrained(), load_pixels("mnist", "test", mnist_dir)), read_header(WEIGHTS)["test"]
    assert abs(result.nats - told["nats"]) < told["standard_error"]


def test_the_inverse_undoes_the_trained_flow():
    model, x = load_pretrained(), torch.rand(20, 784, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(model.inverse(model(x)[0]), x, atol=1e-4)


@pytest.mark.parametrize("temperature", ["1", "0.7"])
def test_sample_needs_no_weights_argument(tmp_path, temperature):
    assert main(["sample", "--out", str(tmp_path / "grid.png"), "--temperature", temperature]) == 0
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (484, 484)
