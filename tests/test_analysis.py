"""The maths behind the explorer's pictures, each against a slower or independent way to the same numbers."""

import pytest
import torch
from conftest import randomise

from nicelib import NICE, InputError, StandardLogistic, StandardNormal, dequantise, load_pixels, load_pretrained
from nicelib.analysis import (
    disturb,
    keep_widest,
    ks_distances,
    nats_per_pixel,
    one_logistic_a_pixel,
    rank_correlations,
    turn_dimension,
    walks,
)


@pytest.fixture
def model():
    """Four dimensions by rank: 2, 0, 3, 1."""
    model = randomise(NICE(dim=4, mid_dim=16, hidden=2)).double()
    model.scaling.log_scale.data.copy_(torch.tensor([0.0, 2.0, -1.0, 1.0]))
    return model


@pytest.mark.parametrize("latent", ["logistic", "normal"])
@pytest.mark.parametrize("coup_type", ["additive", "affine"])
def test_nats_per_pixel_add_up(coup_type, latent):
    model = randomise(NICE(dim=16, mid_dim=8, hidden=1, coup_type=coup_type, latent=latent)).double()
    x = torch.rand(5, 16, dtype=torch.float64)
    parts = nats_per_pixel(model, x)
    assert parts.shape == (5, 16)
    assert torch.allclose(parts.sum(1), model.log_prob(x), atol=1e-10)


def test_each_pixel_has_its_own_nats(model):
    """The last layer's moved entries, by hand: its code in the density of the prior stretched by exp(s)."""
    x = torch.rand(3, 4, dtype=torch.float64)
    z, _ = model(x)
    for d, s in enumerate(model.scaling.log_scale.tolist()):
        density = (-z[:, d]).exp() / (1 + (-z[:, d]).exp()) ** 2 * torch.tensor(s).exp()
        assert torch.allclose(nats_per_pixel(model, x)[:, d], density.log(), atol=1e-6)


def test_walks_are_straight_and_have_their_own_nats(model):
    ends = 5 * torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    walk = walks(model, ends, steps=5)
    codes = model(walk["code"])[0]
    for line, points in ((codes, model(ends)[0]), (walk["pixels"], ends)):
        for i, t in enumerate((0, 0.25, 0.5, 0.75, 1)):
            assert torch.allclose(line[i], (1 - t) * points[0] + t * points[1], atol=1e-10)
    for path in ("code", "pixels"):
        assert torch.allclose(walk[path][[0, -1]], ends, atol=1e-10)
        assert torch.allclose(walk[f"{path}_nats"], model.log_prob(walk[path]), atol=1e-10)
        assert not walk[f"{path}_nats"].requires_grad
    assert (walk["code"][2] - walk["pixels"][2]).abs().max() > 1e-3  # two different ways
    assert len(walks(model, ends)["code"]) == 51


def test_keep_widest(model):
    z = torch.rand(3, 4, dtype=torch.float64) + 1
    for k, dims in enumerate(([], [2], [2, 0], [2, 0, 3], [2, 0, 3, 1])):
        kept = keep_widest(model, z, k)
        assert torch.equal(kept[:, dims], z[:, dims])
        assert (kept != 0).sum() == 3 * k
    assert (z != 0).all()  # what was given is untouched


def test_a_dimension_is_turned_by_its_rank_not_by_its_index(model):
    z = torch.rand(3, 4, dtype=torch.float64)
    for rank, d in enumerate((2, 0, 3, 1)):
        turned = turn_dimension(model, z, rank, 7.0)
        assert (turned[:, d] == 7).all()
        assert ((turned != z).sum(0) == torch.tensor([3 * (d == i) for i in range(4)])).all()
    assert (z < 7).all()


def test_the_first_rank_moves_the_whole_digit_and_the_last_hardly_a_pixel():
    """On the shipped weights: what the order of the spectrum means (paper, section 3.3)."""
    model = load_pretrained()
    x = dequantise(load_pixels("mnist-sample", "test")[::100], torch.Generator().manual_seed(0))
    with torch.no_grad():
        z, _ = model(x)
        moved = [((model.inverse(turn_dimension(model, z, r, 6.0)) - x).abs() > 0.02).sum(1) for r in (0, 783)]
    assert (moved[0] > 100).all(), f"rank 0 moved {moved[0].tolist()} pixels"
    assert (moved[1] <= 1).all(), f"rank 783 moved {moved[1].tolist()} pixels"


