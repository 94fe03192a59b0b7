"""The ensemble that looks at a run: it moves the atoms, is part of the calculator that does, or is given beside it."""

from __future__ import annotations

from typing import Any

from ase import Atoms
from ase.calculators.mixing import LinearCombinationCalculator

from schnet_ase.errors import MonitorError, StructureError

SPREAD = ("energy_std", "forces_deviation")


def ensemble_of(calculator: Any, ensemble: Any = None) -> Any:
    """The ensemble whose deviation counts: the given one, else the calculator, else the only one that it combines.

    Raises
    ------
    MonitorError
        There is none, or there are several.
    """
    if ensemble is not None:
        if not _has_deviation(ensemble):
            raise MonitorError(
                f"ensemble is {type(ensemble).__name__}, which has no forces_deviation; give a SchNetEnsembleCalculator"
            )
        return ensemble
    found = {id(part): part for part in _parts(calculator) if _has_deviation(part)}
    if len(found) != 1:
        what = f"combines {len(found)} ensembles" if found else "has no forces_deviation"
        raise MonitorError(
            f"the calculator of atoms is {type(calculator).__name__}, which {what}; "
            "use a SchNetEnsembleCalculator, or give one as ensemble=..."
        )
    return next(iter(found.values()))


def results_of(atoms: Atoms, ensemble: Any) -> dict[str, Any]:
    """What the calculator of `atoms` says of them, and the spread of an ensemble beside it or inside it.

    Nothing where the ensemble, or a part of the calculator that is ours, refuses the atoms.
    """
    try:
        # Forces first: some calculators find the energy on the way. Copies, since some use their arrays again.
        forces = atoms.get_forces(apply_constraint=False).copy()
        results = {"energy": atoms.get_potential_energy(apply_constraint=False), "forces": forces}
        stress = getattr(atoms.calc, "results", {}).get("stress")
        if stress is not None:
            results["stress"] = stress.copy()
        # An ensemble inside a sum has computed these atoms already, and does not again.
        return results | {name: ensemble.get_property(name, atoms) for name in SPREAD}
    except StructureError:
        return {}


def _has_deviation(calculator: Any) -> bool:
    return "forces_deviation" in getattr(calculator, "implemented_properties", ())


def _parts(calculator: Any) -> list[Any]:
    """What ASE's sums and averages combine, of a sum within a sum too; else the calculator itself."""
    if isinstance(calculator, LinearCombinationCalculator):
        return [part for inner in calculator.mixer.calcs for part in _parts(inner)]
    return [calculator]
