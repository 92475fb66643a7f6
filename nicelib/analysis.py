"""What one asks of a trained model, without widgets: nats by pixel, walks, single dimensions, images moved, independence."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import affine_grid, grid_sample

from nicelib.bijection import check_tensor
from nicelib.checkpoints import unwrap
from nicelib.coupling import AffineCoupling
from nicelib.data import dequantise, side_of
from nicelib.errors import InputError, at_least, plain
from nicelib.model import NICE
from nicelib.training.settings import TrainConfig
from nicelib.training.start import initialise_from_data


@torch.no_grad()
def nats_per_pixel(model: NICE, x: Tensor) -> Tensor:
    """What each dimension adds to log p (paper, equation 1 and section 3.3): x (B, D), dequantised -> (B, D), nats.

        log p_X(x) = sum_d (log p_H(z_d) + s_d)          plus, in affine layers, the log-scale of each moved entry

    Raises:
        InputError: x of another shape or dtype.

    >>> model, x = NICE(dim=4, mid_dim=8, hidden=1), torch.rand(2, 4)
    >>> torch.allclose(nats_per_pixel(model, x).sum(1), model.log_prob(x))
    True
    """
    (model := unwrap(model)).check(x)
    nats = torch.zeros_like(x)
    for layer in model.layers[:-1]:
        if isinstance(layer, AffineCoupling):
            nats = nats + layer.shift_and_log_scale(x)[1]
        x, _ = layer(x)
    z, _ = model.scaling(x)
    return nats + model.prior.log_prob(z) + model.scaling.log_scale


@torch.no_grad()
def decode(model: NICE, z: Tensor) -> tuple[Tensor, Tensor]:
    """Codes z (B, D) -> images f^-1(z) (B, D) and their log p (B,), nats.

    >>> model = NICE(dim=4, mid_dim=8, hidden=1)
    >>> x, nats = decode(model, torch.randn(2, 4))
    >>> torch.allclose(nats, model.log_prob(x))
    True
    """
    x = (model := unwrap(model)).inverse(z)
    if model.config["coup_type"] == "affine":
        return x, model.log_prob(x)
    return x, model.prior.log_prob(z).sum(1) + model.scaling.log_scale.sum()  # additive layers keep volumes


@torch.no_grad()
def states(model: NICE, x: Tensor) -> Tensor:
    """x (B, D) and what each layer makes of it, from layer 0 to the scaling layer, whose state is z: (layers + 1, B, D).

    >>> states(NICE(dim=4, mid_dim=8, hidden=1), torch.rand(2, 4)).shape
    torch.Size([6, 2, 4])
    """
    passed = [x]
    for layer in unwrap(model).layers:
        passed.append(layer(passed[-1])[0])
    return torch.stack(passed)


def one_logistic_a_pixel(pixels: Tensor) -> NICE:
    """A start from data without training: every pixel by itself, with its own mean and width; uint8 (N, D) -> a tiny model."""
    model = TrainConfig(mid_dim=2, hidden=1).build(pixels.shape[1])
    initialise_from_data(model, dequantise(pixels.cpu(), torch.Generator().manual_seed(0)))
    return model


@torch.no_grad()
def walks(model: NICE, ends: Tensor, steps: int = 51) -> dict[str, Tensor]:
    """From image a to image b twice: straight between their codes, and straight between their pixels.

        code_t = f^-1((1 - t) f(a) + t f(b))          pixels_t = (1 - t) a + t b          t from 0 to 1

    Args:
        ends: a and b, (2, D), dequantised.
        steps: points on each line, both ends included.

    Returns:
        ``code`` and ``pixels``, (steps, D), and log p along them in nats, ``code_nats`` and ``pixels_nats``, (steps,).

    Raises:
        InputError: fewer than 2 steps, or ends of another shape or dtype.

    >>> walk = walks(NICE(dim=4, mid_dim=8, hidden=1), torch.tensor([[0.0] * 4, [1.0] * 4]), steps=3)
    >>> walk["pixels"][:, 0].tolist(), walk["code_nats"].shape
    ([0.0, 0.5, 1.0], torch.Size([3]))
    """
    (steps,), model = at_least(2, steps=steps), unwrap(model)
    check_tensor("ends", ends, f"two images, (2, {model.dim})", lambda ends: ends.shape == (2, model.dim))
    model.check(ends)
    t = torch.linspace(0, 1, steps, device=ends.device, dtype=ends.dtype)[:, None]
    z, log_det = model(pixels := (1 - t) * ends[0] + t * ends[1])  # the ends among them
    code, nats = decode(model, (1 - t) * z[0] + t * z[-1])
    return {"code": code, "pixels": pixels, "code_nats": nats, "pixels_nats": model.prior.log_prob(z).sum(1) + log_det}


def widest_first(model: NICE) -> Tensor:
    """The dimensions by rank, that of the largest 1 / exp(s) first (paper, section 3.3): long (D,)."""
    return unwrap(model).scaling.log_scale.detach().argsort(stable=True)


def keep_widest(model: NICE, z: Tensor, k: int) -> Tensor:
    """Codes z (B, D) with all but the k dimensions of largest 1 / exp(s) at the prior's mean, 0 (paper, section 3.3).

    Raises:
        InputError: k below 0 or above D; z of another shape or dtype.

    >>> model = NICE(dim=4, mid_dim=8, hidden=1)
    >>> _ = model.scaling.log_scale.data.copy_(torch.tensor([0.0, 2.0, -1.0, 1.0]))
    >>> keep_widest(model, torch.ones(1, 4), 2).tolist()
    [[1.0, 0.0, 1.0, 0.0]]
    """
    if plain("k", k, int) not in range((model := unwrap(model)).dim + 1):
        raise InputError(f"k = {k}; expected 0 to {model.dim} dimensions")
    model.check(z)
    kept, dims = torch.zeros_like(z), widest_first(model)[:k]
    kept[:, dims] = z[:, dims]
    return kept


def turn_dimension(model: NICE, z: Tensor, rank: int, value: float) -> Tensor:
    """Codes z (B, D) with one dimension set to ``value``: that of rank 0 has the largest 1 / exp(s), of rank D - 1 the least.

    Back through f^-1, the first ranks change pixels all over a digit, the last hardly one (paper, section 3.3).

    Raises:
        InputError: a rank outside 0 to D - 1; z of another shape or dtype.

    >>> model = NICE(dim=4, mid_dim=8, hidden=1)
    >>> _ = model.scaling.log_scale.data.copy_(torch.tensor([0.0, 2.0, -1.0, 1.0]))
    >>> turn_dimension(model, torch.ones(1, 4), 0, 9.0).tolist()
    [[1.0, 1.0, 9.0, 1.0]]
    """
    if plain("rank", rank, int) not in range((model := unwrap(model)).dim):
        raise InputError(f"rank = {rank}; expected 0 to {model.dim - 1}")
    model.check(z)
    turned = z.clone()
    turned[:, widest_first(model)[rank]] = plain("value", value, float)
    return turned


@torch.autocast("cpu", enabled=False)
def disturb(
    pixels: Tensor, right: int = 0, down: int = 0, turn: float = 0.0, noise: float = 0.0, seed: int = 0
) -> Tensor:
    """Square images turned about their centre, then shifted, then dirtied; black comes in from outside.

    Args:
        pixels: uint8 (N, D), D a square.
        right, down: shift, in pixels.
        turn: degrees, anticlockwise.
        noise: standard deviation of Gaussian noise, as a share of white (255); ``seed`` draws it.

    Returns:
        uint8 (N, D), on the CPU.

    Raises:
        InputError: another dtype, or images that are not square.

    >>> disturb(torch.tensor([[9, 0, 0, 0]], dtype=torch.uint8), turn=90).tolist()
    [[0, 0, 9, 0]]
    """
    side = side_of(pixels)
    at_least(1, images=len(pixels))
    (seed,), angle = at_least(0, seed=seed), math.radians(plain("turn", turn, float))
    cos, sin = math.cos(angle), math.sin(angle)
    # from a place in the new image to where it was in the old
    rotation = pixels.cpu().float().new_tensor([[cos, -sin], [sin, cos]])
    shift = rotation.new_tensor([[plain("right", right, float)], [plain("down", down, float)]])
    shift = rotation @ shift * (2 / side)  # an image is 2 wide: from -1 to 1
    source = torch.cat((rotation, -shift), dim=1).expand(len(pixels), 2, 3)
    images = pixels.cpu().float().reshape(-1, 1, side, side)
    x = grid_sample(images, affine_grid(source, list(images.shape), align_corners=False), align_corners=False)
    dirt = torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(seed))
    x = x + 255 * plain("noise", noise, float) * dirt
    return x.round().clamp(0, 255).to(torch.uint8).view(len(pixels), -1)


def rank_correlations(x: Tensor) -> Tensor:
    """Spearman's correlation of every pair of columns: x (N, D), no two numbers of a column alike -> (D, D).

    Of ranks, so that a few far entries decide nothing: independent columns come out near 0, within about 1 / sqrt(N).

    >>> rank_correlations(torch.tensor([[1.0, 9.0], [2.0, 8.0], [90.0, 7.0]]))[0].tolist()
    [1.0, -1.0]
    """
    return torch.corrcoef(x.argsort(0).argsort(0).double().T)


def ks_distances(z: Tensor, prior: Distribution) -> Tensor:
    """Kolmogorov's and Smirnov's distance of each column from the prior: z (N, D) -> (D,), each 0 to 1.

    The largest gap between the share of numbers up to a point and the probability that the prior gives it (paper,
    section 3.4). Draws from the prior itself pass 1.36 / sqrt(N) in 5 of 100 columns.

    >>> from nicelib.prior import StandardLogistic
    >>> ks_distances(torch.tensor([[-50.0], [50.0]]), StandardLogistic()).tolist()
    [0.5]
    """
    expected = prior.cdf(z.sort(0).values)
    seen = torch.linspace(0, 1, len(z) + 1, device=z.device, dtype=expected.dtype)[:, None]
    return torch.maximum(expected - seen[:-1], seen[1:] - expected).amax(0)
