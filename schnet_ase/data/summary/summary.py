"""Summarize a data set before training on it."""

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
"""Number of times that the callback reports every frame."""
_FORCE_FLOOR = 0.05
"""Relative spread of the largest forces below which frames count as copies of one frame."""
_ENERGY_FLOOR = 1e-3
"""eV; spread of the energies below which frames count as copies of one frame."""


@dataclass(frozen=True)
class Summary:
    """The contents of a data set; arrays are over the F usable frames, eV and Å.

    `flat.index` holds the number of each of these frames in its file.
    """

    dataset: Dataset
    flattened: Flattened
    compositions: Compositions
    residual: Floats
    """(F,) eV per atom: energy less the part that the composition explains; NaN without an energy."""
    energy_deviation: Floats
    """(F,) deviation of the energy from the median, in robust standard deviations; zero if there are too few frames."""
    largest_force: Floats
    """(F,) eV/Å; NaN without forces."""
    force_deviation: Floats
    """(F,) the same for the logarithm of the largest force."""
    distances: Distances
    balance: Balance
    duplicates: Duplicates
    neighbor_difference: float | None
    """Median distance of neighbouring frames relative to that of random ones; None if there are too few."""
    config_types: tuple[tuple[str, int], ...]
    """Each kind of configuration that the file names, and its number of frames; the most frequent first."""
    weights: tuple[tuple[float, int], ...]
    """Each weight, and its number of frames; the most frequent first."""

    @property
    def flat(self) -> Flat:
        """The usable frames."""
        return self.flattened.flat

    @property
    def energy_outliers(self) -> Integers:
        """Indices of the frames whose energy is beyond `LIMIT` robust deviations, the farthest first."""
        return _beyond(np.abs(self.energy_deviation))

    @property
    def force_outliers(self) -> Integers:
        """Indices of the frames whose largest force is too large by the same limit, the farthest first."""
        return _beyond(self.force_deviation)


def summarize(dataset: Dataset, report: Report = lambda n: None) -> Summary:
    """Summarize a data set: systems, labels, ranges, duplicates, outliers.

    Parameters
    ----------
    dataset
        Data set as read, unchecked: labels may be missing or NaN.
    report
        Callback for progress, which reports every frame up to `PASSES` times.

    Returns
    -------
    Summary
        `schnet_ase.data.summary.page` puts it into words, and `schnet_ase.data.summary.picture` draws it.

    Raises
    ------
    DataError
        No frame has atoms of known elements at finite positions.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # labels may be arbitrarily large
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
        # The energy of N independent atoms scatters as √N.
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
