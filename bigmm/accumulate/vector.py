"""Two machine instructions that numba does not reach by itself: add a multiple of four numbers, and prefetch."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

_DOUBLE = ir.DoubleType()
_FOUR = ir.VectorType(_DOUBLE, 4)


def _address(context, builder, array_type, array, index):
    """Pointer to array.flat[index]."""
    return builder.gep(make_array(array_type)(context, builder, array).data, [index])


def _add_multiple_of_four(typingctx, target, to, factor, source, at):
    """target.flat[to:to + 4] += factor * source.flat[at:at + 4], fused; float64 arrays, C order, int64 places."""

    def codegen(context, builder, signature, arguments):
        target_value, to_value, factor_value, source_value, at_value = arguments
        target_type, _, _, source_type, _ = signature.args
        into = builder.bitcast(_address(context, builder, target_type, target_value, to_value), _FOUR.as_pointer())
        there = builder.bitcast(_address(context, builder, source_type, source_value, at_value), _FOUR.as_pointer())
        lane = ir.Constant(ir.VectorType(ir.IntType(32), 4), [0, 0, 0, 0])
        single = builder.insert_element(ir.Constant(_FOUR, ir.Undefined), factor_value, ir.IntType(32)(0))
        spread = builder.shuffle_vector(single, ir.Constant(_FOUR, ir.Undefined), lane)
        old, multiple = builder.load(into, align=8), builder.load(there, align=8)
        product = builder.fmul(spread, multiple, flags=("contract",))
        builder.store(builder.fadd(old, product, flags=("contract",)), into, align=8)
        return context.get_dummy_value()

    return types.void(target, types.int64, types.float64, source, types.int64), codegen


def _prefetch(typingctx, array, index):
    """Ask for the cache line of array.flat[index] to be brought in for writing."""

    def codegen(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments)
        byte = ir.IntType(8).as_pointer()
        i32 = ir.IntType(32)
        signature_ = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [byte], signature_)
        builder.call(hint, [builder.bitcast(address, byte), i32(1), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


# Numba calls these without the typing context; type checkers see the functions above.
add_multiple_of_four: Any = intrinsic(_add_multiple_of_four)
prefetch: Any = intrinsic(_prefetch)
