"""Ensemble whose spread is monitored: it moves the atoms, is part of the calculator that does, or is given apart."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ase import Atoms
from ase.calculators.mixing import LinearCombinationCalculator

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.calculators.fixed import FixedCalculator
from schnet_ase.errors import MonitorError, RegistryError, StructureError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.registry.lookup import owning_card

SPREAD = ("energy_std", "forces_deviation")
SHARED = ("device", "dtype", "engine", "skin", "threads")
"""Arguments that an ensemble made here takes over from the calculator that moves the atoms."""


def ensemble_of(calculator: Any, ensemble: Any = None) -> Any:
    """Return the ensemble to monitor: the given one, or `calculator`, or the only ensemble that it combines.

    Parameters
    ----------
    calculator
        Calculator that moves the atoms.
    ensemble
        Calculator, or an argument of `SchNetEnsembleCalculator`, which is then made with the device, precision and
        threads of `calculator`. If both calculators belong to this package and the ensemble's cutoff is not the larger
        one, the ensemble uses the neighbour list of `calculator` from now on.

    Raises
    ------
    MonitorError
        There is no ensemble, or there are several.
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
    """Return positions, cell, and results of the calculator that moves the atoms, as arrays that are not overwritten.

    The results are energy, forces and stress, and the spread if the calculator is an ensemble; they are empty if the
    calculator, or a part of it from this package, refuses the atoms. Unless `sure`, a calculator of this package is
    trusted to have just computed these atoms, as it has in dynamics.
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
            # Forces first, since some calculators find the energy on the way. Copies, since some reuse their arrays.
            forces = atoms.get_forces(apply_constraint=False).copy()
            found = {"energy": atoms.get_potential_energy(apply_constraint=False), "forces": forces}
            stress = getattr(calculator, "results", {}).get("stress")
            results = found if stress is None else found | {"stress": stress.copy()}
    return atoms.positions.copy(), atoms.cell.array.copy(), results


def with_spread(results: dict[str, Any], atoms: Atoms, ensemble: Any) -> dict[str, Any]:
    """Return `results` of `atoms` with the spread of `ensemble`; empty if they are empty or it refuses the atoms."""
    if not results or all(name in results for name in SPREAD):
        return results
    try:
        # An ensemble inside a sum has already computed these atoms and does not repeat that.
        if isinstance(ensemble, SchNetEnsembleCalculator):
            return results | ensemble.disagreement(atoms)._asdict()
        return results | {name: ensemble.get_property(name, atoms) for name in SPREAD}
    except StructureError:
        return {}


def largest_known_force(calculator: Any) -> float | None:
    """Return the largest force on an atom, eV/Å, in the training frames of a model according to its card.

    If the calculator combines several models, the largest of their values is returned; None if none is known.
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
    """Return the calculators that ASE's sums and averages combine, also nested ones; else the calculator itself."""
    if isinstance(calculator, LinearCombinationCalculator):
        return [part for inner in calculator.mixer.calcs for part in _parts(inner)]
    return [calculator]
