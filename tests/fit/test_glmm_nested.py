"""Fits with nested factors: one task per shard, the numbers of the engine for crossed factors."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bigmm
from bigmm.execute.threads.shards import ThreadShards
from bigmm.laplace import nested
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.nested import NestedFactors
from bigmm.planning import placement, sharding

SCHOOLS = 24


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(sharding, "SMALL_ROWS", 100)


@pytest.fixture
def made(monkeypatch):
    """The engines that are made."""
    engines = []
    for kind in (NestedFactors, CrossedLaplace):
        plain = kind.__init__

        def spy(self, *args, plain=plain, **how):
            engines.append(self)
            plain(self, *args, **how)

        monkeypatch.setattr(kind, "__init__", spy)
    return engines


def table(n=4000, schools=SCHOOLS, seed=3, family="bernoulli"):
    """Pupils in classes in schools of very different sizes; room: number of a class within its school."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(schools, 0.7))
    school = rng.choice(schools, n, p=share)
    room = rng.integers(0, 5, n)
    group = 5 * school + room
    pupil = 8 * group + rng.integers(0, 8, n)
    x, z, exposure = rng.normal(size=n), rng.integers(0, 2, n).astype(float), rng.uniform(0.5, 2.0, n)
    b = rng.normal(size=(schools, 2)) * [0.8, 0.3]
    eta = -0.3 + (0.5 + b[school, 1]) * x - 0.4 * z + b[school, 0] + 0.6 * rng.normal(size=5 * schools)[group]
    if family == "bernoulli":
        y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    elif family == "gamma":
        y = rng.gamma(2.0, np.exp(0.3 * eta) / 2.0)
    else:
        mu = np.exp(eta + np.log(exposure))
        y = (rng.poisson(mu) if family == "poisson" else rng.negative_binomial(1.5, 1.5 / (1.5 + mu))).astype(float)
    columns = {"y": y, "x": x, "z": z, "exposure": exposure, "school": school, "class": group, "room": room}
    return pa.table(columns | {"pupil": pupil, "trials": rng.integers(1, 4, n)})


def fit(data, formula, family="bernoulli", **how):
    return bigmm.glmm(formula, data, family=family, n_workers=how.pop("n_workers", 1), **how)


def crossed(monkeypatch, *args, **how):
    """The same fit by the engine for any factors."""
    with monkeypatch.context() as patch:
        patch.setattr(placement, "tree_chain", lambda *_: None)
        return fit(*args, **how)


def agree(one, other):
    assert one.objective == pytest.approx(other.objective, rel=1e-9)
    assert np.allclose(one.theta, other.theta, rtol=1e-5, atol=1e-6)
    assert np.allclose(one.beta, other.beta, rtol=1e-5, atol=1e-6)
    assert np.allclose(one.bse, other.bse, rtol=1e-3)
    for a, b in zip(one.fitted.estimates.u, other.fitted.estimates.u, strict=True):
        assert np.allclose(a, b, atol=1e-4)
    assert one.fitted.assembled.term_order == other.fitted.assembled.term_order
    for a, b in zip(one.fitted.assembled.level_numbers, other.fitted.assembled.level_numbers, strict=True):
        assert np.array_equal(a, b)


