"""Levels that stay with the workers give the fit that the driver would make of them."""

from __future__ import annotations

import os
import pickle
import re
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bigmm
from bigmm.errors import DataError, MemoryLimitError
from bigmm.execute.dask.shards import ClusterShards
from bigmm.planning import placement, sharding
from bigmm.shards import level_sums
from bigmm.shards import level_tasks as tasks

PUPILS, ROWS, FILES = 1500, 9000, 12
FORMULAS = {
    "intercept": ("y ~ x + (1 | pupil)", {}),
    "slope": ("y ~ x + t + (1 + x | pupil)", {"reml": False}),
    "weights": ("y ~ x + (1 | pupil)", {"weights": "w"}),
    "two terms of a factor": ("y ~ t + (1 | pupil) + (0 + x | pupil)", {"offset": "x"}),
    "nested": ("y ~ x + (1 | school) + (1 | class) + (1 | pupil)", {}),
    "nested slopes, weights": ("y ~ x + (1 | school) + (1 + t | class) + (x | pupil)", {"reml": False, "weights": "w"}),
    "nested by name": ("y ~ x + x:t + (1 | school/class)", {}),
    "dependent column": ("y ~ x + t + I(2 * x) + (1 | class)", {}),
}


def rows(order):
    rng = np.random.default_rng(4)
    pupil = rng.integers(0, PUPILS, ROWS)
    if order == "sorted":
        pupil = np.sort(pupil)
    group, school, x, t = pupil // 10, pupil // 50, rng.normal(size=ROWS), rng.normal(5.0, 1.0, ROWS)
    y = 1.0 + 0.5 * x + rng.normal(size=ROWS)
    for factor, sd in ((pupil, 0.7), (group, 0.5), (school, 0.4)):
        y += sd * rng.normal(size=PUPILS)[factor]
    y += 0.3 * rng.normal(size=PUPILS)[pupil] * x
    y[::97] = np.nan
    w = rng.choice([0.0, 0.5, 1.0, 2.0], ROWS, p=[0.05, 0.35, 0.3, 0.3])
    return pa.table({"y": y, "x": x, "t": t, "w": w, "pupil": 3 * pupil + 7, "class": group, "school": school})


@pytest.fixture(scope="module", params=["sorted", "shuffled"])
def lake(request, tmp_path_factory):
    folder, table = tmp_path_factory.mktemp(request.param), rows(request.param)
    for number, part in enumerate(np.array_split(np.arange(ROWS), FILES)):
        pq.write_table(table.take(pa.array(part)), folder / f"{number:02}.parquet")
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL_ROWS", 100)


@pytest.fixture
def stay(monkeypatch):
    monkeypatch.setattr(placement, "SHARE", 10**9)


def fit(lake, name, **more):
    formula, options = FORMULAS[name]
    return bigmm.lmm(formula, lake, **{"n_workers": 2} | options | more)


def stays(model):
    return model.fitted.solver_reason.startswith("levels stay with the workers")


