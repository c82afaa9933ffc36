"""Which terms are eliminated level by level, which stay in the dense tail, and how their columns are laid out."""

import numpy as np
import pytest

from bigmm.blocks import analyse
from bigmm.blocks.structure import cross, elimination_order, is_nested, transposed
from tests.oracle import SHAPES, Rows, Shape


@pytest.mark.parametrize(
    ("kind", "chain", "tail"),
    [
        ("one", [0], []),
        ("crossed", [0], [1]),
        ("three crossed", [0], [1, 2]),
        ("nested", [0, 1], []),
        ("nested chain", [0, 1, 2], []),
        ("nested and crossed", [0, 1], [2]),
        ("chain, crossed, fixed", [0, 1, 2], [3, 4]),
        ("fixed", [0], [1]),
    ],
)
def test_elimination_order(kind, chain, tail):
    assert elimination_order(Rows.draw(SHAPES[kind], 1).gram) == (chain, tail)


def test_a_containing_factor_need_not_come_next():
    """g1 in g3, g2 crosses both: the chain skips g2."""
    rng = np.random.default_rng(0)
    model = Rows.draw(Shape(((12, 1, False), (6, 1, False), (3, 1, False)), n=90), 4)
    refs = (model.refs[0], rng.integers(0, 6, 90), model.refs[0] // 4)
    gram = Rows(model.shape, refs, *[getattr(model, f) for f in ("z", "x", "factor", "y", "w", "active", "shift")]).gram
    assert elimination_order(gram) == ([0, 2], [1])


def test_kinds_are_for_people():
    structure = analyse(Rows.draw(SHAPES["nested and crossed"], 1).gram)
    assert [kind for _, kind in structure.kinds()] == ["block-diagonal", "block-diagonal, nested", "dense"]


def test_no_stage_for_fixed_factors_alone():
    model = Rows.draw(SHAPES["fixed"], 1)
    gram = model.gram
    alone = type(gram)(
        gram.terms[1:], {}, *[getattr(gram, f) for f in gram.__dataclass_fields__ if f not in ("terms", "cross")]
    )
    assert elimination_order(alone) == ([], [0])


def test_transposed_twice_is_the_same():
    gram = Rows.draw(SHAPES["three crossed"], 1).gram
    block = gram.cross[0, 1]
    turned = transposed(block, gram.terms[1].n_levels)
    back = transposed(turned, gram.terms[0].n_levels)
    for field in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(back, field), getattr(block, field))
    assert cross(gram, 1, 0).data.shape == (len(block.indices), 2, 2)


def test_nesting_is_one_way():
    gram = Rows.draw(SHAPES["nested"], 1).gram
    assert is_nested(cross(gram, 0, 1))
    assert not is_nested(cross(gram, 1, 0))


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_columns_of_every_stage(kind):
    """Rows are sorted (later stages first), hold what A holds, and know where they lie in their parents' rows."""
    structure = analyse(Rows.draw(SHAPES[kind], 1).gram)
    starts, at = [], structure.r_raw
    for stage in structure.stages:
        starts.append(at)
        at += stage.n_levels * stage.width
    for stage in structure.stages:
        rank = np.where(stage.columns >= structure.r_raw, stage.columns - at, stage.columns)
        for i in range(stage.n_levels):
            assert np.all(np.diff(rank[stage.indptr[i] : stage.indptr[i + 1]]) > 0)
            assert np.all(stage.columns[stage.tail_start[i] : stage.indptr[i + 1]] < structure.r_raw)
            assert np.all(stage.columns[stage.indptr[i] : stage.tail_start[i]] >= structure.r_raw)
        for parent in stage.parents:
            above = structure.stages[parent.stage]
            for i, p in enumerate(parent.level):
                own = stage.columns[parent.block[i] : parent.block[i] + above.width]
                np.testing.assert_array_equal(own, starts[parent.stage] + p * above.width + np.arange(above.width))
                for e in range(stage.indptr[i], stage.indptr[i + 1]):
                    place = parent.position[e]
                    row = above.columns[above.indptr[p] : above.indptr[p + 1]]
                    if place < 0:
                        assert stage.columns[e] not in row
                    else:
                        assert above.indptr[p] <= place < above.indptr[p + 1]
                        assert above.columns[place] == stage.columns[e]
        for r in range(structure.r_raw):
            entries = stage.entry[stage.colptr[r] : stage.colptr[r + 1]]
            assert np.all(stage.columns[entries] == r)
        assert stage.colptr[-1] == np.count_nonzero(stage.columns < structure.r_raw)
