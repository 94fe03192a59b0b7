r"""Energy and forces of stacked SchNets in one compiled call: forward and backward pass written out.

What is differentiated by hand here is, for each interaction l with filters :math:`W^l_{ij}(r_{ij})`,

.. math::
    h^l = x^l A_l + a_l, \quad y^l_i = \sum_j h^l_j \circ W^l_{ij}, \quad
    x^{l+1} = x^l + \mathrm{act}(y^l B_l + b_l) C_l + c_l,

and with :math:`g^l = \partial E / \partial y^l`, pair by pair,

.. math::
    \frac{\partial E}{\partial r_{ij}} = \sum_l \sum_f \frac{d W^l_{ij}}{d r} \circ (g^l_i \circ h^l_j
        + g^l_j \circ h^l_i), \qquad \frac{\partial E}{\partial h^l_i} = \sum_j g^l_j \circ W^l_{ij}.

Each pair is there once and serves both of its atoms. Features come in blocks of one vector, ``(F / V, N, V)``: the
part of a filter table that one block of features needs stays in the fastest cache while all pairs go by.

A call is a sequence of stages, and a stage is a number of items: tiles of atoms, or of sums over pairs some features
for a part of the atoms. Threads take items as they come, and wait for the last before the next stage: they count
themselves at the end of a stage, and the count says where the slowest is. Where items of more than one thread may add
to a number, each has a buffer, and these are added in order: the same numbers each time, whichever thread did what.
"""

from __future__ import annotations

from schnet_ase.engine.ahead import Ahead, aim, list_lines
from schnet_ase.engine.barrier import add_one, all_arrived, linger, take
from schnet_ase.engine.dense import activate, dense
from schnet_ase.engine.jit import compiled, compiled_once
from schnet_ase.engine.layout import TILE
from schnet_ase.engine.pairs import convolve, convolve_back, find_pairs, pair_forces, slopes, units
from schnet_ase.engine.repulsion import repel
from schnet_ase.engine.simd import fma, lanes, load, splat, store

DONE = -1


@compiled
def n_stages(shape):
    """Return the number of stages: one for pairs, per interaction two forward and two backward (the first: one), two
    for forces."""
    return 4 * shape.layers + 2


@compiled
def n_items(number, shape, system, work):
    """Return the number of items of a stage; threads may take them in any order, a single thread takes them in
    sequence."""
    L = shape.layers
    tiles = len(system.tiles) - 1
    if number == 0 or number == 4 * L + 1:
        return tiles
    if number == 4 * L:
        return shape.members * (len(system.ranges) - 1)
    return units(shape, work) * (len(system.parts) - 1) if number % 2 else shape.members * tiles


@compiled
def run_stage(number, shape, weights, system, work, output, positions, cell, thread):
    """Run one thread's share of one stage."""
    items = n_items(number, shape, system, work)
    item = take(work.claimed, number, items, system.threads, thread)
    while item >= 0:
        run_item(number, item, shape, weights, system, work, output, positions, cell, thread)
        item = take(work.claimed, number, items, system.threads, thread)


@compiled
def one_by_one(shape, weights, system, work, output, positions, cell):
    """All stages on one thread, a member after the other: what it needs twice is then nearer than all members are."""
    stages = n_stages(shape)
    for item in range(n_items(0, shape, system, work)):
        run_item(0, item, shape, weights, system, work, output, positions, cell, 0)
    list_lines(shape, system, work)
    for m in range(shape.members):
        for number in range(1, stages - 1):
            items = n_items(number, shape, system, work) // shape.members
            for item in range(m * items, (m + 1) * items):
                run_item(number, item, shape, weights, system, work, output, positions, cell, 0)
    for item in range(n_items(stages - 1, shape, system, work)):
        run_item(stages - 1, item, shape, weights, system, work, output, positions, cell, 0)


@compiled
def run_item(number, item, shape, weights, system, work, output, positions, cell, thread):
    """Run one item of one stage."""
    L = shape.layers
    if number == 0:
        find_pairs(shape, weights, system, work, positions, cell, item)
        embed(shape, weights, system, work, item)
    elif number <= 2 * L:
        layer, atoms = divmod(number - 1, 2)
        if atoms:
            interact(shape, weights, system, work, output, layer, item, thread)
        else:
            convolve(shape, weights, system, work, layer, item)
    elif number < 4 * L:
        layer, atoms = divmod(number - 2 * L - 1, 2)
        layer = L - 1 - layer
        if atoms:
            interact_back(shape, weights, system, work, layer, item, thread)
        elif layer > 0:
            convolve_back(shape, weights, system, work, layer, item)
        else:
            slopes(shape, weights, system, work, item)
    elif number == 4 * L:
        pair_forces(shape, weights, system, work, item)
        if len(weights.reach) > 0:
            repel(shape, weights, system, work, item)
    else:
        add_forces(shape, system, work, output, item)


