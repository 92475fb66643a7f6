"""The tab "Layers": an image on its way through the model, layer by layer, and a code on its way back."""

import torch

from nicelib.analysis import states
from nicelib.explorer.scene import chart, images, line, play
from nicelib.explorer.tab import Drawing, Tab
from nicelib.model import NICE
from nicelib.plotting import BLUE, ORANGE


class Layers(Tab):
    name = "layers"

    def draw(self, model: NICE, image: int | str, seed: int, t: float) -> Drawing:
        x = self.explorer.noisy(self.explorer.pixels(image), model)
        z = model.prior.sample((1, model.dim), torch.Generator().manual_seed(seed)).to(x)
        there, back = states(model, x), states(model, model.inverse(z)).flip(0)
        names = ["x", *(f"layer {i + 1}" for i in range(len(there) - 2)), "z, scaled"]
        seen = {"image, forwards": shades(there), "code, backwards": shades(back.flip(0)).flip(0)}
        size, code_size = (seen.square().mean((1, 2)).sqrt().tolist() for seen in (there, back))
        places, ticks = range(len(names)), list(enumerate(["x", *map(str, range(1, len(names) - 1)), "z"]))
        lines = [line(places, size, BLUE, "the image", follow=True)]
        lines.append(line(places[::-1], code_size, ORANGE, "the code, from z to x", follow=True))
        curve = chart("size of its values (RMS)", lines, "after layer", (0, len(names) - 1), log="y", xticks=ticks)
        strip = [images(to, x, captions=names[::way]) for way, (to, x) in zip((1, -1), seen.items(), strict=True)]
        couplings = ", ".join(f"{value:.3f}" for value in size[:-1])
        text = f"size of the image's values, from x to the last coupling: <b>{couplings}</b>; z: {size[-1]:.2f}"
        moved, none = [~layer.mask.cpu() for layer in model.couplings], torch.zeros(model.dim, dtype=torch.bool)
        tint = torch.stack([none, *moved, none, none, none, *moved[::-1]])  # what is shifted on the way to each state
        player = play(seen, curve, names) | {"moved": tint.numpy().tobytes()}
        return [(0.46, [player]), (0.23, [one | {"states": True} for one in strip])], text


def shades(values: torch.Tensor) -> torch.Tensor:
    """States (n, 1, D) -> greys (n, D): 0 is the middle grey; white is 1, in the last of them, the code, 6."""
    values = values[:, 0].cpu().clone()
    values[-1] /= 6
    return (0.5 + values / 2).clamp(0, 1)
