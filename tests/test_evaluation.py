import inspect
import math

import pytest
import torch

from nicelib import NICE, InputError, bits_per_dim, dequantise, initialise_from_data, load_pixels
from nicelib.evaluation import Evaluation, evaluate


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


def test_importance_is_the_mean_inside_the_logarithm(model):
    pixels = load_pixels("mnist-sample", "test")[::5]
    result = evaluate(model, pixels, draws=2, seed=5, importance=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        nats = torch.stack([model.log_prob(dequantise(pixels, generator)).double() for _ in range(6)]).view(2, 3, 100)
    by_hand = (nats.logsumexp(1) - math.log(3)).mean(0)
    assert torch.allclose(result.per_image, by_hand.float(), atol=1e-3)
    assert result.nats == pytest.approx(by_hand.mean().item()) and result.importance == 3
    assert result.nats > evaluate(model, pixels, draws=6, seed=5).nats + 0.1  # the same six noises, Jensen
    assert "100 images, 2 noise draws, importance-weighted over 3" in str(result)


def test_importance_tends_to_the_probability_of_the_integers():
    """Two pixels: the mass of the bin by a fine grid, 2 ln 256 + log P."""
    model = NICE(dim=2, mid_dim=4, hidden=1)
    model.scaling.log_scale.data.fill_(6.5)  # narrow beside the bin, so that the bound starts far below
    pixels = torch.tensor([[1, 0]], dtype=torch.uint8)
    side = (torch.arange(400) + 0.5) / 400
    with torch.no_grad():
        exact = model.log_prob((torch.cartesian_prod(side, side) + pixels) / 256).double().logsumexp(0)
    exact = exact.item() - 2 * math.log(400)
    bound = [evaluate(model, pixels.expand(300, 2), importance=k).nats for k in (1, 4, 64)]
    assert bound[0] < bound[1] - 0.05 and bound[1] < bound[2] < exact + 0.02
    assert exact - bound[2] < (exact - bound[0]) / 10


def test_bad_input(model):
    with pytest.raises(InputError, match="importance = 0"):
        evaluate(model, load_pixels("mnist-sample", "test"), importance=0)
    with pytest.raises(InputError, match="draws = 0"):
        evaluate(model, load_pixels("mnist-sample", "test"), draws=0)
    with pytest.raises(InputError, match="images = 0"):
        evaluate(model, torch.zeros(0, 784, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"expected \(B, 784\)"):
        evaluate(model, torch.zeros(3, 100, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"expected torch\.uint8"):
        evaluate(model, torch.zeros(3, 784))


def test_the_line_that_is_printed(model):
    pixels = load_pixels("mnist-sample", "test")[:7]
    assert str(evaluate(model, pixels)).endswith("bits/dim (7 images, 1 noise draw)")
    assert str(evaluate(model, pixels, draws=2)).endswith("(7 images, 2 noise draws)")
    assert str(evaluate(model, pixels, importance=2)).endswith("1 noise draw, importance-weighted over 2)")


def test_what_is_not_said_is_what_the_models_card_says(model):
    """The noise is drawn batch by batch: on a GPU, its numbers depend on the batch's size, too."""
    known = inspect.signature(evaluate).parameters.values()
    defaults = {p.name: p.default for p in known if p.default is not p.empty}
    assert defaults == {"draws": 1, "seed": 0, "batch_size": 500, "importance": 1}
    pixels = load_pixels("mnist-sample", "train")[:1100]
    assert evaluate(model, pixels).nats == evaluate(model, pixels, 1, 0, 500).nats != evaluate(model, pixels, 1, 1).nats


@pytest.mark.filterwarnings("error")
def test_one_image_has_no_standard_error(model):
    pixels = load_pixels("mnist-sample", "test")[:2]
    assert math.isnan(evaluate(model, pixels[:1]).standard_error) and evaluate(model, pixels).standard_error > 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_a_diverged_model_is_evaluated_without_a_warning(value):
    model = NICE(dim=4, mid_dim=2, hidden=1)
    model.scaling.log_scale.data[1] = value
    result = evaluate(model, torch.zeros(3, 4, dtype=torch.uint8), draws=2, importance=2)
    assert not math.isfinite(result.nats) and not math.isfinite(result.standard_error)


def test_a_result_without_importance_is_of_one_noise_a_draw():
    assert "importance" not in str(Evaluation(1.0, 0.1, 4.0, torch.zeros(3), 1))


def test_one_number_is_no_images(model):
    with pytest.raises(InputError, match=r"pixels .*expected torch.uint8 \(N, D\)"):
        evaluate(model, torch.tensor(3, dtype=torch.uint8))
