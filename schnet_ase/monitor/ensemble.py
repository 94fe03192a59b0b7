"""The ensemble that looks at a run: it moves the atoms, is part of the calculator that does, or is given beside it."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ase import Atoms
from ase.calculators.mixing import LinearCombinationCalculator

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.calculators.single import FixedCalculator
from schnet_ase.errors import MonitorError, RegistryError, StructureError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.registry.lookup import owning_card

SPREAD = ("energy_std", "forces_deviation")
SHARED = ("device", "dtype", "engine", "skin", "threads")
"""Arguments that an ensemble which is made here has from the calculator that moves the atoms."""


def ensemble_of(calculator: Any, ensemble: Any = None) -> Any:
    """The ensemble whose deviation counts: the given one, else the calculator, else the only one that it combines.

    Parameters
    ----------
    calculator
        That of the atoms.
    ensemble
        A calculator, or what `SchNetEnsembleCalculator` takes, which is then made with the device, the precision and
        the threads of `calculator`. Where both are ours and see as far, they have one neighbour list from here on.

    Raises
    ------
    MonitorError
        There is none, or there are several.
    """
    if ensemble is None:
        return _inside(calculator)
    if isinstance(ensemble, (str, os.PathLike)):
        ours = isinstance(calculator, FixedCalculator)
        options = {name: calculator.parameters[name] for name in SHARED} if ours else {}
        ensemble = SchNetEnsembleCalculator(ensemble, **options)
    if not _has_deviation(ensemble):
        raise MonitorError(
            f"ensemble is {type(ensemble).__name__}, which has no forces_deviation; give a SchNetEnsembleCalculator"
        )
    if isinstance(calculator, FixedCalculator) and isinstance(ensemble, FixedCalculator):
        ensemble.share_neighbors(calculator)
    return ensemble


def _inside(calculator: Any) -> Any:
    found = {id(part): part for part in _parts(calculator) if _has_deviation(part)}
    if len(found) != 1:
        what = f"combines {len(found)} ensembles" if found else "has no forces_deviation"
        raise MonitorError(
            f"the calculator of atoms is {type(calculator).__name__}, which {what}; "
            "use a SchNetEnsembleCalculator, or give one as ensemble=..."
        )
    return next(iter(found.values()))


def driven(atoms: Atoms, sure: bool) -> tuple[Floats, Floats, dict[str, Any]]:
    """Positions, cell, and what the calculator that moves the atoms says there: arrays that nobody writes into.

    These are energy, forces and stress, with the spread where that calculator is an ensemble, or nothing where it, or a
    part of it that is ours, refuses the atoms. Unless they have to be `sure`, one of our calculators is taken by its
    word: a dynamics has just had it calculate these atoms.
    """
    calculator = atoms.calc
    ours = isinstance(calculator, FixedCalculator)
    if ours and not sure and calculator.calculated is not None:
        return calculator.calculated.positions, calculator.calculated.cell, calculator.results
    results: dict[str, Any] = {}
    with contextlib.suppress(StructureError):
        if ours:
            if "forces" not in calculator.results or calculator.check_state(atoms):
                atoms.get_forces()
            results = calculator.results
        else:
            # Forces first: some calculators find the energy on the way. Copies, since some use their arrays again.
            forces = atoms.get_forces(apply_constraint=False).copy()
            found = {"energy": atoms.get_potential_energy(apply_constraint=False), "forces": forces}
            stress = getattr(calculator, "results", {}).get("stress")
            results = found if stress is None else found | {"stress": stress.copy()}
    return atoms.positions.copy(), atoms.cell.array.copy(), results


def with_spread(results: dict[str, Any], atoms: Atoms, ensemble: Any) -> dict[str, Any]:
    """`results` of `atoms` with the spread of `ensemble`; nothing where there are none or it refuses the atoms."""
    if not results or all(name in results for name in SPREAD):
        return results
    try:
        # An ensemble inside a sum has computed these atoms already, and does not again.
        return results | {name: ensemble.get_property(name, atoms) for name in SPREAD}
    except StructureError:
        return {}


def largest_known_force(calculator: Any) -> float | None:
    """The largest force on an atom, eV/Å, in the frames that a model learned from, where a card says so.

    Of a sum that of the only model in it, or the largest.
    """
    known: list[float] = []
    for part in _parts(calculator):
        parameters = getattr(part, "parameters", {})
        name = parameters.get("model") or parameters.get("models")
        if not isinstance(part, FixedCalculator) or name is None:
            continue
        try:
            card = owning_card(name)
        except RegistryError:
            continue
        if card is not None and card.data.force_max is not None:
            known.append(card.data.force_max)
    return max(known, default=None)


def _has_deviation(calculator: Any) -> bool:
    return "forces_deviation" in getattr(calculator, "implemented_properties", ())


def _parts(calculator: Any) -> list[Any]:
    """What ASE's sums and averages combine, of a sum within a sum too; else the calculator itself."""
    if isinstance(calculator, LinearCombinationCalculator):
        return [part for inner in calculator.mixer.calcs for part in _parts(inner)]
    return [calculator]
