"""A sequence whose items are made on request and not stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Lazy(Sequence[T], Generic[T]):
    """A sequence that makes its items one at a time.

    Parameters
    ----------
    make
        Function from an index, counted from 0, to the item.
    length
        Number of items.
    """

    def __init__(self, make: Callable[[int], T], length: int) -> None:
        self._make = make
        self._indices = range(length)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Lazy[T]: ...
    def __getitem__(self, index: int | slice) -> T | Lazy[T]:
        if isinstance(index, slice):
            chosen = self._indices[index]
            return Lazy(lambda i: self._make(chosen[i]), len(chosen))
        return self._make(self._indices[index])  # IndexError beyond the end, and counted from there below 0


def joined(first: Sequence[T], second: Sequence[T]) -> Sequence[T]:
    """Concatenate two sequences: a list if both are lists, otherwise a `Lazy` sequence."""
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *second]
    n = len(first)
    return Lazy(lambda i: first[i] if i < n else second[i - n], n + len(second))
