"""Which grouping factors form a chain: told by the formula, by the first rows, or by one pass."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmm.design import learn
from bigmm.design.levels.nesting import Parents, nested_chain, note_parents, undecided_pairs
from bigmm.execute import executor
from bigmm.source import open_source
from bigmm.source.parquet import ParquetSource


@pytest.fixture
def lake(tmp_path):
    """Four files of pupils in classes in schools, numbers unique over schools; ``room`` is not, ``town`` is crossed."""
    rng = np.random.default_rng(0)
    for number in range(4):
        pupil = rng.integers(0, 300, 500)
        room = pupil // 5
        columns = {"pupil": pupil, "class": room, "room": room % 6, "school": [f"s{i}" for i in room // 6]}
        columns |= {"town": rng.integers(0, 7, 500), "x": rng.normal(size=500), "y": rng.normal(size=500)}
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet", row_group_size=200)
    return tmp_path


def chain(lake, random, with_head=True, n_workers=2, fixed="x", learned=None):
    source, workers = open_source(lake), executor(n_workers=n_workers)
    spec = learned or learn(f"y ~ {fixed} + {random}", source, workers)
    head = spec.encode(source.head(spec.used_columns, 100), "") if with_head else None
    return nested_chain(spec, source, workers, head)


@pytest.fixture
def reads(monkeypatch):
    """Columns of every read after ``reads.clear()``."""
    seen, plain = [], ParquetSource.read

    def read(self, partition, columns):
        seen.append(tuple(columns))
        return plain(self, partition, columns)

    monkeypatch.setattr(ParquetSource, "read", read)
    return seen


@pytest.mark.parametrize(
    ("random", "expected"),
    [
        ("(1 | school/room)", (0, 1)),
        ("(1 | school/class/pupil)", (0, 1, 2)),
        ("(1 + x | school) + (1 | school:room) + (0 + x | school:room)", (0, 1)),
        ("(1 | school) + (1 | class)", (0, 1)),
        ("(1 | pupil) + (1 | class) + (1 | school)", (0, 1, 2)),
        ("(1 | pupil) + (1 | school:room) + (1 | school)", (0, 1, 2)),
        ("(1 | school)", (0,)),
        ("(1 | school) + (1 | room)", None),
        ("(1 | school) + (1 | town)", None),
        ("(1 | school/room) + (1 | town)", None),
        ("(1 | school:town) + (1 | class)", None),
    ],
)
@pytest.mark.parametrize("with_head", [True, False])
def test_chains(lake, random, expected, with_head):
    assert chain(lake, random, with_head) == chain(lake, random, with_head, n_workers=1) == expected


def spec_of(lake, random):
    return learn(f"y ~ x + {random}", open_source(lake), executor(n_workers=1))


def test_a_nested_formula_needs_no_look_at_the_rows(lake, reads):
    spec = spec_of(lake, "(1 | school/room/pupil)")
    assert undecided_pairs(spec.layout) == ()
    reads.clear()
    assert chain(lake, "", with_head=False, learned=spec) == (0, 1, 2)
    assert not reads


def test_the_first_rows_tell_crossed_factors(lake, reads):
    spec = spec_of(lake, "(1 | school) + (1 | town)")
    reads.clear()
    assert chain(lake, "", learned=spec) is None
    assert not reads


def test_the_pass_reads_the_grouping_columns_that_the_formula_leaves_open(lake, reads):
    spec = spec_of(lake, "(1 | pupil) + (1 | school:room) + (1 | school)")
    reads.clear()
    assert chain(lake, "", learned=spec) == (0, 1, 2)
    partitions = len(open_source(lake).partitions)
    assert reads == [("pupil", "school", "room")] * partitions


def test_one_row_in_the_last_file_makes_two_parents(lake):
    table = pq.read_table(lake / "3.parquet")
    school = table["school"].to_pylist()
    school[-1] = "s0" if school[-1] != "s0" else "s1"
    changed = table.set_column(table.column_names.index("school"), "school", pa.array(school))
    pq.write_table(changed, lake / "3.parquet")
    assert chain(lake, "(1 | school) + (1 | class)") is None
    assert chain(lake, "(1 | school) + (1 | school:class)") == (0, 1)


def test_rows_without_a_level_say_nothing(lake):
    table = pq.read_table(lake / "0.parquet")
    school = table["school"].to_pylist()
    school[::3] = [None] * len(school[::3])
    pq.write_table(table.set_column(table.column_names.index("school"), "school", pa.array(school)), lake / "0.parquet")
    assert chain(lake, "(1 | school) + (1 | class)") == (0, 1)


def test_as_many_combinations_as_levels_are_no_proof(tmp_path):
    # a2 lies in two of the combinations, a1 in none that is complete: equal numbers, yet no renaming
    columns = {
        "a": ["a1", "a2", "a2"] * 4,
        "b": [None, "b1", "b2"] * 4,
        "x": np.arange(12.0),
        "y": np.arange(12.0) ** 2,
    }
    pq.write_table(pa.table(columns), tmp_path / "0.parquet")
    assert chain(tmp_path, "(1 | a) + (1 | a:b)", fixed="x") in (None, (0, 1))
    spec = spec_of(tmp_path, "(1 | a) + (1 | a:b)")
    first = spec.layout.groupings[spec.layout.terms[0].grouping].name
    assert chain(tmp_path, "", learned=spec) == (None if first == "a" else (0, 1))


def test_lanes_that_disagree_are_no_chain():
    one, other = np.array([0, -1, 2], np.int32), np.array([0, 1, -1], np.int32)
    merged = Parents((one,)).merge(Parents((other,)))
    assert merged.numbers is not None and merged.numbers[0].tolist() == [0, 1, 2]
    assert merged.merge(Parents((np.array([1, -1, -1], np.int32),))).numbers is None
    assert Parents(None).merge(merged).numbers is None and merged.merge(Parents(None)).numbers is None
    parents = np.full(3, -1, np.int32)
    assert note_parents(np.array([0, 1, -1, 0], np.int32), np.array([4, 5, 6, 4], np.int32), parents)
    assert parents.tolist() == [4, 5, -1]
    assert not note_parents(np.array([1], np.int32), np.array([4], np.int32), parents)
