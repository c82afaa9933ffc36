"""Where a search may start: small shapes, and links whose means have an end of their range."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

import bigmm
from bigmm.errors import DataError


def gamma_rows() -> dict[float, pd.DataFrame]:
    """20 levels, 400 rows, log mean 1 + b; shapes as drawn one after the other from one seed."""
    rng, out = np.random.default_rng(290), {}
    g = np.arange(400) % 20
    for shape in (1.0, 0.3, 0.1, 0.05):
        mu = np.exp(1.0 + (rng.normal(size=20) * 0.5)[g])
        out[shape] = pd.DataFrame({"y": np.maximum(rng.gamma(shape, mu / shape), 1e-280), "g": g})
    return out


GAMMA = gamma_rows()


# glmmTMB 1.1.5: logLik of y ~ 1 + (1 | g), Gamma(link = "log")
@pytest.mark.parametrize("shape, ll", [(1.0, -809.4842), (0.3, -402.7867), (0.1, 1514.54), (0.05, 5413.963)])
def test_gamma_with_a_small_shape(shape, ll):
    """Most responses are next to zero, so their logarithms say nothing about the mean."""
    model = bigmm.glmm("y ~ 1 + (1 | g)", GAMMA[shape], family="gamma", link="log")
    assert model.converged
    assert model.llf == pytest.approx(ll, abs=0.01)


def log_shaped(seed: int) -> pd.DataFrame:
    """Means that are exp(line): under the inverse link a line through them leaves the range of means."""
    rng = np.random.default_rng(seed)
    g, x, b = np.arange(120) % 12, rng.normal(size=120), rng.normal(size=12) * 0.7
    return pd.DataFrame({"y": rng.wald(np.exp(1 + 0.5 * x + b[g]), 3.0), "x": x, "g": g})


@pytest.mark.parametrize("seed", range(6))
def test_a_covariate_never_makes_the_likelihood_lower(seed):
    """The smaller model is nested in the larger, whose maximum may lie on the edge of the domain."""
    data = log_shaped(seed)
    small, large = (
        bigmm.glmm(formula, data, family="inverse_gaussian", link="inverse")
        for formula in ("y ~ 1 + (1 | g)", "y ~ x + (1 | g)")
    )
    assert small.converged
    assert large.llf >= small.llf - 1e-3
    assert np.all(np.isfinite(large.params))
    assert large.converged or large.optimizer_result.advice


def test_means_that_cannot_be_positive_are_said():
    data = log_shaped(1)
    with pytest.raises(DataError, match="no coefficients were found at which every mean is in the range of"):
        bigmm.glmm("y ~ 0 + x + (1 | g)", data, family="inverse_gaussian", link="inverse")


def without_positive_blocks() -> pd.DataFrame:
    """Inverse gaussian of dispersion 20: many observed working weights are negative at the optimum."""
    rng = np.random.default_rng(0)
    g, x = np.arange(600) % 12, rng.normal(size=600)
    return pd.DataFrame({"y": rng.wald(np.exp(0.5 + 0.4 * x + 0.4 * rng.normal(size=12)[g]), 0.05), "x": x, "g": g})


def laplace_deviance(model, data) -> float:
    """-2 log L by Laplace's method level by level, with the curvature itself, at the estimates (log link)."""
    total, sd, phi = 0.0, model.theta[0], model.fitted.phi
    for _, rows in data.groupby("g"):
        y, line = rows.y.to_numpy(), model.params["Intercept"] + model.params["x"] * rows.x.to_numpy()

        def penalized(b, y=y, line=line):
            mu = np.exp(line + b)
            return np.sum(np.log(2 * np.pi * phi * y**3) + (y - mu) ** 2 / (phi * mu**2 * y)) + (b / sd) ** 2

        b = minimize_scalar(penalized, bracket=(-0.1, 0.1), tol=1e-10).x
        mu = np.exp(line + b)
        total += penalized(b) + np.log(1.0 + sd**2 * np.sum((2 * y / mu**2 - 1 / mu) / phi))
    return total


def test_blocks_that_are_not_positive_definite_at_the_optimum(tmp_path):
    """The fit is there: its errors come from the Hessian, its blocks have expected weights, and it can be saved."""
    data = without_positive_blocks()
    model = bigmm.glmm("y ~ x + (1 | g)", data, family="inverse_gaussian", link="log")
    assert model.converged
    assert model.objective == pytest.approx(laplace_deviance(model, data), abs=1e-4)
    assert model.fitted.working_weights == "expected"
    assert model.fitted.se_method == "hessian"
    assert np.all(np.isfinite(model.bse)) and np.all(model.ranef(condvar=True)["g"]["Intercept_sd"] > 0)
    model.save(tmp_path / "fit")
    loaded = bigmm.load(tmp_path / "fit")
    assert loaded.objective == model.objective
    np.testing.assert_array_equal(loaded.predict(data), model.predict(data))
