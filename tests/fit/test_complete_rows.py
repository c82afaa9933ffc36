"""Which rows count is decided before levels, reference levels, contrasts and states of transforms are learned.

The right value everywhere is the fit to the rows that count alone, given as a table of their own. lme4 drops the levels
of factors to those of the model frame too; states of transforms are learned from the same rows (docs/missing.md).
"""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import bigmm
from bigmm.design import completion
from bigmm.errors import DataError, FormulaError
from bigmm.planning import placement, sharding
from bigmm.source.parquet import ParquetSource
from tests.fit.conftest import write

FORMULA = "y ~ x + f + (1 | g)"


def rows(n: int = 240, seed: int = 1) -> pd.DataFrame:
    """y, a count c, covariates x and z > 0, weights w, factors f (a to d), g (12 levels) and h (5)."""
    rng = np.random.default_rng(seed)
    g, h, x = rng.integers(0, 12, n), rng.integers(0, 5, n), rng.normal(size=n)
    f = rng.choice(list("abcd"), n)
    y = (f == "b") * 2 + x + 1.5 * rng.normal(size=12)[g] + rng.normal(size=5)[h] + rng.normal(size=n)
    c = rng.poisson(np.exp(0.3 * x + 0.5 * rng.normal(size=12)[g]))
    return pd.DataFrame({"y": y, "c": c, "x": x, "z": np.exp(x), "w": rng.uniform(0.5, 2, n), "f": f, "g": g, "h": h})


ROWS = rows()


