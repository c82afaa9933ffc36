"""A tiled Cholesky factorization of the tail, for machines of which none can hold its Schur complement.

The matrix is the tail's part of Omega after every stage is eliminated, in scaled coordinates and with [X y] as its last
rows, so that log|M|, log|X'V^-1X| and r^2 are read off its pivots as they are off the blocked factor's:

    [ B'(A_tt - sum over stages f'f)B + I     .                 ]      B = blockdiag(I (x) lambda_j) of the tail
    [ (A_d,t - sum over stages v'f)B          A_dd - sum v'v    ]      d: the dense columns of X and y

Only tiles of the lower triangle exist. `schedule` says which step needs which; every step is a pure function here
(Buttari, Langou, Kurzak and Dongarra 2009, Parallel Computing 35, algorithm 1, walked through column by column: then
a tile lives only from its assembly to its last use, and at most about half of the triangle at a time).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bigmm.blocks.exact import solve_kernels
from bigmm.blocks.exact.factor import NotPositiveDefiniteError, StageFactor, eliminate_stages
from bigmm.blocks.parallel import run
from bigmm.blocks.structure import Structure, TailTerm
from bigmm.blocks.tiles import kernels as tile_kernels
from bigmm.blocks.tiles import level3

ROWS = 512
SMALLEST, LARGEST, GRAIN = 1024, 4096, 256
"""Rows of a tile. Below, a task of a cluster costs more to hand out than to do (a product of two takes 50 ms)."""
MANY = 32
"""Tiles in a row, about: enough for some dozen threads, few enough for a scheduler (their cube over six are steps)."""

Name = tuple
"""Of a step: ("panel", j), ("assemble", i, j), ("update", i, j, k), ("factor", j), ("solve", i, j), ("pivots", j)."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """A square matrix of ``size`` rows in tiles of ``tile``; the last ones may be smaller."""

    size: int
    tile: int

    @property
    def n(self) -> int:
        """Tiles in a row."""
        return -(-self.size // self.tile)

    @property
    def n_tiles(self) -> int:
        """Tiles of the lower triangle."""
        return self.n * (self.n + 1) // 2

    def span(self, i: int) -> tuple[int, int]:
        """First row of tile i, and the one after its last."""
        return i * self.tile, min((i + 1) * self.tile, self.size)


def default_tile(size: int) -> int:
    """Rows of a tile for a matrix of that size. Other tiles round sums otherwise, so nothing else decides."""
    return int(np.clip(-(-size // MANY // GRAIN) * GRAIN, SMALLEST, LARGEST))


@dataclass(frozen=True, slots=True)
class StageColumns:
    """Columns of one stage's scaled f, as CSC.

    colptr: (b + 1,) int64; level: (nnz,) int32, increasing within a column; values: (nnz, k).
    """

    colptr: np.ndarray
    level: np.ndarray
    values: np.ndarray
    n_levels: int


@dataclass(frozen=True, slots=True)
class Panel:
    """All that the rows or columns lo..hi of a tile take from the blocks.

    colptr (hi - lo + 1,), row (nnz,) and value (nnz,) are CSC columns of the lower triangle before the stages' part;
    stages has the columns of the stages.
    """

    lo: int
    hi: int
    colptr: np.ndarray
    row: np.ndarray
    value: np.ndarray
    stages: tuple[StageColumns, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the panel's arrays."""
        tile_levels = self.colptr.nbytes + self.row.nbytes + self.value.nbytes
        return tile_levels + sum(s.colptr.nbytes + s.level.nbytes + s.values.nbytes for s in self.stages)


