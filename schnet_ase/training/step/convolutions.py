r"""Convolutions with tabulated filters, and their derivatives, as compiled loops over pairs of atoms.

A pair p of the atoms i and j takes its filter from eight neighbouring rows of a table C, and the filter's slope from
the same rows with other weights,

.. math:: W_p = \sum_{k=0}^{7} w_{pk} C_{s_p + k}, \qquad W'_p = \sum_{k=0}^{7} w'_{pk} C_{s_p + k}.

No filter is stored: it takes longer to fetch one from memory than to compute it again from a table that stays in the
cache. Arrays are flat, and features are computed a vector at a time.
"""

from __future__ import annotations

from schnet_ase.engine.jit import compiled, compiled_once
from schnet_ase.engine.simd import fma, item, lanes, load, splat, store, total

POINTS = 8
"""Number of rows that a pair takes."""


@compiled_once
def weigh(polynomials, s, ds, envelope, slope, weights, slopes):  # type: ignore[no-untyped-def]
    r"""Write the weights of each pair's rows: polynomials at s, which changes with the distance by `ds`, times the
    envelope, which changes by `slope`."""
    for p in range(len(s)):
        for k in range(POINTS):
            value, change = polynomials[POINTS - 1, k], 0.0
            for power in range(POINTS - 2, -1, -1):
                change = change * s[p] + value
                value = value * s[p] + polynomials[power, k]
            weights[POINTS * p + k] = envelope[p] * value
            slopes[POINTS * p + k] = envelope[p] * ds[p] * change + slope[p] * value


@compiled
def _coefficients(weights, p):  # type: ignore[no-untyped-def]
    """Return the weights of a pair's rows, each in all lanes of a vector."""
    k = POINTS * p
    return (
        splat(item(weights, k)),
        splat(item(weights, k + 1)),
        splat(item(weights, k + 2)),
        splat(item(weights, k + 3)),
        splat(item(weights, k + 4)),
        splat(item(weights, k + 5)),
        splat(item(weights, k + 6)),
        splat(item(weights, k + 7)),
    )


@compiled
def _rows(table, row, features):  # type: ignore[no-untyped-def]
    """Return a vector of each of a pair's rows."""
    return (
        load(table, row),
        load(table, row + features),
        load(table, row + 2 * features),
        load(table, row + 3 * features),
        load(table, row + 4 * features),
        load(table, row + 5 * features),
        load(table, row + 6 * features),
        load(table, row + 7 * features),
    )


@compiled
def _sum(w, c):  # type: ignore[no-untyped-def]
    lower = fma(w[3], c[3], fma(w[2], c[2], fma(w[1], c[1], w[0] * c[0])))
    upper = fma(w[7], c[7], fma(w[6], c[6], fma(w[5], c[5], w[4] * c[4])))
    return lower + upper


@compiled
def _add(array, index, vector):  # type: ignore[no-untyped-def]
    store(array, index, load(array, index) + vector)


@compiled_once
def convolve(table, weights, start, first, second, features, h, y):  # type: ignore[no-untyped-def]
    r"""Add :math:`y_i = \sum_j h_j \circ W_{ij}`."""
    for p in range(len(start)):
        w, row = _coefficients(weights, p), start[p] * features
        i, j = first[p] * features, second[p] * features
        for f in range(0, features, lanes(h)):
            filters = _sum(w, _rows(table, row + f, features))
            store(y, i + f, fma(load(h, j + f), filters, load(y, i + f)))
            store(y, j + f, fma(load(h, i + f), filters, load(y, j + f)))


@compiled_once
def differentiate(table, weights, slopes, start, first, second, features, h, g, gh, gr):  # type: ignore[no-untyped-def]
    r"""Add the gradients for `h` (to `gh`) and the distances (to `gr`) of what has the gradient `g` for y."""
    for p in range(len(start)):
        w, v, row = _coefficients(weights, p), _coefficients(slopes, p), start[p] * features
        i, j = first[p] * features, second[p] * features
        along = splat(h.dtype.type(0.0))
        for f in range(0, features, lanes(h)):
            c = _rows(table, row + f, features)
            filters, change = _sum(w, c), _sum(v, c)
            gi, gj = load(g, i + f), load(g, j + f)
            store(gh, j + f, fma(gi, filters, load(gh, j + f)))
            store(gh, i + f, fma(gj, filters, load(gh, i + f)))
            along = fma(fma(gi, load(h, j + f), gj * load(h, i + f)), change, along)
        gr[p] += total(along)


@compiled_once
def convolve_rates(table, weights, changes, start, first, second, features, h, dh, dy):  # type: ignore[no-untyped-def]
    r"""Add the change :math:`\dot y_i = \sum_j \dot h_j \circ W_{ij} + h_j \circ \dot W_{ij}` for filters that change
    with the weights `changes`."""
    for p in range(len(start)):
        w, v, row = _coefficients(weights, p), _coefficients(changes, p), start[p] * features
        i, j = first[p] * features, second[p] * features
        for f in range(0, features, lanes(h)):
            c = _rows(table, row + f, features)
            filters, change = _sum(w, c), _sum(v, c)
            at_i = fma(load(dh, j + f), filters, fma(load(h, j + f), change, load(dy, i + f)))
            at_j = fma(load(dh, i + f), filters, fma(load(h, i + f), change, load(dy, j + f)))
            store(dy, i + f, at_i)
            store(dy, j + f, at_j)


@compiled_once
def differentiate_rates(  # type: ignore[no-untyped-def]
    table, weights, changes, start, first, second, features, h, dh, a, g, ah, at
):
    r"""Add the gradients for `h` (to `ah`) and for the table (to `at`) of what has the gradient `a` for y and `g` for
    its change."""
    for p in range(len(start)):
        w, v, row = _coefficients(weights, p), _coefficients(changes, p), start[p] * features
        i, j = first[p] * features, second[p] * features
        for f in range(0, features, lanes(h)):
            c = _rows(table, row + f, features)
            filters, change = _sum(w, c), _sum(v, c)
            hi, hj, gi, gj = load(h, i + f), load(h, j + f), load(g, i + f), load(g, j + f)
            ai, aj = load(a, i + f), load(a, j + f)
            store(ah, j + f, fma(ai, filters, fma(gi, change, load(ah, j + f))))
            store(ah, i + f, fma(aj, filters, fma(gj, change, load(ah, i + f))))
            of_filter = fma(ai, hj, fma(aj, hi, fma(gi, load(dh, j + f), gj * load(dh, i + f))))
            of_change = fma(gi, hj, gj * hi)
            for k in range(POINTS):
                place = row + k * features + f
                store(at, place, fma(w[k], of_filter, fma(v[k], of_change, load(at, place))))
