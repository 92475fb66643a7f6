"""A model knows itself: its one configuration rebuilds it, every way of moving it keeps its numbers, the rest is refused."""

import copy
import json
import pickle

import pytest
import torch
from conftest import randomise
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call, jacrev, vmap

from nicelib import NICE, AdditiveCoupling, AffineCoupling, InputError, make_conditioner, parity_mask
from nicelib.checkpoints import checksum, load_model, read_header, save_model
from nicelib.masks import MASKS
from nicelib.model import NICEConfig

DIM = 16
CASES = [
    {"coup_type": coup_type, "latent": latent, "mask": mask, "first": first} | bound
    for coup_type, bounds in (("additive", [{}]), ("affine", [{"bound": 1.0}, {"bound": None}]))
    for bound in bounds
    for latent in ("logistic", "normal")
    for mask, halves in MASKS.items()
    for first in halves
]


@pytest.fixture(params=CASES, ids=lambda c: "-".join(map(str, c.values())))
def model(request):
    model = randomise(NICE(DIM, mid_dim=12, hidden=2, activation="relu", **request.param))
    for layer in model.layers[:-1]:
        layer.unit.copy_(torch.linspace(0.5, 2, DIM))
    return model


@pytest.fixture
def x():
    return torch.rand(5, DIM, generator=torch.Generator().manual_seed(1))


def test_saved_and_loaded(model, x, tmp_path):
    save_model(model, tmp_path / "m")
    assert read_header(tmp_path / "m")["config"] == model.config
    assert torch.equal(load_model(tmp_path / "m").log_prob(x), model.log_prob(x))


def test_copied_pickled_moved_and_rebuilt(model, x, tmp_path):
    before = model.log_prob(x)
    rebuilt = NICE(**json.loads(json.dumps(model.config)))
    assert rebuilt.load_state_dict(model.state_dict()).missing_keys == []
    with torch.device("meta"):
        emptied = NICE(**model.config)
    emptied.to_empty(device="cpu").load_state_dict(model.state_dict())
    assigned = NICE(**model.config)
    assigned.load_state_dict(model.state_dict(), assign=True)
    for twin in (rebuilt, emptied, assigned, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.to("cpu")):
        assert torch.equal(twin.log_prob(x), before)
    there_and_back = copy.deepcopy(model).double()
    assert torch.allclose(there_and_back.log_prob(x.double()).float(), before, rtol=1e-5)
    assert torch.equal(there_and_back.float().log_prob(x), before)


def test_compiled_exported_and_functional(model, x):
    before = model.log_prob(x)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    batch = {"x": {0: torch.export.Dim("B")}}
    exported = torch.export.export(model, (x,), dynamic_shapes=batch).module()
    for rows in (5, 3):
        for forward in (compiled, exported, lambda v: functional_call(model, dict(model.state_dict()), (v,))):
            z, log_det = forward(x[:rows])
            assert torch.allclose(model.prior.log_prob(z).sum(-1) + log_det, before[:rows], rtol=1e-5)


def test_vmap_of_the_jacobian(model, x):
    model, x = model.double(), x.double()
    jacobians = vmap(jacrev(lambda row: model(row[None])[0][0]))(x)
    assert torch.allclose(torch.linalg.slogdet(jacobians).logabsdet, model(x)[1], atol=1e-9)


def test_the_names_of_a_wrapped_model_are_understood(model, x, tmp_path):
    wrapped = torch.compile(nn.DataParallel(model), backend="eager")
    save_model(wrapped, tmp_path / "m")
    model.cpu()  # where there are GPUs, DataParallel has moved it
    assert torch.equal(load_model(tmp_path / "m").log_prob(x), model.log_prob(x))
    twin = NICE(**model.config)
    twin.load_state_dict(wrapped.state_dict())
    assert torch.equal(twin.log_prob(x), model.log_prob(x))


def test_layers_that_the_config_does_not_know_are_not_saved(tmp_path):
    def with_bound(model):
        model.coupling_0.bound = 1.0

    def with_masks(model):
        mask = ~parity_mask(DIM)
        model.coupling_0 = AdditiveCoupling(mask, make_conditioner(mask, 12, 2))

    def with_slope(model):
        model.coupling_0.conditioner[1].negative_slope = 0.1

    def with_layer(model):
        model.add_module("coupling_4", copy.deepcopy(model.coupling_0))

    def with_prior(model):
        model.prior = NICE(4, mid_dim=2, hidden=1, latent="normal").prior

    def with_flipped_buffers(model):
        model.coupling_0.mask.logical_not_()

    changes = (with_bound, with_masks, with_slope, with_layer, with_prior, with_flipped_buffers)
    for change in changes:
        coup_type = "affine" if change is with_bound else "additive"
        model = NICE(DIM, mid_dim=12, hidden=2, coup_type=coup_type)
        change(model)
        with pytest.raises(InputError, match=r"config builds|keeps other entries"):
            save_model(model, tmp_path / "m")
        assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="expected a NICE"):
        save_model(nn.Linear(2, 2), tmp_path / "m")


