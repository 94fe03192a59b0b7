"""Reading shards fast: frames as text with the few numbers that a report needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.io.extxyz import key_val_str_to_dict

from schnet_ase.errors import SchNetError

_SMILES = re.compile(r'\bsmiles=(?:"([^"]*)"|(\S*))')


class Block(NamedTuple):
    """One frame of a shard."""

    text: str
    """As in the file."""
    info: dict[str, Any]
    """Keys of the comment: energy in eV, config_type, molecule, smiles, group, split, temperature in K."""
    symbols: tuple[str, ...]
    values: np.ndarray
    """(N, 6) positions in Å and forces in eV/Å."""


def shards(output: Path) -> list[Path]:
    """All that are whole, by name.

    Raises
    ------
    SchNetError
        There are none.
    """
    found = sorted((output / "shards").glob("*.extxyz"))
    if not found:
        raise SchNetError(f"{output}: no shards; expected the folder that `make` wrote to")
    return found


def blocks(file: Path) -> Iterator[Block]:
    """The frames of a shard, whose columns are those of `shards.make`."""
    with open(file, encoding="utf-8") as stream:
        while count := stream.readline():
            comment = stream.readline()
            lines = list(islice(stream, int(count)))
            columns = [line.split() for line in lines]
            values = np.array([row[1:7] for row in columns], dtype=float)
            symbols = tuple(row[0] for row in columns)
            info = key_val_str_to_dict(comment)
            if smiles := _SMILES.search(comment):  # ASE reads F as False
                info["smiles"] = (smiles[1] or smiles[2]).replace(r"\\", "\\")
            yield Block("".join((count, comment, *lines)), info, symbols, values)
