"""Ordinary calls say nothing: no warning of pandas, NumPy or Python."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bigmm


@pytest.fixture(autouse=True)
def every_warning_is_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", bigmm.SingularFitWarning)  # a verdict on the fit, and true
        yield


@pytest.mark.parametrize("kind", ["numbers", "factors"])
def test_many_terms(kind):
    """More than 100 columns: pandas warns where a frame grows column by column."""
    rng, n, k = np.random.default_rng(0), 600, 120
    values = rng.normal(size=(n, k)) if kind == "numbers" else rng.choice(list("ab"), (n, k))
    data = pd.DataFrame(values, columns=[f"v{i}" for i in range(k)])
    data = pd.concat([data, pd.DataFrame({"g": rng.integers(0, 30, n), "y": rng.normal(size=n)})], axis=1)
    data.loc[3, "y"] = np.nan
    model = bigmm.lmm("y ~ " + " + ".join(f"v{i}" for i in range(k)) + " + (1 | g)", data)
    for answer in (model.summary(), model.tidy(), model.augment(), model.predict(data), model.conf_int()):
        str(answer)


def test_what_users_ask_a_generalized_model():
    rng, n = np.random.default_rng(1), 300
    g, x = rng.integers(0, 20, n), rng.normal(size=n)
    data = pd.DataFrame({"g": g, "x": x, "c": rng.poisson(np.exp(1 + 0.3 * x + 0.5 * rng.normal(size=20)[g]))})
    data.loc[3, "x"] = np.nan
    model = bigmm.glmm("c ~ x + (1 | g)", data, family="poisson")
    for answer in (model.summary(), model.augment(), model.residuals("deviance"), model.simulate(), model.as_record()):
        str(answer)
    for rows in (data.iloc[:0], data.iloc[:1], data.iloc[3:4], data.iloc[:1].drop(columns="c")):
        model.augment(rows)
        model.residuals("deviance", rows)
    model.predict(se=True)
    model.ranef(condvar=True)
