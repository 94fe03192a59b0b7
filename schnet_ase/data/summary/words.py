"""Frames, elements and amounts in words, for a summary."""

from __future__ import annotations

from collections.abc import Sequence

from ase.data import chemical_symbols

from schnet_ase.geometry.arrays import Integers

MOST_NAMED = 10
"""Largest number of frames that are listed one by one."""
MOST_LISTED = 6
"""Largest number of other items that are listed."""


def frames(numbers: Integers | Sequence[int], most: int = MOST_NAMED) -> str:
    """List frames by their numbers, at most `most` of them."""
    named = ", ".join(str(int(n)) for n in numbers[:most])
    more = f" and {len(numbers) - most:,} more" if len(numbers) > most else ""
    return f"frame{'' if len(numbers) == 1 else 's'} {named}{more}"


def count(n: int, what: str) -> str:
    """Return a number with its noun, in the plural if needed."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def pair(elements: Sequence[int] | Integers) -> str:
    """Return two symbols joined by a dash, hydrogen last."""
    return "–".join(chemical_symbols[z] for z in sorted((int(z) for z in elements), key=lambda z: (z == 1, z)))


def ev(value: float) -> str:
    """Return an energy to three digits, in meV if it is small."""
    return f"{1000.0 * value:.3g} meV" if abs(value) < 1.0 else f"{value:.4g} eV"


def total(value: float) -> str:
    """Return a total energy in eV to the last meV, without the unit; for an absurd one only its size."""
    return f"{value:,.3f}" if abs(value) < 1e9 else f"{value:.4g}"


def listed(items: Sequence[str], most: int = MOST_LISTED) -> str:
    """List the first items, and how many more there are."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return f"{', '.join(items[:most])}{more}"


def span(low: str, high: str) -> str:
    """Return a range, or a single number if both ends are equal."""
    return low if low == high else f"{low} to {high}"
