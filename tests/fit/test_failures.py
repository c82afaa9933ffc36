"""Designs and options that cannot work stop with a message that says what, where and what to do."""

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.errors import DataError, FormulaError, MemoryLimitError, UsageError
from tests.fit.conftest import FORMULA, crossed_rows, write


def rows(n=60, **columns):
    return crossed_rows(n, seed=1).assign(**columns)


@pytest.mark.parametrize(
    ("formula", "columns", "message"),
    [
        (
            "y ~ x + (1 | one)",
            {"one": "a"},
            r"grouping factor 'one' has one level \(a\); a random effect needs at least two",
        ),
        (
            "y ~ x + (1 | row)",
            {"row": np.arange(60)},
            "grouping factor 'row' has 60 levels for 60 rows: with one row per level its variance cannot be told "
            "apart from the residual; remove the term or use a coarser factor",
        ),
        (
            "y ~ x + (1 + x | pair)",
            {"pair": np.arange(60) // 2},
            r"grouping factor 'pair' has 60 random effects \(30 levels x 2\) for 60 rows: they cannot be told apart "
            "from the residual; use fewer random slopes",
        ),
        ("flat ~ x + (1 | g)", {"flat": 2.5}, "the response is constant: 'flat' .*is 2.5 in all 60 rows"),
        (
            "within ~ 1 + (1 | pair)",
            {"pair": np.arange(60) // 6, "within": np.sin(np.arange(60) // 6)},
            "the response does not vary within the levels of 'pair': there is no residual variance to estimate",
        ),
    ],
)
def test_designs_without_an_answer(tmp_path, formula, columns, message):
    path = write(rows(**columns), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=message):
        bigmm.lmm(formula, path)


def test_more_coefficients_than_rows(tmp_path):
    frame = rows(12, **{f"x{i}": np.random.default_rng(i).normal(size=12) for i in range(14)}, h=list("ab") * 6)
    formula = "y ~ " + " + ".join(f"x{i}" for i in range(14)) + " + (1 | h)"
    with pytest.raises(
        DataError, match="p = 12 fixed-effect coefficients but only n = 12 rows; use fewer fixed effects"
    ):
        bigmm.lmm(formula, write(frame, tmp_path / "rows.parquet"))


def test_a_level_count_that_the_filter_leaves(tmp_path):
    path = write(rows(), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="grouping factor 'h' has one level"):
        bigmm.lmm("y ~ x + (1 | h)", path, filter="h == 'h1'")


def test_no_rows_are_left(tmp_path):
    path = write(rows(), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="no row of .* passes the filter .x > 1000."):
        bigmm.lmm("y ~ x + (1 | h)", path, filter="x > 1000")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"theta0": [1.0]},
            r"theta0 must have 4 elements \(g.Intercept, g.x.Intercept, g.x, h.Intercept\), got \(1,\)",
        ),
        ({"theta0": [1.0, 0.0, -1.0, 1.0]}, "theta0 must be finite with non-negative diagonal elements"),
        ({"theta0": [1.0, 0.0, np.nan, 1.0]}, "theta0 must be finite"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam': choose 'auto', 'newton' or one of bobyqa"),
        ({"solver": "magic"}, "unknown solver 'magic'"),
        ({"memory_limit": "lots"}, "memory_limit 'lots' is not a size: write for example '4GiB', '500MB'"),
        ({"memory_limit": -1}, "memory_limit must be positive, got -1"),
        ({"progress": 3}, "progress must be True, False, None or a function"),
        ({"store": "stats.zarr"}, r"store= is not available"),
        ({"weights": np.ones(3)}, "weights must be the name of a column when the data are not a table in memory"),
    ],
)
def test_options_that_cannot_be_meant(lake, options, message):
    with pytest.raises(UsageError, match=message):
        bigmm.lmm(FORMULA, lake, **options)


def test_vectors_must_have_one_value_per_row(frame):
    with pytest.raises(UsageError, match=r"weights must have one value per row: shape \(3,\) for 400 rows"):
        bigmm.lmm(FORMULA, frame, weights=np.ones(3))


def test_vectors_beside_a_frame_are_columns(frame, lake):
    a = bigmm.lmm(FORMULA, frame, weights=frame["w"].to_numpy(), offset=frame["off"].to_numpy())
    assert a.objective == pytest.approx(bigmm.lmm(FORMULA, lake, weights="w", offset="off").objective, rel=1e-11)


def test_the_same_effect_twice(lake):
    with pytest.raises(FormulaError, match="the random effect of the intercept appears twice for grouping factor 'g'"):
        bigmm.lmm("y ~ x + (1 | g) + (1 + x | g)", lake)


@pytest.fixture(scope="module")
def crossed_by_many(tmp_path_factory):
    """Two crossed factors of 3,000 levels each: the dense block would need 9e6 numbers, several times."""
    rng = np.random.default_rng(0)
    n = 9_000
    frame = pd.DataFrame({"y": rng.normal(size=n), "a": rng.integers(0, 3_000, n), "b": rng.integers(0, 3_000, n)})
    return write(frame, tmp_path_factory.mktemp("many") / "rows.parquet")


