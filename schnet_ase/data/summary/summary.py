"""What is in a data set before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from schnet_ase.data.frames import Dataset
from schnet_ase.data.summary.balance import Balance, balance
from schnet_ase.data.summary.distances import Distances, distances
from schnet_ase.data.summary.duplicates import Duplicates, duplicates
from schnet_ase.data.summary.energies import LIMIT, Compositions, composition_residual, compositions, robust_deviation
from schnet_ase.data.summary.fingerprints import fingerprints, kinds
from schnet_ase.data.summary.flat import Flat, Flattened, Report, flatten
from schnet_ase.data.summary.order import neighbor_difference
from schnet_ase.geometry.arrays import Floats, Integers

PASSES = 2
"""How often a report hears of every frame."""
_FORCE_FLOOR = 0.05
"""Relative spread of largest forces, below which frames are copies of one."""
_ENERGY_FLOOR = 1e-3
"""eV, likewise of energies."""


@dataclass(frozen=True)
class Summary:
    """The content of a data set; arrays are of the F frames that can be computed with, eV and Å.

    `flat.index` holds the number that each of those has in its file.
    """

    dataset: Dataset
    flattened: Flattened
    compositions: Compositions
    residual: Floats
    """(F,) eV per atom: energy less what the composition explains; NaN where there is no energy."""
    energy_deviation: Floats
    """(F,) of the energy from the median, in robust standard deviations; zero where there are too few to say."""
    largest_force: Floats
    """(F,) eV/Å; NaN where there are no forces."""
    force_deviation: Floats
    """(F,) of the logarithm of the largest force, as `energy_deviation`."""
    distances: Distances
    balance: Balance
    duplicates: Duplicates
    neighbor_difference: float | None
    """Median distance of neighbouring frames by that of random ones; None where there are too few."""
    config_types: tuple[tuple[str, int], ...]
    """Each kind of configuration that the file names, and how many frames are of it; the most frequent first."""
    weights: tuple[tuple[float, int], ...]
    """Each weight, and how many frames have it; the most frequent first."""

    @property
    def flat(self) -> Flat:
        """The frames that can be computed with."""
        return self.flattened.flat

    @property
    def energy_outliers(self) -> Integers:
        """Of the F frames those whose energy is beyond `LIMIT` robust deviations, the farthest first."""
        return _beyond(np.abs(self.energy_deviation))

    @property
    def force_outliers(self) -> Integers:
        """Of the F frames those whose largest force is too large by the same limit, the farthest first."""
        return _beyond(self.force_deviation)


def summarize(dataset: Dataset, report: Report = lambda n: None) -> Summary:
    """Say what is in a data set: systems, labels, ranges, duplicates, outliers.

    Parameters
    ----------
    dataset
        As read, unchecked: labels may be missing or NaN.
    report
        Called with how many frames have been done since the last call; hears of every frame up to `PASSES` times.

    Returns
    -------
    Summary
        `schnet_ase.data.summary.page` has it in words, `schnet_ase.data.summary.picture` as a picture.

    Raises
    ------
    DataError
        No frame has atoms of known elements at finite positions.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # labels may be beyond all bounds
        return _summarize(dataset, report)


def _summarize(dataset: Dataset, report: Report) -> Summary:
    flattened = flatten(dataset, report)
    flat = flattened.flat
    made_of = compositions(flat)
    prints, kind = fingerprints(flat), kinds(flat, made_of)
    residual = composition_residual(flat, made_of)
    largest = flat.largest(flat.force_norms)
    pulled = np.where(largest > 0.0, largest, np.nan)
    config_types = Counter(frame.config_type for frame in dataset.frames if frame.config_type)
    return Summary(
        dataset,
        flattened,
        made_of,
        residual,
        # Energies of N atoms that are independent scatter as √N.
        robust_deviation(residual * np.sqrt(flat.n_atoms), made_of, _ENERGY_FLOOR),
        largest,
        robust_deviation(np.log(pulled), made_of, _FORCE_FLOOR),
        distances(flat, report),
        balance(flat),
        duplicates(flat, prints, kind),
        neighbor_difference(flat.index, prints, kind),
        tuple(config_types.most_common()),
        tuple(Counter(frame.weight for frame in dataset.frames).most_common()),
    )


def _beyond(deviation: Floats) -> Integers:
    far = np.flatnonzero(deviation > LIMIT)
    return np.asarray(far[np.argsort(-deviation[far], kind="stable")], dtype=np.int64)
