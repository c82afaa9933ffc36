"""The memory model counts the bytes of the arrays that there are: of every engine, exactly or as a bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from bigmm.accumulate.chains import chain_sums
from bigmm.accumulate.fold import Accumulator
from bigmm.blocks.structure import elimination_order
from bigmm.design.layout import DesignChunk, Grouping, Layout, RandomTerm
from bigmm.families import family
from bigmm.laplace.block_layout import block_layout, ready_rows
from bigmm.objective import Criterion
from bigmm.objective.solvers import LINEAR_SOLVERS
from bigmm.planning import memory
from bigmm.planning.block_bounds import bounds_of_order
from bigmm.planning.solver_choice import sizes_of, solver_bytes
from bigmm.shards import shard as shards
from tests.laplace.models import Rows as GeneralizedRows
from tests.oracle import SHAPES, Rows, Shape


def arrays(value: Any) -> Iterator[np.ndarray]:
    """All arrays that a value of dataclasses and containers holds."""
    if isinstance(value, np.ndarray):
        yield value
    elif dataclasses.is_dataclass(value):
        yield from (a for f in dataclasses.fields(value) for a in arrays(getattr(value, f.name)))
    elif isinstance(value, tuple | list):
        yield from (a for item in value for a in arrays(item))
    elif isinstance(value, dict):
        yield from (a for item in value.values() for a in arrays(item))


def nbytes(*values: Any) -> int:
    """Bytes of all arrays, each counted once."""
    return sum({id(a): a.nbytes for a in arrays(values)}.values())


def layout_of(*terms: tuple[int, int], fixed: int = 2) -> Layout:
    """Terms as (levels, covariates), of columns 1, x1, x2, ...; fixed: columns of X."""
    width = max([fixed, *(k for _, k in terms)])
    columns = ("1", *(f"x{i}" for i in range(1, width)))
    groupings = tuple(Grouping(f"g{j}", (f"g{j}",), range(q)) for j, (q, _) in enumerate(terms))
    random = tuple(RandomTerm(f"g{j}", j, tuple(range(k)), columns[:k]) for j, (_, k) in enumerate(terms))
    return Layout(columns, columns[:fixed], tuple(range(fixed)), (), random, groupings, np.eye(fixed)[0], "y")


def chunk_of(layout: Layout, n: int, weighted: bool = True, nested: bool = False) -> DesignChunk:
    rng, refs = np.random.default_rng(0), []
    for joint in layout.joint:
        q = joint.n_levels
        refs.append(refs[-1] * q // layout.joint[len(refs) - 1].n_levels if nested and refs else np.arange(n) % q)
    numbers = tuple(r.astype(np.int32) for r in refs)
    w = rng.uniform(1.0, 2.0, n) if weighted else None
    return DesignChunk(rng.normal(size=(len(layout.columns) - 1, n)), rng.normal(size=n), numbers, w, None, n, ())


LAYOUTS = {
    "one": layout_of((40, 1)),
    "slopes": layout_of((40, 3)),
    "padded": layout_of((40, 3), fixed=6),
    "two": layout_of((40, 2), (12, 1)),
    "three": layout_of((40, 1), (12, 2), (5, 1), fixed=3),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_pass(name):
    """Cross-products, records, counts; and tables of pairs, of which a row makes an entry."""
    layout = LAYOUTS[name]
    accumulator = Accumulator(layout, np.zeros(len(layout.columns) + 1))
    accumulator.add(chunk_of(layout, 200))
    tables = sum(
        8 * a.n_levels * b.n_levels * a.width * b.width
        for i, a in enumerate(layout.joint)
        for b in layout.joint[i + 1 :]
    )
    assert (
        memory.accumulator_bytes(layout) == nbytes(accumulator.high, accumulator.records, accumulator.counts) + tables
    )
    assert not memory.has_many_pairs(layout) and memory.run_bytes(layout, 10**9) == 0


def test_pairs_without_a_table():
    """A key and a number, and the same once more in the run that they are added up into."""
    layout = layout_of((160_000, 1), (60_000, 1))
    assert memory.has_many_pairs(layout)
    run = np.zeros(10**6, np.int64), np.zeros((10**6, 1, 1))
    assert memory.run_bytes(layout, 10**6) == 2 * nbytes(run)


@pytest.mark.parametrize("name", SHAPES)
def test_sizes_of_blocks(name):
    """The tail, the cross blocks, and the levels with their factor; bounds before the pass hold the blocks."""
    gram = Rows.draw(SHAPES[name], 1).gram
    sizes, (stages, tail) = sizes_of(gram), elimination_order(gram)
    assert sizes.dense_columns == nbytes(gram.xy[:1]) // 8 + sum(gram.terms[t].dense[..., 0].size for t in tail)
    assert sizes.sparse == sum(memory.cross_bytes(len(b.indices), b.data[0].size) for b in gram.cross.values())
    m = len(gram.xy)
    assert sizes.levels == sum(memory.level_bytes(gram.terms[s].n_levels, gram.terms[s].width, m) for s in stages)


@pytest.mark.parametrize("name", [name for name in SHAPES if "fixed" not in name])
def test_the_exact_solver(name):
    """Three dense blocks of the tail in a factor; per stage the factor, and what it has of [X y]."""
    rows = Rows.draw(SHAPES[name], 1)
    factor = Criterion(rows.gram, rows.covariances, True).factor(np.full(rows.covariances.n_theta, 0.5)).blocks
    structure, sizes = factor.structure, sizes_of(rows.gram)
    dense = memory.tail_bytes(sizes.dense_columns, 1)
    assert [nbytes(a) for a in (structure.base, factor.schur, factor.tail)] == [dense] * 3
    levels = sum(nbytes(stage.h, stage.v, rows.gram.terms[s.term].diagonal)
                 for stage, s in zip(factor.stages, structure.stages, strict=True))  # fmt: skip
    assert levels == sizes.levels
    beside = nbytes(factor.schur, factor.tail, [(s.h, s.v, s.f) for s in factor.stages])
    assert beside <= solver_bytes(sizes, 0, "exact")


def test_the_iterative_solver():
    """What a factor with probes has beside A is within the model, and the model is not far above it."""
    rows = Rows.draw(Shape(((120, 1, False), (90, 1, False)), n=600), 1)
    gram = rows.gram
    criterion = Criterion(gram, rows.covariances, True, LINEAR_SOLVERS["iterative"](gram, 0))
    sizes, sample = sizes_of(gram), criterion.factor(np.full(rows.covariances.n_theta, 0.5)).sample
    found = nbytes(sample) - nbytes(gram)
    assert found <= memory.iterative_bytes(sizes.sparse, 210, sizes.dense) <= 12 * found


@pytest.mark.parametrize("name", ["one", "slopes", "two", "three"])
def test_levels_with_the_workers(name):
    """Records, and two numbers per level: its own and its parent's, which the top factor has not."""
    layout = LAYOUTS[name]
    chain = tuple(range(len(layout.joint)))
    sums = chain_sums(layout, chain, np.zeros(len(layout.columns) + 1), [chunk_of(layout, 400, nested=True)])
    assert sums.sizes == tuple(term.n_levels for term in layout.joint)
    expected = nbytes(sums.records, sums.levels, sums.parents) + 4 * layout.joint[-1].n_levels
    assert memory.level_sums_bytes(layout) == expected


