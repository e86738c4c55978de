"""What values options may have: each class of options says it where it is made."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from plateau.errors import UserError


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; `str` says it in words.

    Args:
        low: the smallest, or with ``above_low`` what is just below all
        high: the largest; infinite where there is no bound, but no value may be
        above_low: ``low`` itself is not in the range
        below_high: ``high`` itself is not in the range
    """

    low: float
    high: float = math.inf
    above_low: bool = False
    below_high: bool = False

    def __contains__(self, value: float) -> bool:
        low = value > self.low if self.above_low else value >= self.low
        high = value < self.high if self.below_high else value <= self.high
        return low and high and math.isfinite(value)

    def __str__(self) -> str:
        low = f"{'above' if self.above_low else 'at least'} {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and {'below' if self.below_high else 'at most'} {self.high:.10g}"


def at_least(low: float, high: float = math.inf) -> Range:
    """From ``low`` to ``high``, both included."""
    return Range(low, high)


def above(low: float, high: float = math.inf) -> Range:
    """The same without ``low``."""
    return Range(low, high, above_low=True)


def below(high: float, low: float = 0.0) -> Range:
    """From ``low``, included, to ``high``, which is not."""
    return Range(low, high, below_high=True)


# Sizes of layers, and counts: what is larger was never meant, and would take all memory.
SIZE = at_least(1, 65536)
COUNT = at_least(0, 10**9)
PROBABILITY = below(1)
SHARE = at_least(0, 1)


def check_options(options: Any, section: str, **ranges: Range) -> None:
    """See that each field of an options dataclass has a value of its type and range.

    For ``__post_init__``, so that a bad value is refused whoever makes the options.

    Args:
        options: the dataclass; numbers in tuples must be in the range, too
        section: where the fields stand in a configuration, e.g. ``encoder.conformer``; ``--`` where
            they are options of a command line
        ranges: of every field that has numbers

    Raises:
        UserError: names field, value and range.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        length = _length(field.type)
        if length is not None and isinstance(value, tuple) and len(value) != length:
            name = _full_name(section, field.name)
            raise UserError(f"{name} is {list(value)}; it must be a list of {length}")
        for part, kind in _parts(value, field.type):
            wanted = _wanted(part, kind, ranges.get(field.name))
            if wanted is not None:
                name = _full_name(section, field.name)
                if isinstance(value, tuple):
                    raise UserError(f"{name} is {list(value)}; each must be {wanted}")
                raise UserError(f"{name} is {value!r}; it must be {wanted}")


def _full_name(section: str, name: str) -> str:
    if section == "--":
        return f"--{name.replace('_', '-')}"
    return f"{section}.{name}" if section else name


def _length(kind: Any) -> int | None:
    """How many items a tuple must have; None if that is left open, or it is none."""
    kinds = get_args(kind)
    return None if get_origin(kind) is not tuple or Ellipsis in kinds else len(kinds)


def _wanted(value: Any, kind: Any, allowed: Range | None) -> str | None:
    """What a value should have been; None if it is right."""
    if get_origin(kind) is Literal:
        good = value in get_args(kind) and not isinstance(value, bool)
        return None if good else f"one of {', '.join(map(str, get_args(kind)))}"
    if kind in (int, float):
        if allowed is None:
            raise TypeError("a field of numbers has no range")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and value in allowed and (kind is float or isinstance(value, int)):
            return None
        return f"{'a whole number, ' if kind is int else ''}{allowed}"
    if isinstance(kind, type) and not isinstance(value, kind):
        return f"a {kind.__name__}"
    return None


def _parts(value: Any, kind: Any) -> Iterator[tuple[Any, Any]]:
    """A field's value with its type; a tuple's items one by one, and None where it may be None."""
    kinds = get_args(kind)
    if get_origin(kind) is tuple and isinstance(value, tuple):
        for number, item in enumerate(value):
            yield item, kinds[0 if kinds[-1] is Ellipsis else min(number, len(kinds) - 1)]
    elif get_origin(kind) is tuple:
        yield value, tuple
    elif type(None) in kinds:
        if value is not None:
            yield from _parts(value, next(k for k in kinds if k is not type(None)))
    elif get_origin(kind) is dict:
        yield value, dict
    else:
        yield value, kind
