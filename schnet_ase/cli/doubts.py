"""Warnings about a run, before it and after it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from schnet_ase.errors import RunawayError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from schnet_ase.monitor.monitor import UncertaintyMonitor
    from schnet_ase.registry.applicability import Taught
    from schnet_ase.simulation.starts import Start


KINDS = 5
"""Number of kinds, among many structures, that a command warns about."""


def say_what_is_strange(model: str, atoms: Atoms, *, moving: bool) -> Taught:
    """Say how near the training frames the atoms are; warn about atoms that the model was not trained on, charges,
    unpaired electrons, images, and a run of an experimental entry.

    Return what the model was trained on.
    """
    from schnet_ase.registry.applicability import taught

    known = taught(model)
    _say_of_atoms(model, known, atoms, moving=moving)
    _say_of_model(known, moving=moving)
    return known


def say_what_is_strange_of_many(model: str, frames: Sequence[Atoms], calculator: Calculator, *, moving: bool) -> None:
    """Say the same, by number, for the first structure of each formula, charge and number of unpaired electrons; of
    all, say which the model refuses, and their spread."""
    from schnet_ase.calculators.predictor import Predictor
    from schnet_ase.registry.applicability import taught
    from schnet_ase.registry.electrons import stated_charge, stated_unpaired
    from schnet_ase.simulation.each import Given, label
    from schnet_ase.simulation.starts import starts

    given = calculator.parameters
    found = starts(Predictor(model, device=given["device"], dtype=given["dtype"]), frames)
    kinds: dict[tuple[str, int, int], Given] = {}
    for start, atoms in zip(found, frames, strict=True):
        if not start.refusal:
            kind = atoms.get_chemical_formula(), stated_charge(atoms), stated_unpaired(atoms)
            kinds.setdefault(kind, Given(start.number, atoms))
    known = taught(model)
    for first in list(kinds.values())[:KINDS]:
        atoms = first.atoms.copy()
        atoms.calc = calculator
        _say_of_atoms(model, known, atoms, moving=moving, about=f"{label(first)}: ")
    _say_of_model(known, moving=moving)
    _say_how_all_start(found, calculator)


def _say_of_atoms(model: str, known: Taught, atoms: Atoms, *, moving: bool, about: str = "") -> None:
    from schnet_ase.registry.applicability import electrons, images, strange
    from schnet_ase.registry.environments import nearness

    def say(sentence: str | None, level: int = logging.WARNING) -> None:
        if sentence:
            said = sentence.replace("STRUCTURE", "it", 1) if about else sentence
            logging.getLogger("schnet_ase").log(level, "%s%s", about, said)

    say(strange(known, atoms))
    say(electrons(known, atoms))
    if (near := nearness(model, atoms)) is not None:
        say(near.line(), logging.INFO if near.familiar else logging.WARNING)
    say(images(known, atoms, atoms.calc.cutoff, moving=moving))


def _say_of_model(known: Taught, *, moving: bool) -> None:
    if moving and known.experimental:
        logging.getLogger("schnet_ase").warning("%s is experimental: %s", known.name, known.experimental)


def _say_how_all_start(found: Sequence[Start], calculator: Calculator) -> None:
    logger = logging.getLogger("schnet_ase")
    if refused := [start for start in found if start.refusal]:
        first = refused[0]
        logger.warning(
            "the model refuses %d of the %d structures; structure %d: %s",
            len(refused),
            len(found),
            first.number,
            first.refusal,
        )
    calibration = getattr(calculator, "calibration", None)
    if calibration is None:
        return
    threshold = calibration.threshold()
    if above := [start for start in found if start.deviation > threshold]:
        worst = max(above, key=lambda start: start.deviation)
        logger.warning(
            "the forces_deviation of %d of the %d structures is above %.3f eV/Å at the start, which %s frames "
            "like those of the calibration exceeds; the largest is %.3f, of structure %d",
            len(above),
            len(found),
            threshold,
            calibration.exceeded_by,
            worst.deviation,
            worst.number,
        )


def with_advice(error: RunawayError, known: Taught, atoms: Atoms, gentler: str) -> RunawayError:
    """Return the error with what helps; near images that the model does not know are the first thing to mend."""
    from schnet_ase.registry.applicability import advice, images

    wrapped = images(known, atoms, atoms.calc.cutoff, moving=False)
    helps = "set pbc to False, or give a larger cell" if wrapped else advice(known, atoms, gentler)
    return RunawayError(f"{error}; {helps}", error.step)


def doubts(atoms: Atoms, deviation: float) -> Iterator[str]:
    """Yield doubts about a relaxed structure: forces also vanish if atoms are far apart, and in spurious minima."""
    lone = atoms.calc.out_of_reach(atoms)
    if len(lone):
        yield f"{len(lone)} of its atoms have no other within the cutoff; start from one that holds together"
    calibration = getattr(atoms.calc, "calibration", None)
    if calibration is not None and deviation > calibration.threshold():
        yield (
            f"its forces_deviation of {deviation:.3f} eV/Å is above {calibration.threshold():.3f}, which "
            f"{calibration.exceeded_by} frames like those of the calibration exceeds; start nearer to those, "
            "or check it with the reference method"
        )


def doubts_of_run(atoms: Atoms, deviations: Sequence[float], monitor: UncertaintyMonitor | None) -> Iterator[str]:
    """Yield doubts about a run from the deviations of its rows, or their largest alone; single frames above the
    threshold are left to a monitor."""
    from schnet_ase.monitor.arguments import FAILED_ABOVE

    lone = atoms.calc.out_of_reach(atoms)
    if len(lone):
        yield f"{len(lone)} of its atoms end with no other within the cutoff; take shorter steps, or a relaxed start"
    calibration = getattr(atoms.calc if monitor is None else monitor.ensemble, "calibration", None)
    if calibration is None:
        return
    threshold, seen = calibration.threshold(), [value for value in deviations if not math.isnan(value)]
    usual = f"the {threshold:.3f} that {calibration.exceeded_by} frames like those of the calibration exceeds"
    helps = "end it at the first such frame with --stop" if monitor is not None else "see where with --monitor"
    if (largest := max(seen, default=0.0)) > FAILED_ABOVE * threshold:
        yield f"its forces_deviation reached {largest:.3f} eV/Å, more than {FAILED_ABOVE:g} times {usual}; {helps}"
    elif 1 < len(seen) < 2 * (above := sum(value > threshold for value in seen)):
        yield (
            f"its forces_deviation is above {usual} in {above} of its {len(seen)} rows; check it with the reference "
            "method"
        )
