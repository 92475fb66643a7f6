"""What the package says to bad input: the value, what was expected, what to do."""

import math
import operator
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Bad input from the caller: the message names the value, what was expected and what to do."""


def shown(value: object) -> str:
    """A value as a message names it: on one line, and no longer than that."""
    text = " ".join(repr(value).split())
    return text if len(text) < 80 else f"{text[:75]} ..."


def one_of(name: str, value: object, known: Collection[object]) -> None:
    """Raise :class:`InputError` unless ``value`` is one of the ``known``."""
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} = {shown(value)}; expected one of {', '.join(map(str, known))}")


def plain(name: str, value: Any, kind: type) -> Any:
    """Text or a number as Python's own ``kind`` (str, int or float), numpy's and torch's too; InputError for all else."""
    try:
        if kind is str and isinstance(value, str):
            return str(value)
        if kind is int and not isinstance(value, bool):
            return operator.index(value)
        if kind is float and not isinstance(value, bool | str | bytes) and math.isfinite(number := float(value)):
            return number
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass
    wanted = {str: "text", int: "a whole number", float: "a finite number"}[kind]
    raise InputError(f"{name} = {shown(value)}; expected {wanted}")


def at_least(low: int, **values: Any) -> list[int]:
    """The named values as Python's own; :class:`InputError` unless all are whole numbers, ``low`` or more."""
    numbers = {name: plain(name, value, int) for name, value in values.items()}
    for name, value in numbers.items():
        if not low <= value < 2**32:
            raise InputError(f"{name} = {value}; expected {low} or more" + ", below 2^32" * (value > low))
    return list(numbers.values())


def as_path(path: Any) -> Path:
    """The path of a file or folder, ``~`` being one's home; :class:`InputError` for what can be none."""
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        raise InputError(f"path = {shown(path)}; expected the name of a file or folder")
    return Path(os.path.expanduser(path))


def cause(error: BaseException) -> str:
    """All that an exception says, on one line: of a refused download, the reason stands on the last of several."""
    return " ".join(str(error).split()) or type(error).__name__
