"""The hottest loops of the iterative solver: sums over a level's sparse row, a cache line at a time.

A row of the tail's vectors is 16 float32 numbers or a multiple of it: one vector register, one cache line. numba cannot
be talked into keeping a level's sum in a register (it would have to know that two arrays do not overlap), so the two
inner loops are written in LLVM's vector instructions; what they compute is in their docstrings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.errors import TypingError
from numba.extending import intrinsic

from bigmm.kernel import njit

WIDE, MIDDLE, NARROW = 32, 16, 4
"""Columns that one run of an inner loop handles; at most three single ones are left over."""
INDEX = ir.IntType(64)
# Allows a product and a sum to be rounded once. The sums keep the order of the entries.
FUSED = ("contract",)


def _require_c_order(*kinds: Any) -> None:
    if any(kind.layout != "C" for kind in kinds):
        raise TypingError(f"rows are addressed as in C order, got {kinds}")


def _place(context: Any, builder: Any, kind: Any, array: Any, row: Any, column: Any) -> Any:
    """Pointer to array[row, column] of a C-contiguous array."""
    view = context.make_array(kind)(context, builder, array)
    columns = cgutils.unpack_tuple(builder, view.shape, 2)[1]
    return builder.gep(view.data, [builder.add(builder.mul(row, columns), column)])


def _vector(context: Any, builder: Any, kind: Any, array: Any, row: Any, column: Any, width: int) -> Any:
    """Pointer to array[row, column : column + width] as one vector."""
    shape = ir.VectorType(context.get_data_type(kind.dtype), width)
    return builder.bitcast(_place(context, builder, kind, array, row, column), shape.as_pointer())


def _row_number(context: Any, builder: Any, kind: Any, columns: Any, e: Any) -> Any:
    view = context.make_array(kind)(context, builder, columns)
    return builder.sext(builder.load(builder.gep(view.data, [e])), INDEX)


def _everywhere(context: Any, builder: Any, kind: Any, f: Any, e: Any, a: Any, vector: Any) -> Any:
    """f[e, a] in every place of a vector."""
    number = builder.load(_place(context, builder, kind, f, e, a))
    if number.type != vector.element:
        convert = builder.fptrunc if isinstance(vector.element, ir.FloatType) else builder.fpext
        number = convert(number, vector.element)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), places)


def _gather(width: int) -> Any:
    if vars(config)["DISABLE_JIT"]:
        return _gather_in_python(width)

    @intrinsic
    def gather(typing_context, columns, f, a, lo, hi, x, first, w):
        """w[a, first:first + width] = sum over entries e in lo..hi of f[e, a] x[columns[e], first:first + width]."""
        _require_c_order(columns, f, x, w)
        signature = types.void(columns, f, types.int64, types.int64, types.int64, x, types.int64, w)

        def generate(context, builder, signature, arguments):
            columns_kind, f_kind, _, _, _, x_kind, _, w_kind = signature.args
            columns, f, a, lo, hi, x, first, w = arguments
            vector = ir.VectorType(context.get_data_type(x_kind.dtype), width)
            # LLVM turns this variable into a register, because nobody else has its address.
            total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * width))
            with cgutils.for_range_slice(builder, lo, hi, ir.Constant(INDEX, 1), INDEX) as (e, _):
                row = _row_number(context, builder, columns_kind, columns, e)
                # A row begins on any number, hence no alignment beyond that of a float32 may be promised.
                row_values = builder.load(_vector(context, builder, x_kind, x, row, first, width), align=4)
                row_values = builder.fmul(
                    _everywhere(context, builder, f_kind, f, e, a, vector), row_values, flags=FUSED
                )
                builder.store(builder.fadd(builder.load(total), row_values, flags=FUSED), total)
            builder.store(builder.load(total), _vector(context, builder, w_kind, w, a, first, width), align=4)
            return context.get_dummy_value()

        return signature, generate

    return gather


def _gather_in_python(width: int) -> Any:
    """`gather` where numba is switched off (NUMBA_DISABLE_JIT=1)."""

    def gather(columns, f, a, lo, hi, x, first, w):
        part, dtype = slice(first, first + width), w.dtype
        w[a, part] = f[lo:hi, a].astype(dtype) @ x[columns[lo:hi], part]

    return gather


def _scatter(width: int) -> Any:
    if vars(config)["DISABLE_JIT"]:
        return _scatter_in_python(width)

    @intrinsic
    def scatter(typing_context, columns, f, a, lo, hi, w, first, out):
        """out[columns[e], first:first + width] -= f[e, a] w[a, first:first + width] for entries e in lo..hi."""
        _require_c_order(columns, f, w, out)
        signature = types.void(columns, f, types.int64, types.int64, types.int64, w, types.int64, out)

        def generate(context, builder, signature, arguments):
            columns_kind, f_kind, _, _, _, w_kind, _, out_kind = signature.args
            columns, f, a, lo, hi, w, first, out = arguments
            row_values = builder.load(_vector(context, builder, w_kind, w, a, first, width), align=4)
            with cgutils.for_range_slice(builder, lo, hi, ir.Constant(INDEX, 1), INDEX) as (e, _):
                row = _row_number(context, builder, columns_kind, columns, e)
                place = _vector(context, builder, out_kind, out, row, first, width)
                less = builder.fmul(
                    _everywhere(context, builder, f_kind, f, e, a, row_values.type), row_values, flags=FUSED
                )
                builder.store(builder.fsub(builder.load(place, align=4), less, flags=FUSED), place, align=4)
            return context.get_dummy_value()

        return signature, generate

    return scatter


def _scatter_in_python(width: int) -> Any:
    """`scatter` where numba is switched off."""

    def scatter(columns, f, a, lo, hi, w, first, out):
        part, dtype = slice(first, first + width), out.dtype
        np.subtract.at(out[:, part], columns[lo:hi], np.outer(f[lo:hi, a].astype(dtype), w[a, part]))

    return scatter


_gather_wide, _gather_middle, _gather_narrow, _gather_one = map(_gather, (WIDE, MIDDLE, NARROW, 1))
_scatter_wide, _scatter_middle, _scatter_narrow, _scatter_one = map(_scatter, (WIDE, MIDDLE, NARROW, 1))


@njit(cache=True, nogil=True)
def gather_row(columns, f, a, lo, hi, x, w):
    """w[a] = sum over entries e in lo..hi of f[e, a] x[columns[e]]; f (nnz, k), x (r, nv), w (k, nv)."""
    nv = x.shape[1]
    first = 0
    while first < nv:
        if nv - first >= WIDE:
            _gather_wide(columns, f, a, lo, hi, x, first, w)
            first += WIDE
        elif nv - first >= MIDDLE:
            _gather_middle(columns, f, a, lo, hi, x, first, w)
            first += MIDDLE
        elif nv - first >= NARROW:
            _gather_narrow(columns, f, a, lo, hi, x, first, w)
            first += NARROW
        else:
            _gather_one(columns, f, a, lo, hi, x, first, w)
            first += 1


@njit(cache=True, nogil=True)
def scatter_row(columns, f, a, lo, hi, w, out):
    """out[columns[e]] -= f[e, a] w[a] for entries e in lo..hi; out (r, nv), w (k, nv)."""
    nv = out.shape[1]
    first = 0
    while first < nv:
        if nv - first >= WIDE:
            _scatter_wide(columns, f, a, lo, hi, w, first, out)
            first += WIDE
        elif nv - first >= MIDDLE:
            _scatter_middle(columns, f, a, lo, hi, w, first, out)
            first += MIDDLE
        elif nv - first >= NARROW:
            _scatter_narrow(columns, f, a, lo, hi, w, first, out)
            first += NARROW
        else:
            _scatter_one(columns, f, a, lo, hi, w, first, out)
            first += 1


@njit(cache=True, nogil=True)
def through_levels(lo, hi, start, indptr, columns, f, x, out):
    """out -= sum over levels lo..hi of F_l'F_l x, F_l (k, r) the entries start[l] .. indptr[l + 1].

    columns (nnz,) int32; f (nnz, k) float32 or float64; x and out (r, nv) of one type, C order.
    """
    w = np.empty((f.shape[1], x.shape[1]), x.dtype)
    for i in range(lo, hi):
        for a in range(f.shape[1]):
            gather_row(columns, f, a, start[i], indptr[i + 1], x, w)
        for a in range(f.shape[1]):
            scatter_row(columns, f, a, start[i], indptr[i + 1], w, out)


@njit(cache=True, nogil=True)
def between_levels(lo, hi, indptr, columns, f, x, x_own, row_values, out):
    """Two terms of the tail: row_values_l += C_l x and out -= C_l'x_own_l for the levels l of one of them.

    columns (nnz,) int32 and f (nnz, k) as above; x, out (r, nv) of the other term; x_own (negated) and row_values
    (q, k, nv).
    """
    w = np.empty((f.shape[1], x.shape[1]), x.dtype)
    for i in range(lo, hi):
        for a in range(f.shape[1]):
            gather_row(columns, f, a, indptr[i], indptr[i + 1], x, w)
            # x_own comes negated, so the kernel that subtracts adds here.
            scatter_row(columns, f, a, indptr[i], indptr[i + 1], x_own[i], out)
        row_values[i] += w


@njit(cache=True, nogil=True)
def from_levels(lo, hi, start, indptr, columns, f, w, out):
    """out -= sum over levels lo..hi of F_l'w_l; w (q, k, nv), out (r, nv)."""
    for i in range(lo, hi):
        for a in range(f.shape[1]):
            scatter_row(columns, f, a, start[i], indptr[i + 1], w[i], out)


@njit(cache=True, nogil=True)
def back_levels(lo, hi, h, f, v, indptr, columns, solution, out):
    """out_l = h_l'(v_l - F_l solution) for levels lo..hi; v (q, k, nv) or empty, solution (columns, nv), out (q, k,
    nv)."""
    k, nv = h.shape[1], out.shape[2]
    w = np.empty((k, nv), solution.dtype)
    for i in range(lo, hi):
        for a in range(k):
            gather_row(columns, f, a, indptr[i], indptr[i + 1], solution, w)
        for a in range(k):
            for c in range(nv):
                # An empty v stands for zeros, of which no array is made.
                w[a, c] = (v[i, a, c] if len(v) else 0.0) - w[a, c]
        for b in range(k):
            for c in range(nv):
                t = 0.0
                for a in range(k):
                    t += h[i, a, b] * w[a, c]
                out[i, b, c] = t