def test_disturb_turns_about_the_centre_then_shifts():
    images = torch.randint(0, 256, (3, 36), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    squares = images.view(3, 6, 6)
    assert torch.equal(disturb(images), images)
    for turn in (90, 180, 270, -90):
        turned = squares.rot90(turn // 90, (1, 2))  # anticlockwise
        assert torch.equal(disturb(images, turn=turn).view(3, 6, 6), turned)
        moved = disturb(images, turn=turn, right=2, down=-1).view(3, 6, 6)
        assert torch.equal(moved[:, :-1, 2:], turned[:, 1:, :-2])
        assert not moved[:, -1].any() and not moved[:, :, :2].any()


def test_disturb_dirties_as_much_as_told():
    grey = torch.full((1, 100 * 100), 128, dtype=torch.uint8)
    dirty = disturb(grey, noise=0.1)
    assert abs(dirty.float().std().item() - 25.5) < 1 and abs(dirty.float().mean().item() - 128) < 1
    assert torch.equal(dirty, disturb(grey, noise=0.1)) and not torch.equal(dirty, disturb(grey, noise=0.1, seed=1))
    extremes = disturb(torch.tensor([[0, 255, 0, 255]], dtype=torch.uint8), noise=100)  # clamped, not wrapped
    assert set(extremes.flatten().tolist()) <= {0, 255}


def test_rank_correlations_see_order_alone():
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1] = x[:, 0].exp()  # bent, in the same order
    r = rank_correlations(x)
    assert r.shape == (3, 3) and torch.allclose(r[0, 1], torch.ones(1, dtype=r.dtype)) and r[0, 2].abs() < 0.2
    x[0, 2], x[0, 0] = 1e6, 1e6  # one far image: plain correlation says 1, the ranks hardly move
    assert torch.corrcoef(x.T)[0, 2] > 0.99 and (rank_correlations(x)[0, 2] - r[0, 2]).abs() < 0.02
    by_hand = 1 - 6 * (x[:, 0].argsort().argsort() - x[:, 2].argsort().argsort()).square().sum() / (400 * (400**2 - 1))
    assert torch.allclose(rank_correlations(x)[0, 2], by_hand.double(), atol=1e-6)


@pytest.mark.parametrize("prior", [StandardLogistic(), StandardNormal()], ids=["logistic", "normal"])
def test_ks_distances(prior):
    z = prior.sample((2000, 500), torch.Generator().manual_seed(0))
    distances = ks_distances(z, prior)
    assert distances.shape == (500,) and 0.02 < (distances > 1.36 / 2000**0.5).float().mean() < 0.08
    assert (ks_distances(1.5 * z, prior) > 0.05).all()
    points = torch.linspace(-20, 20, 4001)  # the gap, looked at point by point
    gaps = (z[:, :3, None] <= points).float().mean(0) - prior.cdf(points)
    assert torch.allclose(gaps.abs().amax(1), distances[:3], atol=1.1 / 2000 + 0.003)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model: nats_per_pixel(model, torch.rand(2, 5)), r"shape \(2, 5\); expected \(B, 4\)"),
        (lambda model: walks(model, torch.rand(3, 4)), r"ends of shape \(3, 4\) .*expected two images, \(2, 4\)"),
        (lambda model: walks(model, torch.rand(2, 4), steps=1), "steps = 1; expected 2 or more"),
        (lambda model: keep_widest(model, torch.rand(1, 4), -1), "k = -1; expected 0 to 4 dimensions"),
        (lambda model: keep_widest(model, torch.rand(1, 4), 5), "k = 5; expected 0 to 4 dimensions"),
        (lambda model: keep_widest(model, torch.rand(1, 3), 1), r"expected \(B, 4\)"),
        (lambda model: turn_dimension(model, torch.rand(1, 4), 4, 0.0), "rank = 4; expected 0 to 3"),
        (lambda model: turn_dimension(model, torch.rand(1, 4), -1, 0.0), "rank = -1; expected 0 to 3"),
        (lambda model: turn_dimension(model, torch.rand(4), 1, 0.0), r"expected \(B, 4\)"),
        (lambda model: disturb(torch.zeros(1, 4)), "dtype torch.float32; expected torch.uint8"),
        (lambda model: disturb(torch.zeros(0, 4, dtype=torch.uint8)), "images = 0; expected 1 or more"),
        (lambda model: disturb(torch.zeros(1, 5, dtype=torch.uint8)), r"pixels of shape \(1, 5\)"),
        (lambda model: disturb(torch.zeros(4, dtype=torch.uint8)), r"expected torch.uint8 \(N, side \* side\)"),
    ],
)
def test_bad_input_is_named(model, ask, message):
    with pytest.raises(InputError, match=message):
        ask(model)


def test_white_stays_white_where_the_noise_goes_beyond_it():
    white, black = (torch.full((5, 64), v, dtype=torch.uint8) for v in (255, 0))
    assert disturb(white, noise=0.05).min() > 150 and disturb(black, noise=0.05).max() < 100
    assert (disturb(white, noise=0.05) == 255).float().mean() > 0.4


def test_walks_have_51_points_by_themselves(model):
    assert all(len(line) == 51 for line in walks(model, torch.rand(2, 4).double()).values())


def test_one_logistic_a_pixel_is_a_tiny_model_of_the_means_and_widths():
    pixels = load_pixels()[:500, 200:208].contiguous()
    model = one_logistic_a_pixel(pixels)
    assert sum(p.numel() for p in model.parameters()) == 176  # the networks are idle: they may as well be small
    x = dequantise(pixels, torch.Generator().manual_seed(0))
    width = x.std(0) * 3**0.5 / torch.pi  # of a logistic with that deviation
    by_hand = (StandardLogistic().log_prob((x - x.mean(0)) / width) - width.log()).sum(1)
    assert torch.allclose(model.log_prob(x), by_hand, atol=1e-3)
