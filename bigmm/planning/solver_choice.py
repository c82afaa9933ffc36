"""The choice between the exact and the iterative solver, by sizes that blocks have or that a layout bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bigmm.blocks.gram import Gram
from bigmm.blocks.structure import elimination_order
from bigmm.errors import UsageError
from bigmm.planning.memory import exact_bytes, iterative_bytes

EXACT_TAIL = 5000
"""Columns of a dense tail above which a factorization costs minutes on a laptop."""


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """All that the choice of a solver depends on.

    Attributes
    ----------
    tail : columns of the terms that are left for the dense tail.
    crossed : whether random effects are among them.
    fixed : names and sizes of the fixed factors that are kept as levels, in words, "" without any.
    dense : columns of X and y.
    sparse : bytes of all cross blocks.
    levels : bytes of the blocks that are eliminated level by level.
    """

    tail: int
    crossed: bool
    fixed: str
    dense: int
    sparse: int
    levels: int

    @property
    def dense_columns(self) -> int:
        """Columns of the dense block of the exact solver."""
        return self.tail + self.dense


def sizes_of(gram: Gram) -> BlockSizes:
    """The sizes of blocks that are there."""
    stages, tail = elimination_order(gram)
    return BlockSizes(
        sum(gram.terms[t].n_levels * gram.terms[t].width for t in tail),
        any(gram.terms[t].penalized for t in tail),
        named_factors([(t.name, t.n_levels) for t in gram.terms if not t.penalized]),
        len(gram.xy),
        sum(b.data.nbytes + 16 * len(b.indices) for b in gram.cross.values()),
        sum(gram.terms[s].diagonal.nbytes * 2 + gram.terms[s].dense.nbytes for s in stages),
    )


def named_factors(fixed: Sequence[tuple[str, int]]) -> str:
    """Names and numbers of levels of factors among the fixed effects, in words."""
    return " and ".join(f"the fixed factor {name!r} ({levels:,} levels)" for name, levels in fixed)


def solver_bytes(sizes: BlockSizes, n_effects: int, solver: str) -> int:
    """Bytes of an evaluation beside A; n_effects: number of random effects."""
    if solver == "exact":
        return exact_bytes(sizes.dense_columns, sizes.sparse, sizes.levels)
    return iterative_bytes(sizes.sparse, n_effects, sizes.dense)


def choose_solver(sizes: BlockSizes, requested: str, memory_limit: int) -> tuple[str, str]:
    """Choose "exact" or "iterative", and say why.

    Parameters
    ----------
    requested: "auto", "exact" or "iterative".
    memory_limit: bytes for what an evaluation has beside A.

    Raises UsageError for a fixed factor that the iterative solver does not take.
    """
    size, fixed = sizes.tail, sizes.fixed
    # First what the user wants, then what a method cannot do, then memory, and time last.
    if requested == "exact":
        return "exact", "as asked for"
    if not sizes.crossed:
        reason = "all factors are eliminated level by level"
        if requested == "iterative":
            reason = "nothing to iterate on: one grouping factor or nested ones are eliminated level by level"
        return "exact", reason
    if fixed:
        if requested == "iterative":
            raise UsageError(
                f"the iterative solver does not take {fixed}: use solver='exact', which needs a dense block of "
                f"{size:,} columns, or make it a random effect, or use a coarser one"
            )
        return "exact", f"{fixed} needs it"
    if requested != "auto":
        return requested, "as asked for"
    # 0 effects: only the iterative solver has vectors of all random effects.
    nbytes = solver_bytes(sizes, 0, "exact")
    if nbytes > memory_limit:
        return "iterative", f"a dense block of {size:,} columns needs {nbytes / 2**30:.1f} GiB"
    if size > EXACT_TAIL:
        return "iterative", f"a dense block of {size:,} columns costs {1.4e-9 * size**3:.0f} Gflop per evaluation"
    return "exact", f"the dense block of {size:,} columns is small"
