"""The worked page of `docs/extending/input-format.md` is code that runs."""

from __future__ import annotations

import importlib.util
import pickle
import re
import sys

import numpy as np
import pyarrow as pa
import pytest

import bigmm
from bigmm.accumulate import fold_lane, merge
from bigmm.design import learn
from bigmm.errors import DataError
from bigmm.execute import cut_lanes, executor
from bigmm.source import open_source

FORMULA = "y ~ x + (1 | g)"


@pytest.fixture(scope="module")
def page(project, tmp_path_factory):
    """The code of the page as a module."""
    text = (project / "docs" / "extending" / "input-format.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    path = tmp_path_factory.mktemp("page") / "worked_page.py"
    path.write_text("from __future__ import annotations\n" + code)
    spec = importlib.util.spec_from_file_location("worked_page", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["worked_page"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["worked_page"]


@pytest.fixture(scope="module")
def table():
    rng, n = np.random.default_rng(0), 5000
    g = rng.integers(0, 30, n)
    y = rng.normal(size=30)[g] + rng.normal(size=n)
    return pa.table({"y": y, "x": rng.normal(size=n), "g": [f"g{i}" for i in g], "unused": np.zeros(n)})


@pytest.fixture
def file(table, tmp_path):
    path = str(tmp_path / "rows.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    return path


def sums(source):
    workers = executor(None, 2)
    spec = learn(FORMULA, source, workers)
    shift = np.zeros(len(spec.layout.columns) + 1)
    lanes = cut_lanes(source.partitions)
    return workers.map_reduce(lambda lane, tick: fold_lane(source, spec, shift, lane, tick), lanes, merge, label="sum")


def test_rows_are_those_of_the_table(page, table, file):
    found, expected = page.open_ipc(file, None, 40_000), open_source(table, partition_bytes=40_000)
    assert len(found.partitions) == 5 and found.rows_total == 5000
    np.testing.assert_allclose(sums(found).gram, sums(expected).gram, atol=1e-8)
    np.testing.assert_allclose(sums(found).records[0], sums(expected).records[0], atol=1e-10)
    kept = page.open_ipc(file, "x > 0", 40_000)
    rows = sum(kept.read(partition, ["y"]).num_rows for partition in kept.partitions)
    assert rows == int(np.count_nonzero(table["x"].to_numpy() > 0))


def test_a_task_takes_no_partitions_along(page, file):
    source = page.open_ipc(file, None, 40_000)
    content = pickle.dumps(source)
    copy = pickle.loads(content)
    assert len(content) < 1500 and copy.partitions == ()
    assert copy.read(source.partitions[3], ["x"]).equals(source.read(source.partitions[3], ["x"]))


def test_a_file_that_changes_is_noticed(page, table, file):
    source = page.open_ipc(file, None, 40_000)
    with pa.OSFile(file, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.slice(0, 600), max_chunksize=500)
    with pytest.raises(DataError, match="changed during the fit"):
        source.read(source.partitions[0], ["y"])
    with pytest.raises(bigmm.BigmmError, match="no column 'z' in the data"):
        source.read(source.partitions[0], ["z"])
