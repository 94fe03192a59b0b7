"""Minimum-energy paths by ASE's nudged elastic band with a climbing image, with the spread over an ensemble."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import find_mic
from ase.io import write
from ase.mep import NEB
from ase.optimize import FIRE

from schnet_ase.errors import RunawayError, SchNetError, StructureError
from schnet_ase.monitor.ensemble import largest_known_force
from schnet_ase.monitor.guard import FORCE, RISE, STRONGER
from schnet_ase.output.files import atomic_write
from schnet_ase.simulation.relaxation import optimize

END_FMAX = 0.01
"""Largest force in eV/Å at which an end counts as relaxed."""
FIRST = 5.0
"""The image of highest energy climbs once the largest force on the band is below this multiple of the final one."""
SAME = 0.05
"""Ends whose atoms all lie nearer than this to each other, Å, are one structure."""


class Image(NamedTuple):
    """One structure of a path."""

    distance_A: float
    """Length of the path up to here: the sum of the lengths of the steps in all 3N coordinates."""
    energy_eV: float
    """Energy above that of the first image."""
    energy_spread_eV: float
    """Standard deviation of this difference over the members of an ensemble; NaN for a single network."""
    max_force_eV_per_A: float
    """Largest force on an atom, not only across the path."""
    max_forces_deviation_eV_per_A: float
    """Largest ``forces_deviation``; NaN for a single network."""
    flagged: bool
    """Whether the deviation is above the threshold of the ensemble's calibration."""


class ReactionPath(NamedTuple):
    """A converged path."""

    images: tuple[Image, ...]
    structures: tuple[Atoms, ...]
    """Structures with their calculator's results."""
    saddle: int
    """Number of the image of highest energy, which has climbed to the saddle point; 0 or the last if there is none."""
    backward: Image
    """The image at the saddle, with the energy above that of the last image and its spread."""
    threshold: float
    """Threshold of the ensemble's calibration, eV/Å; NaN without one."""


def check_same_atoms(first: Atoms, last: Atoms) -> None:
    """Refuse two ends that do not have the same atoms in the same order and the same cell.

    Raises
    ------
    StructureError
        They differ; the message names the first atom that does.
    """
    if len(first) != len(last):
        raise StructureError(f"the ends have {len(first)} and {len(last)} atoms; give the same atoms in the same order")
    differ = np.flatnonzero(first.numbers != last.numbers)
    if len(differ):
        i = int(differ[0])
        given = f"atom {i} is {first.symbols[i]} in the first end and {last.symbols[i]} in the other"
        if first.get_chemical_formula() == last.get_chemical_formula():
            raise StructureError(f"{given}; the ends have the same atoms in another order: number them alike")
        raise StructureError(f"{given}; give two structures of the same atoms in the same order")
    if (first.pbc != last.pbc).any() or (first.pbc.any() and not np.allclose(first.cell, last.cell, atol=1e-6)):
        raise StructureError("the ends have different cells or periodic directions; give both the same")


def run_neb(
    first: Atoms,
    last: Atoms,
    output: Path,
    *,
    images: int = 9,
    fmax: float = 0.02,
    steps: int = 1000,
    relax_ends: bool = True,
    report: Callable[[int, float, float], None] = lambda step, barrier, force: None,
) -> ReactionPath:
    """Find the minimum-energy path between two structures.

    The band starts from ASE's interpolation by image dependent pair potentials (IDPP). It is optimized by FIRE with the
    improved tangent of Henkelman and Jónsson, J. Chem. Phys. 113, 9978 (2000), and then with a climbing image,
    Henkelman, Uberuaga and Jónsson, J. Chem. Phys. 113, 9901 (2000).

    Parameters
    ----------
    first, last
        Ends with the same atoms in the same order; `first` has the calculator of all images. They are relaxed in place.
    output
        Prefix of ``.xyz`` (the images), ``-saddle.xyz`` (the highest one), ``.csv`` and ``.png``.
    images
        Number of images, both ends included.
    fmax
        Largest force on the band in eV/Å at which it counts as converged.
    steps
        Largest number of steps of the band.
    relax_ends
        Whether to relax the ends; otherwise they are taken as they are.
    report
        Callback that receives the step, the highest energy above the first end in eV, and the largest force on the
        band in eV/Å.

    Returns
    -------
    ReactionPath
        The path.

    Raises
    ------
    StructureError
        The ends do not have the same atoms, or they are one structure.
    SchNetError
        An end or the band is not converged after `steps`; nothing is written.
    RunawayError
        The atoms of an end or an image leave the world that the model knows; nothing is written.
    """
    check_same_atoms(first, last)
    calculator = first.calc
    last.calc = calculator
    for name, end in (("first", first), ("last", last)):
        if relax_ends and not optimize(end, fmax=END_FMAX, steps=steps):
            raise SchNetError(f"the {name} end is not relaxed after {steps} steps; give one nearer to a minimum")
    if not first.pbc.any() and not first.constraints:
        minimize_rotation_and_translation(first, last)
    if _farthest(first, last) < SAME:
        relaxed = " relax to" if relax_ends else " are"
        raise StructureError(f"both ends{relaxed} the same structure within {SAME} Å; give two minima")
    band = [first, *(first.copy() for _ in range(images - 2)), last]
    for image in band:
        image.calc = calculator
    neb: Any = NEB(band, method="improvedtangent", allow_shared_calculator=True)
    neb.interpolate("idpp", mic=bool(first.pbc.any()))
    limit = _largest_allowed(calculator, band)
    done = 0
    for climb, wanted in ((False, FIRST * fmax), (True, fmax)):
        neb.climb = climb
        with FIRE(neb, logfile=None) as optimizer, np.errstate(over="ignore", invalid="ignore"):
            for _ in optimizer.irun(fmax=wanted, steps=max(1, steps - done)):
                _check(neb, done + optimizer.nsteps, limit)
                report(done + optimizer.nsteps, float(neb.energies.max() - neb.energies[0]), neb.get_residual())
            done += optimizer.nsteps
    if neb.get_residual() > fmax:
        raise SchNetError(
            f"the band is not converged after {done} steps: largest force {neb.get_residual():.3g} eV/Å, wanted {fmax};"
            " give more --steps, a larger --fmax or other ends"
        )
    found = _path(band, calculator)
    _write(found, output)
    return found


