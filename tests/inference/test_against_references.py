"""Degrees of freedom, t and F tests and adjusted covariances agree with lmerTest and pbkrtest.

Degrees of freedom within 1e-3 (lmerTest differentiates numerically), F and t within 1e-4, p values within 1e-4, the
adjusted covariance within 1e-4 of its scale.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.test_reference import CASES, REFERENCE, fit_case, levels_of, python_name

INFERENCE = json.loads((REFERENCE / "reference_inference.json").read_text())["cases"]
METHODS = {"satterthwaite": "satterthwaite", "kenward-roger": "kenward_roger"}
DETERMINED = sorted(name for name in INFERENCE if not CASES[name]["expected"]["is_singular"])


@pytest.fixture(scope="module", params=DETERMINED)
def fit(request):
    case = CASES[request.param]
    return case, fit_case(case), INFERENCE[request.param]


def test_enough_cases():
    assert len(DETERMINED) >= 30


@pytest.mark.parametrize("ddf", METHODS)
def test_coefficients(fit, ddf):
    case, model, expected = fit
    table = model.tidy(ddf=ddf).set_index("term") if METHODS[ddf] in expected else None
    for name, entry in expected.get(METHODS[ddf], {}).items():
        row = table.loc[python_name(name, levels_of(case["data"]))]
        assert row["df"] == pytest.approx(entry["df"], rel=1e-3), name
        assert row["statistic"] == pytest.approx(entry["t"], rel=1e-4, abs=1e-7), name
        assert row["std.error"] == pytest.approx(entry["se"], rel=1e-4), name
        assert row["p.value"] == pytest.approx(entry["p"], abs=1e-4), name


@pytest.mark.parametrize("ddf", METHODS)
def test_terms(fit, ddf):
    _, model, expected = fit
    for kind, terms in expected.get(f"anova_{METHODS[ddf]}", {}).items():
        if not terms:
            continue
        table = model.anova(type=kind, ddf=ddf)
        rows = {":".join(sorted(name.split(":"))): row for name, row in table.iterrows()}
        assert len(rows) == len(terms)
        for name, entry in terms.items():
            row = rows[":".join(sorted(name.split(":")))]
            assert row["numdf"] == entry["numdf"]
            if entry["F"] is not None:
                assert row["dendf"] == pytest.approx(entry["dendf"], rel=1e-3), (kind, name)
                assert row["F"] == pytest.approx(entry["F"], rel=1e-4, abs=1e-7), (kind, name)


def test_adjusted_covariance(fit):
    case, model, expected = fit
    if "kenward_roger_vcov" in expected:
        adjusted = np.array(expected["kenward_roger_vcov"])
        names = [python_name(name, levels_of(case["data"])) for name in case["expected"]["fixef_names"]]
        scale = np.sqrt(np.outer(np.diag(adjusted), np.diag(adjusted)))
        own = model.cov_params(ddf="kenward-roger").loc[names, names].to_numpy()
        np.testing.assert_array_less(np.abs(own - adjusted) / scale, 1e-4)
