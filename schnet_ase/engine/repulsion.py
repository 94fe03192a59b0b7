"""The repulsion of nearby nuclei in the compiled kernel; see `schnet_ase.priors.zbl`."""

from __future__ import annotations

from schnet_ase.engine.jit import compiled
from schnet_ase.priors import repulsion as pair

repulsion = compiled(pair.repulsion)


@compiled
def repel(shape, weights, system, work, number):
    """Add the repulsion to the forces and virial of one member and a range of atoms, and sum up its energy.

    In float64 whatever the dtype of the network: near 0 Å it is many orders larger than what the network says.
    """
    start, end, second, direction, distance = system.start, work.end, work.second, work.direction, work.distance
    numbers, reaches, screening, cutoff = system.numbers, weights.reach, weights.screening, weights.cutoff
    m, part = divmod(number, len(system.ranges) - 1)
    forces, virial, energies = work.force_sums[part, m], work.virial_sums[part, m], work.repulsion_sums[part]
    if m == 0:  # the energy is the same for all members
        energies[:] = 0.0
    for i in range(system.ranges[part], system.ranges[part + 1]):
        z, own_reach, own_screening = numbers[i], reaches[numbers[i]], screening[numbers[i]]
        for p in range(start[i], end[i]):
            r = distance[p]
            j = second[p]
            reach = min(own_reach + reaches[numbers[j]], cutoff)
            if r < reach:
                energy, slope = repulsion(z * numbers[j], own_screening + screening[numbers[j]], reach, r)
                if m == 0:
                    energies[i] += 0.5 * energy
                    energies[j] += 0.5 * energy
                for a in range(3):
                    gradient = slope * direction[p, a]
                    forces[i, a] += gradient
                    forces[j, a] -= gradient
                    for b in range(3):
                        virial[a, b] += gradient * r * direction[p, b]
