"""numba kernels of products in twofold (double-double) arithmetic: a number is the unevaluated sum of a high and a low
float64, which together have about 32 digits.

Error-free sums and products: Knuth's and Dekker's (Dekker 1971, Numerische Mathematik 18; Ogita, Rump and Oishi 2005,
SIAM J. Sci. Comput. 26). None of them needs a fused multiplication, so all processors give the same bits.
"""

from __future__ import annotations

from bigmm.kernel import njit

SPLITTER = 134217729.0  # 2^27 + 1


@njit(cache=True, nogil=True, inline="always")
def _halves(a):
    """a as the sum of two numbers of 26 bits."""
    # Veltkamp's splitting. It overflows above 2^996, and fast-math rules would simplify it to nothing.
    t = SPLITTER * a
    high = t - (t - a)
    return high, a - high


@njit(cache=True, nogil=True)
def minus_product(high, low, a, b_high, b_low):
    """(high + low) - a (b_high + b_low), twofold."""
    product = a * b_high
    a1, a2 = _halves(a)
    b1, b2 = _halves(b_high)
    # Dekker: a b_high = product + error, exact but for underflow.
    error = ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2
    total = high - product
    # Knuth's sum needs no comparison of sizes: high - product = total + error_sum, exactly.
    back = total - high
    error_sum = (high - (total - back)) - (product + back)
    error_sum += low - error - a * b_low
    # Normalized again, so that low is at most a rounding error of high.
    new_high = total + error_sum
    return new_high, error_sum - (new_high - total)


@njit(cache=True, nogil=True)
def subtract_blocks(indptr, indices, data, source, target):
    """target[:, i] -= sum over the entries e of row i of data[e] source[:, indices[e]].

    data (nnz, a, b); source (2, q, b, nr) and target (2, q', a, nr): twofold, first high, then low.
    """
    a, b, nr = data.shape[1], data.shape[2], source.shape[3]
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            for r in range(a):
                for c in range(b):
                    x = data[e, r, c]
                    for v in range(nr):
                        target[0, i, r, v], target[1, i, r, v] = minus_product(
                            target[0, i, r, v], target[1, i, r, v], x, source[0, j, c, v], source[1, j, c, v]
                        )


@njit(cache=True, nogil=True)
def subtract_products(first, right, total):
    """total -= sum over levels of first[i]'right[:, i]; first (q, k, m), right (2, q, k, nr), total (2, m, nr)."""
    for i in range(first.shape[0]):
        for r in range(first.shape[1]):
            for c in range(first.shape[2]):
                x = first[i, r, c]
                for v in range(right.shape[3]):
                    total[0, c, v], total[1, c, v] = minus_product(
                        total[0, c, v], total[1, c, v], x, right[0, i, r, v], right[1, i, r, v]
                    )
