"""The parts of a network that act on single atoms: dense layers and the activation."""

from __future__ import annotations

import math

from schnet_ase.engine.ahead import END, NEXT, START, fetch_share
from schnet_ase.engine.jit import compiled
from schnet_ase.engine.simd import (
    absolute,
    fma,
    item,
    lanes,
    load,
    maximum,
    polynomial,
    prefetch,
    splat,
    store,
    times_power_of_two,
    where_negative,
)

_LN2 = math.log(2.0)
_LN2_HIGH = float.fromhex("0x1.62e4p-1")  # it has so few bits that its product with an exponent is exact
_LN2_LOW = _LN2 - _LN2_HIGH
# exp(x) for |x| <= ln(2) / 2 as a series in x; artanh(s) / s for s <= 1/3 as one in s².
_exp = polynomial([1.0 / math.factorial(n) for n in range(15)], terms_in_single=8)
_artanh = polynomial([1.0 / (2 * n + 1) for n in range(17)], terms_in_single=8)


@compiled
def activate(x, slope, x0, slope0, n, silu):
    r"""Replace ``x[x0 : x0 + n]`` by its shifted softplus, or by SiLU, and write the slope.

    With :math:`t = e^{-|x|}`, and :math:`\sigma` the logistic function, which is 1 / (1 + t) or t / (1 + t):
    :math:`\mathrm{ssp}(x) = \max(x, 0) + \ln(1 + t) - \ln 2`, its slope :math:`\sigma`, with :math:`\ln(1 + t) =
    2\,\mathrm{artanh}\frac{t}{2 + t}`; :math:`\mathrm{silu}(x) = x \sigma`, its slope :math:`\sigma + x \sigma (1 -
    \sigma)`. The results are finite for every x.
    """
    real = x.dtype.type
    single = lanes(x) == 8
    # Adding it to a small number leaves the nearest integer in the last bits.
    magic = splat(real(1.5 * 2.0**23)) if single else splat(real(1.5 * 2.0**52))
    lowest = splat(real(-87.0)) if single else splat(real(-708.0))
    zero, one, two = splat(real(0.0)), splat(real(1.0)), splat(real(2.0))
    for i in range(0, n, lanes(x)):
        v = load(x, x0 + i)
        y = maximum(zero - absolute(v), lowest)
        shifted = fma(y, splat(real(1.0 / _LN2)), magic)
        k = shifted - magic
        y = fma(k, splat(real(-_LN2_LOW)), fma(k, splat(real(-_LN2_HIGH)), y))
        t = times_power_of_two(_exp(y), shifted)
        sigma = where_negative(v, t, one) / (one + t)
        if silu:
            store(x, x0 + i, v * sigma)
            store(slope, slope0 + i, fma(v * sigma, one - sigma, sigma))
        else:
            s = t / (two + t)
            store(x, x0 + i, maximum(v, zero) + (two * s * _artanh(s * s) - splat(real(_LN2))))
            store(slope, slope0 + i, sigma)


@compiled
def dense(x, x0, x_rows, weights, w0, bias, b0, y, y0, y_rows, rows, n_in, n_out, add, ahead):
    """Compute ``y = x @ weights + bias``, or add it to `y`, with two atoms times four vectors of outputs in registers.

    `x` is (n_in / V, x_rows, V) from ``x[x0]`` on and `y` is (n_out / V, y_rows, V) from ``y[y0]`` on; `rows` atoms of
    them are computed. `weights` are (n_out / 4V, n_in, 4V). If the number of atoms is odd, the last one is computed
    twice. Meanwhile the lines of filter tables that `ahead` names are fetched.
    """
    V = lanes(x)
    step = y_rows * V
    line, start, end = ahead.state[NEXT], ahead.state[START], ahead.state[END]
    for f in range(0, n_out, 4 * V):
        for i in range(0, rows, 2):
            j = min(i + 1, rows - 1)
            yi, yj = y0 + (f // V * y_rows + i) * V, y0 + (f // V * y_rows + j) * V
            s0, s1 = load(bias, b0 + f), load(bias, b0 + f + V)
            s2, s3 = load(bias, b0 + f + 2 * V), load(bias, b0 + f + 3 * V)
            t0, t1, t2, t3 = s0, s1, s2, s3
            if add:
                s0, s1 = s0 + load(y, yi), s1 + load(y, yi + step)
                s2, s3 = s2 + load(y, yi + 2 * step), s3 + load(y, yi + 3 * step)
                t0, t1 = t0 + load(y, yj), t1 + load(y, yj + step)
                t2, t3 = t2 + load(y, yj + 2 * step), t3 + load(y, yj + 3 * step)
            w = w0 + f * n_in
            # Meanwhile fetch the weights of the next vectors of outputs, a share with each two atoms.
            columns = w + 4 * V * n_in + i * 2 * n_in
            for block in range(0, n_in * x_rows, V * x_rows):
                xi, xj = x0 + block + i * V, x0 + block + j * V
                prefetch(weights, columns)
                prefetch(weights, columns + 2 * V)
                columns += 4 * V
                if start < end:
                    line, start = fetch_share(ahead, line, start)
                for v in range(V):
                    s, t = splat(item(x, xi + v)), splat(item(x, xj + v))
                    a, b = load(weights, w), load(weights, w + V)
                    s0, t0 = fma(s, a, s0), fma(t, a, t0)
                    s1, t1 = fma(s, b, s1), fma(t, b, t1)
                    a, b = load(weights, w + 2 * V), load(weights, w + 3 * V)
                    s2, t2 = fma(s, a, s2), fma(t, a, t2)
                    s3, t3 = fma(s, b, s3), fma(t, b, t3)
                    w += 4 * V
            store(y, yi, s0)
            store(y, yi + step, s1)
            store(y, yi + 2 * step, s2)
            store(y, yi + 3 * step, s3)
            store(y, yj, t0)
            store(y, yj + step, t1)
            store(y, yj + 2 * step, t2)
            store(y, yj + 3 * step, t3)
    if end > 0:  # threads that share a call fetch nothing, and would move this line between their caches
        ahead.state[NEXT], ahead.state[START] = line, start
