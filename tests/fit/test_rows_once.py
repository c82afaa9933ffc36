"""Optimizing never touches rows: after the pass, the data may be gone."""

import importlib

import numpy as np
import pytest

import bigmm
from bigmm.execute import executor
from bigmm.source.parquet import ParquetSource
from tests.fit.conftest import FORMULA, write

recipe = importlib.import_module("bigmm.fit.lmm")  # the name is the function in its package


def test_no_read_after_the_pass(lake, monkeypatch):
    reads, state = [], {"passed": False}
    read, assemble = ParquetSource.read, recipe.assemble

    def counted(self, partition, columns):
        assert not state["passed"], "rows were read after the pass"
        reads.append(partition.index)
        return read(self, partition, columns)

    def assembled(*args):
        state["passed"] = True
        return assemble(*args)

    monkeypatch.setattr(ParquetSource, "read", counted)
    monkeypatch.setattr(recipe, "assemble", assembled)
    model = bigmm.lmm(FORMULA, lake, n_workers=2, partition_bytes=1)
    assert state["passed"]
    assert np.unique(reads, return_counts=True)[1].tolist() == [2] * (max(reads) + 1)  # learning levels, then the sums
    model.summary()
    model.ranef(condvar=True)
    assert model.effective_df is not None


def test_files_may_be_deleted_after_the_pass(frame, tmp_path, monkeypatch):
    path = write(frame, tmp_path / "rows.parquet")
    kept = bigmm.lmm(FORMULA, path)
    assemble = recipe.assemble

    def without_files(*args):
        path.unlink()
        return assemble(*args)

    monkeypatch.setattr(recipe, "assemble", without_files)
    model = bigmm.lmm(FORMULA, path)
    assert not path.exists()
    assert model.objective == kept.objective
    model.summary()


def test_the_progress_ends_before_the_optimisation(lake):
    events = []
    bigmm.lmm(FORMULA, lake, progress=events.append)
    assert {event.label for event in events} >= {"accumulate"}
    assert events[-1].label == "accumulate"


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_are_threads_here(workers):
    assert executor(None, workers).n_workers == workers
