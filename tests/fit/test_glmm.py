"""`bigmm.glmm` from rows to estimates: what it must agree with, what must not matter, and what it counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bigmm

REFERENCE = Path(__file__).parent.parent / "reference"


def rows(n: int = 400, seed: int = 1) -> pd.DataFrame:
    """g (20 levels) crossed with h (8), covariate x, a bernoulli y, counts k, positive pos, an offset."""
    rng = np.random.default_rng(seed)
    g, h, x = rng.integers(0, 20, n), rng.integers(0, 8, n), rng.normal(size=n)
    b, c = 0.7 * rng.normal(size=20), 0.4 * rng.normal(size=8)
    eta = -0.3 + 0.5 * x + b[g] + c[h]
    return pd.DataFrame(
        {
            "y": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float),
            "k": rng.poisson(np.exp(0.3 + 0.5 * eta)).astype(float),
            "pos": rng.gamma(2.0, np.exp(eta) / 2.0),
            "gauss": eta + rng.normal(size=n),
            "x": x,
            "off": 0.3 * rng.normal(size=n),
            "w": rng.uniform(0.5, 2.0, n),
            "row": np.arange(n),
            "g": [f"g{i:02d}" for i in g],
            "h": [f"h{i}" for i in h],
        }
    )


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return rows()


def cbpp_fit(**options):
    document = json.loads((REFERENCE / "reference_glmm.json").read_text())
    columns = document["datasets"]["cbpp"]["columns"]
    levels = {c["name"]: c["levels"] for c in columns if c["type"] == "category"}
    formula = options.pop("formula", "prop ~ period + (1 | herd)")
    return bigmm.glmm(
        formula, REFERENCE / "data" / "cbpp.parquet", family="binomial", weights="size", categories=levels, **options
    )


# lme4 1.1-31: the maximum, and the log-likelihood there by integrating every herd numerically
@pytest.mark.parametrize(
    ("link", "nagq", "objective", "exact", "theta"),
    [
        ("logit", 1, 184.052563729514, -91.9837984437084, 0.64226144844315),
        ("logit", 9, 183.966743592669, -91.98336903732, 0.647517712003888),
        ("logit", 25, 183.966738074621, -91.9833690373107, 0.647518477997029),
        ("cloglog", 11, 183.490370957102, -91.7451845341462, 0.590305657571856),
        ("probit", 11, 185.134589265356, -92.5672946240656, 0.339648138899228),
    ],
)
def test_cattle_disease(link, nagq, objective, exact, theta):
    fit = cbpp_fit(link=link, nagq=nagq)
    assert fit.objective == pytest.approx(objective, abs=1e-5)
    assert fit.llf == pytest.approx(-0.5 * fit.objective)
    assert fit.theta == pytest.approx([theta], rel=1e-4)
    if nagq == 25:
        assert fit.llf == pytest.approx(exact, abs=1e-8)
    points = cbpp_fit(link=link, nagq=61, theta0=[theta]).llf
    assert points >= exact - 1e-8


def test_standard_errors_are_lme4s():
    fit = cbpp_fit(nagq=1)
    assert fit.bse.to_numpy() == pytest.approx([0.232471992, 0.306642498, 0.326637851, 0.427436587], rel=1e-3)
    cheap = cbpp_fit(nagq=1, se="rx")
    assert cheap.fitted.se_method == "rx" and fit.fitted.se_method == "hessian"
    assert cheap.bse.to_numpy() != pytest.approx(fit.bse.to_numpy(), rel=1e-6)


def test_one_level_per_row_is_overdispersion_of_a_binomial():
    fit = cbpp_fit(formula="prop ~ period + (1 | herd) + (1 | obs)")
    assert fit.objective == pytest.approx(174.638311082937, abs=1e-5)
    assert fit.theta == pytest.approx([0.891078461270436, 0.183947119552604], rel=1e-3)


def test_fast_fit_is_the_profile_of_the_joint_penalized_likelihood(frame):
    """nagq = 0: beta maximises the conditional density with u, theta the Laplace value there; never above nagq = 1."""
    fast = bigmm.glmm("y ~ x + (1 | g)", frame, family="bernoulli", nagq=0)
    joint = bigmm.glmm("y ~ x + (1 | g)", frame, family="bernoulli", nagq=1)
    assert fast.converged and fast.fitted.se_method == "rx"
    assert 0.0 < fast.objective - joint.objective < 0.5
    b = fast.ranef()["g"].iloc[:, 0].reindex(frame["g"]).to_numpy()
    eta = fast.params["Intercept"] + fast.params["x"] * frame["x"] + b
    residual = frame["y"] - 1 / (1 + np.exp(-eta))
    assert residual.sum() == pytest.approx(0.0, abs=1e-4)
    assert (residual * frame["x"]).sum() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("formula", ["gauss ~ x + (1 | g)", "gauss ~ x + (1 + x | g)", "gauss ~ x + (1 | g) + (1 | h)"])
def test_gaussian_identity_is_the_linear_model(frame, formula):
    general = bigmm.glmm(formula, frame, family="gaussian", link="identity", weights="w", offset="off")
    linear = bigmm.lmm(formula, frame, reml=False, weights="w", offset="off")
    assert general.objective == pytest.approx(linear.objective, abs=1e-6)
    assert general.params.to_numpy() == pytest.approx(linear.params.to_numpy(), abs=1e-5)
    assert general.sigma == pytest.approx(linear.sigma, rel=1e-4)
    sds = [m.varcorr["sdcor"].to_numpy(float) for m in (general, linear)]
    assert sds[0] == pytest.approx(sds[1], abs=2e-4)


@pytest.mark.parametrize("family", ["bernoulli", "poisson", "gamma"])
def test_scales_and_shifts_of_a_covariate_do_not_matter(frame, family):
    response = {"bernoulli": "y", "poisson": "k", "gamma": "pos"}[family]
    link = "log" if family == "gamma" else None
    frame = frame.assign(big=1e6 * frame["x"] + 1e4, far=frame["x"] + 1e4)
    plain = bigmm.glmm(f"{response} ~ x + (1 | g)", frame, family=family, link=link)
    scaled = bigmm.glmm(f"{response} ~ big + (1 | g)", frame, family=family, link=link)
    far = bigmm.glmm(f"{response} ~ far + (1 | g)", frame, family=family, link=link)
    assert plain.converged and scaled.converged and far.converged
    assert [scaled.objective, far.objective] == pytest.approx([plain.objective] * 2, abs=1e-6)
    assert scaled.params["big"] * 1e6 == pytest.approx(plain.params["x"], abs=1e-4)
    assert far.params["far"] == pytest.approx(plain.params["x"], abs=1e-4)
    assert scaled.bse["big"] * 1e6 == pytest.approx(plain.bse["x"], rel=1e-3)
    assert far.bse["far"] == pytest.approx(plain.bse["x"], rel=1e-3)


@pytest.mark.parametrize("formula", ["coin ~ x + (1 | g)", "coin ~ x + (1 + x | g)", "coin ~ x + (1 | g) + (1 | h)"])
@pytest.mark.parametrize("nagq", [0, 1])
def test_no_variance_is_certified_at_the_boundary(frame, formula, nagq):
    # every level has the same share of ones at about the same x: less variance than chance alone would give
    frame = frame.sort_values(["g", "x"]).assign(coin=np.arange(400) % 2 * 1.0)
    fit = bigmm.glmm(formula, frame, family="bernoulli", nagq=nagq)
    assert fit.converged and fit.is_singular, fit.optimizer_result.advice
    assert np.abs(fit.theta).max() < 1e-4
    mean = np.clip(frame["coin"].mean(), 0, 1)
    without_covariate = -2.0 * 400 * (mean * np.log(mean) + (1 - mean) * np.log(1 - mean))
    assert without_covariate - 10.0 < fit.objective < without_covariate


@pytest.mark.parametrize("terms", ["(1 | g)", "(1 | g) + (1 | h)"])
def test_a_variance_is_found_from_a_start_at_zero(frame, terms):
    """theta = 0 is stationary: the curvature there has to show that it is no minimum."""
    fit = bigmm.glmm(f"y ~ x + {terms}", frame, family="bernoulli", theta0=[0.0] * terms.count("|"))
    best = bigmm.glmm(f"y ~ x + {terms}", frame, family="bernoulli")
    assert not best.is_singular
    assert fit.converged
    assert fit.objective == pytest.approx(best.objective, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["newton", "bobyqa", "lbfgs"])
def test_optimizers_agree(frame, optimizer):
    best = bigmm.glmm("k ~ x + (1 | g)", frame, family="poisson")
    fit = bigmm.glmm("k ~ x + (1 | g)", frame, family="poisson", optimizer=optimizer)
    assert fit.objective == pytest.approx(best.objective, abs=1e-4)


def test_files_and_threads_do_not_matter(frame, tmp_path):
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for number in range(4):
        pq.write_table(table.slice(100 * number, 100), tmp_path / f"part-{number}.parquet", row_group_size=30)
    options = {"family": "bernoulli", "nagq": 5}
    one, two = (bigmm.glmm("y ~ x + (1 | g)", tmp_path, n_workers=n, **options) for n in (1, 2))
    assert one.objective == two.objective and np.array_equal(one.params, two.params)
    memory = bigmm.glmm("y ~ x + (1 | g)", frame, **options)
    assert memory.objective == pytest.approx(one.objective, abs=1e-9)


def test_negative_binomial_finds_its_shape():
    rng = np.random.default_rng(5)
    frame = rows(2000)
    mu = np.exp(1.0 + 0.4 * frame["x"])
    frame["k"] = rng.poisson(rng.gamma(2.0, mu / 2.0)).astype(float)
    fit = bigmm.glmm("k ~ x + (1 | g)", frame, family="negative_binomial")
    assert fit.converged
    assert fit.fitted.phi == pytest.approx(2.0, rel=0.15)


def test_dependent_columns_are_dropped(frame):
    frame = frame.assign(again=2.0 * frame["x"] - 1.0)
    fit = bigmm.glmm("y ~ x + again + (1 | g)", frame, family="bernoulli")
    plain = bigmm.glmm("y ~ x + (1 | g)", frame, family="bernoulli")
    assert np.isnan(fit.params["again"]) and np.isnan(fit.bse["again"])
    assert fit.objective == pytest.approx(plain.objective, abs=1e-8)
    assert fit.bse["x"] == pytest.approx(plain.bse["x"], rel=1e-6)


def test_passes_are_counted(frame):
    fit = bigmm.glmm("y ~ x + (1 | g)", frame, family="bernoulli")
    outcome = fit.optimizer_result
    assert outcome.evaluations + outcome.gradient_evaluations < fit.fitted.passes < 60
    cheap = bigmm.glmm("y ~ x + (1 | g)", frame, family="bernoulli", se="rx")
    assert cheap.fitted.passes < fit.fitted.passes