def test_a_solver_that_does_not_fit_is_refused_before_it_computes(crossed_by_many, monkeypatch):
    from bigmm.objective import Criterion

    def evaluated(*args):
        raise AssertionError("the criterion was computed")

    monkeypatch.setattr(Criterion, "value", evaluated)
    message = (
        r"the exact solver needs at least \d+\.\d MiB \(a dense block of 2,\d+ columns for the crossed factors\) but "
        r"the memory limit is 128 MiB: raise memory_limit, use solver='iterative', drop a grouping factor, or use a "
        r"coarser one"
    )
    with pytest.raises(MemoryLimitError, match=message):
        bigmm.lmm("y ~ 1 + (1 | a) + (1 | b)", crossed_by_many, solver="exact", memory_limit="128MiB")


def test_a_pass_that_does_not_fit_is_refused_before_it_reads(crossed_by_many):
    with pytest.raises(MemoryLimitError, match=r"memory limit is .*: raise memory_limit|memory_limit"):
        bigmm.lmm("y ~ 1 + (1 | a)", crossed_by_many, memory_limit=100_000)


def test_partitions_that_do_not_fit_are_refused_before_they_are_read(tmp_path):
    """Two of 200,000 rows and four columns of 8 bytes: weights are read too, for a fit as for its plan."""
    n, rng = 400_000, np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n), "g": np.arange(n) % 9, "w": np.ones(n)})
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=n // 2)
    how = {"n_workers": 2, "partition_bytes": 6 << 20, "memory_limit": 10 << 20}
    message = r"reading partitions needs about 12\.21 MiB with 2 threads but the memory limit is 10 MiB: raise"
    with pytest.raises(MemoryLimitError, match=message):
        bigmm.lmm("y ~ x + (1 | g)", tmp_path, weights="w", **how)
    assert bigmm.plan("y ~ x + (1 | g)", tmp_path, weights="w", **how).refused


def test_the_plan_says_so_first(crossed_by_many):
    tight = bigmm.plan("y ~ 1 + (1 | a) + (1 | b)", crossed_by_many, solver="exact", memory_limit="128MiB")
    assert not tight.fits
    assert "does NOT fit" in str(tight)
    roomy = bigmm.plan("y ~ 1 + (1 | a) + (1 | b)", crossed_by_many, memory_limit="64GiB")
    assert roomy.fits
    assert roomy.rows == 9_000
    assert [term.levels for term in roomy.terms] == sorted((term.levels for term in roomy.terms), reverse=True)
    assert roomy.solver_bytes > 8 * 2_500**2
    assert roomy.as_record()["theta"] == 2


def test_no_residual_variance_is_said_where_the_search_cannot_end():
    """theta is relative to sigma; it has no finite optimum."""
    rng = np.random.default_rng(4)
    n, a, b = 2000, rng.normal(size=80), rng.normal(size=60)
    rows = pd.DataFrame({"a": rng.integers(0, 80, n), "b": rng.integers(0, 60, n), "x": rng.normal(size=n)})
    rows["y"] = rows["x"] + a[rows["a"]] + b[rows["b"]]
    for solver in ("exact", "iterative"):
        outcome = bigmm.lmm("y ~ x + (1 | a) + (1 | b)", rows, solver=solver).optimizer_result
        assert not outcome.converged
        assert "the residual variance is (nearly) zero: sigma is" in outcome.advice
        assert "bobyqa" not in outcome.advice


def test_weights_that_are_all_zero_are_said_in_words():
    rows = bigmm.datasets.dyestuff().assign(w=0.0)
    with pytest.raises(DataError, match="no rows to fit: the weights of all 30 rows are zero$"):
        bigmm.lmm("Yield ~ 1 + (1 | Batch)", rows, weights="w")
    rows.loc[3, "Yield"] = np.nan
    with pytest.raises(DataError, match="all are dropped: 1 where 'Yield' is missing, 29 whose weight is zero$"):
        bigmm.lmm("Yield ~ 1 + (1 | Batch)", rows, weights="w")


def test_a_filter_that_keeps_nothing_is_named():
    with pytest.raises(DataError, match="no row .*passes the filter 'Yield > 1e9'"):
        bigmm.lmm("Yield ~ 1 + (1 | Batch)", bigmm.datasets.dyestuff(), filter="Yield > 1e9")


def test_a_generalized_fit_is_not_certified():
    rows = bigmm.datasets.dyestuff().assign(high=lambda d: d["Yield"] > 1530)
    fit = bigmm.glmm("high ~ 1 + (1 | Batch)", rows, family="bernoulli")
    with pytest.raises(UsageError, match=r"certify\(\) is for linear models only"):
        fit.certify(n_workers=2)
