"""A plan reads footers first, and no more than the memory limit, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bigmm
from bigmm.errors import MemoryLimitError
from bigmm.execute import executor
from bigmm.planning.limits import reading_bytes
from bigmm.source import open_source

ROWS = 1000
LIMIT = 200 << 20
PROCESS = """
import resource, sys
import bigmm

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

formula, small, large, limit = sys.argv[1:]
bigmm.plan("y ~ x + g + (1 | h)", small)  # what the program itself takes
before = peak()
try:
    plan = bigmm.plan(formula, large, memory_limit=int(limit), n_workers=2)
    print("planned", plan.refused, peak() - before)
except bigmm.MemoryLimitError as error:
    print("refused", peak() - before, error)
"""


def write(path, nbytes):
    """A column of text with one long value beside others that are short."""
    rng = np.random.default_rng(0)
    g = [f"g{i % 20}" for i in range(ROWS)]
    g[ROWS // 2] = "z" * nbytes
    columns = {"y": rng.normal(size=ROWS), "x": rng.normal(size=ROWS), "g": g, "h": [f"h{i % 7}" for i in range(ROWS)]}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    sizes = {"none": 10, "some": 20 << 20, "much": 60 << 20}
    return {name: write(folder / f"{name}.parquet", nbytes) for name, nbytes in sizes.items()}


def in_a_process(files, formula, name):
    command = [sys.executable, "-c", PROCESS, formula, str(files["none"]), str(files[name]), str(LIMIT)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="peaks are read by getrusage")
@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + g + (1 | h)"])
def test_a_plan_that_would_have_to_read_more_than_the_limit_is_refused(files, formula):
    """Reading 60 MiB in one piece took 440 MB."""
    outcome, grown, message = in_a_process(files, formula, "much").split(" ", 2)
    assert outcome == "refused" and int(grown) < LIMIT / 10, "only the footer is read"
    assert message == (
        "reading a partition needs about 480 MiB but the memory limit is 200 MiB (column 'g' has 60 MiB of text in one "
        "piece): raise memory_limit, or use smaller partitions (partition_bytes=)"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="peaks are read by getrusage")
@pytest.mark.parametrize(("formula", "name"), [("y ~ x + (1 | h)", "much"), ("y ~ x + (1 | g)", "some")])
def test_a_plan_within_the_limit_stays_within_it(files, formula, name):
    """The long text is in a column that the model does not use, or short enough."""
    outcome, refused, grown = in_a_process(files, formula, name).split()
    assert outcome == "planned" and refused == "False"
    assert int(grown) < LIMIT


def test_the_fit_is_refused_where_its_plan_is(files):
    with pytest.raises(
        MemoryLimitError, match=r"column 'g' has 60 MiB of text in one piece\): raise memory_limit, use f"
    ):
        bigmm.lmm("y ~ x + (1 | g)", files["much"], memory_limit=LIMIT, n_workers=2)


def test_bytes_of_what_is_read_are_counted_by_column(files):
    """8 bytes for each number of a partition, for each thread; long text eight times."""
    source, workers = open_source(files["some"]), executor(None, 3)
    assert reading_bytes(source, ["y", "x", "h"], workers) == 3 * 8 * ROWS
    with_text = reading_bytes(source, ["y", "g"], workers) - 2 * 8 * ROWS
    assert 8 * (20 << 20) <= with_text <= 8 * (20 << 20) + 8 * 20_000