def test_other_masks_are_refused_before_anything_is_loaded():
    model, other = (randomise(NICE(DIM, mid_dim=12, hidden=2, first=first)) for first in ("odd", "even"))
    for target in (model, nn.ModuleDict({"flow": model})):
        before = copy.deepcopy(target.state_dict())
        state = {("flow." if target is not model else "") + key: 2 * t if t.is_floating_point() else t
                 for key, t in other.state_dict().items()}  # fmt: skip
        with pytest.raises(InputError, match=r"mask of coupling layer 0 .*mask = 'parity', first = 'odd'"):
            target.load_state_dict(state)
        assert all(torch.equal(t, before[key]) for key, t in target.state_dict().items())


def test_a_file_with_other_masks_than_its_header_is_refused(tmp_path):
    model = NICE(DIM, mid_dim=12, hidden=2, first="even")
    tensors = model.state_dict()
    config = json.dumps(model.config | {"first": "odd"})
    save_file(tensors, tmp_path / "m", {"format": "nicelib", "config": config, "sha256": checksum(tensors)})
    with pytest.raises(InputError, match="keeps other entries"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("coup_type", ["additive", "affine"])
def test_a_lone_layer_follows_the_mask_it_loads(coup_type):
    kind, outputs = (AdditiveCoupling, 1) if coup_type == "additive" else (AffineCoupling, 2)
    thirds = torch.arange(DIM) % 3 == 0
    x = torch.rand(5, DIM)
    masks = [parity_mask(DIM), ~parity_mask(DIM), thirds, torch.rand(DIM) < 0.5]
    for mask, loaded in zip(masks, masks[1:] + masks[:1], strict=True):
        layer, other = (randomise(kind(m, make_conditioner(m, 12, 2, outputs))) for m in (mask, loaded))
        layer.load_state_dict(other.state_dict())
        assert torch.equal(layer(x)[0], other(x)[0])


def test_files_from_before_have_todays_defaults(tmp_path):
    model = randomise(NICE(DIM, mid_dim=12, hidden=2, coup_type="affine"))
    old = {k: v for k, v in model.config.items() if k not in ("mask", "first", "bound")}
    tensors = model.state_dict()
    save_file(tensors, tmp_path / "m", {"format": "nicelib", "config": json.dumps(old), "sha256": checksum(tensors)})
    x = torch.rand(3, DIM)
    assert torch.equal(load_model(tmp_path / "m").log_prob(x), model.log_prob(x))


def test_only_weights_masks_and_units_are_saved(model):
    saved = {key.split(".", 1)[1] for key in model.state_dict() if "conditioner" not in key}
    assert saved == {"mask", "unit", "log_scale"}
    assert {key.rsplit(".", 1)[1] for key in model.state_dict() if "conditioner" in key} == {"weight", "bias"}


def test_the_conditioner_sees_zeros_in_place_of_the_moved_entries():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros_like(x)

    mask = parity_mask(DIM)
    layer, x = AdditiveCoupling(mask, Spy()), torch.rand(5, DIM)
    layer.inverse(layer(x)[0])
    for h in seen:
        assert torch.equal(h[:, mask], x[:, mask]) and (h[:, ~mask] == 0).all()


def test_masks_alternate_and_begin_where_they_are_told():
    for mask, halves in MASKS.items():
        assert NICEConfig(mask=mask).first == halves[0]
        for first in halves:
            layers = NICE(DIM, mid_dim=2, hidden=1, mask=mask, first=first).layers[:-1]
            assert torch.equal(layers[0].mask, NICEConfig(DIM, mask=mask, first=first).masks()[0])
            assert all(torch.equal(a.mask, ~b.mask) for a, b in zip(layers, layers[1:], strict=False))
    assert (
        NICE(4, mid_dim=2, hidden=1, mask="halves", first="second").layers[0].mask.tolist() == [False] * 2 + [True] * 2
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"mask": "stripes"}, {"mask": ["parity"]}, {"first": "first"}, {"mask": "halves", "first": "odd"}, {"bound": 0},
        {"mask": "checkerboard", "dim": 8}, {"mask": "checkerboard", "dim": 9}, {"bound": "x"}, {"bound": float("nan")},
        {"dim": 4.0}, {"dim": "4"}, {"dim": None}, {"coupling": True}, {"hidden": 1e3}, {"latent": None}, {"latent": b"normal"},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_named(settings):
    with pytest.raises(
        InputError, match=f"{next(iter(settings)) if len(settings) == 1 else '(first|dim)'} = .*expected"
    ):
        NICE(**settings)


def test_nan_goes_through_as_nan(model):
    x = torch.full((2, DIM), 0.5)
    x[0, 3] = torch.nan
    z, log_det = model(x)
    assert z[0].isnan().any() and model.log_prob(x)[0].isnan() and model.inverse(x)[0].isnan().any()
    assert z[1].isfinite().all() and model.log_prob(x)[1].isfinite()
    assert log_det.shape == (2,)
