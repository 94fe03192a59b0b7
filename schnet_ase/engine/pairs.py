"""The parts of a network that loop over pairs: distances, convolutions with tabulated filters, forces."""

from __future__ import annotations

import math

from schnet_ase.engine.jit import compiled
from schnet_ase.engine.simd import fma, item, lanes, load, prefetch, splat, store, total


@compiled
def find_pairs(shape, weights, system, work, positions, cell, tile):
    """Compute distances of the pairs listed for a tile's atoms, and table positions of those within the cutoff."""
    start, listed, shifts = system.start, system.listed, system.shifts
    second, row, u, direction, distance = work.second, work.row, work.u, work.direction, work.distance
    cutoff2, rows_per_angstrom, last = weights.cutoff * weights.cutoff, 1.0 / weights.width, float(shape.rows - 1)
    closest2, a, b = math.inf, 0, 0
    periodic = len(shifts) > 0
    for i in range(system.tiles[tile], system.tiles[tile + 1]):
        q = start[i]
        for p in range(start[i], start[i + 1]):
            j = listed[p]
            dx = positions[j, 0] - positions[i, 0]
            dy = positions[j, 1] - positions[i, 1]
            dz = positions[j, 2] - positions[i, 2]
            if periodic:
                s0, s1, s2 = shifts[p, 0], shifts[p, 1], shifts[p, 2]
                dx += s0 * cell[0, 0] + s1 * cell[1, 0] + s2 * cell[2, 0]
                dy += s0 * cell[0, 1] + s1 * cell[1, 1] + s2 * cell[2, 1]
                dz += s0 * cell[0, 2] + s1 * cell[1, 2] + s2 * cell[2, 2]
            r2 = dx * dx + dy * dy + dz * dz
            if r2 < cutoff2:
                if r2 < closest2:
                    closest2, a, b = r2, i, j
                r = math.sqrt(r2)
                inverse = 1.0 / r
                in_rows = min(r * rows_per_angstrom, last)
                k = int(in_rows)
                second[q] = j
                row[q] = k * 6 * lanes(u)
                u[q] = in_rows - k
                distance[q] = r
                direction[q, 0], direction[q, 1], direction[q, 2] = dx * inverse, dy * inverse, dz * inverse
                q += 1
        work.end[i] = q
    work.closest[tile, 0], work.closest[tile, 1], work.closest[tile, 2] = math.sqrt(closest2), a, b


@compiled
def quintic(table, a, u):
    """Return the vector of filters at `u` in the interval whose row starts at `a`, by Horner's scheme."""
    V = lanes(table)
    w = fma(load(table, a + 5 * V), u, load(table, a + 4 * V))
    w = fma(w, u, load(table, a + 3 * V))
    w = fma(w, u, load(table, a + 2 * V))
    w = fma(w, u, load(table, a + V))
    return fma(w, u, load(table, a))


@compiled
def quintic_and_slope(table, a, u):
    """Return the vector of filters, and its derivative with respect to `u`."""
    V = lanes(table)
    d = load(table, a + 5 * V)
    w = fma(d, u, load(table, a + 4 * V))
    d = fma(d, u, w)
    w = fma(w, u, load(table, a + 3 * V))
    d = fma(d, u, w)
    w = fma(w, u, load(table, a + 2 * V))
    d = fma(d, u, w)
    w = fma(w, u, load(table, a + V))
    d = fma(d, u, w)
    return fma(w, u, load(table, a)), d


