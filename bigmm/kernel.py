"""The package's `njit`: numba's own, which stamps cached kernels with all sources that they were compiled from."""

from __future__ import annotations

from numba import njit
from numba.core import caching

from bigmm.kernel_sources import extend

extend(caching)

__all__ = ["njit"]
