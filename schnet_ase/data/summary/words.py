"""How a summary names frames, elements and amounts."""

from __future__ import annotations

from collections.abc import Sequence

from ase.data import chemical_symbols

from schnet_ase.geometry.arrays import Integers

MOST_NAMED = 10
"""Frames that are named one by one."""
MOST_LISTED = 6
"""Other things that are named so."""


def frames(numbers: Integers | Sequence[int], most: int = MOST_NAMED) -> str:
    """Frames by their numbers, a few of them."""
    named = ", ".join(str(int(n)) for n in numbers[:most])
    more = f" and {len(numbers) - most:,} more" if len(numbers) > most else ""
    return f"frame{'' if len(numbers) == 1 else 's'} {named}{more}"


def count(n: int, what: str) -> str:
    """So many of something."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def pair(elements: Sequence[int] | Integers) -> str:
    """Two elements and the line between them, hydrogen last."""
    return "–".join(chemical_symbols[z] for z in sorted((int(z) for z in elements), key=lambda z: (z == 1, z)))


def ev(value: float) -> str:
    """An energy to three digits, in meV where it is small."""
    return f"{1000.0 * value:.3g} meV" if abs(value) < 1.0 else f"{value:.4g} eV"


def total(value: float) -> str:
    """A total energy to the last meV, in eV without the unit; of one that is absurd its size."""
    return f"{value:,.3f}" if abs(value) < 1e9 else f"{value:.4g}"


def listed(items: Sequence[str], most: int = MOST_LISTED) -> str:
    """The first few items, and how many more there are."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return f"{', '.join(items[:most])}{more}"


def span(low: str, high: str) -> str:
    """From one number to another, or the one that they are."""
    return low if low == high else f"{low} to {high}"
