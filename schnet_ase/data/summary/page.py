"""A page of text about a data set: its contents, and what to do before training."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import numpy as np
from ase import units
from ase.data import chemical_symbols

from schnet_ase.data.frames import formula
from schnet_ase.data.summary import words
from schnet_ase.data.summary.energies import LIMIT
from schnet_ase.data.summary.findings import findings
from schnet_ase.data.summary.flat import Found
from schnet_ase.data.summary.summary import Summary

_WIDTH = 118
_NAME = 15


def page(summary: Summary) -> list[str]:
    """Return the summary as lines of plain text; a line that begins with an exclamation mark is suspicious."""
    dataset = summary.dataset
    n_atoms = len(summary.flat.numbers)
    lines = [
        f"{dataset.source}: {words.count(len(dataset.frames), 'frame')}, {words.count(n_atoms, 'atom')}, "
        f"SHA-256 {dataset.sha256[:12]}",
        "",
        "SYSTEMS",
        *_rows(_systems(summary)),
        "",
        "LABELS",
        *_rows(_labels(summary)),
        "",
        "RANGES",
        *_rows(_ranges(summary)),
        "",
        "CHECKS",
    ]
    found = findings(summary)
    for finding in found:
        lines += _wrapped(finding.name, finding.text, "! " if finding.action else "  ")
    actions = list(dict.fromkeys(finding.action for finding in found if finding.action))
    return [*lines, "", *_verdict(summary, actions)]


def _rows(rows: Iterator[tuple[str, str]]) -> list[str]:
    return [line for name, text in rows for line in _wrapped(name, text, "  ")]


def _wrapped(name: str, text: str, mark: str) -> list[str]:
    """Return the lines of a row; long text is wrapped between words."""
    lines = textwrap.wrap(text, _WIDTH - len(mark) - _NAME, break_long_words=False, break_on_hyphens=False)
    return [f"{mark}{name:{_NAME}s}{lines[0]}", *(f"{'':{len(mark) + _NAME}s}{line}" for line in lines[1:])]


def _systems(summary: Summary) -> Iterator[tuple[str, str]]:
    flat, made_of = summary.flat, summary.compositions
    order = np.argsort(-made_of.frames, kind="stable")
    frequent, rest = order[: words.MOST_LISTED], order[words.MOST_LISTED :]
    named = [
        f"{formula(np.repeat(made_of.elements, made_of.counts[c]))} ({made_of.frames[c]:,})" for c in frequent.tolist()
    ]
    more = f" and {len(rest):,} more ({made_of.frames[rest].sum():,})" if len(rest) else ""
    yield "formulas", ", ".join(named) + more
    n_atoms = flat.n_atoms
    median = f", median {np.median(n_atoms):g}" if n_atoms.min() < n_atoms.max() else ""
    yield "atoms", f"{words.span(f'{n_atoms.min():,}', f'{n_atoms.max():,}')} per frame{median}"
    atoms = made_of.frames @ made_of.counts
    yield "elements", ", ".join(f"{chemical_symbols[z]} {n:,}" for z, n in zip(made_of.elements, atoms, strict=True))
    yield "periodic", _periodicity(summary)
    if summary.config_types:
        yield "config types", words.listed([f"{name} ({n:,})" for name, n in summary.config_types])
    if summary.weights[0][0] != 1.0 or len(summary.weights) > 1:
        yield "weights", words.listed([f"{weight:g} ({n:,})" for weight, n in summary.weights])


def _periodicity(summary: Summary) -> str:
    flat = summary.flat
    parts = []
    for directions, where in ((3, "in three directions"), (2, "in two directions"), (1, "in one direction")):
        frames = flat.pbc.sum(axis=1) == directions
        if frames.any():
            parts.append(f"{words.count(int(frames.sum()), 'frame')} {where}")
    if not parts:
        return "no"
    volumes = np.abs(np.linalg.det(flat.cell[flat.pbc.all(axis=1)]))
    if len(volumes):
        parts.append(f"cells of {words.span(f'{volumes.min():,.1f}', f'{volumes.max():,.1f}')} Å³")
    return ", ".join(parts)


def _labels(summary: Summary) -> Iterator[tuple[str, str]]:
    dataset = summary.dataset
    yield "units", dataset.units
    if dataset.labels:
        yield "found", dataset.labels.removeprefix("labels: ")
    if dataset.keys:
        yield "the file has", words.listed(dataset.keys, 12)
    for note in dataset.notes:
        yield "note", note
    n_frames = len(summary.dataset.frames)
    flattened = summary.flattened
    for name, found in (("energy", flattened.energy), ("forces", flattened.forces), ("stress", flattened.stress)):
        yield name, _share(found, n_frames)


def _share(found: Found, n_frames: int) -> str:
    have = len(found.have)
    if have in (0, n_frames):
        return "in all frames" if have else "none"
    without = np.setdiff1d(np.arange(n_frames), found.have)
    return f"in {have:,} of {n_frames:,} frames; not in {words.frames(without, 5)}"


def _ranges(summary: Summary) -> Iterator[tuple[str, str]]:
    yield from _energies(summary)
    flat = summary.flat
    usual = np.isfinite(summary.largest_force) & (summary.force_deviation <= LIMIT)
    forces = flat.forces[usual[flat.frame]]
    if len(forces):
        outliers = " without outliers" if len(summary.force_outliers) else ""
        f = int(np.nanargmax(summary.largest_force))
        yield (
            "forces",
            f"{np.sqrt(np.mean(np.square(forces))):.4g} eV/Å root mean square of a component{outliers}; "
            f"largest force {summary.largest_force[f]:.4g} eV/Å in frame {flat.index[f]}",
        )
    stress = flat.stress[np.isfinite(flat.stress).all(axis=1)]
    if len(stress):
        pressure = -stress[:, :3].mean(axis=1) / units.GPa
        range_of_stress = words.span(f"{stress.min():.4g}", f"{stress.max():.4g}")
        range_of_pressure = words.span(f"{pressure.min():.4g}", f"{pressure.max():.4g}")
        yield "stress", f"components {range_of_stress} eV/Å³; pressure {range_of_pressure} GPa"


def _energies(summary: Summary) -> Iterator[tuple[str, str]]:
    flat, left = summary.flat, summary.residual
    energy = flat.energy[np.isfinite(flat.energy)]
    if len(energy):
        yield "energy", f"{words.span(words.total(energy.min()), words.total(energy.max()))} eV"
    known = np.isfinite(left)
    if known.any():
        usual = left[known & (np.abs(summary.energy_deviation) <= LIMIT)]
        yield (
            "energy fit",
            f"per atom, less what the composition explains: {words.ev(left[known].min())} to "
            f"{words.ev(left[known].max())}, standard deviation {words.ev(usual.std())}"
            f"{'' if len(usual) == known.sum() else ' without outliers'}",
        )
    free = np.flatnonzero(flat.free_atoms & np.isfinite(flat.energy))
    if len(free):
        named = [f"{chemical_symbols[flat.numbers[flat.start[f]]]} {words.total(flat.energy[f])} eV" for f in free]
        yield "free atoms", words.listed(named)


def _verdict(summary: Summary, actions: list[str]) -> Iterator[str]:
    if actions:
        yield from textwrap.wrap(f"Before training: {'; '.join(actions)}.", _WIDTH)
        return
    flattened = summary.flattened
    named = ("energies", flattened.energy), ("forces", flattened.forces), ("stress", flattened.stress)
    have = " and ".join(name for name, found in named if len(found.have))
    hint = {"energies": " (force_weight = 0)", "forces": " (energy_weight = 0)"}.get(have, "")
    yield f"Ready to train on {have}{hint}."
