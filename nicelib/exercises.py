"""The notebooks' exercises: an open one says so, a wrong answer is told what to look at, a right one passes."""

from collections.abc import Callable
from typing import Any

import torch


def check(what: str, answer: Any, test: Callable[[Any], Any], hint: str) -> None:
    """Judge what the reader put in place of the dots, in one printed line; nothing is raised, "Run All" goes through.

    ``answer``: a number, text, function, or several in a list, tuple, array, tensor or dictionary; dots for what is open.
    ``test(answer)`` says if it is right, or of each part; a dictionary's keys say what is wrong with parts that are not.

    >>> check("Exercise 1", 4, lambda a: {f"{a}, too low": a >= 5, f"{a}, too high": a <= 5}, "count both ends")
    Exercise 1: not yet: 4, too low. Hint: count both ends
    """
    plain, why = _plain(answer), None
    for form in () if _open(plain) else (answer,) if plain is answer else (answer, plain):  # as it is; as a list
        try:
            named = isinstance(judged := test(form), dict)
            right = torch.as_tensor([*judged.values()] if named else judged, device="cpu").bool().flatten().tolist()
            if not (missed := [[*judged][i] if named else str(i + 1) for i, fine in enumerate(right) if not fine]):
                return print(f"{what}: right.")
            part = f", look at part{'s' * (len(missed) > 1)} {' and '.join(missed)}" * (len(right) > 1)
            why = ": " + "; ".join(missed) if named else part
        except Exception as error:  # an answer may be anything: say what it led to, without the long traceback
            inside = ", ".join(dict.fromkeys(type(part).__name__ for part in plain)) if isinstance(plain, list) else ""
            kind = f", an answer of type {type(answer).__name__}" + f" ({inside})" * bool(inside)
            fits = " does not fit the question" + ": give the function itself" * ("not callable" in str(error))
            pythons = f", {type(error).__name__}: {error}" if callable(answer) else fits
            said = f": {error}" if isinstance(error, ValueError) else pythons  # a test raises one to say what is asked
            why = f"{kind * (not callable(answer))}{said}" if why is None else why
    dots = _open(plain) or ... in getattr(getattr(answer, "__code__", None), "co_consts", ())  # a function's own dots
    said = "your turn. Replace the dots, then run this cell again." if dots else f"not yet{why}. Hint: {hint}"
    print(f"{what}: {said}")


def _plain(answer: Any) -> Any:
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    return [_plain(part) for part in answer] if isinstance(answer, list | tuple) else answer


def _open(answer: Any) -> bool:
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ()
    return answer is ... or answer is None or any(map(_open, parts))
