"""Machine instructions that numba does not reach by itself: add four rows to their records, and prefetch."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

BLOCK = 256
"""Rows that kernels take at a time: their columns stay in the L1 cache."""
STRIDE = BLOCK + 8
"""Numbers from one column of a block to the next: were it a power of two, all columns would share one set of the
cache."""

_BYTE, _INT32, _INT64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_FOUR = ir.VectorType(ir.DoubleType(), 4)


def _data(context, builder, array_type, array):
    """Pointer to the first number of an array."""
    return make_array(array_type)(context, builder, array).data


def _four_at(builder, data, place):
    """Pointer to the four numbers from data[place]."""
    return builder.bitcast(builder.gep(data, [place]), _FOUR.as_pointer())


def _shuffled(builder, low_lanes, right, lanes):
    return builder.shuffle_vector(low_lanes, right, ir.Constant(ir.VectorType(_INT32, 4), lanes))


def _transposed(builder, columns):
    """Four vectors of one column each -> four vectors of one row each."""
    # Two rounds of four shuffles: halves of pairs of columns, then pairs of these halves.
    even = [_shuffled(builder, columns[j], columns[j + 1], [0, 4, 2, 6]) for j in (0, 2)]
    odd = [_shuffled(builder, columns[j], columns[j + 1], [1, 5, 3, 7]) for j in (0, 2)]
    return [
        _shuffled(builder, pair[0], pair[1], lanes) for lanes in ([0, 1, 4, 5], [2, 3, 6, 7]) for pair in (even, odd)
    ]


def _spread(builder, number):
    nothing = ir.Constant(_FOUR, ir.Undefined)
    return _shuffled(builder, builder.insert_element(nothing, number, _INT32(0)), nothing, [0, 0, 0, 0])


def _for_each(builder, count, width, body):
    """body(a) for every a < count; unrolled when the width is known."""
    if width:
        for a in range(width):
            body(ir.Constant(_INT64, a))
    else:
        with cgutils.for_range(builder, count) as loop:
            body(loop.index)


def _adder(width: int) -> Any:
    """The instruction `add_four_rows` for ``width`` covariates, 0 for any number."""

    def add_four_rows(typingctx, records, starts, step, right, place, block, covariates, row):
        """records.flat[starts[r] + a * step + c] += block[covariates[a], row + r] * right.flat[place + c * STRIDE + r].

        For c = 0..3, for r = 0..3 in this order, and every a; rows of ``block`` and ``right`` are `STRIDE` numbers
        apart. float64 arrays in C order, covariates (k,) int64, starts a tuple of four int64.
        """
        i64 = types.int64
        places = types.UniTuple(i64, 4)
        return types.void(records, places, i64, right, i64, block, covariates, i64), codegen

    def codegen(context, builder, signature, arguments):
        records, starts, step, right, place, block, covariates, row = arguments
        stride = ir.Constant(_INT64, STRIDE)
        records_t, _, _, right_t, _, block_t, covariates_t, _ = signature.args
        into, factors = _data(context, builder, records_t, records), _data(context, builder, block_t, block)
        source, firsts = _data(context, builder, right_t, right), cgutils.unpack_tuple(builder, starts, 4)
        places = [builder.add(place, builder.mul(stride, ir.Constant(_INT64, c))) for c in range(4)]
        rows = _transposed(builder, [builder.load(_four_at(builder, source, index), align=8) for index in places])
        chosen = make_array(covariates_t)(context, builder, covariates)

        def add(a):
            covariate = builder.load(builder.gep(chosen.data, [a]))
            first, skipped = builder.add(builder.mul(covariate, stride), row), builder.mul(a, step)
            # Row after row through memory: two rows may be of one level, and the second must meet the first one's sum.
            for r, start in enumerate(firsts):
                factor = builder.load(builder.gep(factors, [builder.add(first, ir.Constant(_INT64, r))]))
                target = _four_at(builder, into, builder.add(start, skipped))
                product = builder.fmul(_spread(builder, factor), rows[r], flags=("contract",))
                total = builder.fadd(builder.load(target, align=8), product, flags=("contract",))
                builder.store(total, target, align=8)

        _for_each(builder, builder.extract_value(chosen.shape, 0), width, add)
        return context.get_dummy_value()

    return intrinsic(add_four_rows)


def _prefetch(typingctx, array, index):
    """Ask for the cache line of array.flat[index] to be brought in for writing."""

    def codegen(context, builder, signature, arguments):
        address = builder.gep(_data(context, builder, signature.args[0], arguments[0]), [arguments[1]])
        byte = _BYTE.as_pointer()
        shape = ir.FunctionType(ir.VoidType(), [byte, _INT32, _INT32, _INT32])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [byte], shape)
        builder.call(hint, [builder.bitcast(address, byte), _INT32(1), _INT32(3), _INT32(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


def _add_four_rows_in_python(records, starts, step, right, place, block, covariates, row):
    """`add_four_rows` where numba is switched off (NUMBA_DISABLE_JIT=1)."""
    into, source = records.reshape(-1), right.reshape(-1)
    for r, start in enumerate(starts):
        for a, covariate in enumerate(covariates):
            for c in range(4):
                into[start + a * step + c] += block[covariate, row + r] * source[place + c * STRIDE + r]


def _prefetch_nothing(array, index):
    """`prefetch` where numba is switched off."""


# Numba calls these without the typing context; type checkers see the functions above.
add_four_rows: Any
add_four_rows_once: Any
add_four_rows_twice: Any
prefetch: Any
if vars(config)["DISABLE_JIT"]:
    add_four_rows = add_four_rows_once = add_four_rows_twice = _add_four_rows_in_python
    prefetch = _prefetch_nothing
else:
    add_four_rows, add_four_rows_once, add_four_rows_twice = _adder(0), _adder(1), _adder(2)
    prefetch = intrinsic(_prefetch)
