"""Controls as data: what the page shows for a value, and which values it may have."""

import base64
import copy
import tomllib
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nicelib.data import quantise
from nicelib.errors import InputError, one_of, shown

Control = dict[str, Any]

TABS = tomllib.loads((Path(__file__).parent / "tabs.toml").read_text(encoding="utf-8"))
TOUR = TABS.pop("tour")


def table(tab: str, last: int) -> dict[str, Control]:
    """The controls of a tab by name, as tabs.toml has them; of fewer digits the last stands for those that there are not."""
    controls = copy.deepcopy(TABS[tab]["controls"])
    for control in controls.values():
        if control["kind"] == "number":
            control |= {"low": 0, "high": 2**31 - 1, "step": 1}
        elif control["kind"] == "chain":
            control["value"] = [min(number, last) for number in control["value"]]
        elif control["kind"] in ("image", "pad"):
            control["value"] = min(control["value"], last)
    return controls


def text_of(pixels: Tensor) -> str:
    """uint8 pixels (D,) -> text, base64."""
    return base64.b64encode(pixels.cpu().numpy().tobytes()).decode()


def pixels_of(text: str, size: int) -> Tensor:
    """What :func:`text_of` wrote -> uint8 (1, size)."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"{text!r} is no image; expected a digit's number, or pixels in base64") from error
    with suppress(zlib.error):  # as the page copies them, to be short
        data = zlib.decompressobj().decompress(data, size + 1)
    if len(data) != size:
        raise InputError(f"an image of {len(data)} pixels; expected {size}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)[None]


def _greys(name: str, value: Any, size: int) -> Tensor:
    """A list, array or tensor of whole numbers from 0 to 255, or of x, about from 0 to 1 -> uint8 (size,)."""
    what, wanted = shown(value), f"{size} pixels: whole from 0 to 255, or x from 0 to 1"
    with suppress(TypeError, ValueError, RuntimeError, OverflowError):
        numbers = torch.as_tensor(value, device="cpu").detach().flatten()  # whatever the default is
        what = f"{len(numbers)} numbers from {numbers.min() + 0:g} to {numbers.max() + 0:g}"
        if numbers.is_floating_point() and (numbers > -1).all() and (numbers < 2).all():
            numbers = quantise(numbers)
        if len(numbers) == size and (numbers == (greys := numbers.to(torch.uint8))).all():
            return greys
    raise InputError(f"{name} = {what}; expected a digit's number, or {wanted}")


def checked(name: str, control: Control, value: Any, digits: Tensor) -> Any:
    """The value as the page holds it; :class:`InputError` if the control cannot have it."""
    kind, (count, size) = control["kind"], digits.shape
    if kind == "chain":
        if not isinstance(value, list | tuple) or not 2 <= len(value) <= 8:
            raise InputError(f"{name} = {shown(value)}; expected a list of two images to eight")
        return [checked(name, {"kind": "image"}, item, digits) for item in value]
    if kind in ("image", "pad"):
        if isinstance(value, str):
            value = text_of(pixels_of(value, size))
        elif type(value) is not int:
            value = text_of(_greys(name, value, size))
        elif not 0 <= value < count:
            raise InputError(f"{name} = {value}; expected the number of a digit, 0 to {count - 1}, or pixels")
    elif "brush" in control and isinstance(value, str) and len(value) > min(20, size):  # no name
        value = text_of(pixels_of(value, size))
    elif kind == "choice":
        one_of(name, value, control["options"])
    else:
        kinds = (int,) if type(control["step"]) is int else (int, float)
        if type(value) not in kinds or not control["low"] <= value <= control["high"]:
            what = "whole number" if kinds == (int,) else "number"
            raise InputError(f"{name} = {value!r}; expected a {what} from {control['low']} to {control['high']}")
    return value
