"""Find what is suspicious in a data set, and say what to do before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from schnet_ase.data.frames import Frame
from schnet_ase.data.labels.checks import check_frames
from schnet_ase.data.labels.plausibility import suspicions
from schnet_ase.data.summary import order, words
from schnet_ase.data.summary.energies import LIMIT
from schnet_ase.data.summary.flat import Found
from schnet_ase.data.summary.summary import Summary
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats

OVERLAP = 0.6
"""Share of the sum of two covalent radii; atoms this near are probably an error."""
UNBALANCED = 0.1
"""Share of the net force or torque of random forces above which it is more than rounding,"""
NOISE = 0.02
"""eV/Å, and eV for torques, if it is also larger than this times the root of the number of atoms."""
BINDING = (0.0, 12.0)
"""eV per atom; range of plausible binding energies; diamond and tungsten have 8 and 9."""
FEW = 10
"""Number of frames below which a training makes no sense."""


class Finding(NamedTuple):
    """The result of one check."""

    name: str
    text: str
    """Result in words."""
    action: str = ""
    """Advice before training; empty if nothing needs to be done."""


def findings(summary: Summary) -> tuple[Finding, ...]:
    """Return the results of all checks, in the order of the page."""
    looks: tuple[Callable[[Summary], Iterator[Finding]], ...] = (
        _structures,
        _labels,
        _units,
        _distances,
        _balance,
        _free_atoms,
        _duplicates,
        _outliers,
        _order,
    )
    return tuple(finding for look in looks for finding in look(summary))


def _structures(summary: Summary) -> Iterator[Finding]:
    broken = summary.flattened.broken
    if len(broken):
        text = f"{words.frames(broken)}: no atoms, an unknown element, or positions or a cell that are not finite"
        yield Finding("structures", text, "remove the frames without a structure")
    no_volume = summary.flat.index[summary.distances.flat_cells]
    if len(no_volume):
        yield Finding("cells", f"{words.frames(no_volume)}: periodic, in a cell without a volume", "correct the cells")
    if len(summary.dataset.frames) < FEW:
        yield Finding("frames", f"{words.count(len(summary.dataset.frames), 'frame')} in all", "label more frames")


def _labels(summary: Summary) -> Iterator[Finding]:
    named = (
        ("energy", summary.flattened.energy),
        ("forces", summary.flattened.forces),
        ("stress", summary.flattened.stress),
    )
    if not any(len(found.have) for _, found in named):
        yield Finding("labels", "no frame has an energy, forces or a stress", "say where the labels are (--energy-key)")
    for name, found in named:
        if len(found.not_finite):
            where = words.frames(found.not_finite)
            yield Finding(name, f"NaN or infinite in {where}", "remove the labels that are not finite")
        if len(found.misshapen):
            yield Finding(name, f"of a wrong shape in {words.frames(found.misshapen)}", "write those labels anew")
    refusal = _refusal(summary)
    if refusal:
        yield Finding("labels", refusal, "find the labels")


def _refusal(summary: Summary) -> str:
    """Return why a training would refuse the finite labels, such as zeros that stand for missing ones; empty if it
    would not."""
    flattened = summary.flattened
    if len(flattened.broken):
        return ""  # the indices of the remaining frames would be wrong
    frames = _usable(summary)
    try:
        check_frames(
            frames,
            summary.dataset.source,
            energies=any(frame.energy is not None for frame in frames),
            forces=any(frame.forces is not None for frame in frames),
            stress=any(frame.stress is not None for frame in frames),
        )
    except DataError as error:
        return str(error).removeprefix(f"{summary.dataset.source}: ")
    return ""


def _usable(summary: Summary) -> list[Frame]:
    """Return the usable frames, without their unusable labels."""
    flattened = summary.flattened
    energy, forces, stress = (_bad(found) for found in (flattened.energy, flattened.forces, flattened.stress))
    numbered = [(f, summary.dataset.frames[f]) for f in summary.flat.index.tolist()]
    return [
        frame._replace(
            energy=None if f in energy else frame.energy,
            forces=None if f in forces else frame.forces,
            stress=None if f in stress else frame.stress,
        )
        for f, frame in numbered
    ]


def _bad(found: Found) -> frozenset[int]:
    """Return the frames whose label cannot be used."""
    return frozenset(found.not_finite.tolist()) | frozenset(found.misshapen.tolist())


def _units(summary: Summary) -> Iterator[Finding]:
    far = frozenset([*summary.energy_outliers.tolist(), *summary.force_outliers.tolist()])
    found = suspicions(summary.dataset._replace(frames=[f for n, f in enumerate(_usable(summary)) if n not in far]))
    for text in found:
        yield Finding("units", text, "correct the units")
    if not found:
        yield Finding("units", "no unit looks wrong")


def _distances(summary: Summary) -> Iterator[Finding]:
    near = summary.distances
    if not np.isfinite(near.relative).any():
        return
    f = int(np.nanargmin(near.relative))
    where = f"{words.pair(near.elements[f])} in frame {summary.flat.index[f]}"
    text = f"tightest {near.shortest[f]:.2f} Å, {where}: {near.relative[f]:.2f} of the sum of the covalent radii"
    if len(near.looked_at) < len(summary.flat.index):
        text = f"{text} ({len(near.looked_at):,} frames examined)"
    overlap = np.flatnonzero(near.relative < OVERLAP)
    if not len(overlap):
        yield Finding("distances", text)
        return
    overlap = overlap[np.argsort(near.relative[overlap], kind="stable")]
    text = f"{text}; below {OVERLAP:g} in {words.frames(summary.flat.index[overlap])}"
    yield Finding("distances", text, "look at the frames whose atoms overlap, or give --length-unit")


def _balance(summary: Summary) -> Iterator[Finding]:
    sums = summary.balance
    for name, net, relative, unit, action in (
        ("net force", sums.net_force, sums.relative_force, "eV/Å", "find out why forces do not add up to zero"),
        ("net torque", sums.net_torque, sums.relative_torque, "eV", "find out whether forces are those of the atoms"),
    ):
        known = np.isfinite(net)
        if not known.any():
            continue
        text = f"median {_small(float(np.median(net[known])))} {unit}"
        noise = NOISE * np.sqrt(summary.flat.n_atoms)
        large = np.flatnonzero((np.nan_to_num(relative) > UNBALANCED) & (np.nan_to_num(net) > noise))
        if not len(large):
            yield Finding(name, f"{text}, largest {_small(float(np.nanmax(net)))}")
            continue
        large = large[np.argsort(-relative[large], kind="stable")]
        named = words.frames(summary.flat.index[large], 5)
        text = f"{text}, {net[large[0]]:.3g} {unit} in frame {summary.flat.index[large[0]]}; not zero in {named}"
        if name == "net force":
            yield Finding(name, f"{text}: fixed atoms, a field, or an atom left out", action)
        else:
            yield Finding(name, f"{text}: forces of other atoms, or turned", action)


def _small(value: float) -> str:
    return "0" if value < 1e-6 else f"{value:.2g}"


def _free_atoms(summary: Summary) -> Iterator[Finding]:
    binding = binding_energy(summary)
    if binding is None:
        return
    text = f"atoms bind with {binding:.2f} eV per atom, by the energies of the free ones"
    if BINDING[0] < binding < BINDING[1]:
        yield Finding("free atoms", text)
    else:
        yield Finding("free atoms", text, "take free atoms and the other frames from one method, in one unit")


def binding_energy(summary: Summary) -> float | None:
    """Return the median binding energy per atom, eV, by the energies of free atoms; None if an element has none."""
    flat, made_of = summary.flat, summary.compositions
    free = np.flatnonzero(flat.free_atoms & np.isfinite(flat.energy))
    numbers = flat.numbers[flat.start[free]]
    if not np.isin(made_of.elements, numbers).all():
        return None
    reference = np.array([np.median(flat.energy[free[numbers == z]]) for z in made_of.elements])
    larger = (flat.n_atoms > 1) & np.isfinite(flat.energy)
    binding: Floats = (made_of.counts[made_of.of] @ reference - flat.energy)[larger] / flat.n_atoms[larger]
    return float(np.median(binding)) if len(binding) else None


def _duplicates(summary: Summary) -> Iterator[Finding]:
    found, index = summary.duplicates, summary.flat.index
    if not len(found.exact) and not len(found.near):
        yield Finding("duplicates", "none, also up to rounding")
        return
    parts = []
    for pairs, how in ((found.exact, "exactly"), (found.near, "up to rounding")):
        if len(pairs):
            n_repeated = len(np.unique(pairs[:, 1]))
            verb = "repeats" if n_repeated == 1 else "repeat"
            parts.append(f"{words.count(n_repeated, 'frame')} {verb} another {how} ({_pairs(index[pairs])})")
    alone = len(found.exact) and not len(found.contradictory)
    yield Finding("duplicates", "; ".join(parts), "keep one frame of each structure" if alone else "")
    if len(found.contradictory):
        differences = []
        if np.isfinite(found.energy_difference).any():
            differences.append(f"energies by up to {np.nanmax(found.energy_difference):.3g} eV")
        if np.isfinite(found.force_difference).any():
            differences.append(f"forces by up to {np.nanmax(found.force_difference):.3g} eV/Å")
        text = f"{_pairs(index[found.contradictory])} are one structure with different labels: {', '.join(differences)}"
        yield Finding("duplicates", text, "decide which label of a structure is right")


def _pairs(pairs: np.ndarray, most: int = 5) -> str:
    named = ", ".join(f"{a} = {b}" for a, b in pairs[:most])
    return f"{named}, …" if len(pairs) > most else named


def _outliers(summary: Summary) -> Iterator[Finding]:
    parts = []
    for name, frames, values, form, unit in (
        ("energy", summary.energy_outliers, summary.residual, "+.3g", "eV per atom"),
        ("forces", summary.force_outliers, summary.largest_force, ".3g", "eV/Å"),
    ):
        if len(frames):
            worst = f"{'' if len(frames) == 1 else 'first '}{format(values[frames[0]], form)} {unit}"
            parts.append(f"{name} in {words.frames(summary.flat.index[frames])} ({worst})")
    if parts:
        yield Finding("outliers", "; ".join(parts), "look at the outliers: failed calculations are to be removed")
    else:
        yield Finding("outliers", f"none beyond {LIMIT:g} robust standard deviations")


def _order(summary: Summary) -> Iterator[Finding]:
    ratio = summary.neighbor_difference
    if ratio is None:
        return
    text = f"neighbouring frames differ {ratio:.2f} times as much as random ones"
    if ratio < order.ALIKE:
        note = "a random split gives errors that are too good, test on other frames"
        yield Finding("order", f"{text}, as in dynamics or a sorted list: {note}")
    else:
        yield Finding("order", text)
