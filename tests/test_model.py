import dataclasses
import inspect
from itertools import pairwise

import pytest
import torch
from conftest import randomise
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchinfo import summary

from nicelib import (
    NICE,
    AffineCoupling,
    InputError,
    TrainConfig,
    dequantise,
    initialise_from_data,
    load_pixels,
    make_conditioner,
)
from nicelib.model import NICEConfig
from nicelib.training import make_optimiser


@pytest.fixture(scope="module")
def full_model():
    return NICE()


def test_architecture_row_by_row(full_model):
    one_layer = [("Linear", 1000, 785_000), ("LeakyReLU", 1000, 0)]
    one_layer += [("Linear", 1000, 1_001_000), ("LeakyReLU", 1000, 0)] * 4
    one_layer += [("Linear", 784, 784_784)]
    expected = [*one_layer * 4, ("Scaling", 784, 784)]
    table = summary(full_model, (1, 784), verbose=0, device="cpu")  # else it moves the model to a GPU
    rows = [row for row in table.summary_list if row.is_leaf_layer]
    assert len(rows) == len(expected) == 45
    for row, (kind, width, parameters) in zip(rows, expected, strict=True):
        assert isinstance(row.module, nn.Linear) if kind == "Linear" else row.class_name == kind
        assert row.output_size == [1, width] and max(row.num_params, 0) == parameters
    assert table.total_params == table.trainable_params == 22_295_920
    assert sum(p.numel() for p in full_model.layers[0].parameters()) == 5_573_784
    assert all(row.class_name in str(table) for row in rows)
    assert {row.module.negative_slope for row in rows if row.class_name == "LeakyReLU"} == {0.2}


def test_the_dead_half_costs_no_arithmetic(full_model):
    with FlopCounterMode(display=False) as counter:
        full_model(torch.rand(1, 784))
    assert counter.get_total_flops() == 38_272_000


def test_the_dead_half_gets_no_gradient():
    model = randomise(NICE(dim=16, mid_dim=10, hidden=2))
    model.log_prob(torch.rand(50, 16)).sum().backward()
    dead = sum(int((p.grad == 0).sum()) for p in model.parameters())
    assert dead == 4 * (8 * 10 + 8 * (10 + 1))  # columns of the first layer, rows and biases of the last


def test_the_full_model_has_3137568_dead_parameters(full_model):
    """Those of the linear layers' columns and rows that ``live`` leaves out."""
    dead = 0
    for layer in full_model.layers[:-1]:
        first, last = layer.conditioner[0], layer.conditioner[-1]
        dead += first.weight.numel() - first.weight[:, first.live].numel()
        dead += last.weight.numel() - last.weight[last.live].numel() + last.bias.numel() - last.bias[last.live].numel()
    assert dead == 3_137_568


def test_masks_alternate():
    model = NICE(dim=8, mid_dim=4, hidden=1)
    masks = [layer.mask for layer in model.layers[:-1]]
    assert masks[0].tolist() == [False, True] * 4
    assert all(torch.equal(a, ~b) for a, b in pairwise(masks))


def test_log_prob_is_prior_plus_log_det(small_model):
    x = torch.rand(5, 8)
    z, log_det = small_model(x)
    expected = small_model.prior.log_prob(z).sum(1) + log_det
    assert torch.equal(small_model.log_prob(x), expected)


def test_a_trained_two_dimensional_density_integrates_to_one():
    torch.manual_seed(0)
    angle = torch.rand(2000) * torch.pi
    x = torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(2000, 2)
    for coup_type in ("additive", "affine"):
        model = NICE(dim=2, mid_dim=32, hidden=2, coup_type=coup_type)
        initialise_from_data(model, x)
        optimiser = make_optimiser(model, TrainConfig(lr=3e-3))
        before = model.log_prob(x).mean().item()
        for _ in range(100):
            loss = -model.log_prob(x).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert -loss.item() > before + 0.1
        side = torch.linspace(-8, 8, 801)
        grid = torch.cartesian_prod(side, side)
        with torch.no_grad():
            density = torch.cat([model.log_prob(part) for part in grid.split(100_000)]).double().exp()
        assert abs(density.sum() * (16 / 800) ** 2 - 1) < 5e-3