def without(lost, column: str = "y", value: float = np.nan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(the rows with a value that does not count where `lost`, the rows that count)."""
    return ROWS.assign(**{column: ROWS[column].where(~lost, value)}), ROWS[~lost]


def same(found, right):
    assert list(found.params.index) == list(right.params.index)
    assert found.npar == right.npar and found.n_groups == right.n_groups and found.nobs == right.nobs
    assert list(found.varcorr.group) == list(right.varcorr.group)
    assert found.objective == pytest.approx(right.objective, abs=1e-7)
    np.testing.assert_allclose(found.params, right.params, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.theta, right.theta, atol=1e-6)


A, B, D, HIGH = ROWS.f == "a", ROWS.f == "b", ROWS.f == "d", ROWS.x > 1
LINEAR = {
    "reference level": (FORMULA, without(A), {}),
    "missing covariate": (FORMULA, without(A, "x"), {}),
    "contrast": ("y ~ x + C(f, Sum) + (1 | g)", without(B, "x"), {}),
    "contrast by argument": (FORMULA, without(D), {"contrasts": {"f": "Helmert"}}),
    "interaction": ("y ~ x * f + (1 | g)", without(D), {}),
    "random effects by level": ("y ~ x + (0 + f | h)", without(A), {}),
    "interaction grouping": ("y ~ x + (1 | f:g) + (1 | h)", without(A), {}),
    "grouping and fixed": ("y ~ x + f + (1 | f:g) + (1 | h)", without(A), {}),
    "grouping alone": ("y ~ x + (1 | g)", without(ROWS.g == 3), {}),
    "zero weight": (FORMULA, without(A, "w", 0.0), {"weights": "w"}),
    "missing weight": (FORMULA, without(A, "w"), {"weights": "w"}),
    "missing offset": (FORMULA, without(A, "w"), {"offset": "w"}),
    "logarithm of a negative number": ("y ~ log(z) + f + (1 | g)", without(A, "z", -1.0), {}),
    "response after its transformation": ("sqrt(z) ~ f + (1 | g)", without(A, "z", -1.0), {}),
    "knots": ("y ~ ns(x, df=3) + (1 | g)", without(HIGH), {}),
    "polynomial": ("y ~ poly(x, 2) + (1 | g)", without(HIGH), {}),
    "scale and center": ("y ~ scale(x) + center(z) + (1 | g)", without(HIGH), {}),
    "transform of a transform": ("y ~ poly(scale(x), 2) + f + (1 | g)", without(HIGH | A), {}),
    "knots of a logarithm": ("y ~ bs(log(z), df=4) + f + (1 | g)", without(A, "z", -1.0), {}),
    "infinite inside of a transform": ("y ~ scale(log(z)) + f + (1 | g)", without(A, "z", 0.0), {}),
    "function of a transform": ("y ~ log(scale(x) + 9) + f + (1 | g)", without(A), {}),
    "declared order": (FORMULA, without(D), {"categories": {"f": list("dcba")}}),
}


@pytest.mark.parametrize("name", LINEAR)
def test_the_fit_is_that_of_the_rows_that_count(name):
    formula, (given, counted), options = LINEAR[name]
    same(bigmm.lmm(formula, given, **options), bigmm.lmm(formula, counted, **options))


def test_lme4_knows_the_numbers():
    """The rows of a public report. lme4 1.1-31: (Intercept) 2.371229, x 0.913006, fc -1.800241, reference level b."""
    rng, n = np.random.default_rng(1), 120
    g = rng.integers(0, 12, n)
    data = pd.DataFrame({"g": g, "x": rng.normal(size=n), "f": rng.choice(list("abc"), n)})
    data["y"] = 1 + data.x + (data.f == "b") * 2 + rng.normal(size=12)[g] * 1.5 + rng.normal(size=n)
    data["y"] = data.y.where(data.f != "a")
    model = bigmm.lmm("y ~ x + f + (1 | g)", data)
    right = {"Intercept": 2.371229, "x": 0.913006, "f[T.c]": -1.800241}
    assert model.params.to_dict() == pytest.approx(right, abs=2e-6)
    with pytest.raises(DataError, match=r"'f' holds 'a' in row 1"):
        model.predict(pd.DataFrame({"x": [0.0], "f": ["a"]}), random=False)


def test_ordered_categories_keep_their_order():
    given, _ = without(D)
    given["f"] = pd.Categorical(given.f, list("dcba"), ordered=True)
    assert list(bigmm.lmm(FORMULA, given).params.index)[2:] == ["f[T.b]", "f[T.a]"]  # c is the first that is left


def test_order_of_theta_is_that_of_levels_with_rows():
    """g has more levels than f:h, but fewer with complete rows; lme4 orders terms by the latter."""
    given = ROWS.assign(k=ROWS.g % 6 + 12 * (ROWS.g > 8) + np.arange(240) % 12 * (ROWS.g > 8))
    given["y"] = given.y.where(given.k < 6)
    assert given.k.nunique() > given.g.nunique() > given[given.y.notna()].k.nunique()
    formula = "y ~ x + (1 | k) + (1 | g)"
    same(bigmm.lmm(formula, given), bigmm.lmm(formula, given.dropna()))


KINDS = {
    "Dask": lambda frame: dd.from_pandas(frame, npartitions=3),
    "Arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "polars": pl.from_pandas,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table(kind):
    given, counted = without(A)
    same(bigmm.lmm(FORMULA, KINDS[kind](given)), bigmm.lmm(FORMULA, counted))


GENERALIZED = {
    "one factor": ("c ~ x + f + (1 | g)", "poisson", {}),
    "crossed": ("c ~ scale(x) + f + (1 | g) + (1 | h)", "poisson", {}),
    "nested": ("c ~ f + (1 | g/h)", "poisson", {"nagq": 0}),
    "levels as the response": ("r ~ x + (1 | g)", "bernoulli", {}),
    "no trials": ("cbind(s, t) ~ x + f + (1 | g)", "binomial", {}),
}


@pytest.mark.parametrize("name", GENERALIZED)
def test_generalized_models(name):
    formula, family, options = GENERALIZED[name]
    given = ROWS.assign(
        r=np.where(A, "none", np.where(ROWS.c > 0, "some", "zero")),
        s=np.where(A, 0, ROWS.c),
        t=np.where(A, 0, 2),
        x=ROWS.x if name == "no trials" else ROWS.x.where(~A),
    )
    if name == "nested":
        given["c"] = given.c.where(~A)
    found = bigmm.glmm(formula, given, family=family, **options)
    same(found, bigmm.glmm(formula, given[~A], family=family, **options))


@pytest.fixture
def lake(tmp_path):
    """Four files in the order of f, the first with level a, which has no complete row."""
    given, _ = without(A)
    given = given.sort_values("f", kind="stable")
    for number, part in enumerate(np.array_split(np.arange(len(given)), 4)):
        write(given.iloc[part], tmp_path / f"{number}.parquet")
    return tmp_path


def test_levels_that_stay_with_the_workers(lake, monkeypatch):
    monkeypatch.setattr(sharding, "SMALL_ROWS", 20)
    monkeypatch.setattr(placement, "SHARE", 10**9)
    model = bigmm.lmm(FORMULA, lake, n_workers=2)
    assert model.fitted.solver_reason.startswith("levels stay with the workers")
    same(model, bigmm.lmm(FORMULA, without(A)[1]))


def test_plan_counts_levels_with_rows(lake):
    plan = bigmm.plan("y ~ x + f + (f | g)", lake, partition_bytes=1)
    assert (plan.coefficients, plan.theta, plan.passes) == (4, 6, 2)
    assert bigmm.plan("y ~ x + (1 | f)", lake).terms[0].levels == 3


def test_a_plan_of_large_data_looks_at_coded_factors_only(lake, monkeypatch):
    monkeypatch.setattr(completion, "PLANNED_ROWS", 10)
    assert bigmm.plan("y ~ x + (1 | f)", lake).terms[0].levels == 4
    assert bigmm.plan(FORMULA, lake).coefficients == 4


def columns_read(monkeypatch) -> list[tuple[int, tuple[str, ...]]]:
    reads, read = [], ParquetSource.read

    def noted(self, partition, columns):
        reads.append((partition.index, tuple(sorted(columns))))
        return read(self, partition, columns)

    monkeypatch.setattr(ParquetSource, "read", noted)
    return reads


USED = tuple("fgxy")


def test_complete_data_are_read_as_before(tmp_path, monkeypatch):
    """Once the columns of factors, and once all: nothing more where no row is dropped."""
    for number in range(3):
        write(ROWS.iloc[80 * number : 80 * number + 80], tmp_path / f"{number}.parquet")
    reads = columns_read(monkeypatch)
    model = bigmm.lmm(FORMULA, tmp_path, n_workers=1)
    assert sorted(reads) == sorted([(i, columns) for i in range(3) for columns in (("f", "g"), USED)])
    assert model.passes == 2


def test_few_missing_values_cost_a_look_at_one_file(tmp_path, monkeypatch):
    """Every level of f has a complete row in the first file: the look for them ends there."""
    given = ROWS.assign(y=ROWS.y.where(np.arange(240) % 50 > 0))
    for number in range(3):
        write(given.iloc[80 * number : 80 * number + 80], tmp_path / f"{number}.parquet")
    reads = columns_read(monkeypatch)
    model = bigmm.lmm(FORMULA, tmp_path, n_workers=1)
    assert model.passes == 2 and [r for r in reads if r[1] == ("f",)] == [(0, ("f",))]
    assert [r for r in reads if r[1] == USED] == [(0, USED), (1, USED), (2, USED), (0, USED)]


def test_passes_are_counted_where_a_level_is_lost(lake):
    """Levels, sums, the look for levels, sums again; poly takes two passes to learn."""
    assert bigmm.lmm(FORMULA, lake, partition_bytes=1).passes == 4
    assert bigmm.lmm("y ~ poly(x, 2) + (1 | g)", ROWS).passes == 3


def test_what_is_left_must_be_a_factor():
    with pytest.raises(DataError, match=r"factor 'f' has one level with complete rows \(a\); leave it out"):
        bigmm.lmm(FORMULA, without(~A)[0])
    with pytest.raises(FormulaError, match=r"the base level 'a' is not among the levels: b, c, d"):
        bigmm.lmm(FORMULA, without(A)[0], contrasts={"f": "Treatment(base='a')"})
    with pytest.raises(DataError, match="there are no rows to fit: 240 rows were read"):
        bigmm.lmm(FORMULA, without(ROWS.x < np.inf)[0])


def test_dropped_rows_may_hold_unknown_levels_where_an_expression_fails(tmp_path):
    """The rows of level a are found incomplete only after log(z): the second pass must not trip over their level."""
    given, counted = without(A, "z", -1.0)
    model = bigmm.lmm("y ~ log(z) + f + (1 | f:g)", given)
    same(model, bigmm.lmm("y ~ log(z) + f + (1 | f:g)", counted))
    assert dict(model.fitted.dropped) == {"log(z)": int(A.sum())}