@pytest.mark.parametrize("name", FORMULAS)
def test_the_fit_is_that_of_the_driver(lake, name, monkeypatch):
    here = fit(lake, name)
    monkeypatch.setattr(placement, "SHARE", 10**9)
    monkeypatch.setattr(tasks, "BATCH", 20)
    there = fit(lake, name)
    assert stays(there) and not stays(here)
    assert there.converged
    assert there.objective == pytest.approx(here.objective, rel=1e-11)
    np.testing.assert_allclose(there.theta, here.theta, atol=2e-5)
    np.testing.assert_allclose(there.beta, here.beta, atol=1e-7)
    np.testing.assert_allclose(there.bse, here.bse, atol=1e-6)
    assert (there.nobs, there.n_groups, there.passes) == (here.nobs, here.n_groups, here.passes)
    assert there.fitted.dropped == here.fitted.dropped
    assert there.fitted.rows_read == here.fitted.rows_read == ROWS
    assert there.fitted.assembled.dropped_columns == here.fitted.assembled.dropped_columns
    # at one theta all that is read off agrees to rounding
    again = fit(lake, name, theta0=here.theta)
    criteria = here.fitted.criterion, again.fitted.criterion
    starts = [criterion.solver.start(criterion.covariances) for criterion in criteria]
    np.testing.assert_allclose(*starts, rtol=1e-8)
    for found, expected in zip(*(criterion.solver.squares() for criterion in criteria), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)
    values = [criterion.evaluate(here.theta) for criterion in criteria]
    assert values[0].value == pytest.approx(values[1].value, rel=1e-12)
    np.testing.assert_allclose(values[1].gradient, values[0].gradient, atol=1e-7 * ROWS)
    np.testing.assert_allclose(values[1].hessian, values[0].hessian, rtol=1e-8, atol=1e-7 * ROWS)
    estimates = [criterion.estimates(here.theta) for criterion in criteria]
    for u, expected in zip((*estimates[1].u, *estimates[1].b), (*estimates[0].u, *estimates[0].b), strict=True):
        np.testing.assert_allclose(u, expected, atol=1e-10)
    blocks = [c.factor(here.theta).conditional_covariances(1.0) for c in criteria[::-1]]
    for found, expected in zip(*blocks, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(*(c.effective_df(here.theta) for c in criteria), rtol=1e-8)


@pytest.mark.parametrize("name", ["intercept", "nested slopes, weights"])
def test_everything_else_can_be_asked(lake, name, stay, tmp_path, monkeypatch):
    there = fit(lake, name)
    monkeypatch.setattr(placement, "SHARE", 2)
    here = fit(lake, name, theta0=there.theta)
    for group, frame in here.ranef().items():
        other = there.ranef()[group]
        assert other.index.equals(frame.index)
        np.testing.assert_allclose(other.to_numpy(), frame.to_numpy(), atol=1e-5)
    newdata = rows("sorted").slice(0, 500)
    expected = here.predict(newdata, se=True)
    np.testing.assert_allclose(there.predict(newdata), expected["prediction"], atol=1e-5)
    np.testing.assert_allclose(there.predict(newdata, se=True)["se"], expected["se"], rtol=1e-4)
    there.save(tmp_path / "fit")
    loaded, copied = bigmm.load(tmp_path / "fit"), pickle.loads(pickle.dumps(there))
    for other in (loaded, copied):
        assert other.objective == pytest.approx(there.objective, rel=1e-11)
        np.testing.assert_allclose(other.predict(newdata), there.predict(newdata), atol=1e-9)
        np.testing.assert_allclose(other.fitted.criterion.value(there.theta), there.objective, rtol=1e-11)
        assert other.n_groups == there.n_groups


def test_reml_fits_are_compared_where_their_levels_are(lake, stay):
    small, large = (bigmm.lmm(f"y ~ {x} + (1 | class) + (1 | pupil)", lake) for x in ("1", "x"))
    assert stays(small) and stays(large)
    table = small.anova(large)
    exact = [bigmm.lmm(f"y ~ {x} + (1 | class) + (1 | pupil)", lake, reml=False) for x in ("1", "x")]
    assert table["Chisq"].iloc[-1] == pytest.approx(exact[0].objective - exact[1].objective, rel=1e-6)


def bits(model):
    estimates = model.fitted.estimates
    return [model.objective, *(np.asarray(a).tobytes() for a in (model.theta, model.beta, model.bse, *estimates.b))]


@pytest.mark.parametrize("name", ["weights", "nested slopes, weights"])
def test_the_same_bits_in_files_and_with_any_number_of_workers(lake, name, stay, monkeypatch):
    expected = bits(fit(lake, name))
    assert bits(fit(lake, name, n_workers=1)) == expected
    seen = []
    plain = level_sums.moved
    monkeypatch.setattr(level_sums, "moved", lambda *given: seen.append(given) or plain(*given))
    monkeypatch.setattr(sharding, "SUMS_SHARE", 10**9)
    monkeypatch.setattr(sharding, "SHUFFLE_COPIES", 10**9)
    assert bits(fit(lake, name, n_workers=3)) == expected
    assert seen or "sorted" in str(lake)


def test_a_small_memory_limit_makes_levels_stay_and_the_plan_says_why(lake):
    formula = FORMULAS["nested"][0]
    model, planned = (ask(formula, lake, memory_limit="1MB", n_workers=2) for ask in (bigmm.lmm, bigmm.plan))
    assert stays(model)
    assert planned.solver_reason == model.fitted.solver_reason
    assert re.search(r"1,\d+ levels would take the driver about 1 MiB, more than 1/2 of", planned.solver_reason)
    assert planned.fits
    assert "levels stay with the workers" in str(planned)
    assert not bigmm.plan(formula, lake).solver_reason.startswith("levels stay")
    model = fit(lake, "nested slopes, weights", memory_limit="800kB")
    with pytest.raises(
        MemoryLimitError, match=r"the blocks of 1,\d+ levels stay with the workers; .* larger memory_limit"
    ):
        model.predict(rows("sorted").slice(0, 5), se=True)


def test_rows_that_cannot_even_be_summed_are_refused(lake):
    with pytest.raises(MemoryLimitError, match=r"by level needs about 1 MiB with 2 workers but .*\(n_workers=1\)"):
        fit(lake, "nested", memory_limit="100kB")


def test_many_levels_stay_whatever_the_limit(lake, monkeypatch):
    monkeypatch.setattr(placement, "LARGE_BYTES", 1 << 16)
    reason = bigmm.plan(FORMULAS["intercept"][0], lake).solver_reason
    assert re.search(r"levels stay with the workers: .* MiB, more than 0 MiB", reason)


def test_crossed_factors_are_never_held(stay):
    table = rows("shuffled").append_column("month", pa.array(np.arange(ROWS) % 7))
    assert not stays(bigmm.lmm("y ~ x + (1 | class) + (1 | month)", table))


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ x + (1 + x + t + I(x * t) + I(x * x) + I(t * t) | pupil)", "random effects .* for .* rows"),
        ("flat ~ x + (1 | pupil)", "does not vary within the levels of 'pupil'"),
    ],
)
def test_what_cannot_be_identified_is_refused(lake, stay, formula, message):
    table = rows("sorted")
    table = table.append_column("flat", pa.array(table["pupil"].to_numpy() % 11 * 1.0))
    with pytest.raises(DataError, match=message):
        bigmm.lmm(formula, table, partition_bytes=1 << 15)


def test_no_label_travels_and_no_level_is_kept_on_the_driver(lake, stay):
    model = fit(lake, "nested")
    levels = model.fitted.criterion.solver.levels
    assert sum(term.n_levels for term in model.fitted.criterion.gram.terms) == 0
    layout = level_sums.without_labels(model.fitted.layout)
    assert len(pickle.dumps(layout)) < 2000
    assert levels.sizes == tuple(model.n_groups.values())


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["intercept", "nested slopes, weights"])
def test_a_cluster_gives_the_same_bits_also_when_a_worker_is_killed(client, lake, name, stay, monkeypatch):
    expected = bits(fit(lake, name))
    asked, plain, killed = [], ClusterShards._in_order, []

    def deadly(self, task, *more):
        asked.append(task)
        if len(asked) == 3:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)
        return plain(self, task, *more)

    monkeypatch.setattr(ClusterShards, "_in_order", deadly)
    assert bits(fit(lake, name, n_workers=None, client=client)) == expected
    assert killed and len(asked) > 5
