"""Terms with the structures cs, ar1 and diag against glmmTMB (scripts/glmmtmb_structures.R)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bigmm

FOLDER = Path(__file__).parent / "reference"
CASES = {
    f"{case['formula']} {case['family']} {'REML' if case['reml'] else 'ML'}": case
    for case in json.loads((FOLDER / "reference_glmmtmb_structures.json").read_text())["cases"]
}
FAMILIES = {"poisson": "poisson", "binomial": "bernoulli"}


@cache
def rows() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "data" / "structures.csv")


@cache
def fit(name: str):
    case = CASES[name]
    if case["family"] == "gaussian":
        return bigmm.lmm(case["formula"], rows(), reml=case["reml"])
    return bigmm.glmm(case["formula"], rows(), family=FAMILIES[case["family"]])


@pytest.mark.parametrize("name", CASES)
def test_objective_and_coefficients(name):
    case, model = CASES[name], fit(name)
    assert model.converged
    assert model.objective == pytest.approx(case["deviance"], abs=1e-5 + 1e-8 * abs(case["deviance"]))
    np.testing.assert_allclose(model.params, case["fixef"], atol=1e-4 * min(case["se"]))
    np.testing.assert_allclose(model.bse, case["se"], rtol=1e-4 if case["family"] == "gaussian" else 1e-3)
    if case["sigma"] is not None:
        assert model.sigma == pytest.approx(case["sigma"], rel=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_standard_deviations_and_correlations(name):
    case, model = CASES[name], fit(name)
    tolerance = 1e-4 if case["family"] == "gaussian" else 1e-3
    for term, expected in case["terms"].items():
        table = model.varcorr[model.varcorr.group == term.split("| ")[1]]
        np.testing.assert_allclose(table[table.name2.isna()].sdcor, expected["sd"], rtol=tolerance)
        found = table[table.name2.notna()].sdcor
        if "diag" in name:
            assert not len(found)
            continue
        k = len(expected["sd"])
        correlation = np.array(expected["correlation"], float).reshape(k, k)
        pairs = [correlation[i, j] for j in range(k) for i in range(j + 1, k)]
        np.testing.assert_allclose(found, pairs, rtol=tolerance)
