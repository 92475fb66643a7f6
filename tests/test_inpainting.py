"""Hidden parts and the two rules (paper, section 5.2)."""

import math

import pytest
import torch
from conftest import randomise

from nicelib import NICE, InputError
from nicelib.inpainting import PARTS, RULES, hidden_part, inpaint


@pytest.fixture
def images():
    return torch.rand(3, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    return randomise(NICE(dim=16, mid_dim=16, hidden=2))


@pytest.mark.parametrize("part", PARTS)
def test_hidden_part(part):
    hidden = hidden_part(part, 8, torch.Generator().manual_seed(0)).view(8, 8)
    share = {"centre": 0.25, "random 75%": 0.75, "random 90%": 0.9}.get(part, 0.5)
    assert hidden.dtype == torch.bool
    assert abs(hidden.float().mean() - share) < (0.15 if part.startswith("random") else 1e-6)
    corners = {
        "top": (1, 1, 0, 0),
        "bottom": (0, 0, 1, 1),
        "left": (1, 0, 1, 0),
        "right": (0, 1, 0, 1),
        "odd columns": (0, 1, 0, 1),
        "even columns": (1, 0, 1, 0),
        "middle rows": (0,) * 4,
        "middle columns": (0,) * 4,
        "centre": (0,) * 4,
    }
    if part in corners:
        assert tuple(hidden[[0, 0, 7, 7], [0, 7, 0, 7]].int().tolist()) == corners[part]
        assert hidden[3, 3] == (part not in ("bottom", "right", "even columns"))
    if part.startswith("middle"):
        assert tuple(hidden[[0, 3], [3, 0]].int().tolist()) == ((0, 1) if part == "middle rows" else (1, 0))


def test_halves_and_quarters_of_an_odd_side_are_rounded_down():
    """The first rows that are hidden, of a side that 4 or 2 does not divide."""
    assert hidden_part("middle rows", 6).view(6, 6)[:, 0].tolist() == [False, True, True, True, True, False]
    assert hidden_part("top", 5).view(5, 5)[:, 0].tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("rule", RULES)
def test_visible_pixels_stay_and_hidden_ones_stay_inside(rule, model, images):
    hidden = hidden_part("left", 4)
    states = list(inpaint(model, images, hidden, rule, 20, torch.Generator().manual_seed(0)))
    assert len(states) == 21
    for x, nats in states:
        assert torch.equal(x[:, ~hidden], images[:, ~hidden])
        assert (x >= 0).all() and (x < 1).all()
        assert torch.allclose(nats, model.log_prob(x).detach(), atol=1e-4) and not nats.requires_grad
    assert not torch.equal(states[0][0], states[-1][0])


def test_preconditioned_rule_climbs(model, images):
    nats = [nats for _, nats in inpaint(model, images, hidden_part("top", 4), steps=100)]
    assert (nats[-1] > nats[0]).all()


def test_the_papers_rule_is_the_papers(images):
    """One step by hand: x + 10 / 100 (gradient + noise), clipped, on a density whose gradient is known."""
    model = NICE(dim=16, mid_dim=4, hidden=1, latent="normal")  # the identity at its start: log p = -x^2 / 2
    hidden = hidden_part("top", 4)
    (start, _), (after, _) = inpaint(model, images, hidden, "paper", 1, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(start[:, hidden], torch.rand(images.shape, generator=generator)[:, hidden])
    noise = torch.randn(images.shape, generator=generator)
    expected = (start + 0.1 * (-start + noise)).clamp(0, 1 - torch.finfo(torch.float32).eps)
    assert torch.allclose(after[:, hidden], expected[:, hidden], atol=1e-6)


def test_the_same_under_no_grad(model, images):
    with torch.no_grad():
        *_, (quiet, _) = inpaint(
            model, images, hidden_part("top", 4), steps=3, generator=torch.Generator().manual_seed(0)
        )
    *_, (usual, _) = inpaint(model, images, hidden_part("top", 4), steps=3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quiet, usual)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "newton"}, "rule = 'newton'; expected one of preconditioned, paper"),
        ({"steps": 0}, "steps = 0; expected 1 or more"),
        ({"hidden": torch.ones(4, dtype=torch.bool)}, r"hidden of shape \(4,\).*expected bool \(16,\) or \(3, 16\)"),
        ({"hidden": torch.ones(16)}, "dtype torch.float32; expected bool"),
    ],
)
def test_bad_input(change, message, model, images):
    with pytest.raises(InputError, match=message):
        next(inpaint(model, images, **({"hidden": hidden_part("top", 4)} | change)))
    with pytest.raises(InputError, match="part = 'middle'; expected one of top"):
        hidden_part("middle")