@dataclass(frozen=True, slots=True)
class Reduced:
    """The tail at one theta, before it is factored: n_random scaled random effects, then m dense columns.

    stages has the factors of the stages, logdet their part of log|M|, and base the lower triangle (N, N).
    """

    structure: Structure
    lams: tuple[np.ndarray, ...]
    stages: tuple[StageFactor, ...]
    logdet: float
    base: sp.csc_array

    @property
    def size(self) -> int:
        """N, the number of rows of the matrix."""
        return self.base.shape[0]

    @property
    def n_random(self) -> int:
        """Number of random effects in the tail, which are the first columns."""
        return self.structure.r_raw

    @property
    def panel_bytes(self) -> int:
        """Bytes of all panels together."""
        entries = sum(len(s.entry) * (4 + 8 * s.width) for s in self.structure.stages)
        return entries + 16 * self.base.nnz

    @property
    def nbytes(self) -> int:
        """Bytes that were made for it, the structure included."""
        product_bytes = sum(part.f.nbytes + part.h.nbytes + part.v.nbytes for part in self.stages)
        laid_out = sum(
            s.columns.nbytes + s.data.nbytes + s.entry.nbytes + s.level.nbytes for s in self.structure.stages
        )
        turned = sum(pair.indices.nbytes + pair.data.nbytes for pair in self.structure.transposed.values())
        return 12 * self.base.nnz + product_bytes + laid_out + turned

    @property
    def assembly_flops(self) -> float:
        """Multiplications of the products f'f of all stages, one triangle."""
        rows = ((s.indptr[1:] - s.tail_start, s.width) for s in self.structure.stages)
        return float(sum(width * np.square(count.astype(float)).sum() for count, width in rows))

    def panel(self, lo: int, hi: int) -> Panel:
        """What columns lo..hi take."""
        first, last = self.base.indptr[lo], self.base.indptr[hi]
        stages = zip(self.structure.stages, self.stages, strict=True)
        return Panel(
            lo,
            hi,
            (self.base.indptr[lo : hi + 1] - first).astype(np.int64),
            self.base.indices[first:last].astype(np.int32),
            # A copy: a view would keep the whole base alive for as long as the panel is.
            self.base.data[first:last].copy(),
            tuple(self._columns(stage, part, lo, hi) for stage, part in stages),
        )

    def _columns(self, stage, part: StageFactor, lo: int, hi: int) -> StageColumns:
        r = self.structure.r_raw
        # Dense columns, from r on, have no entries in the stages: their pointers stay at the end.
        colptr = stage.colptr[np.minimum(np.arange(lo, hi + 1), r)]
        chosen = slice(colptr[0], colptr[-1])
        column = lo + np.repeat(np.arange(hi - lo), np.diff(colptr))
        entry, values = stage.entry[chosen], np.empty((chosen.stop - chosen.start, stage.width))
        for t in self.structure.tail:
            a, b = np.searchsorted(column, (t.offset, t.stop))
            if a < b:
                values[a:b] = _scaled(t, self.lams[t.term], part.f, entry[a:b], column[a:b])
        return StageColumns(colptr - colptr[0], stage.level[chosen].copy(), values, stage.n_levels)


def _scaled(t: TailTerm, lam: np.ndarray, f: np.ndarray, entry: np.ndarray, column: np.ndarray) -> np.ndarray:
    """(n, k) entries of f B: the columns of a level are neighbours in every row of f."""
    place = (column - t.offset) % t.width
    first = entry - place
    return sum(lam[b, place][:, None] * f[first + b] for b in range(t.width))


def reduce(structure: Structure, lams: tuple[np.ndarray, ...]) -> Reduced:
    """Eliminate the stages and gather what is left; ValueError where the tail holds a factor of the fixed effects."""
    if not all(t.penalized for t in structure.tail):
        raise ValueError("tiles are made for random effects only")
    stages, logdet, vv = eliminate_stages(structure, lams)
    m, gram = structure.m, structure.gram
    pieces = [*(_own(structure, lams, t) for t in structure.tail), *_pairs(structure, lams)]
    dense = np.concatenate([np.zeros((0, m)), *(gram.terms[t.term].dense.reshape(-1, m) for t in structure.tail)])
    for stage, part in zip(structure.stages, stages, strict=True):
        # Each range has rows of its own, so there is no lock, and the order of the levels fixes the bits.
        entries = (stage.colptr, stage.entry, stage.level)
        run(solve_kernels.forward_tail, structure.r_raw, ROWS, *entries, part.f, part.v, dense)
    pieces += [_dense(structure, lams, t, dense[t.offset : t.stop]) for t in structure.tail]
    a, b = np.tril_indices(m)
    pieces.append((structure.r_raw + a, structure.r_raw + b, (gram.xy - vv)[a, b]))
    row, column, value = (np.concatenate([piece[i] for piece in pieces]) for i in range(3))
    size = structure.r_raw + m
    base = sp.coo_array((value, (row, column)), shape=(size, size)).tocsc()
    # `kernels.place` finds a tile's rows by bisection.
    base.sort_indices()
    return Reduced(structure, tuple(lams), stages, logdet, base)


_Entries = tuple[np.ndarray, np.ndarray, np.ndarray]


def _own(structure: Structure, lams, t: TailTerm) -> _Entries:
    """lambda' D_l lambda + I per level, lower triangles."""
    lam, diagonal = lams[t.term], structure.gram.terms[t.term].diagonal
    block = lam.T @ diagonal @ lam + np.eye(t.width)
    a, b = np.tril_indices(t.width)
    first = t.offset + np.arange(t.n_levels)[:, None] * t.width
    return (first + a).ravel(), (first + b).ravel(), block[:, a, b].ravel()


def _pairs(structure: Structure, lams) -> Iterator[_Entries]:
    """Cross-blocks of two tail terms: rows of the later one, columns of the earlier one."""
    places = {t.term: t for t in structure.tail}
    for (j, k), pair in structure.gram.cross.items():
        if j not in places or k not in places:
            continue
        early, late = places[j], places[k]
        block = lams[j].T @ pair.data @ lams[k]
        level = np.repeat(np.arange(early.n_levels), np.diff(pair.indptr))
        column = (early.offset + level[:, None] * early.width + np.arange(early.width))[:, :, None]
        row = (late.offset + pair.indices[:, None].astype(np.int64) * late.width + np.arange(late.width))[:, None, :]
        column, row = np.broadcast_arrays(column, row)
        yield row.ravel(), column.ravel(), block.ravel()