def test_levels_that_are_gathered():
    """The blocks of nested factors, from two shards and joined, are within the model, and not far below it."""
    gram = Rows.draw(SHAPES["nested chain"], 1).gram
    blocks = nbytes([(t.diagonal, t.dense) for t in gram.terms], [(b.data, b.indices) for b in gram.cross.values()])
    model = memory.gathered_bytes([t.n_levels for t in gram.terms], [t.width for t in gram.terms], len(gram.xy))
    assert 2 * blocks <= model <= 5 * blocks


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_in_shards(name, weighted):
    layout, n = LAYOUTS[name], 200
    chunk = chunk_of(layout, n, weighted)
    shard = shards.join([chunk], 0, layout.joint[0].n_levels, 0)
    each = memory.row_bytes(len(layout.columns), len(layout.groupings), weighted, False)
    assert each * n == nbytes(shard.columns, shard.y, shard.w, shard.offset, shard.refs)


@pytest.mark.parametrize("kind", ["crossed", "crossed slopes", "three levels"])
def test_a_generalized_model_with_crossed_factors(kind):
    """Rows as the kernels read them have level numbers and entries; working sums have blocks and vectors."""
    model = GeneralizedRows.draw(family("poisson"), kind)
    pattern, terms = model.pattern, len(model.terms)
    wiring = block_layout(pattern, np.arange(model.x.shape[1]), [c for _, c, _ in model.terms])
    (shard,) = model.shards(model.edges(1))
    rows = ready_rows(shard, wiring, list(range(terms)), [np.arange(q) for q, _, _ in model.terms])
    assert nbytes(rows.refs, rows.entries) == len(model.y) * memory.pattern_bytes(terms)
    layout = layout_of(*((q, len(c)) for q, c, _ in model.terms), fixed=model.x.shape[1])
    entries = sum(b.data.size for b in pattern.cross.values())
    pairs = sum(len(b.indices) for b in pattern.cross.values())
    blocks = nbytes(
        [(t.diagonal, t.dense) for t in pattern.terms], [(b.data, b.indices) for b in pattern.cross.values()]
    )
    vectors = 3 * 8 * memory.effects(layout)
    assert memory.working_sums_bytes(layout, entries, pairs) == blocks + vectors


def test_bounds_before_the_pass():
    """Every level meets one level at least of each other factor, and rows or products of levels at most."""
    layout = LAYOUTS["three"]
    bounds = bounds_of_order(layout, ((0,), (1, 2)), 300)
    refs = chunk_of(layout, 300).refs
    met = {(j, k): len({*zip(refs[j].tolist(), refs[k].tolist(), strict=True)}) for j, k in bounds.most}
    assert all(bounds.fewest[pair] <= met[pair] <= bounds.most[pair] for pair in met)


def test_matrices():
    """[Z X y]'[X y] is dense, Z'Z has a number and an index for each entry; M, its factor and two products are four."""
    z, x = sp.csr_array(np.eye(12)), np.ones((12, 3))  # two columns of X, and y
    zz, dense = sp.csr_array(z.T @ z), np.vstack([z.T @ x, x.T @ x])
    expected = nbytes(dense, zz.data, zz.indices)
    assert memory.matrix_accumulator_bytes(12, 2, z.nnz) == expected
    assert memory.matrix_solver_bytes(8 * 12 * 12) == 4 * nbytes(np.zeros((12, 12)))