def test_full_model_inverts_itself(full_model):
    x = dequantise(load_pixels("mnist-sample", "test"))
    assert (full_model.inverse(full_model(x)[0]) - x).abs().max() < 1e-5


def test_sampling(small_model):
    samples = small_model.sample(6, generator=torch.Generator().manual_seed(3))
    assert samples.shape == (6, 8) and not samples.requires_grad
    assert torch.equal(samples, small_model.sample(6, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(small_model.sample(2, temperature=0), small_model.inverse(torch.zeros(2, 8)))
    assert small_model.double().sample(2).dtype == torch.float64
    assert small_model.sample(0).shape == (0, 8)


def test_samples_have_the_prior_as_their_code(small_model):
    z, _ = small_model.double()(small_model.sample(20_000, generator=torch.Generator().manual_seed(1)))
    assert z.mean().abs() < 0.03 and abs(z.var() - small_model.prior.variance) < 0.1


def test_config_builds_the_same_architecture():
    model = NICE(dim=6, coupling=3, mid_dim=7, hidden=1, coup_type="affine", latent="normal", activation="relu")
    twin = NICE(**model.config)
    twin.load_state_dict(model.state_dict())
    x = torch.rand(4, 6)
    assert torch.equal(model.log_prob(x), twin.log_prob(x))


@pytest.mark.parametrize(
    "arguments",
    [
        {"dim": 7},
        {"dim": 0},
        {"coupling": 0},
        {"mid_dim": -1},
        {"hidden": 0},
        {"coup_type": "x"},
        {"latent": "x"},
        {"activation": "x"},
    ],
    ids=str,
)
def test_bad_architecture_is_named(arguments):
    with pytest.raises(InputError, match=f"{next(iter(arguments))} = .*expected"):
        NICE(**arguments)


def test_bad_sampling_is_named(small_model):
    with pytest.raises(InputError, match="n = -1"):
        small_model.sample(-1)
    with pytest.raises(InputError, match="temperature = -1"):
        small_model.sample(1, temperature=-1)


def test_the_dead_half_starts_at_zero():
    """It is saved with the rest: zeros weigh nothing in a packed file, and show that nothing reads them."""
    mask = torch.arange(16) % 2 == 1
    first, *_, last = make_conditioner(mask, 200, 2)
    assert (first.weight[:, ~mask] == 0).all() and (last.weight == 0).all() and (last.bias == 0).all()
    assert first.weight[:, mask].std().item() == pytest.approx(
        (2 / 1.04 / 8) ** 0.5, rel=0.1
    )  # Kaiming's, of live inputs


def test_what_is_not_said_is_the_papers_or_the_documented():
    """Another default would change what every notebook, table and file says."""
    assert NICEConfig().architecture() == {
        "dim": 784, "coupling": 4, "mid_dim": 1000, "hidden": 5, "coup_type": "additive", "latent": "logistic",
        "activation": "leaky_relu", "mask": "parity", "first": "odd", "bound": 2.0,
    }  # fmt: skip
    for function, defaults in (
        (make_conditioner, {"mid_dim": 1000, "hidden": 5, "outputs": 1, "activation": "leaky_relu"}),
        (AffineCoupling, {"bound": 2.0}),
    ):
        known = inspect.signature(function).parameters.values()
        assert {p.name: p.default for p in known if p.default is not p.empty} == defaults


def test_on_the_meta_device_the_masks_have_values_and_a_settings_object_keeps_its_own():
    with torch.device("meta"):
        model = NICE(16, mid_dim=4, hidden=1)
    assert model.scaling.log_scale.is_meta
    for layer, mask in zip(model.couplings, NICEConfig(16).masks(), strict=True):
        assert torch.equal(layer.mask, mask)
    with pytest.raises(dataclasses.FrozenInstanceError):
        NICEConfig().dim = 6
