"""Every bijection keeps one contract: shapes, inverse, log-det against autograd."""

import copy

import pytest
import torch
from conftest import randomise
from torch import nn
from torch.autograd.functional import jacobian

from nicelib import (
    NICE,
    AdditiveCoupling,
    AffineCoupling,
    InputError,
    Scaling,
    checkerboard_mask,
    half_mask,
    make_conditioner,
    parity_mask,
)

DIM = 16
MASKS = {
    "parity": parity_mask(DIM),
    "parity-even": parity_mask(DIM, "even"),
    "checkerboard": checkerboard_mask(4, 4),
    "half": half_mask(DIM, "second"),
    "uneven": torch.arange(DIM) % 3 == 0,
}


def any_network(outputs: int) -> nn.Module:
    """A conditioner that is not nicelib's: full width, smooth, not invertible."""
    return nn.Sequential(nn.Linear(DIM, 5), nn.Tanh(), nn.Linear(5, outputs * DIM))


BIJECTIONS = {"scaling": lambda: Scaling(DIM)}
for name, mask in MASKS.items():
    BIJECTIONS[f"additive-{name}"] = lambda m=mask: AdditiveCoupling(m, make_conditioner(m, 12, 2))
    BIJECTIONS[f"affine-{name}"] = lambda m=mask: AffineCoupling(m, make_conditioner(m, 12, 2, outputs=2))
BIJECTIONS["additive-any-network"] = lambda: AdditiveCoupling(MASKS["parity"], any_network(1))
BIJECTIONS["affine-any-network"] = lambda: AffineCoupling(MASKS["parity"], any_network(2))
for coup_type in ("additive", "affine"):
    for latent in ("logistic", "normal"):
        for activation in ("leaky_relu", "relu"):
            BIJECTIONS[f"nice-{coup_type}-{latent}-{activation}"] = lambda c=coup_type, p=latent, a=activation: NICE(
                DIM, mid_dim=12, hidden=2, coup_type=c, latent=p, activation=a
            )


@pytest.fixture(params=BIJECTIONS)
def layer(request):
    layer = randomise(BIJECTIONS[request.param]())
    if hasattr(layer, "unit"):
        layer.unit.copy_(torch.linspace(0.5, 2, DIM))
    return layer


def test_shapes_and_inverse(layer):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        layer = layer.to(dtype)
        x = torch.rand(7, DIM, dtype=dtype, generator=torch.Generator().manual_seed(1))
        y, log_det = layer(x)
        assert y.shape == (7, DIM) and log_det.shape == (7,) and y.dtype == log_det.dtype == dtype
        assert not torch.allclose(x, y)
        assert (layer.inverse(y) - x).abs().max() < tolerance
        assert (layer(layer.inverse(x))[0] - x).abs().max() < tolerance


def test_log_det_is_autograds(layer):
    layer = layer.double()
    x = torch.rand(3, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    _, log_det = layer(x)
    for i in range(len(x)):
        expected = torch.linalg.slogdet(jacobian(lambda v: layer(v[None])[0][0], x[i])).logabsdet
        assert abs(log_det[i] - expected) < 1e-9


def test_state_dict_holds_everything(layer):
    """A layer filled from another's state_dict is that layer: masks and units included, in double too."""
    twin = copy.deepcopy(randomise(copy.deepcopy(layer), seed=1))
    for name, buffer in twin.named_buffers():
        if name.endswith("unit"):
            buffer.fill_(9)
    x = torch.rand(4, DIM)
    assert not torch.allclose(twin(x)[0], layer(x)[0])
    twin.load_state_dict(layer.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(twin(x), layer(x), strict=True))
    double = layer.double()
    assert all(t.dtype == torch.float64 for t in double.state_dict().values() if t.is_floating_point())
    assert double.inverse(double(x.double())[0]).dtype == torch.float64


@pytest.mark.parametrize("name", MASKS)
def test_kept_entries_are_untouched_and_moved_ones_do_not_steer(name):
    mask = MASKS[name]
    for kind, outputs in ((AdditiveCoupling, 1), (AffineCoupling, 2)):
        layer = randomise(kind(mask, make_conditioner(mask, 12, 1, outputs)))
        x = torch.rand(4, DIM)
        y, log_det = layer(x)
        assert torch.equal(y[:, mask], x[:, mask]) and not torch.isclose(y[:, ~mask], x[:, ~mask]).any()
        other = torch.where(mask, x, torch.rand(4, DIM))
        assert torch.equal(layer(other)[1], log_det)


def test_additive_log_det_is_exactly_zero():
    layer = randomise(BIJECTIONS["additive-parity"]())
    assert torch.equal(layer(torch.rand(5, DIM))[1], torch.zeros(5))


def test_affine_scale_is_bounded():
    layer = randomise(AffineCoupling(MASKS["parity"], any_network(2), bound=1.5))
    _, log_det = layer(1e6 * torch.randn(9, DIM))
    assert log_det.abs().max() <= 1.5 * (~MASKS["parity"]).sum() + 1e-4


def test_built_in_conditioner_equals_the_masked_full_width_one():
    mask = MASKS["parity"]
    network = randomise(make_conditioner(mask, 12, 2))
    plain = nn.Sequential(
        nn.Linear(DIM, 12), nn.LeakyReLU(0.2), nn.Linear(12, 12), nn.LeakyReLU(0.2), nn.Linear(12, DIM)
    )
    plain.load_state_dict(network.state_dict())
    x = torch.rand(5, DIM)
    assert torch.allclose(network(x), torch.where(mask, 0, plain(torch.where(mask, x, 0))), atol=1e-6)


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2.0), ("leaky_relu", 2 / 1.04)])
def test_hidden_weights_start_kaiming_normal(activation, gain):
    """Variance gain / (live inputs), where 2 / (1 + slope^2) is the gain (He et al. 2015)."""
    first, _, second, *_ = make_conditioner(parity_mask(800), mid_dim=400, hidden=2, activation=activation)
    assert first.weight[:, parity_mask(800)].var().item() == pytest.approx(gain / 400, rel=0.02)
    assert second.weight.var().item() == pytest.approx(gain / 400, rel=0.02)


