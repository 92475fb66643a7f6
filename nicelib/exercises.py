"""The notebooks' exercises: an open one says so, a wrong answer is told what to look at, a right one passes."""

from collections.abc import Callable
from typing import Any


def check(what: str, answer: Any, test: Callable[[Any], bool], hint: str) -> None:
    """Judge what the reader put in place of the dots; ``...`` (or None) is left open, so that "Run All" goes through.

    ``what`` names the exercise; where ``test(answer)`` is not true, an AssertionError gives the ``hint``.

    >>> check("Exercise 1", ..., lambda a: a == 4, "count both ends")
    Exercise 1: your turn. Replace the dots, then run this cell again.
    >>> check("Exercise 1", 4, lambda a: a == 4, "count both ends")
    Exercise 1: right.
    """
    if answer is ... or answer is None:
        print(f"{what}: your turn. Replace the dots, then run this cell again.")
        return
    if not test(answer):
        raise AssertionError(f"{what}: not yet. {hint}")
    print(f"{what}: right.")
