"""Train NICE on points along an arc (about three seconds) and draw its journey: ``python docs/flow.py``."""

import math
from pathlib import Path

import torch

from nicelib import NICE, initialise_from_data
from nicelib.animation import flow_gif


def arc(n: int) -> torch.Tensor:
    angle = torch.rand(n) * math.pi
    on_it = torch.stack([1.6 * angle.cos(), 1.6 * angle.sin() - 0.8], 1)
    return on_it + 0.08 * torch.randn(n, 2)


def main() -> None:
    torch.manual_seed(3)
    model = NICE(dim=2, mid_dim=64, hidden=2)
    initialise_from_data(model, arc(4000))
    optimiser = torch.optim.Adam(model.parameters())
    for step in range(800):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / 800)
        optimiser.zero_grad()
        loss = -model.log_prob(arc(256)).mean()
        loss.backward()
        optimiser.step()
    file = Path(__file__).with_suffix(".gif")
    file.write_bytes(flow_gif(model, arc(400), there=10, back=5))
    print(f"{file}: {file.stat().st_size / 1000:,.0f} kB, mean log p(x) {-loss:.2f} nats")


if __name__ == "__main__":
    main()
