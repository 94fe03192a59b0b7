"""Where molecules come from: families, each in a pseudo-random order that never changes."""

from __future__ import annotations

import csv
import functools
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Entry(NamedTuple):
    """A molecule by name."""

    name: str
    smiles: str


def _data(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed; pip install 'schnet_ase[organic]'")
    return Path(found.submodule_search_locations[0]) / "data"


def qm9() -> list[Entry]:
    """QM9's molecules by number (Ramakrishnan et al., Scientific Data 1, 140022, 2014), as the package qm9pack has them."""
    entries = []
    for file in sorted(_data("qm9pack").glob("qm9_part*.csv")):
        with open(file, newline="", encoding="utf-8") as stream:
            entries += [Entry(f"qm9-{int(row['Index']):06d}", row["SMILES"]) for row in csv.DictReader(stream)]
    return entries


FAMILIES: Mapping[str, Callable[[], list[Entry]]] = {"qm9": qm9}
SCAFFOLDS = ("drugs",)
"""Families whose larger molecules are grouped by scaffold."""


@functools.cache
def family(name: str) -> list[Entry]:
    """A family's molecules in the order in which they are drawn."""
    entries = FAMILIES[name]()
    order = np.random.default_rng(sum(name.encode())).permutation(len(entries))
    return [entries[k] for k in order]
