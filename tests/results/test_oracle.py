"""Everything a fit reports agrees with the dense oracle at the same theta."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest


def test_estimates(crossed, dense):
    np.testing.assert_allclose(crossed.params, dense.beta, rtol=1e-9)
    np.testing.assert_allclose(crossed.cov_params(), dense.vcov, rtol=1e-8)
    np.testing.assert_allclose(crossed.bse, np.sqrt(np.diag(dense.vcov)), rtol=1e-8)
    assert crossed.sigma == pytest.approx(dense.sigma, rel=1e-9)
    assert crossed.scale == pytest.approx(dense.sigma**2, rel=1e-9)
    assert crossed.objective == pytest.approx(dense.objective, rel=1e-10)


def test_conditional_modes(crossed, dense):
    frames = crossed.ranef(condvar=True)
    g, h = dense.b[:24].reshape(12, 2), dense.b[24:]
    np.testing.assert_allclose(frames["g"][["Intercept", "x"]], g, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(frames["h"]["Intercept"], h, rtol=1e-7, atol=1e-9)
    sd = np.sqrt(np.diag(dense.conditional_covariance))
    np.testing.assert_allclose(frames["g"][["Intercept_sd", "x_sd"]], sd[:24].reshape(12, 2), rtol=1e-7)
    np.testing.assert_allclose(frames["h"]["Intercept_sd"], sd[24:], rtol=1e-7)
    assert list(frames["g"].columns) == ["Intercept", "x", "Intercept_sd", "x_sd"]
    assert list(frames["h"].index) == [f"h{i}" for i in range(7)] and frames["h"].index.name == "h"


def test_effective_degrees_of_freedom(crossed, dense):
    px, pz = dense.hat
    df = crossed.effective_df
    np.testing.assert_allclose(df[["total", "fixed", "random"]], [np.trace(px + pz), np.trace(px), np.trace(pz)])


def test_fitted_values_hat_values_and_residuals(crossed, dense, rows):
    table = crossed.augment(rows)
    px, pz = dense.hat
    fitted = (px + pz) @ dense.y + rows["off"]
    np.testing.assert_allclose(table[".fitted"], fitted, rtol=1e-8)
    np.testing.assert_allclose(table[".resid"], rows["y"] - fitted, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(table[".hat"], np.diag(px + pz), rtol=1e-7)
    np.testing.assert_allclose(table[".fixed"], px @ dense.y + rows["off"], rtol=1e-8)
    np.testing.assert_allclose(table[".offset"], rows["off"])
    hat, pearson = table[".hat"], table[".resid"] * np.sqrt(rows["w"]) / dense.sigma
    np.testing.assert_allclose(table[".cooksd"], hat * (pearson / (1 - hat)) ** 2 / 2, rtol=1e-8)
    np.testing.assert_allclose(crossed.fittedvalues, fitted, rtol=1e-8)
    np.testing.assert_allclose(crossed.resid, rows["y"] - fitted, rtol=1e-6, atol=1e-9)


def test_prediction_variance(crossed, dense):
    """Known levels, one new level, two new levels: the oracle's prior variance is added for a new one by hand."""
    new = pd.DataFrame({"x": [0.3, 2.0, -1.0, 0.5], "g": ["g03", "g11", "NEW", "NEW"], "h": ["h2", "NEW", "h0", "NEW"]})
    from tests.results.oracle import indicator

    x = np.column_stack([np.ones(4), new["x"]])
    z = np.hstack([indicator(np.array([3, 11, -1, -1]), x, 12), indicator(np.array([2, -1, 0, -1]), x[:, :1], 7)])
    lam_g, lam_h = crossed.fitted.lambdas()
    prior_g = dense.sigma**2 * np.einsum("ij,jk,ik->i", x, lam_g @ lam_g.T, x)
    prior_h = dense.sigma**2 * lam_h[0, 0] ** 2
    extra = prior_g * (new["g"] == "NEW") + prior_h * (new["h"] == "NEW")
    out = crossed.predict(new.assign(off=0.0), se=True)
    np.testing.assert_allclose(out["prediction"], x @ dense.beta + z @ dense.b, rtol=1e-8)
    np.testing.assert_allclose(out["se"], np.sqrt(dense.error_variance(x, z) + extra), rtol=1e-7)
    population = crossed.predict(new.assign(off=0.0), random=False, se=True)
    np.testing.assert_allclose(population["se"], np.sqrt(np.einsum("ij,jk,ik->i", x, dense.vcov, x)), rtol=1e-7)
    np.testing.assert_allclose(population["prediction"], x @ dense.beta, rtol=1e-9)
