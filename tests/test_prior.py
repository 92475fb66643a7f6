import math

import pytest
import torch
from torch.distributions import AffineTransform, Normal, SigmoidTransform, TransformedDistribution, Uniform

from nicelib import StandardLogistic, StandardNormal

Z = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
LIBRARY = {
    StandardLogistic: TransformedDistribution(
        Uniform(torch.tensor(0.0, dtype=torch.float64), 1.0), [SigmoidTransform().inv, AffineTransform(0.0, 1.0)]
    ),
    StandardNormal: Normal(torch.tensor(0.0, dtype=torch.float64), 1.0),
}
both = pytest.mark.parametrize("prior", [StandardLogistic(), StandardNormal()], ids=["logistic", "normal"])


def test_logistic_closed_form():
    closed = torch.exp(-Z) / (1 + torch.exp(-Z)) ** 2
    assert torch.allclose(StandardLogistic().log_prob(Z), closed.log(), atol=1e-9)


def test_the_logistic_density_is_smooth_at_its_peak():
    z = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(StandardLogistic().log_prob(z).sum(), z, create_graph=True)
    assert slope.item() == 0 and torch.autograd.grad(slope.sum(), z)[0].item() == -0.5


@both
def test_against_torch_distributions(prior):
    z = torch.linspace(-8, 8, 101, dtype=torch.float64)
    assert torch.allclose(prior.log_prob(z), LIBRARY[type(prior)].log_prob(z), atol=1e-7)
    assert torch.allclose(prior.cdf(z), LIBRARY[type(prior)].cdf(z), atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_ends_of_the_generator_move_half_a_step_inside(dtype):
    """torch.rand's numbers are multiples of eps / 2: 0 stands for [0, eps / 2), whose middle is eps / 4."""
    eps, u = torch.finfo(dtype).eps, torch.tensor([0.0, 1.0], dtype=dtype)
    expected = [math.log(eps / 4), -math.log(eps / 2)]
    assert StandardLogistic().icdf(u).tolist() == pytest.approx(expected, rel=1e-5)


@both
def test_cdf_is_the_integral_of_the_density(prior):
    integral = torch.cumulative_trapezoid(prior.log_prob(Z).exp(), Z)
    assert abs(integral[-1] - 1) < 1e-6
    assert (integral - prior.cdf(Z)[1:]).abs().max() < 1e-6


@both
def test_mean_and_variance_are_the_integrals(prior):
    density = prior.log_prob(Z).exp()
    assert abs(torch.trapezoid(Z * density, Z) - prior.mean) < 1e-6
    assert abs(torch.trapezoid(Z**2 * density, Z) - prior.variance) < 1e-5


@both
def test_log_prob_is_finite_far_out(prior):
    assert prior.log_prob(torch.tensor([-1e4, 1e4])).isfinite().all()


@both
def test_icdf_is_finite_for_every_number_a_generator_returns(prior):
    extremes = prior.icdf(torch.tensor([0.0, 2**-24, 1 - 2**-24]))
    assert extremes.isfinite().all() and extremes[0] < extremes[1] < 0 < extremes[2]
    assert prior.icdf(torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).isfinite().all()


@both
def test_icdf_inverts_cdf(prior):
    u = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    assert torch.allclose(prior.cdf(prior.icdf(u)), u, atol=1e-12)


@both
def test_samples(prior):
    n = 200_000
    z = prior.sample((n,), torch.Generator().manual_seed(0)).double()
    assert abs(z.mean()) < 5 * math.sqrt(prior.variance / n)
    fourth = {StandardLogistic: 4.2, StandardNormal: 3.0}[type(prior)] * float(prior.variance) ** 2
    assert abs(z.var() - prior.variance) < 5 * math.sqrt((fourth - float(prior.variance) ** 2) / n)
    again = prior.sample((n,), torch.Generator().manual_seed(0))
    assert torch.equal(z, again.double()) and prior.sample((2, 3)).shape == (2, 3)


@both
def test_no_gradient_goes_through_a_sample(prior):
    """torch's own code asks has_rsample; a sample that pretended would train nothing."""
    assert not prior.has_rsample and not prior.sample((3,)).requires_grad
    with pytest.raises(NotImplementedError):
        prior.rsample((3,))


def test_samples_are_drawn_where_their_generator_is():
    assert StandardLogistic().sample((2,)).device.type == "cpu"
    torch.manual_seed(5)
    free = StandardLogistic().sample((4,))
    torch.manual_seed(5)
    assert torch.equal(free, StandardLogistic().icdf(torch.rand(4)))
