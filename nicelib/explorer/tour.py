"""The tour: ten things worth seeing, a button each."""

from typing import Any

import torch
from torch import Tensor

from nicelib.explorer.controls import text_of

SPECK = 40  # of 255: a dark grey


def tour(digits: Tensor) -> list[tuple[str, str, str, dict[str, Any]]]:
    """A button's name, what to see there, a tab and its controls' values; for the 500 digits of ``mnist-sample``."""
    speck = digits[370].clone()
    speck[0] = SPECK
    empty = text_of(torch.zeros_like(speck))
    return [
        ("New digits", "Nobody wrote these: each is one draw of noise, sent backwards through the model.", "sample", {}),
        ("The mode", "The likeliest image of all, whatever the seed: a plain 1. No draw is anywhere near it: look at |z|.", "sample", {"number": 9, "temperature": 0.0}),
        ("A walk", "From a 0 over a 3 and an 8 to a 7: press play. Straight lines between codes stay likelier than cross-fades.", "code_space", {"chain": [20, 170, 410, 370], "t": 0.0}),
        ("Layer by layer", "Press play: each layer takes away what it can predict, until noise is left. Below, the way back.", "layers", {}),
        ("Twenty numbers", "Of 784 numbers twenty are kept, and the 3 is still a 3. Pull k lower: when does it stop being one?", "spectrum", {"k": 20, "image": 153}),
        ("Empty page", "Nothing drawn, and likelier than nearly every real digit. Its |z| says why: no draw is so near the mode.", "likelihood", {"image": empty}),
        ("Grey speck", "One dark grey pixel in the corner, where it was always black: what does it cost? Undo it with the eraser.", "likelihood", {"image": text_of(speck)}),
        ("The worst six", "The least likely of the 500 digits. The map says why: its stroke begins where others have no ink.", "likelihood", {"image": 337}),
        ("Upside down", "A 7 on its head. Turn it back, 5 degrees at a time: when does the model begin to believe it?", "likelihood", {"image": 370, "turn": 180}),
        ("The boldest 8", "As much ink as an 8 can have: more strokes, fewer nats. Compare it with a thin one from the gallery.", "likelihood", {"image": 416}),
    ]  # fmt: skip
