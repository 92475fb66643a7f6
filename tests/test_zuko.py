"""The same weights in a library that no one here wrote give the same numbers."""

import pytest
import torch
from conftest import randomise
from torch.distributions import AffineTransform, Independent, Normal, SigmoidTransform, TransformedDistribution, Uniform
from torch.nn import functional as F

from nicelib import NICE

zuko = pytest.importorskip("zuko")
DIM = 10


def in_zuko(model: NICE, mask: torch.Tensor, conditioner: torch.nn.Sequential, unit: torch.Tensor):
    """One coupling layer of zuko's, on gathered halves, fed with nicelib's weights."""
    first, *_, last = [m for m in conditioner if isinstance(m, torch.nn.Linear)]
    moved = ~mask

    def meta(kept):
        h = F.linear(kept, first.weight[:, mask], first.bias)
        for module in list(conditioner)[1:-1]:
            h = module(h)
        shift = unit[moved] * F.linear(h, last.weight[:DIM][moved], last.bias[:DIM][moved])
        if model.config["coup_type"] == "additive":
            transform = zuko.transforms.AdditiveTransform(shift)
        else:
            raw = F.linear(h, last.weight[DIM:][moved], last.bias[DIM:][moved])
            transform = AffineTransform(shift, (2.0 * raw.tanh()).exp())
        return zuko.transforms.DependentTransform(transform, 1)

    return zuko.transforms.CouplingTransform(meta, mask)


@pytest.mark.parametrize("coup_type", ["additive", "affine"])
@pytest.mark.parametrize("latent", ["logistic", "normal"])
def test_same_log_prob_and_inverse(coup_type, latent):
    model = randomise(NICE(DIM, coupling=3, mid_dim=14, hidden=3, coup_type=coup_type, latent=latent)).double()
    *couplings, scaling = model.layers
    for layer in couplings:
        layer.unit.copy_(torch.linspace(0.5, 1.5, DIM))
    scale = AffineTransform(torch.zeros(DIM, dtype=torch.float64), scaling.log_scale.exp())
    transform = zuko.transforms.ComposedTransform(
        *(in_zuko(model, layer.mask, layer.conditioner, layer.unit) for layer in couplings),
        zuko.transforms.DependentTransform(scale, 1),
    )
    zero, one = torch.zeros(DIM, dtype=torch.float64), torch.ones(DIM, dtype=torch.float64)
    base = (
        TransformedDistribution(Uniform(zero, one), SigmoidTransform().inv)
        if latent == "logistic"
        else Normal(zero, one)
    )
    flow = zuko.distributions.NormalizingFlow(transform, Independent(base, 1))
    x = torch.rand(20, DIM, dtype=torch.float64)
    z, log_det = model(x)
    assert torch.allclose(model.log_prob(x), flow.log_prob(x), atol=1e-9)
    assert torch.allclose(z, transform(x), atol=1e-12)
    assert torch.allclose(log_det, transform.log_abs_det_jacobian(x, transform(x)), atol=1e-9)
    assert torch.allclose(model.inverse(z), transform.inv(z), atol=1e-12)
