"""Kernels over the rows of a shard for the gradient: leverages, and sums of leverage times slope of the weight.

The leverage of row i on the linear predictor is h_i = z_i'J z_i, J = Lambda M^-1 Lambda'. J is known on the pattern of
pairs, or estimated there: J = exact + sum over v of weight_v start_v image_v' (`blocks.traces`). Records and symbols
are those of `bigmm.laplace.records`; the sums are those of docs/theory/laplace.md, "Gradient".
"""

from __future__ import annotations

import numpy as np

from bigmm.families.scores import dispersion_derivatives, score_full
from bigmm.kernel import njit
from bigmm.laplace.small import column

# Eight numbers in single precision fill a vector register of 256 bits.
LANES = 8


@njit(cache=True, nogil=True)
def known_leverages(rows, model, j_diagonal, j_cross, h):
    """h (n,) = z_i'J z_i from blocks flat like Z'WZ: j_diagonal per level, j_cross per entry of each pair."""
    columns, refs, entries = rows.columns, rows.refs, rows.entries
    zc, width, diagonal_start = model.zc, model.width, model.diagonal_start
    first_of, second_of, cross_start = model.pair_first, model.pair_second, model.cross_start
    z = np.empty(len(zc))
    first = np.zeros(len(width), np.int64)
    for t in range(1, len(width)):
        first[t] = first[t - 1] + width[t - 1]
    for i in range(len(h)):
        total = 0.0
        for t in range(len(width)):
            k = width[t]
            position = diagonal_start[t] + refs[t, i] * k * k
            for a in range(k):
                z[first[t] + a] = column(columns, zc[first[t] + a], i)
            for a in range(k):
                for c in range(k):
                    total += z[first[t] + a] * z[first[t] + c] * j_diagonal[position + a * k + c]
        for q in range(len(first_of)):
            t1, t2 = first_of[q], second_of[q]
            position = cross_start[q] + entries[q, i] * width[t1] * width[t2]
            for a in range(width[t1]):
                for c in range(width[t2]):
                    total += 2.0 * z[first[t1] + a] * z[first[t2] + c] * j_cross[position + a * width[t2] + c]
        h[i] = total


@njit(cache=True, nogil=True)
def sampled_leverages(rows, model, start_v, rest_v, h):
    """h (n,) += sum over v of (z_i'start_v)(z_i'rest_v); start_v, rest_v (q, nv), nv a multiple of `LANES`."""
    columns, refs, slots, nv = rows.columns, rows.refs, _slots(model), start_v.shape[1]
    left, right, lanes = np.empty(nv, start_v.dtype), np.empty(nv, start_v.dtype), np.empty(LANES, start_v.dtype)
    for i in range(len(h)):
        _gather(columns, refs, slots, start_v, rest_v, i, left, right)
        for lane in range(LANES):
            lanes[lane] = 0.0
        for block in range(0, nv, LANES):
            for lane in range(LANES):  # sums side by side: one after the other they would wait
                lanes[lane] += left[block + lane] * right[block + lane]
        total = 0.0
        for lane in range(LANES):
            total += lanes[lane]
        h[i] += total


@njit(cache=True, nogil=True)
def _slots(model):
    """(n_z, 4) by random covariate: column number, term, where its first level's number lies, numbers per level."""
    out, s = np.empty((len(model.zc), 4), np.int64), 0
    for t in range(len(model.width)):
        for a in range(model.width[t]):
            out[s, 0], out[s, 1], out[s, 2], out[s, 3] = model.zc[s], t, model.start[t] + a, model.width[t]
            s += 1
    return out


@njit(cache=True, nogil=True)
def _gather(columns, refs, slots, start_v, rest_v, i, left, right):
    """left (nv,) = z_i'start_v, right = z_i'rest_v."""
    nv = len(left)
    for s in range(len(slots)):
        z = column(columns, slots[s, 0], i)
        # In the precision of the probes: a product with a double would be one.
        za = left.dtype.type(z)
        position = slots[s, 2] + refs[slots[s, 1], i] * slots[s, 3]
        # The first covariate overwrites, so the buffers need no pass of zeros.
        if s == 0:
            for v in range(nv):
                left[v] = za * start_v[position, v]
            for v in range(nv):
                right[v] = za * rest_v[position, v]
        else:
            for v in range(nv):
                left[v] += za * start_v[position, v]
            for v in range(nv):
                right[v] += za * rest_v[position, v]