def _farthest(first: Atoms, last: Atoms) -> float:
    _, lengths = find_mic(last.positions - first.positions, first.cell, first.pbc)
    return float(lengths.max())


def _largest_allowed(calculator: Calculator, band: Sequence[Atoms]) -> float:
    """Return the limit of the force on an atom, eV/Å, as `schnet_ase.monitor.guard.Guard` has it."""
    known = largest_known_force(calculator)
    start = max(float(np.linalg.norm(image.get_forces(apply_constraint=False), axis=1).max()) for image in band)
    return max(FORCE if known is None else STRONGER * known, RISE * start)


def _check(neb: Any, step: int, limit: float) -> None:
    """Stop a band of which an image has left the world that the model knows."""
    largest = np.linalg.norm(neb.real_forces, axis=2).max(axis=1)
    bad = np.flatnonzero(~(largest <= limit) | ~np.isfinite(neb.energies))
    if len(bad):
        raise RunawayError(
            f"stopped at step {step}: a force on image {bad[0]} is {largest[bad[0]]:.3g} eV/Å; give ends nearer to each"
            " other, or a structure between them as an end",
            step,
        )


def _path(band: Sequence[Atoms], calculator: Calculator) -> ReactionPath:
    calibration = getattr(calculator, "calibration", None)
    threshold = math.nan if calibration is None else calibration.threshold()
    structures, energies, members, forces, deviations = [], [], [], [], []
    for image in band:
        energies.append(image.get_potential_energy())
        forces.append(float(np.linalg.norm(image.get_forces(), axis=1).max()))
        results = calculator.results
        members.append(results.get("energy_ensemble", np.full(1, energies[-1])).copy())
        deviations.append(float(np.max(results.get("forces_deviation", math.nan))))
        kept = image.copy()
        kept.calc = calculator
        if hasattr(calculator, "annotate"):
            calculator.annotate(kept)
        kept.calc = _frozen(kept, calculator)
        structures.append(kept)
    steps = [0.0]
    for before, after in itertools.pairwise(band):
        vectors, _ = find_mic(after.positions - before.positions, before.cell, before.pbc)
        steps.append(float(np.linalg.norm(vectors)))
    lengths = np.cumsum(steps)

    def image_from(k: int, reference: int) -> Image:
        spread = np.std(members[k] - members[reference], ddof=1) if len(members[k]) > 1 else math.nan
        flagged = deviations[k] > threshold
        above = energies[k] - energies[reference]
        return Image(float(lengths[k]), above, float(spread), forces[k], deviations[k], flagged)

    saddle = int(np.argmax(energies))
    everything = tuple(image_from(k, 0) for k in range(len(band)))
    return ReactionPath(everything, tuple(structures), saddle, image_from(saddle, -1), threshold)


def _frozen(atoms: Atoms, calculator: Calculator) -> Calculator:
    results = {name: calculator.results[name] for name in ("energy", "forces")}
    return SinglePointCalculator(atoms, **results)


def _write(found: ReactionPath, output: Path) -> None:
    from schnet_ase.simulation.pictures import reaction_path  # loads matplotlib, hence only here

    for suffix, frames in ((".xyz", found.structures), ("-saddle.xyz", found.structures[found.saddle])):
        text = io.StringIO()
        write(text, frames, format="extxyz")
        atomic_write(f"{output}{suffix}", text.getvalue())
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", *Image._fields])
    for number, image in enumerate(found.images):
        rows.writerow([number, *(f"{value:.8g}" for value in image[:-1]), int(image.flagged)])
    reaction_path(found, Path(f"{output}.png"))
    atomic_write(f"{output}.csv", table.getvalue())