@compiled
def units(shape, work):
    """Return the number of units: two blocks of features of a member, which a sum over pairs computes together."""
    return shape.members * (shape.features // lanes(work.h) // 2)


@compiled
def locate(shape, system, work, number):
    """Return the member, the first block of features and the part of the atoms of an item of a sum over pairs."""
    unit, part = divmod(number, len(system.parts) - 1)
    m, f = divmod(2 * unit, shape.features // lanes(work.h))
    return m, f, part


@compiled
def to_next(shape, work, f, after):
    """How much farther on in the table the filters of the features are that come next on one thread; 0 of one member.

    After the last features of an interaction come the first ones of the interaction that is `after` farther on.
    """
    blocks = shape.features // lanes(work.h)
    if shape.members == 1:
        return 0
    return (2 if f + 2 < blocks else 2 + (after - 1) * blocks) * shape.rows * 6 * lanes(work.h)


@compiled
def fetch(table, row):
    """Have a row of the table fetched, without waiting for it: it may be out of reach of the nearer caches."""
    V = lanes(table)
    prefetch(table, row)
    prefetch(table, row + 2 * V)
    prefetch(table, row + 4 * V)


@compiled
def slope_of(shape, system, work, layer, m, f):
    """Return where the slopes of a unit are, and whether it sets them instead of adding, because they are from an
    earlier call.

    Units add to the same slopes only on a single thread, and there they run in order.
    """
    part = f // 2 % system.slope_parts
    return (part * shape.members + m) * len(work.second), layer == shape.layers - 1 and f // 2 == part


@compiled
def convolve(shape, weights, system, work, layer, number):
    """Compute ``y_i = sum_j h_j * W(r_ij)`` for an item: two blocks of features, a part of the atoms."""
    start, end, second, row, u = system.start, work.end, work.second, work.row, work.u
    h, sums, table, zero = work.h, work.sums, weights.table, load(weights.zeros, 0)
    V = lanes(h)
    block = len(system.numbers) * V
    slice_ = shape.rows * 6 * V
    features = shape.features // V
    m, f, part = locate(shape, system, work, number)
    y0 = ((part * shape.members + m) * features + f) * block
    y1 = y0 + block
    h0 = ((m * shape.layers + layer) * features + f) * block
    h1 = h0 + block
    t0 = ((m * shape.layers + layer) * features + f) * slice_
    t1 = t0 + slice_
    ahead = to_next(shape, work, f, 1 if layer < shape.layers - 1 else 0)
    sums[y0 : y1 + block] = 0.0
    for i in range(system.parts[part], system.parts[part + 1]):
        h0_i, h1_i = load(h, h0 + i * V), load(h, h1 + i * V)
        y0_i, y1_i = zero, zero
        for p in range(item(start, i), item(end, i)):
            j = item(second, p) * V
            v, k = splat(item(u, p)), item(row, p)
            if ahead:
                fetch(table, t0 + ahead + k)
                fetch(table, t1 + ahead + k)
            w = quintic(table, t0 + k, v)
            y0_i = fma(w, load(h, h0 + j), y0_i)
            store(sums, y0 + j, fma(w, h0_i, load(sums, y0 + j)))
            w = quintic(table, t1 + k, v)
            y1_i = fma(w, load(h, h1 + j), y1_i)
            store(sums, y1 + j, fma(w, h1_i, load(sums, y1 + j)))
        # Added last instead of first: an atom that sees its own image was also a second atom above.
        store(sums, y0 + i * V, load(sums, y0 + i * V) + y0_i)
        store(sums, y1 + i * V, load(sums, y1 + i * V) + y1_i)


@compiled
def convolve_back(shape, weights, system, work, layer, number):
    """Compute the gradients of an item with respect to h, and add those with respect to the distances to `slope`."""
    start, end, second, row, u = system.start, work.end, work.second, work.row, work.u
    h, g, slope, sums, table, zero = work.h, work.g, work.slope, work.sums, weights.table, load(weights.zeros, 0)
    none = slope.dtype.type(0.0)
    V = lanes(h)
    block = len(system.numbers) * V
    slice_ = shape.rows * 6 * V
    features = shape.features // V
    m, f, part = locate(shape, system, work, number)
    s0, first = slope_of(shape, system, work, layer, m, f)
    y0 = ((part * shape.members + m) * features + f) * block
    y1 = y0 + block
    h0 = ((m * shape.layers + layer) * features + f) * block
    h1 = h0 + block
    g0 = (m * features + f) * block
    g1 = g0 + block
    t0 = ((m * shape.layers + layer) * features + f) * slice_
    t1 = t0 + slice_
    ahead = to_next(shape, work, f, -1)
    sums[y0 : y1 + block] = 0.0
    for i in range(system.parts[part], system.parts[part + 1]):
        h0_i, h1_i = load(h, h0 + i * V), load(h, h1 + i * V)
        g0_i, g1_i = load(g, g0 + i * V), load(g, g1 + i * V)
        y0_i, y1_i = zero, zero
        for p in range(item(start, i), item(end, i)):
            j = item(second, p) * V
            v, k = splat(item(u, p)), item(row, p)
            if ahead:
                fetch(table, t0 + ahead + k)
                fetch(table, t1 + ahead + k)
            w, d = quintic_and_slope(table, t0 + k, v)
            g_j = load(g, g0 + j)
            y0_i = fma(w, g_j, y0_i)
            store(sums, y0 + j, fma(w, g0_i, load(sums, y0 + j)))
            products = d * fma(g0_i, load(h, h0 + j), g_j * h0_i)
            w, d = quintic_and_slope(table, t1 + k, v)
            g_j = load(g, g1 + j)
            y1_i = fma(w, g_j, y1_i)
            store(sums, y1 + j, fma(w, g1_i, load(sums, y1 + j)))
            products = fma(d, fma(g1_i, load(h, h1 + j), g_j * h1_i), products)
            before = none if first else item(slope, s0 + p)
            slope[s0 + p] = before + total(products)
        store(sums, y0 + i * V, load(sums, y0 + i * V) + y0_i)
        store(sums, y1 + i * V, load(sums, y1 + i * V) + y1_i)


@compiled
def slopes(shape, weights, system, work, number):
    """Add the gradients with respect to the distances for the first interaction, whose h depends only on the
    elements."""
    start, end, second, row, u = system.start, work.end, work.second, work.row, work.u
    h, g, slope, table, none = work.h, work.g, work.slope, weights.table, work.slope.dtype.type(0.0)
    V = lanes(h)
    block = len(system.numbers) * V
    slice_ = shape.rows * 6 * V
    features = shape.features // V
    m, f, part = locate(shape, system, work, number)
    s0, first = slope_of(shape, system, work, 0, m, f)
    h0 = (m * shape.layers * features + f) * block
    h1 = h0 + block
    g0 = (m * features + f) * block
    g1 = g0 + block
    t0 = (m * shape.layers * features + f) * slice_
    t1 = t0 + slice_
    ahead = to_next(shape, work, f, shape.layers)
    for i in range(system.parts[part], system.parts[part + 1]):
        h0_i, h1_i = load(h, h0 + i * V), load(h, h1 + i * V)
        g0_i, g1_i = load(g, g0 + i * V), load(g, g1 + i * V)
        for p in range(item(start, i), item(end, i)):
            j = item(second, p) * V
            v, k = splat(item(u, p)), item(row, p)
            if ahead:
                fetch(table, t0 + ahead + k)
                fetch(table, t1 + ahead + k)
            _, d = quintic_and_slope(table, t0 + k, v)
            products = d * fma(g0_i, load(h, h0 + j), load(g, g0 + j) * h0_i)
            _, d = quintic_and_slope(table, t1 + k, v)
            products = fma(d, fma(g1_i, load(h, h1 + j), load(g, g1 + j) * h1_i), products)
            before = none if first else item(slope, s0 + p)
            slope[s0 + p] = before + total(products)


@compiled
def pair_forces(shape, weights, system, work, number):
    """Compute forces and virial of one member and a range of atoms from the gradients with respect to the distances."""
    start, end, second, direction, distance = system.start, work.end, work.second, work.direction, work.distance
    slope, force_sums, virial_sums = work.slope, work.force_sums, work.virial_sums
    m, part = divmod(number, len(system.ranges) - 1)
    force_sums[part, m] = 0.0
    factor = weights.scale[m] / weights.width
    # Kept in registers until the end: in memory beside those of another thread, their line would move between cores.
    xx = yy = zz = yz = xz = xy = 0.0
    for i in range(system.ranges[part], system.ranges[part + 1]):
        fx = fy = fz = 0.0
        for p in range(start[i], end[i]):
            j = second[p]
            slope_p = slope[m * len(second) + p]
            for unit in range(1, system.slope_parts):
                slope_p += slope[(unit * shape.members + m) * len(second) + p]
            dE_dr = factor * slope_p
            nx, ny, nz = direction[p, 0], direction[p, 1], direction[p, 2]
            gx, gy, gz = dE_dr * nx, dE_dr * ny, dE_dr * nz
            fx, fy, fz = fx + gx, fy + gy, fz + gz
            force_sums[part, m, j, 0] -= gx
            force_sums[part, m, j, 1] -= gy
            force_sums[part, m, j, 2] -= gz
            x, y, z = distance[p] * nx, distance[p] * ny, distance[p] * nz
            xx, yy, zz = xx + gx * x, yy + gy * y, zz + gz * z
            yz, xz, xy = yz + gy * z, xz + gx * z, xy + gx * y
        force_sums[part, m, i, 0] += fx
        force_sums[part, m, i, 1] += fy
        force_sums[part, m, i, 2] += fz
    virial = virial_sums[part, m]
    virial[0, 0], virial[1, 1], virial[2, 2] = xx, yy, zz
    virial[1, 2] = virial[2, 1] = yz
    virial[0, 2] = virial[2, 0] = xz
    virial[0, 1] = virial[1, 0] = xy
