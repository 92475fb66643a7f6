"""The tab "Layers": an image on its way through the model, layer by layer, and a code on its way back."""

import torch

from nicelib.analysis import states
from nicelib.explorer.scene import images, play
from nicelib.explorer.tab import Drawing, Tab
from nicelib.model import NICE


class Layers(Tab):
    name = "layers"

    def draw(self, model: NICE, image: int | str, seed: int, t: float) -> Drawing:
        x = self.explorer.noisy(self.explorer.pixels(image), model)
        z = model.prior.sample((1, model.dim), torch.Generator().manual_seed(seed)).to(x)
        there, back = states(model, x), states(model, model.inverse(z)).flip(0)
        names = ["x", *(f"after layer {i + 1}" for i in range(len(there) - 2)), "z, scaled"]
        seen = {"the image, forwards": shades(there), "a code, backwards": shades(back.flip(0)).flip(0)}
        rows = [(0.5, [play(seen, None, names)])]
        rows += [
            (0.25, [images(k, v, captions=n)]) for (k, v), n in zip(seen.items(), (names, names[::-1]), strict=True)
        ]
        sizes = ", ".join(f"{size:.3f}" for size in there[:-1].abs().mean((1, 2)).tolist())
        return rows, f"mean size of a value, from x on: <b>{sizes}</b>: what the layers could predict is taken away"


def shades(values: torch.Tensor) -> torch.Tensor:
    """States (n, 1, D) -> greys (n, D): 0 is the middle grey; white is 1, in the last of them, the code, 6."""
    values = values[:, 0].cpu().clone()
    values[-1] /= 6
    return (0.5 + values / 2).clamp(0, 1)