@compiled
def tile_of(system, item):
    """Return the member, the first atom and the number of atoms of an item of the layers."""
    m, tile = divmod(item, len(system.tiles) - 1)
    return m, system.tiles[tile], system.tiles[tile + 1] - system.tiles[tile]


@compiled
def embed(shape, weights, system, work, tile):
    """Set the features of the elements, and h of the first interaction."""
    V = lanes(work.x)
    atoms = len(system.numbers)
    features = shape.features // V
    for m in range(shape.members):
        for i in range(system.tiles[tile], system.tiles[tile + 1]):
            element = (m * shape.elements + system.numbers[i]) * shape.features
            for f in range(features):
                store(work.x, ((m * features + f) * atoms + i) * V, load(weights.embedding, element + f * V))
                h = ((m * shape.layers * features + f) * atoms + i) * V
                store(work.h, h, load(weights.embedding_in, element + f * V))


@compiled
def interact(shape, weights, system, work, output, layer, item, thread):
    """Compute h of the next interaction from the convolution; after the last one, the readout and the way back to g."""
    V = lanes(work.x)
    matrices, tiles, ahead = weights.dense, work.tile, Ahead(weights.table, work.lines, work.ahead)
    F, H, L = shape.features, shape.hidden, shape.layers
    atoms = len(system.numbers)
    tile = thread * 2 * max(F, H) * TILE
    other = tile + max(F, H) * TILE
    m, first, rows = tile_of(system, item)
    B = (m * (6 * L - 2) + 3 * layer) * F * F
    A, C = B + 2 * F * F, B + F * F
    bias = (m * L + layer) * 3 * F
    x0 = (m * F * atoms) + first * V
    add_sums(shape, system, work, m, first, rows, tile)
    aim(shape, work, m * L + layer + 1 if layer < L - 1 else (m + 2) * L - 1, first)
    dense(tiles, tile, TILE, matrices, B, weights.bias, bias + F, tiles, other, TILE, rows, F, F, False, ahead)
    for f in range(F // V):
        slope = (((m * L + layer) * F // V + f) * atoms + first) * V
        activate(work.tile, work.sigmoid, other + f * TILE * V, slope, rows * V, shape.silu)
    dense(tiles, other, TILE, matrices, C, weights.bias, bias + 2 * F, work.x, x0, atoms, rows, F, F, True, ahead)
    if layer < L - 1:
        h = (m * L + layer + 1) * F * atoms + first * V
        dense(work.x, x0, atoms, matrices, A, weights.bias, bias + 3 * F, work.h, h, atoms, rows, F, F, False, ahead)
    else:
        read_out(shape, weights, system, work, output, m, first, rows, tile)
        gate(shape, weights, system, work, m, layer, first, rows, tile)


@compiled
def read_out(shape, weights, system, work, output, m, first, rows, tile):
    """Compute per-atom energies, and replace `x` by the gradient with respect to it."""
    V = lanes(work.x)
    tiles, zeros, ahead = work.tile, weights.zeros, Ahead(weights.table, work.lines, work.ahead)
    F, H = shape.features, shape.hidden
    atoms = len(system.numbers)
    slope = tile + max(F, H) * TILE
    x0 = m * F * atoms + first * V
    W, b = m * F * H, m * H
    dense(work.x, x0, atoms, weights.readout, W, weights.readout_bias, b, tiles, tile, TILE, rows, F, H, False, ahead)
    for f in range(H // V):
        activate(work.tile, work.tile, tile + f * TILE * V, slope + f * TILE * V, rows * V, shape.readout_silu)
    for i in range(rows):
        energy = weights.output_bias[m]
        for k in range(H):
            at = (k // V * TILE + i) * V + k % V
            w = weights.output[m * H + k]
            energy += w * work.tile[tile + at]
            work.tile[tile + at] = w * work.tile[slope + at]
        z = system.numbers[first + i]
        output.energies[m, first + i] = weights.scale[m] * energy + weights.reference[m, z]
    dense(tiles, tile, TILE, weights.readout_transposed, W, zeros, 0, work.x, x0, atoms, rows, H, F, False, ahead)


@compiled
def interact_back(shape, weights, system, work, layer, item, thread):
    """Compute the g of the preceding interaction from the gradient with respect to an interaction's h."""
    V = lanes(work.x)
    matrices, tiles, ahead = weights.dense, work.tile, Ahead(weights.table, work.lines, work.ahead)
    F, L = shape.features, shape.layers
    atoms = len(system.numbers)
    tile = thread * 2 * max(F, shape.hidden) * TILE
    m, first, rows = tile_of(system, item)
    A = (m * (6 * L - 2) + 6 * L - 2 - 3 * layer) * F * F
    add_sums(shape, system, work, m, first, rows, tile)
    aim(shape, work, (m + 1) * L + layer - 1, first)
    x0 = m * F * atoms + first * V
    dense(tiles, tile, TILE, matrices, A, weights.zeros, 0, work.x, x0, atoms, rows, F, F, True, ahead)
    gate(shape, weights, system, work, m, layer - 1, first, rows, tile)


@compiled
def gate(shape, weights, system, work, m, layer, first, rows, tile):
    """Compute g of an interaction: the gradient with respect to x, back through C, the activation and B."""
    V = lanes(work.x)
    matrices, tiles, ahead = weights.dense, work.tile, Ahead(weights.table, work.lines, work.ahead)
    F, L = shape.features, shape.layers
    atoms = len(system.numbers)
    x0 = m * F * atoms + first * V
    B = (m * (6 * L - 2) + 6 * L - 3 - 3 * layer) * F * F
    dense(work.x, x0, atoms, matrices, B - F * F, weights.zeros, 0, tiles, tile, TILE, rows, F, F, False, ahead)
    for f in range(F // V):
        sigmoid = (((m * shape.layers + layer) * F // V + f) * atoms + first) * V
        for i in range(tile + f * TILE * V, tile + f * TILE * V + rows * V, V):
            store(work.tile, i, load(work.tile, i) * load(work.sigmoid, sigmoid + i - tile - f * TILE * V))
    dense(tiles, tile, TILE, matrices, B, weights.zeros, 0, work.g, x0, atoms, rows, F, F, False, ahead)


@compiled
def add_sums(shape, system, work, m, first, rows, tile):
    """Add the sums over pairs of some atoms, over all parts of the first atoms, in a tile."""
    V = lanes(work.x)
    atoms = len(system.numbers)
    features = shape.features // V
    one = splat(work.x.dtype.type(1.0))
    for f in range(features):
        for i in range(rows):
            y = load(work.sums, ((m * features + f) * atoms + first + i) * V)
            for part in range(1, len(system.parts) - 1):
                member = part * shape.members + m
                y = fma(one, load(work.sums, ((member * features + f) * atoms + first + i) * V), y)
            store(work.tile, tile + (f * TILE + i) * V, y)


@compiled
def add_forces(shape, system, work, output, tile):
    """Add up a tile's forces, and its atoms' energies of repulsion, from the sums of all ranges.

    The first tile also adds the virial and the closest pair.
    """
    ranges = len(system.ranges) - 1
    for m in range(shape.members):
        for i in range(system.tiles[tile], system.tiles[tile + 1]):
            for a in range(3):
                force = work.force_sums[0, m, i, a]
                for r in range(1, ranges):
                    force += work.force_sums[r, m, i, a]
                output.forces[m, i, a] = force
            for r in range(len(work.repulsion_sums)):
                output.energies[m, i] += work.repulsion_sums[r, i]
        if tile == 0:
            for a in range(3):
                for b in range(3):
                    virial = work.virial_sums[0, m, a, b]
                    for r in range(1, ranges):
                        virial += work.virial_sums[r, m, a, b]
                    output.virial[m, a, b] = virial
    if tile == 0:
        first = 0
        for t in range(1, len(system.tiles) - 1):
            if work.closest[t, 0] < work.closest[first, 0]:
                first = t
        for a in range(3):
            output.closest[a] = work.closest[first, a]


@compiled_once
def run_stages(number, shape, weights, system, work, output, positions, cell, before, thread):
    """Run the stages of one thread from `number` on.

    `before` is the count in `work.arrived` at the start of the call. The result is `DONE` once all threads have
    finished, otherwise the stage before which this one gave up waiting: call again with that stage. All threads
    except the first stay awake for a while after the last stage, because waking up takes longer than many a stage.
    """
    threads, stages = system.threads, n_stages(shape)
    if thread == 0 and number == 0:
        work.claimed[:] = 0
        add_one(work.arrived, 0)
        if threads > 1:
            add_one(work.begun, 0)
    if threads == 1:
        one_by_one(shape, weights, system, work, output, positions, cell)
        work.arrived[0] += stages
        return DONE
    begun = before + 1
    while all_arrived(work.arrived, begun + number * threads):
        if number == stages:
            if thread > 0:
                linger(work.arrived, begun + stages * threads + 1, work.begun)
            return DONE
        run_stage(number, shape, weights, system, work, output, positions, cell, thread)
        add_one(work.arrived, 0)
        number += 1
    return number
