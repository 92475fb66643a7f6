"""Filling in hidden pixels by gradient ascent on log p (paper, section 5.2)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nicelib.bijection import check_generator, check_tensor
from nicelib.checkpoints import unwrap
from nicelib.errors import at_least, one_of
from nicelib.model import NICE

#: the ten masks of the paper's figure 6, in its order, and the middle quarter
PARTS: tuple[str, ...] = ("top", "bottom", "odd columns", "even columns", "left", "right")
PARTS += ("middle rows", "middle columns", "random 75%", "random 90%", "centre")
RULES = ("preconditioned", "paper")


def hidden_part(part: str, side: int = 28, generator: torch.Generator | None = None) -> Tensor:
    """Which pixels of a side x side image a part of :data:`PARTS` hides: bool (side * side,), True = hidden.

    Each hides one half, except ``"random 75%"`` and ``"random 90%"``, each pixel with that probability, and ``"centre"``.

    >>> hidden_part("top", side=4).view(4, 4).int().tolist()
    [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    one_of("part", part, PARTS)
    (side,) = at_least(1, side=side)
    check_generator(generator, "cpu")
    if part.startswith("random"):
        return torch.rand(side * side, generator=generator, device="cpu", dtype=torch.float32) < int(part[7:9]) / 100
    row, half, quarter = torch.arange(side, device="cpu")[:, None].expand(side, side), side // 2, side // 4
    middle = (row >= quarter) & (row < side - quarter)
    hidden = {
        "top": row < half,
        "bottom": row >= half,
        "odd columns": row.T % 2 == 1,
        "even columns": row.T % 2 == 0,
        "left": row.T < half,
        "right": row.T >= half,
        "middle rows": middle,
        "middle columns": middle.T,
        "centre": middle & middle.T,
    }
    return hidden[part].flatten()


@torch.inference_mode(False)
def inpaint(
    model: NICE,
    x: Tensor,
    hidden: Tensor,
    rule: str = "preconditioned",
    steps: int = 200,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Start the hidden pixels at uniform noise and climb log p; a generator of one state a step.

    The paper's rule, with a_i = 10 / (100 + i) and Gaussian noise e (section 5.2):

    .. math:: x_{hidden} \leftarrow x_{hidden} + a_i \, (\partial \log p / \partial x_{hidden} + e)

    clipped to [0, 1). It steps equally far, for an equal gradient, in every pixel; but exp(s) multiplies the gradient of a border pixel by
    over a thousand, so the step overshoots from one end of [0, 1) to the other. The preconditioned rule, a departure, divides
    each pixel's step by the running size of its own gradient (Adam), with steps that shrink from 0.3 to 0, and no noise.

    Args:
        x: (B, D) dequantised images; only the visible pixels are read.
        hidden: bool (D,) or (B, D), True = to fill in.
        rule: ``"preconditioned"`` or ``"paper"``.
        generator: source of the start and of e, on the CPU.

    Yields:
        x (B, D) and log p(x) (B,) in nats, before the first step and after each: steps + 1 pairs.

    Raises:
        InputError: an unknown rule, no steps, or shapes that do not fit.
    """
    one_of("rule", rule, RULES)
    (steps,) = at_least(1, steps=steps)
    check_generator(generator, "cpu")
    model = unwrap(model)
    model.check(x)
    shapes = x.shape[1:], x.shape
    wanted = f"bool {tuple(shapes[0])} or {tuple(shapes[1])}"
    check_tensor("hidden", hidden, wanted, lambda hidden: hidden.dtype == torch.bool and hidden.shape in shapes)
    hidden = hidden.to(x.device)
    drawn: Any = {"generator": generator, "device": "cpu", "dtype": torch.float32}  # whatever torch's defaults are
    below_one = 1 - torch.finfo(x.dtype).eps
    x = torch.where(hidden, torch.rand(x.shape, **drawn).to(x), x)
    first, second = torch.zeros_like(x), torch.zeros_like(x)  # Adam's moments, beta 0.9 and 0.99
    for i in range(steps + 1):
        with torch.enable_grad():
            point = x.clone().requires_grad_()
            nats = model.log_prob(point)
            (gradient,) = torch.autograd.grad(nats.sum(), point)
        yield x, nats.detach()
        if rule == "paper":
            step = 10 / (100 + i) * (gradient + torch.randn(x.shape, **drawn).to(x))
        else:
            first = 0.9 * first + 0.1 * gradient
            second = 0.99 * second + 0.01 * gradient**2
            size = second.div(1 - 0.99 ** (i + 1)).sqrt() + 1e-8
            step = 0.3 * (1 - i / steps) ** 2 * first / (1 - 0.9 ** (i + 1)) / size
        x = torch.where(hidden, (x + step).nan_to_num(0.0).clamp(0, below_one), x)
