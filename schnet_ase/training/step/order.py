"""Choose the frames of each batch, with every molecule in its share and no state between steps."""

from __future__ import annotations

import numpy as np

from schnet_ase.geometry.arrays import Integers


class BatchOrder:
    """Each epoch, a new order of all examples; those of each molecule are random, but spread evenly.

    This is stratified sampling: molecules differ in their gradients, so that a batch with more of one by chance says
    less about all. For one molecule, and if all molecules differ, the order is a random permutation.

    Parameters
    ----------
    molecules
        (n,) the molecule of each example, counted from 0; all 0 for a single set.
    batch_size
        Number of examples per step; n, if there are fewer.
    seed
        Seed of the orders.

    References
    ----------
    Zhao and Zhang, *Accelerating minibatch stochastic gradient descent using stratified sampling*, arXiv:1405.3080
    (2014).
    """

    def __init__(self, molecules: Integers, batch_size: int, seed: int) -> None:
        self.batch_size = min(batch_size, len(molecules))
        self._molecules = molecules
        self._sizes = np.bincount(molecules)
        self._seed = seed
        self._epoch = -1
        self._order = molecules

    def batch(self, step: int) -> Integers:
        """Return the reproducible indices of a step's examples; an epoch leaves out its last ones if too few for a
        batch."""
        epoch, position = divmod(step, len(self._molecules) // self.batch_size)
        if epoch != self._epoch:  # for many examples this takes longer than a step
            self._epoch, self._order = epoch, self._shuffled(epoch)
        return self._order[position * self.batch_size : (position + 1) * self.batch_size].copy()

    def _shuffled(self, epoch: int) -> Integers:
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._molecules))
        molecules = self._molecules[order]
        # The k-th of a molecule's n shuffled examples goes to (k + u) / n of the epoch, with one random u per molecule.
        k = np.empty(len(order))
        k[np.argsort(molecules, kind="stable")] = np.concatenate([np.arange(size) for size in self._sizes])
        place = (k + rng.random(len(self._sizes))[molecules]) / self._sizes[molecules]
        ordered: Integers = order[np.argsort(place, kind="stable")]
        return ordered
