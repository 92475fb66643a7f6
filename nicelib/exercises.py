"""The notebooks' exercises: an open one says so, a wrong answer is told what to look at, a right one passes."""

from collections.abc import Callable
from typing import Any


def check(what: str, answer: Any, test: Callable[[Any], bool], hint: str) -> None:
    """Judge an exercise's answer; one that is still ``...`` (or None) is left open, so that "Run All" goes through.

    Args:
        what: the exercise, as the printed line names it.
        answer: what the reader put in place of the dots: a number, a tensor, whatever a function of theirs returned.
        test: says whether it is right.
        hint: where to look when it is not.

    Raises:
        AssertionError: a wrong answer; the message is the hint.

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