FORMULAS = [
    "y ~ x + z + (1 | school/room)",
    "y ~ x + z + (1 | school) + (1 | class)",
    "y ~ x + z + (1 + x | school) + (1 | school:room)",
    "y ~ x + z + (1 | school) + (0 + x | school) + (1 | class)",
    "y ~ x + z + (1 | school/room/pupil)",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_fit_of_the_other_engine(made, monkeypatch, formula):
    rows = table()
    one = fit(rows, formula)
    assert isinstance(made[-1], NestedFactors) and len(made) == 1
    other = crossed(monkeypatch, rows, formula)
    assert isinstance(made[-1], CrossedLaplace)
    agree(one, other)
    assert one.converged and one.fitted.passes < 0.6 * other.fitted.passes
    assert one.summary().as_text() if hasattr(one.summary(), "as_text") else str(one.summary())
    assert np.allclose(one.predict(rows), other.predict(rows), atol=1e-5)
    for name, frame in one.ranef(condvar=True).items():
        assert np.allclose(frame.select_dtypes(float), other.ranef(condvar=True)[name].select_dtypes(float), atol=1e-4)


@pytest.mark.parametrize(
    ("family", "formula", "how"),
    [
        ("poisson", "y ~ x + offset(log(exposure)) + (1 | school) + (1 | class)", {}),
        ("negative_binomial", "y ~ x + offset(log(exposure)) + (1 | school) + (1 | class)", {}),
        ("gamma", "y ~ x + z + (1 + x | school) + (1 | class)", {"link": "log"}),
        ("bernoulli", "y ~ x + z + (1 | school) + (1 | class)", {"link": "probit", "laplace": "observed"}),
        ("bernoulli", "y ~ x + z + (1 | school) + (1 | class)", {"link": "cloglog", "se": "rx"}),
        ("binomial", "y ~ x + z + (1 | school/room)", {"weights": "trials"}),
    ],
)
def test_families(monkeypatch, family, formula, how):
    rows = table(family="bernoulli" if family == "binomial" else family)
    agree(fit(rows, formula, family, **how), crossed(monkeypatch, rows, formula, family=family, **how))


def test_an_evaluation_is_one_round(monkeypatch, made):
    asked, plain = [], ThreadShards.map

    def spy(self, task, *args, **how):
        asked.append(task)
        return plain(self, task, *args, **how)

    monkeypatch.setattr(ThreadShards, "map", spy)
    evaluations, value, evaluate = [], NestedFactors.value, NestedFactors.evaluate
    monkeypatch.setattr(NestedFactors, "value", lambda self, psi: evaluations.append(psi) or value(self, psi))
    monkeypatch.setattr(NestedFactors, "evaluate", lambda self, psi: evaluations.append(psi) or evaluate(self, psi))
    fit(table(), FORMULAS[0])
    rounds = [task for task in asked if task is nested.evaluate_shard]
    assert len(rounds) == len(evaluations) > 5
    assert made[0].passes == len(evaluations) + 1, "and one look for the blocks at the end"


def write(folder, rows, files=12):
    folder.mkdir()
    edges = np.arange(files + 1) * rows.num_rows // files
    for i in range(files):
        pq.write_table(rows.slice(edges[i], edges[i + 1] - edges[i]), folder / f"{i:02}.parquet")
    return folder


def bits(fitted):
    parts = [fitted.theta, fitted.beta, fitted.bse.to_numpy(), *fitted.fitted.estimates.u]
    return [fitted.objective, fitted.fitted.passes, *(np.asarray(part).tobytes() for part in parts)]


@pytest.mark.parametrize("formula", [FORMULAS[1], FORMULAS[2]])
def test_sorted_shuffled_and_spilled_rows(tmp_path, made, formula):
    rows = table(6000)
    shuffled = write(tmp_path / "shuffled", rows)
    ordered = write(tmp_path / "sorted", rows.sort_by([("school", "ascending"), ("class", "ascending")]))
    found = {}
    for lake in (shuffled, ordered):
        several = [fit(lake, formula), fit(lake, formula, n_workers=2), fit(lake, formula, memory_limit=100_000)]
        assert bits(several[0]) == bits(several[1]) == bits(several[2])
        found[lake] = several[0]
    agree(found[shuffled], found[ordered])
    assert all(isinstance(engine, NestedFactors) for engine in made)
    assert all(len(engine.u) > 1 for engine in made)


def test_identical_rows_are_counted(monkeypatch):
    rows = table(6000, schools=8)
    one, other = fit(rows, "y ~ z + (1 | school/room)"), fit(rows, "y ~ z + (1 | school/room)", compress=False)
    assert one.fitted.compressed_rows is not None and one.fitted.compressed_rows < 3000
    assert other.fitted.compressed_rows is None
    agree(one, other)


def test_levels_that_lose_all_their_rows(monkeypatch):
    rows = table()
    x = rows["x"].to_numpy().copy()
    x[(rows["class"].to_numpy() % 9 == 2) | (rows["school"].to_numpy() == 1)] = np.nan
    rows = rows.set_column(1, "x", pa.array(x))
    one, other = fit(rows, FORMULAS[1]), crossed(monkeypatch, rows, FORMULAS[1])
    agree(one, other)
    assert one.nobs < rows.num_rows and len(one.fitted.assembled.level_numbers[1]) < SCHOOLS


@pytest.mark.parametrize("formula", FORMULAS[:2])
def test_few_schools_are_left_to_the_engine_for_any_factors(made, formula):
    fit(table(schools=3), formula)
    assert isinstance(made[-1], CrossedLaplace)


def test_what_couples_shards_is_left_to_the_engine_for_any_factors(made):
    fit(table(), FORMULAS[0], nagq=0)
    fit(table(), "y ~ x + (1 | school) + (1 | room)")
    assert all(isinstance(engine, CrossedLaplace) for engine in made) and len(made) == 2


def test_trees_are_enough_by_the_data_alone():
    assert sharding.enough_trees(50, 60, 2), "one shard holds all"
    assert not sharding.enough_trees(60_000, 60, 7) and sharding.enough_trees(60_000, 60, 8)
    assert not sharding.enough_trees(10**9, 60, 63) and sharding.enough_trees(10**9, 60, 64)


def test_a_saved_fit_is_the_same(tmp_path):
    rows = table()
    one = fit(rows, FORMULAS[2])
    one.save(tmp_path / "fit")
    again = bigmm.load(tmp_path / "fit")
    assert again.objective == one.objective and np.array_equal(again.theta, one.theta)


def test_one_factor_with_few_levels_goes_tree_by_tree(made, monkeypatch):
    rows = table()
    one = fit(rows, "y ~ x + z + (1 + x | school)")
    assert isinstance(made[-1], NestedFactors)
    monkeypatch.setattr(placement, "FEW_LEVELS", 0)
    other = fit(rows, "y ~ x + z + (1 + x | school)")
    assert len(made) == 1, "level by level"
    agree(one, other)


@pytest.mark.parametrize("seed", [8, 13])
def test_a_slope_without_variance_is_certified_at_zero(seed):
    """Small groups, whose log-determinant has a large part in the curvature at 0."""
    rng = np.random.default_rng(seed)
    x, pupil = rng.normal(size=12_000), rng.integers(0, 2400, 12_000)
    school = pupil // 120
    effects = rng.normal(size=20)[school] + rng.normal(size=2400)[pupil]
    y = (rng.random(12_000) < 1 / (1 + np.exp(0.5 - 0.5 * x - effects))).astype(float)
    found = fit(pa.table({"y": y, "x": x, "school": school, "pupil": pupil}), "y ~ x + (1 + x | school) + (1 | pupil)")
    assert found.converged and found.fitted.outcome.method == "newton" and found.fitted.outcome.evaluations < 40
    assert found.theta[-1] == 0.0 and found.fitted.is_singular
