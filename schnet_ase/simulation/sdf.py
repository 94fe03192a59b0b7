"""Read all records of an SDF file (MDL molfiles V2000), with charges, unpaired electrons and isotopes.

ASE reads the first record only, without them.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from ase import Atoms
from ase.io.sdf import read_sdf

from schnet_ase.errors import StructureError

COLUMN = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}
"""Charge that a number in the column of an atom line means; 4 means a radical."""
UNREADABLE = "unreadable"
"""Name in ``atoms.info`` of the reason why a record has no atoms."""
UNPAIRED = {0: 0, 1: 0, 2: 1, 3: 2}
"""Unpaired electrons that a number in a line ``M  RAD`` means: none, singlet, doublet, triplet."""


def read_records(path: Path) -> list[Atoms]:
    """Read every record of an SDF file, or the one molecule of a molfile.

    Returns
    -------
    list of Atoms
        ``atoms.info`` has the title of the record, if there is one, as ``name``, and ``charge`` (e) and
        ``unpaired_electrons`` where they are not 0. An isotope's mass is its mass number, u. If others
        can be read, a record that cannot has no atoms, and ``unreadable`` states the reason.

    Raises
    ------
    StructureError
        None of the records can be read: it is not a V2000 molfile, or a drawing in two dimensions.
    """
    records = re.split(r"^\$\$\$\$.*\n?", path.read_text(errors="replace"), flags=re.M)
    if not records[-1].strip():
        records.pop()
    found = [_record_or_reason(text, f"{path}: record {number}") for number, text in enumerate(records)]
    if found and all(UNREADABLE in atoms.info for atoms in found):
        raise StructureError(found[0].info[UNREADABLE])
    return found


def _record_or_reason(text: str, where: str) -> Atoms:
    try:
        return _record(text, where)
    except StructureError as error:
        return Atoms(info={UNREADABLE: str(error)})


def _record(text: str, where: str) -> Atoms:
    lines = text.splitlines()
    if len(lines) < 4 or "V2000" not in lines[3]:
        form = "a molfile V3000" if len(lines) > 3 and "V3000" in lines[3] else "no molfile"
        raise StructureError(f"{where} is {form}; expected V2000, which RDKit and Open Babel write")
    try:
        atoms: Atoms = read_sdf(io.StringIO(text))
        _state_isotopes(atoms, _pairs(lines, "M  ISO"))
        state_electrons(atoms, *_electrons(lines, len(atoms)))
    except (ValueError, IndexError, KeyError) as error:
        raise StructureError(f"{where}: its atoms cannot be read ({error}); mend the record or remove it") from error
    if lines[1][20:22] == "2D" and len(atoms) > 1 and not atoms.positions[:, 2].any():
        raise StructureError(f"{where} is a drawing in two dimensions; give positions in space, or --smiles")
    if title := lines[0].strip():  # ASE's extxyz format writes an empty string so that it loses the next key
        atoms.info["name"] = title
    return atoms


def _state_isotopes(atoms: Atoms, isotopes: list[tuple[int, int]]) -> None:
    if isotopes:
        masses = atoms.get_masses()
        masses[[place - 1 for place, _ in isotopes]] = [number for _, number in isotopes]
        atoms.set_masses(masses)


def state_electrons(atoms: Atoms, charge: int, unpaired: int) -> None:
    """Put a charge (e) and a number of unpaired electrons into ``atoms.info`` where they are not 0."""
    if charge:
        atoms.info["charge"] = charge
    if unpaired:
        atoms.info["unpaired_electrons"] = unpaired


def _electrons(lines: list[str], n_atoms: int) -> tuple[int, int]:
    """Return the charge and the number of unpaired electrons; lines ``M`` replace the column of the atoms."""
    charges, radicals = _pairs(lines, "M  CHG"), _pairs(lines, "M  RAD")
    if charges or radicals:
        return sum(charge for _, charge in charges), sum(UNPAIRED.get(kind, 0) for _, kind in radicals)
    column = [int(line[36:39].strip() or 0) for line in lines[4 : 4 + n_atoms]]
    return sum(COLUMN.get(kind, 0) for kind in column), column.count(4)


def _pairs(lines: list[str], tag: str) -> list[tuple[int, int]]:
    """Return all pairs, of the number of an atom, from 1, and a value, in the lines of a tag."""
    found = []
    for line in lines:
        if line.startswith(tag):
            numbers = [int(number) for number in line[9:].split()]
            found += list(zip(numbers[::2], numbers[1::2], strict=False))
    return found
