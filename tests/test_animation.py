"""The animation of a flow of two coordinates."""

import io

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image, ImageSequence

from nicelib import NICE, InputError
from nicelib.animation import flow_gif


def frames(data):
    return [np.asarray(f.convert("RGB")).astype(int) for f in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]


def test_there_and_back():
    torch.manual_seed(0)
    model = NICE(dim=2, mid_dim=8, hidden=1)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.4)
    film = frames(flow_gif(model, torch.randn(60, 2), there=2, back=1))
    stages = len(model.layers)
    assert len(film) == 1 + 2 * stages + 1 + stages
    picture = [f[:350] for f in film]  # without the captions
    assert np.array_equal(picture[0], picture[-1])  # the way back ends where the way there began
    assert np.array_equal(picture[2 * stages], picture[2 * stages + 1])  # the pause at the code
    for k in range(1, 2 * stages + 1):
        assert not np.array_equal(picture[k - 1], picture[k])
    assert (film[0][0, 0] == 255).all()  # white paper


def test_only_two_coordinates():
    with pytest.raises(InputError, match="dim=2"):
        flow_gif(NICE(dim=4, mid_dim=8, hidden=1), torch.randn(5, 4))
    with pytest.raises(InputError, match="dim=2"):
        flow_gif(NICE(dim=2, mid_dim=8, hidden=1), torch.randn(5, 4))


def test_the_readmes_picture():
    file = ROOT / "docs" / "flow.gif"
    assert file.stat().st_size < 1_000_000
    with Image.open(file) as film:
        assert film.n_frames > 50 and film.size == (640, 420) and film.info["loop"] == 0
