"""Level-3 BLAS on square tiles in C order, without the interpreter lock: SciPy's own wrappers hold it, so that two
threads would factor no faster than one. The routines are those of SciPy's Cython interface, called by address.

A tile in C order is its transpose in Fortran's, so a lower triangle here is an upper one there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from scipy.linalg import cython_blas, cython_lapack


@cache
def _routine(module: Any, name: str) -> Callable:
    """The Fortran routine; ctypes lets go of the interpreter lock while it runs."""
    capsule = module.__pyx_capi__[name]
    # PYFUNCTYPE keeps the interpreter lock, which the C API needs; a capsule gives its address for its own name only.
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
    address_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    signature = name_of(capsule)
    # The capsule's name is the C signature of the routine, and all arguments of BLAS and LAPACK are pointers.
    n_arguments = signature.count(b",") + 1
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)(address_of(capsule, signature))


def _call(module: Any, name: str, *arguments) -> None:
    # The list keeps the C numbers alive for as long as the routine reads their addresses.
    buffer = [_passed(argument) for argument in arguments]
    _routine(module, name)(*[address for _, address in buffer])


def _passed(argument) -> tuple[object, int]:
    """(what must stay alive, its address): Fortran takes everything by reference."""
    if isinstance(argument, np.ndarray):
        return argument, argument.ctypes.data
    kinds: dict[type, Callable] = {str: lambda x: ctypes.c_char(x.encode()), int: ctypes.c_int, float: ctypes.c_double}
    value = kinds[type(argument)](argument)
    return value, ctypes.addressof(value)


def _check(target: np.ndarray, target_shape: tuple, *others: tuple[np.ndarray, tuple]) -> None:
    """Before addresses are handed over: kind, order and shapes."""
    for tile, shape in ((target, target_shape), *others):
        if tile.dtype != np.float64 or not tile.flags.c_contiguous or tile.shape != shape:
            raise TypeError(f"expected float64 in C order of shape {shape}, got {tile.dtype} of shape {tile.shape}")
    if not target.flags.writeable:
        raise TypeError("the tile to write to is read-only")


def subtract_product(target: np.ndarray, a_tile: np.ndarray, right: np.ndarray) -> None:
    """target (a, b) -= a_tile (a, c) right (b, c)'."""
    a, b, c = len(a_tile), len(right), a_tile.shape[1]
    _check(target, (a, b), (a_tile, (a, c)), (right, (b, c)))
    # BLAS refuses a leading dimension of zero.
    # In Fortran's view this is target' -= right a_tile', so the operands change places.
    if min(a, b, c):
        _call(cython_blas, "dgemm", "T", "N", b, a, c, -1.0, right, c, a_tile, c, 1.0, target, b)


def subtract_square(target: np.ndarray, a_tile: np.ndarray) -> None:
    """Lower triangle of target (a, a) -= a_tile (a, c) a_tile'."""
    a, c = a_tile.shape
    _check(target, (a, a), (a_tile, (a, c)))
    if a and c:
        # "U" of the transpose is the lower triangle here. The other triangle is not touched.
        _call(cython_blas, "dsyrk", "U", "T", a, c, -1.0, a_tile, c, 1.0, target, a)


def solve_transposed(target: np.ndarray, lower: np.ndarray) -> None:
    """target (a, b) becomes target lower^-T, for a lower triangle (b, b)."""
    a, b = target.shape
    _check(target, (a, b), (lower, (b, b)))
    if a and b:
        # In Fortran's view this is target' = lower^-1 target'.
        _call(cython_blas, "dtrsm", "L", "U", "T", "N", b, a, 1.0, lower, b, target, b)


def cholesky(target: np.ndarray) -> int:
    """The lower triangle of target (a, a) becomes its Cholesky factor; returns 0, or the number of the pivot (from 1)
    that is not positive."""
    _check(target, (len(target), len(target)))
    # The integers of SciPy's LAPACK are C ints.
    info = np.zeros(1, np.intc)
    if len(target):
        _call(cython_lapack, "dpotrf", "U", len(target), target, len(target), info)
    return int(info[0])
