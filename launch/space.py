"""What a sweep may choose: a float, an integer or one of some values, and where a number of 0..1 falls in it."""

import dataclasses as dc
import math
from typing import Any


@dc.dataclass(frozen=True)
class Float:
    """A float in `[low, high]`, by its logarithm if `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """ValueError for an empty range, or one whose logarithm is not finite."""
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"{self}: low must be below high, both finite")
        if self.log and self.low <= 0:
            raise ValueError(f"{self}: a logarithmic range must lie above 0")

    def at(self, share: float) -> float:
        """The value a `share` in [0, 1) of the way from low to high."""
        if not self.log:
            return self.low + (self.high - self.low) * share
        found = math.exp(math.log(self.low) + (math.log(self.high) - math.log(self.low)) * share)
        return min(max(found, self.low), self.high)


@dc.dataclass(frozen=True)
class Int:
    """A whole number in `low ... high`, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        """ValueError for an empty range."""
        if self.low > self.high:
            raise ValueError(f"{self}: low must not be above high")

    def at(self, share: float) -> int:
        """The value a `share` in [0, 1) of the way."""
        return min(self.low + int((self.high - self.low + 1) * share), self.high)


@dc.dataclass(frozen=True, init=False, repr=False)
class Choice:
    """One of `values`: numbers, texts, booleans or None."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        """ValueError for no value, two equal ones, or one of another kind."""
        if not values or len({repr(value) for value in values}) < len(values):
            raise ValueError(f"a choice needs values that differ, got {values}")
        bad = [value for value in values if not isinstance(value, int | float | str | None)]
        if bad:
            raise ValueError(f"a choice is among numbers, texts, booleans and None, got {bad[0]!r}")
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        """The words that make it."""
        return f"Choice({', '.join(map(repr, self.values))})"

    def at(self, share: float) -> Any:
        """The value a `share` in [0, 1) of the way."""
        return self.values[min(int(len(self.values) * share), len(self.values) - 1)]


Domain = Float | Int | Choice


def grid_of(domain: Domain) -> tuple[Any, ...]:
    """Every value of a domain. ValueError for a Float: it has no end of them."""
    if isinstance(domain, Float):
        raise ValueError(f"a grid cannot list {domain}: use Choice, or the sampler qmc or random")
    return tuple(range(domain.low, domain.high + 1)) if isinstance(domain, Int) else domain.values
