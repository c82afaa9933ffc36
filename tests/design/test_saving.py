"""A spec goes through JSON and arrays, and through pickle, and encodes the same afterwards."""

from __future__ import annotations

import json
import pickle
from functools import partial, reduce

import numpy as np
import pyarrow as pa
import pytest

from bigmm.design import DesignSpec, parse
from bigmm.design.learn import ArgumentValues
from bigmm.design.levels.distinct import DistinctRows
from bigmm.design.transforms.passes import fold_summaries, merge_summaries
from bigmm.design.transforms.stateful import Replayer
from bigmm.design.transforms.summaries import ColumnMoments, Quantiles
from bigmm.errors import VersionError
from bigmm.execute import cut_lanes
from bigmm.source import open_source
from tests.design.frames import frame, learned, table

FORMULA = "y ~ poly(x, 2) * f + bs(z, df=4) + scale(log(w)) + C(k, Sum) + (x + f || g/h) + (1 | d) + (1 | b)"


def spec_and_data() -> tuple[DesignSpec, pa.Table]:
    data = table(frame())
    data = data.append_column("d", pa.array(np.arange(60, dtype=np.int32) % 5).cast(pa.date32()))
    options = {"weights": "w", "offset": "count", "contrasts": {"f": "Helmert"}, "categories": {"h": ["yes", "no"]}}
    return learned(FORMULA, data, **options), data


def same(left: DesignSpec, right: DesignSpec, data: pa.Table) -> None:
    for name in ("columns", "fixed_names", "fixed_columns", "terms", "response"):
        assert getattr(left.layout, name) == getattr(right.layout, name)
    for a, b in zip(left.layout.groupings, right.layout.groupings, strict=True):
        assert (a.name, a.variables, a.labels.dtype) == (b.name, b.variables, b.labels.dtype)
        np.testing.assert_array_equal(a.labels, b.labels)
    assert left.used_columns == right.used_columns
    a, b = left.encode(data, "here"), right.encode(data, "here")
    for name in ("columns", "y", "w", "offset"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for x, y in zip(a.refs, b.refs, strict=True):
        np.testing.assert_array_equal(x, y)


def test_through_json_and_arrays(tmp_path):
    spec, data = spec_and_data()
    meta, arrays = spec.to_dict()
    np.savez(tmp_path / "arrays.npz", **arrays)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as stored:
        rebuilt = DesignSpec.from_dict(json.loads(json.dumps(meta)), dict(stored))
    same(spec, rebuilt, data)


def test_through_pickle():
    spec, data = spec_and_data()
    same(spec, pickle.loads(pickle.dumps(spec)), data)


def test_the_tasks_of_the_pass_can_travel():
    data = frame()
    source = open_source(data, partition_bytes=500)
    argument = parse("y ~ scale(x) + (1 | g)").fixed.factors[0].arguments[0]
    values = ArgumentValues(argument, Replayer({}))
    requests = {("g",): DistinctRows(("g",)), "x": ColumnMoments(("x",), values), "q": Quantiles(("x",), values)}
    task = pickle.loads(pickle.dumps(partial(fold_summaries, source, requests)))
    lanes = cut_lanes(source.partitions)
    found = [task(lane, lambda rows: None) for lane in lanes]
    total = pickle.loads(pickle.dumps(reduce(merge_summaries, found)))
    assert total["x"].n == len(data) and total["q"].weights.sum() == len(data)
    assert sorted(total["g",].table()["g"].to_pylist()) == sorted(set(data["g"]))


def test_another_format_is_refused():
    with pytest.raises(VersionError, match="the saved design has format 99, this version reads 1"):
        DesignSpec.from_dict({"format": 99}, {})