@pytest.mark.parametrize("s", [0.0, -9.0])  # gradients of about 1, and as small as what keeps 0 / 0 away
def test_the_preconditioned_rule_is_adam_with_steps_that_shrink(s, images):
    """By hand, on a density whose gradient is known: log p = -(e^s x)^2 / 2 and a constant."""
    model = NICE(dim=16, mid_dim=4, hidden=1, latent="normal").double()
    torch.nn.init.constant_(model.scaling.log_scale, s)
    hidden, n = hidden_part("top", 4), 12
    states = [
        x for x, _ in inpaint(model, images.double(), hidden, steps=n, generator=torch.Generator().manual_seed(3))
    ]
    x = states[0]
    first = second = torch.zeros_like(x)
    for i, after in enumerate(states[1:]):
        gradient = -x * math.exp(2 * s)
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient.square()
        unbiased, size = first / (1 - 0.9 ** (i + 1)), (second / (1 - 0.99 ** (i + 1))).sqrt() + 1e-8
        x = torch.where(hidden, (x + 0.3 * (1 - i / n) ** 2 * unbiased / size).clamp(0, 1), x)
        assert torch.allclose(after, x, atol=1e-6), i
        x = after


def test_the_papers_steps_shrink_as_a_i_does():
    model = NICE(dim=16, mid_dim=4, hidden=1, latent="normal")
    hidden, middle = torch.ones(16, dtype=torch.bool), torch.full((300, 16), 0.5)
    states = [x for x, _ in inpaint(model, middle, hidden, "paper", 30, torch.Generator().manual_seed(0))]
    for i in (0, 10, 29):
        moved = states[i + 1] - states[i]
        inside = ((states[i + 1] > 0) & (states[i + 1] < 0.99)).all(0) | (states[i] > 0.3) & (states[i] < 0.7)
        assert moved[inside].std() == pytest.approx(10 / (100 + i), rel=0.1)


def test_where_the_density_is_no_number_the_picture_stays_one(images):
    """A diverged model: hidden pixels go black, visible ones stay."""
    model = NICE(dim=16, mid_dim=4, hidden=1)
    torch.nn.init.constant_(model.scaling.log_scale, torch.nan)
    hidden = hidden_part("top", 4)
    *_, (x, nats) = inpaint(model, images, hidden, steps=2)
    assert nats.isnan().all() and (x[:, hidden] == 0).all() and torch.equal(x[:, ~hidden], images[:, ~hidden])


def test_two_hundred_steps_by_itself(images):
    assert len(list(inpaint(NICE(dim=16, mid_dim=2, hidden=1), images, hidden_part("left", 4)))) == 201
    assert hidden_part("top").shape == (784,)


def test_each_image_may_hide_pixels_of_its_own(model, images):
    hidden = torch.stack([hidden_part(part, 4) for part in ("top", "left", "centre")])
    *_, (x, _) = inpaint(model, images, hidden, steps=3)
    assert torch.equal(x[~hidden], images[~hidden]) and not torch.isclose(x[hidden], images[hidden]).any()


@pytest.mark.parametrize("rule", RULES)
def test_a_bright_pixel_stops_just_below_one(rule):
    """The density rises without end: log p grows with x."""
    model = NICE(dim=4, mid_dim=2, hidden=1, latent="normal")
    last = model.couplings[-1].conditioner[-1]
    torch.nn.init.constant_(last.bias, -50.0)
    torch.nn.init.constant_(model.couplings[0].conditioner[-1].bias, -50.0)
    *_, (x, _) = inpaint(model, torch.full((1, 4), 0.5), torch.ones(4, dtype=torch.bool), rule, 20)
    assert x.max() == 1 - torch.finfo(torch.float32).eps and (x < 1).all()


def test_random_pixels_are_hidden_by_their_generator():
    one, again, other = (hidden_part("random 75%", generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(one, torch.rand(784, generator=torch.Generator().manual_seed(0)) < 0.75)  # no other share
