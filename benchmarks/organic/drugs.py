"""What users do with drug-like molecules that no member has seen: relaxed structures, and energies of conformers.

Both are compared with GFN2-xTB. The molecules are those of the test set with 25 to 50 atoms.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.optimize import BFGS
from rdkit import Chem
from scipy.stats import spearmanr

from schnet_ase import SchNetEnsembleCalculator, predict
from schnet_ase.errors import StructureError
from schnet_ase.output.progress import Progress
from schnet_ase.simulation.minima import DISTINCT, distance, minima_deviation, single_members
from schnet_ase.simulation.structures import from_smiles
from schnet_ase.uncertainty.metrics import MEV

from .pool import Entry, family, write_family
from .splits import group_of, split_of
from .xtb import Unconverged, Xtb, XtbCalculator

FAMILIES = ("drugs", "like-drugs")
SMALLEST, LARGEST = 25, 50
"""Numbers of atoms."""
FMAX, STEPS = 0.01, 500
"""eV/Å, and steps after which a relaxation is given up."""
NEAR = 0.1
"""Å; structures whose heavy atoms deviate less are the same minimum."""
CONFORMERS = 10


class Minimum(NamedTuple):
    """One relaxed molecule."""

    name: str
    rmsd: float
    """Å, of the heavy atoms, from GFN2-xTB's minimum; not a number: one of the relaxations did not end."""
    flagged: bool
    """Whether the members disagree about it, by their forces or by their own minima."""


def molecules(output: Path, count: int) -> Iterator[tuple[Entry, Atoms]]:
    """Molecules of the test set with RDKit's geometry, in the order of their families."""
    for name in FAMILIES:
        write_family(output, name)
    found = (entry for some in zip(*(family(output, name) for name in FAMILIES), strict=False) for entry in some)
    yield from islice(_tested(found), count)


def _tested(entries: Iterator[Entry]) -> Iterator[tuple[Entry, Atoms]]:
    for entry in entries:
        mol = Chem.MolFromSmiles(entry.smiles)
        atoms = Chem.AddHs(mol).GetNumAtoms()
        if SMALLEST <= atoms <= LARGEST and split_of(group_of(mol, entry.by_scaffold)) == "test":
            try:
                yield entry, from_smiles(entry.smiles)
            except StructureError:
                continue  # RDKit finds no positions


def minima(output: Path, model: str, count: int) -> None:
    """Relax molecules with an ensemble and on with GFN2-xTB, and print how far the minima are apart."""
    ensemble, members = SchNetEnsembleCalculator(model), single_members(model, None, "float32")
    found = []
    with Progress(count, model, "molecule") as progress:
        for entry, atoms in molecules(output, count):
            found.append(_minimum(entry.name, atoms, ensemble, members))
            progress.update()
    near = [m for m in found if m.rmsd <= NEAR]
    other = [m for m in found if not m.rmsd <= NEAR]
    print(f"{model}: {len(found)} drug-like molecules of the test set, {SMALLEST} to {LARGEST} atoms")
    print(f"  within {NEAR} Å of GFN2-xTB's nearest minimum: {len(near)}, of which flagged: {_flagged(near)}")
    print(f"  elsewhere: {len(other)}, of which flagged: {_flagged(other)}")
    print(f"  median deviation of the heavy atoms: {np.nanmedian([m.rmsd for m in found]):.3f} Å")
    for m in other:
        print(f"  {m.name}: {m.rmsd:.2f} Å{', flagged' if m.flagged else ''}")


def _flagged(found: list[Minimum]) -> int:
    return sum(m.flagged for m in found)


def _minimum(name: str, atoms: Atoms, ensemble: SchNetEnsembleCalculator, members: list[Calculator]) -> Minimum:
    whole = _relax(atoms, ensemble)
    ours = atoms.copy()
    flagged = (
        not whole
        or ensemble.results["forces_deviation"].max() > ensemble.calibration.threshold()
        or minima_deviation(ours, members, FMAX) > DISTINCT
    )
    try:
        whole &= _relax(atoms, XtbCalculator(Xtb(atoms.numbers)))
    except Unconverged:
        whole = False
    heavy = atoms.numbers > 1
    rmsd = distance(ours.positions[heavy], atoms.positions[heavy]) if whole else float("nan")
    return Minimum(name, rmsd, bool(flagged))


def _relax(atoms: Atoms, calculator: object) -> bool:
    """Relax in place; return whether it ended."""
    atoms.calc = calculator
    with BFGS(atoms, logfile=None) as optimizer:
        try:
            return bool(optimizer.run(fmax=FMAX, steps=STEPS))
        except StructureError:  # an atom left the others
            return False


def conformers(output: Path, model: str, count: int) -> None:
    """Print the errors of energies of conformers, each relative to the mean of its molecule."""
    errors, orders = [], []
    with Progress(count, model, "molecule") as progress:
        for entry, _ in molecules(output, count):
            frames = [from_smiles(entry.smiles, seed) for seed in range(1, CONFORMERS + 1)]
            xtb = Xtb(frames[0].numbers)
            theirs = np.array([xtb.label(atoms.positions).energy for atoms in frames])
            ours = np.array([p.energy for p in predict(model, frames)])
            errors.append(np.abs((ours - ours.mean()) - (theirs - theirs.mean())).mean())
            orders.append(spearmanr(ours, theirs).statistic)
            progress.update()
    print(f"{model}: {len(errors)} drug-like molecules of the test set, {CONFORMERS} conformers of RDKit each")
    mae = float(np.mean(errors))
    print(f"  MAE of their energies: {MEV * mae:.0f} meV, {mae / (units.kcal / units.mol):.2f} kcal/mol")
    print(f"  Spearman ρ within a molecule: mean {np.nanmean(orders):.2f}, median {np.nanmedian(orders):.2f}")
