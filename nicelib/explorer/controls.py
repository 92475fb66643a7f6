"""Controls as data: what the page shows for a value, and which values it may have."""

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nicelib.errors import InputError

Control = dict[str, Any]


def slider(label: str, value: float, low: float, high: float, step: float, tip: str, **more: Any) -> Control:
    """A number from low to high; ``options`` makes the slider stop at these only, ``quiet`` keeps the kernel out of it."""
    return {
        "kind": "slider",
        "label": label,
        "value": value,
        "low": low,
        "high": high,
        "step": step,
        "tip": tip,
        **more,
    }


def number(label: str, tip: str) -> Control:
    """A whole number to type, 0 or more."""
    return {"kind": "number", "label": label, "value": 0, "low": 0, "high": 2**31 - 1, "step": 1, "tip": tip}


def choice(label: str, value: str, options: Sequence[str], tip: str, **more: Any) -> Control:
    return {"kind": "choice", "label": label, "value": value, "options": list(options), "tip": tip, **more}


def image(label: str, value: int, tip: str, kind: str = "image") -> Control:
    """A held-out digit by number, or its pixels as :func:`text_of` writes them; ``kind="pad"`` to draw on."""
    return {"kind": kind, "label": label, "value": value, "tip": tip}


def chain(label: str, value: list[int], tip: str) -> Control:
    """Two images or more, in order."""
    return {"kind": "chain", "label": label, "value": value, "tip": tip}


def text_of(pixels: Tensor) -> str:
    """uint8 pixels (D,) -> text, base64."""
    return base64.b64encode(pixels.cpu().numpy().tobytes()).decode()


def pixels_of(text: str, size: int) -> Tensor:
    """What :func:`text_of` wrote -> uint8 (1, size)."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"{text!r} is no image; expected a digit's number, or pixels in base64") from error
    if len(data) != size:
        raise InputError(f"an image of {len(data)} pixels; expected {size}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)[None]


def checked(name: str, control: Control, value: Any, digits: Tensor) -> Any:
    """The value as the page holds it.

    Raises:
        InputError: another kind of value than the control's, or one that it cannot have.
    """
    kind = control["kind"]
    if kind == "chain":
        items = list(value) if isinstance(value, list | tuple) else []
        if len(items) < 2:
            raise InputError(f"{name} = {value!r}; expected a list of two images or more")
        return [checked(name, image("", 0, ""), item, digits) for item in items]
    if kind in ("image", "pad"):
        if isinstance(value, str):
            pixels_of(value, digits.shape[1])
        elif isinstance(value, Tensor):
            if value.dtype != torch.uint8 or value.numel() != digits.shape[1]:
                raise InputError(
                    f"{name} of {value.numel()} {value.dtype}; expected {digits.shape[1]} torch.uint8 pixels"
                )
            value = text_of(value.flatten())
        elif type(value) is not int or not 0 <= value < len(digits):
            raise InputError(f"{name} = {value!r}; expected the number of a digit, 0 to {len(digits) - 1}, or pixels")
    elif kind == "choice":
        if value not in control["options"]:
            if not control.get("brush") or not isinstance(value, str):
                raise InputError(f"{name} = {value!r}; expected one of {', '.join(control['options'])}")
            pixels_of(value, digits.shape[1])
    elif type(value) not in (int, float) or not control["low"] <= value <= control["high"]:
        raise InputError(f"{name} = {value!r}; expected a number from {control['low']} to {control['high']}")
    return value