@njit(cache=True, nogil=True)
def third_order_sums(rows, model, point, with_phi, h, sums):
    """Add one shard's sums with c_i = h_i dW_i / d eta to sums, a `records.FlatThirdOrder`; h (n,) leverages."""
    columns, y, w, offset, refs, _ = rows
    family, link, xc, zc, width, start = model.family, model.link, model.xc, model.zc, model.width, model.start
    beta, b, phi, observed = point
    xs, x_c, z_c, phi_sums, z_phi = sums
    p, n_terms = len(xc), len(width)
    x, z = np.empty(p), np.empty(len(zc))
    first = np.zeros(n_terms, np.int64)
    for t in range(1, n_terms):
        first[t] = first[t - 1] + width[t - 1]
    for i in range(len(y)):
        eta = offset[i] if len(offset) else 0.0
        for j in range(p):
            x[j] = column(columns, xc[j], i)
            eta += x[j] * beta[j]
        for t in range(n_terms):
            position = start[t] + refs[t, i] * width[t]
            for a in range(width[t]):
                z[first[t] + a] = column(columns, zc[first[t] + a], i)
                eta += z[first[t] + a] * b[position + a]
        weight = w[i] if len(w) else 1.0
        # y may be in single precision, and the row functions are compiled for doubles only.
        _, s, _, _, dwe, dwo = score_full(family, link, float(y[i]), weight, eta, phi)
        c_i = h[i] * (dwo if observed else dwe)
        for j in range(p):
            xs[j] += x[j] * s
            x_c[j] += x[j] * c_i
        # numba needs a value on both ways, though it is used on one.
        ds = 0.0
        if with_phi:
            dll, ds, dw = dispersion_derivatives(family, link, float(y[i]), weight, eta, phi)
            phi_sums[0] += dll
            phi_sums[1] += h[i] * dw
            for j in range(p):
                phi_sums[2 + j] += x[j] * ds
        for t in range(n_terms):
            position = start[t] + refs[t, i] * width[t]
            for a in range(width[t]):
                z_c[position + a] += z[first[t] + a] * c_i
                if with_phi:
                    z_phi[position + a] += z[first[t] + a] * ds


@njit(cache=True, nogil=True)
def sampled_spread(rows, model, point, with_phi, start_v, rest_v, along_x, along_z, out):
    """out (nv, P) += (z_i'start_v)(z_i'rest_v) dW_i / d psi: what each v adds to the gradient of log|M| by way of the
    weights. along_x (p, P), along_z (q, P): derivatives of beta and of Z's effects, so that d eta_i = x_i'along_x +
    z_i'along_z; with_phi the last parameter moves the weight directly too."""
    columns, y, w, offset, refs, _ = rows
    family, link, xc, zc, width, start = model.family, model.link, model.xc, model.zc, model.width, model.start
    beta, b, phi, observed = point
    slots = _slots(model)
    nv, n_psi = out.shape
    left, right = np.empty(nv, start_v.dtype), np.empty(nv, start_v.dtype)
    moved = np.empty(n_psi)
    for i in range(len(y)):
        eta = offset[i] if len(offset) else 0.0
        moved[:] = 0.0
        for j in range(len(xc)):
            x = column(columns, xc[j], i)
            eta += x * beta[j]
            for q in range(n_psi):
                moved[q] += x * along_x[j, q]
        z_number = 0
        for t in range(len(width)):
            position = start[t] + refs[t, i] * width[t]
            for a in range(width[t]):
                z = column(columns, zc[z_number], i)
                eta += z * b[position + a]
                for q in range(n_psi):
                    moved[q] += z * along_z[position + a, q]
                z_number += 1
        weight = w[i] if len(w) else 1.0
        _, _, _, _, dwe, dwo = score_full(family, link, float(y[i]), weight, eta, phi)
        slope = dwo if observed else dwe
        for q in range(n_psi):
            moved[q] *= slope
        if with_phi:
            _, _, dw = dispersion_derivatives(family, link, float(y[i]), weight, eta, phi)
            # After the slope: this is the weight's own derivative, not one by eta.
            moved[n_psi - 1] += dw
        _gather(columns, refs, slots, start_v, rest_v, i, left, right)
        for v in range(nv):
            t = left[v] * right[v]
            for q in range(n_psi):
                out[v, q] += t * moved[q]
