"""The notebooks' exercises: an open one says so, a wrong answer is told what to look at, a right one passes."""

from collections.abc import Callable
from typing import Any

import torch

YOUR_TURN = "your turn. Replace the dots, then run this cell again."


def check(what: str, answer: Any, test: Callable[[Any], Any], hint: str) -> None:
    """Judge what the reader put in place of the dots, in one printed line; nothing is raised, "Run All" goes through.

    ``answer``: a number, text or function, or several in a list, tuple, array, tensor or dictionary, dots for what is
    open. ``test(answer)`` says if it is right, or of each part; where it is not, or fails, the line ends in ``hint``.

    >>> check("Exercise 1", (4, ...), lambda a: [a[0] == 4, a[1] == 5], "count both ends")
    Exercise 1: your turn. Replace the dots, then run this cell again.
    >>> check("Exercise 1", (4, 4), lambda a: [a[0] == 4, a[1] == 5], "count both ends")
    Exercise 1: not yet, look at part 2. Hint: count both ends
    """
    plain, why = _plain(answer), None
    for form in () if _open(plain) else (answer,) if plain is answer else (answer, plain):  # as it is; as a list
        try:
            right = torch.as_tensor(test(form), device="cpu").bool().flatten()
        except Exception as error:  # an answer may be anything: say what it led to, without the long traceback
            why = f", {type(error).__name__}: {error}" if why is None else why
        else:
            if right.all():
                return print(f"{what}: right.")
            why = f", look at part {str((~right).nonzero().flatten().add(1).tolist())[1:-1]}" * (len(right) > 1)
    dots = _open(plain) or ... in getattr(getattr(answer, "__code__", None), "co_consts", ())  # a function's own dots
    print(f"{what}:", YOUR_TURN if dots else f"not yet{why}. Hint: {hint}")


def _plain(answer: Any) -> Any:
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    return [_plain(part) for part in answer] if isinstance(answer, list | tuple) else answer


def _open(answer: Any) -> bool:
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ()
    return answer is ... or answer is None or any(map(_open, parts))
