"""Errors of a model on molecules that it has never seen: by kind of frame, family, element, size and temperature."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from schnet_ase import Predictor
from schnet_ase.evaluation.ranking import auroc
from schnet_ase.output.progress import Progress
from schnet_ase.uncertainty.metrics import MEV

from .blocks import Block, blocks, shards

HEADER = ("frames", "force MAE", "force RMSE", "energy MAE", "in 90 %", "AUROC")
UNITS = "force errors in meV/Å, energy errors in meV per atom; share of the force errors within the half-widths"
THERMAL = ("dynamics", "field", "driven", "explored")
"""Kinds of frames that come from dynamics at a temperature."""
CHUNK = 500
"""Frames in memory."""


QM9_LIKE = ("qm9", "substituted")
DRUG_LIKE = ("chembl", "drug", "approved", "cdk2", "joined")
"""What the names of such molecules begin with."""


class Tested(NamedTuple):
    """One frame and what a model says about it."""

    family: str
    molecule: str
    kind: str
    temperature: float
    """K; 0: none."""
    symbols: np.ndarray
    """(N,)"""
    energy: float
    """Error of the energy, eV per atom."""
    error: np.ndarray
    """(N, 3) errors of the forces, eV/Å."""
    deviation: np.ndarray | None
    """(N,) spread of an ensemble's forces, eV/Å."""
    half_width: np.ndarray | None
    """(N,) calibrated half-widths, eV/Å."""


def tested(output: Path, model: str, split: str, most: int) -> Iterator[Tested]:
    """Predict at most so many frames of a subset, every n-th of all."""
    found = [(f.stem.rpartition("-")[0], b) for f in shards(output) for b in blocks(f) if b.info["split"] == split]
    found = found[:: max(1, -(-len(found) // most))]
    predictor = Predictor(model)
    with Progress(len(found), split, "frame") as progress:
        left = iter(found)
        while some := list(islice(left, CHUNK)):
            for (family, block), prediction in zip(some, predictor([_atoms(b) for _, b in some]), strict=True):
                spread, n = prediction.spread, len(block.symbols)
                yield Tested(
                    family,
                    block.info["molecule"],
                    block.info["config_type"],
                    float(block.info["temperature"]),
                    np.array(block.symbols),
                    (prediction.energy - block.info["energy"]) / n,
                    prediction.forces - block.values[:, 3:],
                    None if spread is None else spread.forces_deviation,
                    None if spread is None else spread.forces_uncertainty,
                )
                progress.update()


def _atoms(block: Block) -> Atoms:
    return Atoms(block.symbols, block.values[:, :3])


def report(output: Path, model: str, split: str, most: int) -> None:
    """Print the errors of all frames, and of groups of them."""
    frames = list(tested(output, model, split, most))
    print(f"{model}, {split}: {UNITS}")
    print(f"{'':24}" + "".join(f"{name:>11}" for name in HEADER))
    _print("all", frames)
    print("dynamics")
    for name, some in _aims(frames).items():
        _print(name, some)
    for title, key in (("family", _family), ("kind", _kind), ("temperature (K)", _band), ("atoms", _size)):
        print(title)
        for name in sorted({key(frame) for frame in frames}):
            _print(name, [frame for frame in frames if key(frame) == name])
    print("element")
    for symbol in sorted({str(symbol) for frame in frames for symbol in frame.symbols}):
        _print(symbol, [_only(frame, symbol) for frame in frames if symbol in frame.symbols])


def _aims(frames: list[Tested]) -> dict[str, list[Tested]]:
    """Frames of dynamics of the molecules that the ensemble is made for."""
    thermal = [frame for frame in frames if frame.kind in THERMAL and frame.temperature]
    small = [frame for frame in thermal if frame.molecule.partition("-")[0] in QM9_LIKE]
    drugs = [frame for frame in thermal if frame.molecule.partition("-")[0] in DRUG_LIKE]
    groups = {
        "QM9-like, to 1500 K": small,
        "QM9-like, to 600 K": [frame for frame in small if frame.temperature <= 600.0],
        "drugs, 25-50, to 600 K": [f for f in drugs if f.temperature <= 600.0 and 25 <= len(f.symbols) <= 50],
    }
    return {name: some for name, some in groups.items() if some}


def _family(frame: Tested) -> str:
    return frame.family


def _kind(frame: Tested) -> str:
    return frame.kind


def _band(frame: Tested) -> str:
    if frame.kind not in THERMAL or not frame.temperature:
        return "other kinds"
    return "dynamics to 600" if frame.temperature <= 600.0 else "dynamics above 600"


def _size(frame: Tested) -> str:
    tens = (len(frame.symbols) - 1) // 10
    return f"{10 * tens + 1} to {10 * tens + 10}"


def _only(frame: Tested, symbol: str) -> Tested:
    """Return a frame with the atoms of one element."""
    own = frame.symbols == symbol
    deviation = None if frame.deviation is None else frame.deviation[own]
    half_width = None if frame.half_width is None else frame.half_width[own]
    return frame._replace(
        symbols=frame.symbols[own], error=frame.error[own], deviation=deviation, half_width=half_width
    )


def _print(name: str, frames: list[Tested]) -> None:
    error = np.concatenate([frame.error for frame in frames])
    size = np.linalg.norm(error, axis=1)
    energies = np.mean([abs(frame.energy) for frame in frames])
    inside = ranked = float("nan")
    if frames[0].half_width is not None:
        inside = 100.0 * float((size <= np.concatenate([frame.half_width for frame in frames])).mean())
    if frames[0].deviation is not None:
        ranked = auroc(np.concatenate([frame.deviation for frame in frames]), size)
    numbers = (MEV * np.abs(error).mean(), MEV * np.sqrt((error**2).mean()), MEV * energies)
    print(f"  {name:22}{len(frames):11}" + "".join(f"{x:11.1f}" for x in numbers) + f"{inside:11.1f}{ranked:11.3f}")