def _dense(structure: Structure, lams, t: TailTerm, rows: np.ndarray) -> _Entries:
    """Dense rows below a term's columns: (its columns, m) scaled."""
    m = rows.shape[1]
    scaled = np.einsum("cb,lcm->lbm", lams[t.term], rows.reshape(t.n_levels, t.width, m)).reshape(-1, m)
    row, column = np.broadcast_arrays(structure.r_raw + np.arange(m)[:, None], np.arange(t.offset, t.stop))
    return row.ravel(), column.ravel(), scaled.T.ravel()


# ----------------------------------------------------------------------------------------------------- steps


def schedule(n: int) -> Iterator[tuple[Name, tuple[Name, ...]]]:
    """(step, the steps whose results it takes) in an order in which each can be done when it comes.

    A tile is updated by k = 0, 1, ... whoever does it, so its bits do not depend on where or when.
    """
    for j in range(n):
        for i in range(j, n):
            if j == 0:
                yield ("panel", i), ()
            tile: Name = ("assemble", i, j)
            yield tile, (("panel", i), ("panel", j)) if i != j else (("panel", i),)
            for k in range(j):
                left_tile, right = (("solve", i, k), ("solve", j, k))
                yield ("update", i, j, k), (tile, left_tile, right) if i != j else (tile, left_tile)
                tile = ("update", i, j, k)
            if i == j:
                yield ("factor", j), (tile,)
                yield ("pivots", j), (("factor", j),)
            else:
                yield ("solve", i, j), (tile, ("factor", j))


def most_tiles(n: int) -> int:
    """Tiles that are there at the same time, at most, when the schedule is followed with some look ahead."""
    return max((n - j) * (j + 1) + n for j in range(n))


def assemble(rows: Panel, columns: Panel | None = None) -> np.ndarray:
    """Tile (rows, columns) before any update, C order; without columns a diagonal one, whose upper part is not
    defined."""
    columns = rows if columns is None else columns
    out = np.zeros((rows.hi - rows.lo, columns.hi - columns.lo))
    tile_kernels.place(columns.colptr, columns.row, columns.value, rows.lo, rows.hi, out)
    for mine, theirs in zip(rows.stages, columns.stages, strict=True):
        start, column, values = tile_kernels.by_level(theirs.colptr, theirs.level, theirs.values, theirs.n_levels)
        tile_kernels.subtract_products(mine.colptr, mine.level, mine.values, start, column, values, out)
    return out


def update(tile: np.ndarray, left_tile: np.ndarray, right: np.ndarray | None = None) -> np.ndarray:
    """tile - left right'; without right a diagonal tile, of which the lower triangle counts. Writes over a tile that
    is writeable: its owner needs it no more."""
    target = own(tile)
    if right is None:
        level3.subtract_square(target, left_tile)
    else:
        level3.subtract_product(target, left_tile, right)
    return target


def factor(tile: np.ndarray) -> np.ndarray:
    """The Cholesky factor of a diagonal tile, in its lower triangle; raises NotPositiveDefiniteError."""
    target = own(tile)
    pivot = level3.cholesky(target)
    # A pivot of NaN is not refused by every LAPACK.
    if pivot or not np.all(np.isfinite(np.diagonal(target))):
        raise NotPositiveDefiniteError(f"pivot {pivot} of a diagonal tile of the Schur complement is not positive")
    return target


def solve(tile: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """tile L^-T for the factor L of the diagonal tile above it."""
    target = own(tile)
    level3.solve_transposed(target, diagonal)
    return target


def own(tile: np.ndarray) -> np.ndarray:
    """The tile itself where it may be written over, else a copy."""
    return tile if tile.flags.writeable else tile.copy()


def pivots(diagonal: np.ndarray) -> np.ndarray:
    """The diagonal of a factored tile."""
    return np.diagonal(diagonal).copy()


@dataclass(frozen=True, slots=True)
class Pivots:
    """What a criterion reads off a factor: logdet_z = log|M|, logdet_x = log|X'V^-1X|, pwrss = r^2."""

    logdet_z: float
    logdet_x: float
    pwrss: float


def read_pivots(reduced: Reduced, diagonal: np.ndarray) -> Pivots:
    """From the (N,) diagonal of the factor."""
    logs, r = 2.0 * np.log(diagonal), reduced.n_random
    logdet = reduced.logdet + float(logs[:r].sum())
    # The last pivot belongs to y: its square is r^2, and its logarithm is part of no determinant.
    return Pivots(logdet, float(logs[r:-1].sum()), float(diagonal[-1]) ** 2)
