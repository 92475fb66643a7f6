"""The tab "Sample": draws from the model, each with its own log-likelihood."""

import html
import io
import math
from pathlib import Path

import ipywidgets as widgets
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nicelib.checkpoints import write_atomically
from nicelib.data import quantise
from nicelib.errors import InputError
from nicelib.explorer.tab import Drawing, Explored, Tab, button


class Sample(Tab):
    title = "Sample"
    look_for = (
        "What has the model learnt? Every image is f<sup>-1</sup>(temperature &times; z), z from the logistic prior, with its "
        "log-likelihood in nats below. Lower the temperature: the likelihood rises, yet the digits do not get better."
    )

    def __init__(self, explorer: Explored) -> None:
        controls = {
            "seed": widgets.BoundedIntText(0, 0, 2**31 - 1, description="seed"),
            "number": widgets.IntSlider(64, 1, 100, description="number of images"),
            "temperature": widgets.FloatSlider(1.0, min=0, max=1.5, step=0.05, description="temperature"),
        }
        self.new_button = button("New samples", "random", self.next_seed, tooltip="Take the next seed")
        self.save_button = button("Save as PNG", "save", self.save, tooltip="Write this picture beside the notebook")
        super().__init__(explorer, controls, *controls.values(), widgets.HBox([self.new_button, self.save_button]))

    def next_seed(self) -> None:
        seed = self.controls["seed"]
        seed.value = (seed.value + 1) % (seed.max + 1)

    def save(self) -> None:
        """Write the picture to the current folder, once it is drawn; the line of text says where, or why not."""
        seed, temperature = self.controls["seed"].value, self.controls["temperature"].value
        path = Path(f"nice_samples_seed{seed}_t{temperature:.2f}.png").absolute()

        def write() -> None:
            if self.error:  # the picture is of earlier values, and the line of text says why
                return
            try:
                write_atomically(path, lambda temporary: temporary.write_bytes(self.picture.value))
                self.text.value = f"saved {html.escape(str(path))}"
            except InputError as error:
                self.text.value = f"<b>{html.escape(str(error))}</b>"

        self.explorer.worker.submit(("save", path), write)

    def draw(self, seed: int, number: int, temperature: float) -> Drawing:
        x = self.model.sample(number, temperature, torch.Generator().manual_seed(seed))
        nats = self.model.log_prob(x).cpu()
        text = f"mean log-likelihood of these {number}: <b>{nats.mean():.1f} nats</b>"
        if number > 1:
            text += f", from {nats.min():.1f} to {nats.max():.1f}"
        return captioned(x, nats, self.side), text


def captioned(x: Tensor, nats: Tensor, side: int) -> bytes:
    """A PNG of images in rows, each with its log-likelihood below."""
    zoom, caption, pad = max(1, 64 // side), 15, 6
    tile, columns = zoom * side, math.ceil(math.sqrt(len(x)))
    rows = -(-len(x) // columns)
    picture = Image.new("L", (columns * (tile + pad) + pad, rows * (tile + caption + pad) + pad), 255)
    write, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    pixels = quantise(x).cpu().numpy().reshape(-1, side, side).repeat(zoom, 1).repeat(zoom, 2)
    for i, image in enumerate(pixels):
        left, top = pad + (i % columns) * (tile + pad), pad + (i // columns) * (tile + caption + pad)
        picture.paste(Image.fromarray(image), (left, top))
        write.text((left + tile / 2, top + tile + 1), f"{nats[i]:.0f}", fill=40, font=font, anchor="ma")
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=1)
    return file.getvalue()
