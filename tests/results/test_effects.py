"""Variance components and levels: columns, order and names as lme4 has them."""

from __future__ import annotations

import numpy as np
import pytest

import bigmm
from bigmm.datasets import pastes, sleepstudy


def test_varcorr_rows(sleep):
    table = sleep.varcorr.to_dict("records")
    names = [(row["group"], row["name1"], row["name2"]) for row in table]
    assert names == [
        ("Subject", "Intercept", None),
        ("Subject", "Days", None),
        ("Subject", "Intercept", "Days"),
        ("Residual", None, None),
    ]
    np.testing.assert_allclose([row["sdcor"] for row in table], [24.7404, 5.9221, 0.0655, 25.5918], rtol=2e-3)
    np.testing.assert_allclose([row["vcov"] for row in table], [612.09, 35.07, 9.604, 654.94], rtol=2e-3)
    assert sleep.VarCorr().equals(sleep.varcorr)


def test_double_bar_keeps_two_groups_and_one_table_of_modes():
    model = bigmm.lmm("Reaction ~ Days + (Days || Subject)", sleepstudy(), progress=False)
    assert list(model.varcorr["group"]) == ["Subject", "Subject.1", "Residual"]
    assert list(model.varcorr["name1"]) == ["Intercept", "Days", None]
    frames = model.ranef(condvar=True)
    assert list(frames) == ["Subject"]
    assert list(frames["Subject"].columns) == ["Intercept", "Days", "Intercept_sd", "Days_sd"]
    assert model.n_groups == {"Subject": 18}


def test_nested_groups():
    model = bigmm.lmm("strength ~ 1 + (1 | batch / cask)", pastes(), progress=False)
    assert model.n_groups == {"cask:batch": 30, "batch": 10}
    assert list(model.ranef()) == ["cask:batch", "batch"]
    assert model.varcorr["sdcor"].to_list() == pytest.approx([2.9041, 1.2874, 0.8234], rel=3e-3)


def test_u_is_level_after_level(sleep):
    lam = sleep.fitted.lambdas()[0]
    np.testing.assert_allclose(sleep.u.reshape(18, 2) @ lam.T, sleep.ranef()["Subject"], rtol=1e-8, atol=1e-10)
