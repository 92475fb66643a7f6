"""Other programs' weights: a twin of each family, written here, agrees with the imported model to rounding."""

import itertools

import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.nn import functional as F

from nicelib import InputError, load_pixels
from nicelib.checkpoints import load_model, read_header
from nicelib.cli import main
from nicelib.importers import import_state_dict

DIM, MID = 12, 7


class FullWidth(nn.Module):
    """Masks multiply full-width vectors; layer 0 keeps odd entries; LeakyReLU(0.2)."""

    def __init__(self, hidden=3, layers=4, dim=DIM):
        super().__init__()

        def network():
            widths = [dim, *[MID] * hidden, dim]
            parts = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
            return nn.ModuleDict({"m": nn.Sequential(*parts[:-1])})

        self.coupling_layers = nn.ModuleList(network() for _ in range(layers))
        self.scaling_layer = nn.ParameterDict({"log_scale_vector": torch.zeros(1, dim)})
        self.odd = torch.arange(dim) % 2 == 1

    def f(self, x):
        keep = self.odd.double()
        for layer in self.coupling_layers:
            x = x * keep + (1 - keep) * (x + layer["m"](x * keep))
            keep = 1 - keep
        s = self.scaling_layer["log_scale_vector"]
        return x * s.exp(), s.sum()


