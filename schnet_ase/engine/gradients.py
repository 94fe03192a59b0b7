"""The gradient of the energy with respect to each pair vector, from what a call of the kernel leaves behind.

The kernel keeps, pair by pair, the derivative of the energy with respect to the distance, but only of the pairs within
the cutoff, closed up. So that a call without these gradients costs nothing more, this is a function of its own.
"""

from __future__ import annotations

from schnet_ase.engine.jit import compiled_once
from schnet_ase.engine.repulsion import repulsion

SAME = 1e-3
"""Å; two vectors that differ by less are of the same pair. Those to two images of one atom differ by more."""


@compiled_once
def add_pair_gradients(shape, weights, system, work, vectors, gradients):
    """Add dE/d(pair vector), eV/Å, of the call that `work` is of to `gradients`, (M, P, 3).

    `vectors`, (P, 3) Å, are those of all listed pairs.
    """
    start, listed, end, second, slope = system.start, system.listed, work.end, work.second, work.slope
    numbers, reaches, screening = system.numbers, weights.reach, weights.screening
    for i in range(len(system.numbers)):
        q = start[i]
        for p in range(start[i], start[i + 1]):
            if q == end[i]:
                break
            # A pair at the cutoff itself may be within it or not, as its distance was rounded there.
            same = second[q] == listed[p]
            for a in range(3):
                same = same and abs(work.distance[q] * work.direction[q, a] - vectors[p, a]) < SAME
            if not same:
                continue
            repelled = 0.0
            if len(reaches) > 0:
                z, other = numbers[i], numbers[listed[p]]
                reach = min(reaches[z] + reaches[other], weights.cutoff)
                if work.distance[q] < reach:
                    repelled = repulsion(z * other, screening[z] + screening[other], reach, work.distance[q])[1]
            for m in range(shape.members):
                slope_q = slope[m * len(second) + q]
                for unit in range(1, system.slope_parts):
                    slope_q += slope[(unit * shape.members + m) * len(second) + q]
                dE_dr = weights.scale[m] / weights.width * slope_q + repelled
                for a in range(3):
                    gradients[m, p, a] += dE_dr * work.direction[q, a]
            q += 1
