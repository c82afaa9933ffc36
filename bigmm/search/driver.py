"""Threads of the driver during a search."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from bigmm.blocks import Gram
from bigmm.blocks.structure import elimination_order
from bigmm.execute.discipline import one_thread_each

SMALL_TAIL = 2500
"""Columns of a dense tail from which on several BLAS threads are faster than one."""


def quiet_driver(gram: Gram) -> AbstractContextManager[None]:
    """One BLAS thread while the dense tail is small: there, waking threads costs more than they give."""
    # Levels of stages are eliminated one by one; only the dense tail is a matrix for BLAS.
    _, tail = elimination_order(gram)
    size = sum(gram.terms[t].n_levels * gram.terms[t].width for t in tail) + len(gram.xy)
    return one_thread_each() if size < SMALL_TAIL else nullcontext()