class Halves(nn.Module):
    """Gathered halves; ReLU; the affine kind has tanh log-scales in the even rows of its last layer."""

    def __init__(self, names, keeps_odd, affine=False, hidden=3, layers=4, dim=DIM):
        super().__init__()
        first, middle, last = names
        self.names, self.keeps_odd, self.affine = names, keeps_odd, affine
        self.coupling = nn.ModuleList(
            nn.ModuleDict({
                first: nn.Sequential(nn.Linear(dim // 2, MID), nn.ReLU()),
                middle: nn.ModuleList(nn.Sequential(nn.Linear(MID, MID), nn.ReLU()) for _ in range(hidden - 1)),
                last: nn.Linear(MID, dim if affine else dim // 2),
            })
            for _ in range(layers)
        )  # fmt: skip
        self.scaling = nn.ParameterDict({"scale": torch.zeros(1, dim)})

    def f(self, x):
        first, middle, last = self.names
        log_det = 0.0
        halves = [x[:, 1::2], x[:, 0::2]]  # odd, even
        kept = 0 if self.keeps_odd else 1
        for layer in self.coupling:
            h = layer[first](halves[kept])
            for part in layer[middle]:
                h = part(h)
            h = layer[last](h)
            if self.affine:
                s = h[:, 0::2].tanh()
                halves[1 - kept] = halves[1 - kept] * s.exp() + h[:, 1::2]
                log_det = log_det + s.sum(1)
            else:
                halves[1 - kept] = halves[1 - kept] + h
            kept = 1 - kept
        y = torch.stack((halves[1], halves[0]), 2).flatten(1)
        return y * self.scaling["scale"].exp(), log_det + self.scaling["scale"].sum()


BLOCKS, NETS = ("in_block", "mid_block", "out_block"), ("in_net", "mid_net", "out_net")
TWINS = {
    "full": lambda **k: FullWidth(**k),
    "blocks": lambda **k: Halves(BLOCKS, True, **k),
    "nets": lambda **k: Halves(NETS, False, **k),
    "nets-affine": lambda **k: Halves(NETS, False, affine=True, **k),
}


def randomised(twin):
    twin = twin.double()
    for p in twin.parameters():
        nn.init.normal_(p, std=0.5)
    return twin


@pytest.fixture(params=[(n, h, c) for n in TWINS for h, c in ((3, 4), (1, 3), (2, 1))], ids=str)
def twin(request):
    torch.manual_seed(0)
    name, hidden, layers = request.param
    return randomised(TWINS[name](hidden=hidden, layers=layers))


def assert_same(twin, model, x, mean=0.0):
    z, log_det = twin.f(x - mean)
    nats = (-F.softplus(z) - F.softplus(-z)).sum(1) + log_det
    for mine, theirs in ((model(x)[0], z), (model.log_prob(x), nats), (model.inverse(z), x)):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9)


def test_a_twin_agrees(twin):
    x = torch.rand(20, DIM, dtype=torch.float64)
    assert_same(twin, import_state_dict(twin.state_dict()), x)
    wrapped = {"model_state_dict": {f"module._orig_mod.{k}": t for k, t in twin.state_dict().items()}, "epoch": 3}
    assert_same(twin, import_state_dict(wrapped), x)


def test_the_mean_moves_into_the_biases():
    torch.manual_seed(0)
    x, mean = torch.rand(20, DIM, dtype=torch.float64), torch.rand(1, DIM, dtype=torch.float64)
    for layers in (2, 3, 4):
        twin = randomised(TWINS["blocks"](layers=layers))
        assert_same(twin, import_state_dict(twin.state_dict(), mean=mean), x, mean)
    for twin in (TWINS["blocks"](layers=1), TWINS["nets-affine"]()):
        with pytest.raises(InputError, match="expected 12 entries and two or more additive layers"):
            import_state_dict(twin.state_dict(), mean=mean)


def test_what_the_checkpoint_says_and_what_is_given():
    state = TWINS["blocks"]().state_dict()
    said = import_state_dict({"model_state_dict": state, "latent": "normal", "mask_config": 0.0}).config
    assert (said["latent"], said["first"], said["activation"]) == ("normal", "even", "relu")
    nets = import_state_dict({"state_dict": TWINS["nets"]().state_dict(), "mask_config": 1}).config
    assert (nets["latent"], nets["first"]) == ("logistic", "even")  # the same number, the other meaning
    given = import_state_dict(state, activation="leaky_relu", latent="normal", first="even").config
    assert (given["latent"], given["first"], given["activation"]) == ("normal", "even", "leaky_relu")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("coupling.1.mid_block.0.0.bias"), "coupling.1.mid_block.0.0.bias is missing"),
        (lambda s: s.update(extra=torch.zeros(2)), "extra is left over"),
        (lambda s: s["scaling.scale"].fill_(torch.nan), "scaling.scale of .*expected finite"),
        (lambda s: s.update({"coupling.2.out_block.weight": torch.zeros(3, 3)}), r"has shape \(3, 3\); expected \(6, 7\)"),
        (lambda s: s.update({"coupling.2.out_block.bias": torch.zeros(6, dtype=torch.int64)}), "expected finite floating-point"),
        (lambda s: s.pop("scaling.scale"), "none of their names is a known family's"),
        (lambda s: (s.clear(), s.update(c=torch.zeros(1, 1, 3, 3))), "convolutions"),
        (lambda s: (s.clear(), s.update({"bn.running_mean": torch.zeros(3)})), "BatchNorm"),
        (lambda s: s.clear(), "none of their names"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(change, message):
    state = TWINS["blocks"]().state_dict()
    change(state)
    with pytest.raises(InputError, match=message) as refused:
        import_state_dict(state)
    assert "\n" not in str(refused.value)


def refuse(capsys, *argv):
    assert main(["import", *map(str, argv)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("nicelib: error: ") and line.count("\n") == 1
    return line


def test_files_that_are_refused(tmp_path, capsys):
    torch.save(TWINS["blocks"](), tmp_path / "whole.pt")
    assert "save its state_dict()" in refuse(capsys, tmp_path / "whole.pt")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    assert "holds a list" in refuse(capsys, tmp_path / "list.pt")
    (tmp_path / "text.pt").write_bytes(b"not a file of torch's")
    assert "does not hold tensors alone" in refuse(capsys, tmp_path / "text.pt")
    assert "cannot be read" in refuse(capsys, tmp_path / "none.pt")
    assert "cannot be read" in refuse(capsys, tmp_path)
    torch.save(TWINS["blocks"]().state_dict(), tmp_path / "m.pt")
    assert "the mean" in refuse(capsys, tmp_path / "m.pt", "--mean", tmp_path / "none.pt")
    assert {p.name for p in tmp_path.iterdir()} == {"whole.pt", "list.pt", "text.pt", "m.pt"}


def test_the_command(tmp_path, capsys):
    torch.manual_seed(0)
    twin = randomised(TWINS["full"](dim=784)).float()
    torch.save(twin.state_dict(), tmp_path / "theirs.pt")
    out = tmp_path / "ours.safetensors"
    assert main(["import", str(tmp_path / "theirs.pt"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "family full" in said and "nats" in said and "not the number their program reports" in said
    assert read_header(out)["imported"] == {
        "family": "full", "mean": "none", "activation": "leaky_relu", "latent": "logistic", "first": "odd"
    }  # fmt: skip
    x = load_pixels("mnist-sample", "test")[:5].double() / 256
    z, _ = twin.double().f(x)
    assert torch.allclose(load_model(out).double()(x)[0], z, rtol=1e-9)
    assert main(["evaluate", str(out), "--draws", "1"]) == 0
    mean = torch.rand(1, 784)
    torch.save(mean, tmp_path / "mean.pt")
    blocks = randomised(TWINS["blocks"](dim=784))
    torch.save({"model_state_dict": blocks.state_dict()}, tmp_path / "theirs.tar")
    assert main(["import", str(tmp_path / "theirs.tar"), "--out", str(out), "--mean", str(tmp_path / "mean.pt")]) == 0
    assert torch.allclose(load_model(out).double()(x)[0], blocks.f(x - mean)[0], rtol=1e-3, atol=1e-3)


def test_the_documentation_names_the_command():
    assert any(
        "nicelib import" in path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    )
