"""What the package says to bad input: the value, what was expected, what to do."""

from collections.abc import Collection


class InputError(ValueError):
    """Bad input from the caller: the message names the value, what was expected and what to do."""


def one_of(name: str, value: object, known: Collection[object]) -> None:
    """Raise :class:`InputError` unless ``value`` is one of the ``known``."""
    if value not in known:
        raise InputError(f"{name} = {value!r}; expected one of {', '.join(map(str, known))}")


def at_least(low: int, **values: float) -> None:
    """Raise :class:`InputError` unless every named value is ``low`` or more."""
    for name, value in values.items():
        if not value >= low:  # also refuses nan
            raise InputError(f"{name} = {value}; expected {low} or more")


def cause(error: BaseException) -> str:
    """All that an exception says, on one line: of a refused download, the reason stands on the last of several.

    >>> cause(OSError("tried the mirror, got:\\n403 Forbidden")), cause(TimeoutError())
    ('tried the mirror, got: 403 Forbidden', 'TimeoutError')
    """
    return " ".join(str(error).split()) or type(error).__name__
