import math

import pytest
import torch

from nicelib import NICE, InputError, bits_per_dim, dequantise, initialise_from_data, load_pixels
from nicelib.evaluation import evaluate


@pytest.fixture(scope="module")
def model():
    model = NICE(mid_dim=10, hidden=1)
    initialise_from_data(model, dequantise(load_pixels()))
    return model


def test_mean_and_standard_error(model):
    pixels = load_pixels("mnist-sample", "test")
    result = evaluate(model, pixels, draws=3, seed=5, batch_size=170)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        draws = [
            torch.cat([model.log_prob(dequantise(part, generator)) for part in pixels.split(170)]).double()
            for _ in range(3)
        ]
    per_image = torch.stack(draws).mean(0)
    assert result.nats == pytest.approx(per_image.mean().item())
    assert result.standard_error == pytest.approx(per_image.std().item() / math.sqrt(500))
    assert result.bits_per_dim == pytest.approx(bits_per_dim(result.nats))
    assert torch.allclose(result.per_image, per_image.float()) and result.draws == 3
    assert "500 images, 3 noise draws" in str(result)


def test_bad_input(model):
    with pytest.raises(InputError, match="draws = 0"):
        evaluate(model, load_pixels("mnist-sample", "test"), draws=0)
    with pytest.raises(InputError, match="images = 0"):
        evaluate(model, torch.zeros(0, 784, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"expected \(B, 784\)"):
        evaluate(model, torch.zeros(3, 100, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"expected torch\.uint8"):
        evaluate(model, torch.zeros(3, 784))