def test_masks_are_buffers():
    layer = BIJECTIONS["additive-checkerboard"]()
    assert {"mask", "unit"} <= set(layer.state_dict())
    assert layer.to("meta").mask.device.type == "meta"
    assert layer.conditioner[0].live.device.type == "meta"  # irregular masks select by indices that must move too


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(2, DIM + 1), rf"shape \(2, {DIM + 1}\); expected \(B, {DIM}\)"),
        (torch.rand(DIM), "expected"),
        (torch.zeros(2, DIM, dtype=torch.uint8), "dequantise"),
    ],
)
def test_wrong_input(layer, x, message):
    for call in (layer, layer.inverse):
        with pytest.raises(InputError, match=message):
            call(x)


@pytest.mark.parametrize(
    "mask", [torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool), torch.ones(4), torch.ones(2, 2).bool()]
)
def test_wrong_mask(mask):
    with pytest.raises(InputError, match="mask"):
        AdditiveCoupling(mask, nn.Linear(4, 4))


def test_mask_of_another_length_than_the_conditioner():
    with pytest.raises(InputError, match=r"returned shape \(2, 4\) for a mask of length 6"):
        AdditiveCoupling(parity_mask(6), nn.Linear(6, 4))(torch.rand(2, 6))


@pytest.mark.parametrize("arguments", [{"mid_dim": 0}, {"hidden": -1}, {"activation": "tanh"}])
def test_wrong_conditioner(arguments):
    with pytest.raises(InputError, match=f"{next(iter(arguments))} = .*expected"):
        make_conditioner(parity_mask(4), **arguments)


@pytest.mark.parametrize("dim", [0, -1, 2.5, "4", None])
def test_a_scaling_layer_of_no_size_is_refused(dim):
    with pytest.raises(InputError, match=r"^dim = .*expected"):
        Scaling(dim)


@pytest.mark.parametrize("what", ["sparse", "numpy", "list", "none"])
def test_what_is_no_dense_tensor_is_named(what):
    x = torch.rand(2, 4)
    given = {"sparse": x.to_sparse(), "numpy": x.numpy(), "list": x.tolist(), "none": None}[what]
    for layer in (Scaling(4), AdditiveCoupling(parity_mask(4), torch.nn.Linear(4, 4))):
        for call in (layer, layer.inverse):
            with pytest.raises(InputError, match=r"expected a dense tensor \(B, 4\)"):
                call(given)
    mask = parity_mask(4)
    wrong = {"sparse": mask.to_sparse(), "numpy": mask.numpy(), "list": mask.tolist(), "none": None}[what]
    for call in (make_conditioner, lambda mask: AdditiveCoupling(mask, torch.nn.Linear(4, 4))):
        with pytest.raises(InputError, match=r"mask of type \w+; expected a dense tensor, bool \(D,\)"):
            call(wrong)
