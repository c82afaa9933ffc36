"""Families that lme4 does not have agree with glmmTMB's fits of the same data (tests/reference/scripts).

Objective within 1e-5 + 1e-8 |objective|; fixed effects within 1e-4 of a standard error; standard errors, standard
deviations and dispersions within 1e-3 relative. glmmTMB's criterion has observed weights.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bigmm

DOCUMENT = json.loads((Path(__file__).parent / "reference" / "reference_glmmtmb.json").read_text())
CASES = {case["id"]: case for case in DOCUMENT["cases"]}


@cache
def table(name: str) -> pd.DataFrame:
    return pd.DataFrame(DOCUMENT["data"][name])


@cache
def fitted(name: str) -> bigmm.GlmmResults:
    case = CASES[name]
    options = {key: case[key] for key in ("family", "link", "weights", "offset")}
    return bigmm.glmm(case["formula"], table(case["data"]), laplace="observed", **options)


def expected(name: str) -> dict:
    return CASES[name]["expected"]


def python_name(name: str) -> str:
    return "Intercept" if name == "(Intercept)" else name


def group_name(model: bigmm.GlmmResults, name: str) -> str:
    """Our name of the grouping factor: "g:top" and "top:g" are one."""
    return next(ours for ours in model.n_groups if sorted(ours.split(":")) == sorted(name.split(":")))


@pytest.mark.parametrize("name", CASES)
def test_objective_and_number_of_parameters(name):
    model, reference = fitted(name), expected(name)
    assert model.converged
    assert model.objective == pytest.approx(reference["objective"], abs=1e-5 + 1e-8 * abs(reference["objective"]))
    assert model.npar == reference["npar"]
    assert model.aic == pytest.approx(reference["objective"] + 2 * reference["npar"], abs=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_fixed_effects_and_dispersion(name):
    model, reference = fitted(name), expected(name)
    assert list(model.params.index) == [python_name(term) for term in reference["fixef"]]
    for term, value in reference["fixef"].items():
        error = reference["se"][term]
        assert model.params[python_name(term)] == pytest.approx(value, abs=1e-4 * error), term
        assert model.bse[python_name(term)] == pytest.approx(error, rel=1e-3), term
    assert model.dispersion == pytest.approx(reference["dispersion"], rel=1e-3)
    assert model.sigma == 1.0


@pytest.mark.parametrize("name", CASES)
def test_random_effects(name):
    model, reference = fitted(name), expected(name)
    rows = model.varcorr.to_dict("records")
    for group, deviations in reference["sd"].items():
        ours = [row for row in rows if row["group"] == group_name(model, group)]
        for term, value in deviations.items():
            row = next(row for row in ours if row["name1"] == python_name(term) and row["name2"] is None)
            assert row["sdcor"] == pytest.approx(value, rel=1e-3), (group, term)
        correlations = [row["sdcor"] for row in ours if row["name2"] is not None]
        np.testing.assert_allclose(correlations, np.atleast_1d(reference["correlation"][group]), atol=2e-3)
    for group, terms in reference["ranef"].items():
        frame = model.ranef()[group_name(model, group)]
        for term, values in terms.items():
            theirs = {":".join(sorted(level.split(":"))): value for level, value in values.items()}
            ours = {":".join(sorted(str(level).split(":"))): value for level, value in frame[python_name(term)].items()}
            deviation = reference["sd"][group][term]
            for level, value in theirs.items():
                assert ours[level] == pytest.approx(value, abs=1e-3 * deviation), (group, level)


@pytest.mark.parametrize("name", CASES)
def test_predictions(name):
    """The mean of a truncated Poisson is that of counts that are not 0.

    Pearson residuals of glmmTMB 1.1.5 are compared for beta alone, and there without the precision that its variance
    function leaves out. Its variance function of the truncated Poisson is a function of the untruncated mean, and is
    called with the truncated one.
    """
    model, rows = fitted(name), expected(name)["rows"]
    data = table(CASES[name]["data"]).head(len(rows["link"]))
    np.testing.assert_allclose(model.predict(data, type="link"), rows["link"], atol=1e-3)
    np.testing.assert_allclose(model.predict(data), rows["response"], rtol=1e-3)
    if CASES[name]["family"] == "beta":
        ours = np.array(model.residuals("pearson", data=data)) / np.sqrt(1.0 + model.dispersion)
        np.testing.assert_allclose(ours, rows["pearson"], atol=1e-3)
