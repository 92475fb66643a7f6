"""A setting: its default, its meaning and what it may be, said once and checked in one place."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

from nicelib.errors import InputError, one_of, plain

Rule = tuple[Callable[[Any], bool], str]
AT_LEAST_ONE: Rule = (lambda v: 1 <= v < 2**32, "1 or more, below 2^32")
NOT_NEGATIVE: Rule = (lambda v: 0 <= v < float("inf"), "0 or more")
POSITIVE: Rule = (lambda v: 0 < v < float("inf"), "a positive number")
BELOW_ONE: Rule = (lambda v: 0 <= v < 1, "a number in [0, 1)")
SHARE: Rule = (lambda v: 0 <= v <= 1, "a share, 0 to 1")
SEED: Rule = (lambda v: 0 <= v < 2**32, "0 to 2^32 - 1")


def option(default: Any, text: str, choices: Collection[str] = (), rule: Rule | None = None, kind: type = str) -> Any:
    """A dataclass field with its help text and its rule; a default of None makes None a value that is allowed."""
    kind = kind if default is None else type(default)
    metadata = {"help": text, "choices": tuple(choices), "rule": rule, "kind": kind}
    return dataclasses.field(default=default, metadata=metadata)


def check_options(config: Any, may_be_none: Collection[str] = ()) -> None:
    """Turn the values of a dataclass made of :func:`option` into plain Python, numpy's and torch's numbers too.

    Raises:
        InputError: a value of the wrong kind, outside its rule, or none of its choices; the message names it.
    """
    for item in dataclasses.fields(config):
        value, known, rule = getattr(config, item.name), item.metadata["choices"], item.metadata["rule"]
        if value is None and (item.default is None or item.name in may_be_none):
            continue
        value = plain(item.name, value, item.metadata["kind"])
        object.__setattr__(config, item.name, value)
        if known:
            one_of(item.name, value, known)
        if rule and not rule[0](value):
            raise InputError(f"{item.name} = {value}; expected {rule[1]}")
