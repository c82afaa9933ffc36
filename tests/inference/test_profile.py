"""Profile limits agree with lme4's, refined by the reference script's own root search where it has one.

Refined limits agree within 1e-5 of their width, lme4's splines within 1e-2 (their own error).
"""

from __future__ import annotations

import json

import numpy as np
import pytest

import bigmm
from bigmm.datasets import sleepstudy
from bigmm.errors import UsageError
from tests.test_reference import CASES, REFERENCE, fit_case, levels_of, python_name

INFERENCE = json.loads((REFERENCE / "reference_inference.json").read_text())["cases"]
NAMES = sorted(
    name for name, case in INFERENCE.items() if "profile_ci" in case and not CASES[name]["expected"]["is_singular"]
)
SLOW = {"fifty_by_two_b_ml"}


def our_name(name: str, case: dict) -> str:
    return name.replace("(Intercept)", "Intercept") if "|" in name else python_name(name, levels_of(case["data"]))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SLOW])
def test_limits(name):
    case, expected = CASES[name], INFERENCE[name]
    table = fit_case(case).conf_int(method="profile", parameters="all")
    refined = expected.get("profile_ci_refined", {})
    for parameter, limits in {**expected["profile_ci"], **refined}.items():
        row, width = table.loc[our_name(parameter, case)], limits[1] - limits[0]
        tolerance = (1e-5 if parameter in refined else 1e-2) * width
        np.testing.assert_allclose(row.to_numpy(), limits, atol=tolerance, rtol=0, err_msg=parameter)
    assert len(table) == len(expected["profile_ci"])


def test_a_reml_fit_has_the_profile_of_the_ml_fit():
    """lme4's limits of Days, 7.358653 and 13.575919, are those of the fit by maximum likelihood."""
    model = bigmm.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy())
    row = model.conf_int(method="profile", parameters=["Days"]).loc["Days"]
    np.testing.assert_allclose(row.to_numpy(), [7.358652, 13.575920], atol=1e-5)
    table = model.profile(["Days"]).table
    assert (np.diff(table["zeta"]) > 0).all() and (np.diff(table["value"]) > 0).all()
    middle = np.interp(-1.959964, table["zeta"], table["value"])
    assert middle == pytest.approx(7.358652, abs=0.05)


def test_what_has_no_profile():
    model = bigmm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy())
    with pytest.raises(
        UsageError, match=r"parameters='Day': choose 'beta', 'theta', 'all', or among sd_Intercept\|Subject"
    ):
        model.conf_int(method="profile", parameters=["Day"])
    cbpp = REFERENCE / "data" / "cbpp.parquet"
    model = bigmm.glmm("incidence / size ~ period + (1 | herd)", cbpp, family="binomial")
    with pytest.raises(UsageError, match="profiles are available for linear mixed models"):
        model.conf_int(method="profile")
