"""The public object: frozen, picklable, aliases, what is not there yet."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError

import cloudpickle
import numpy as np
import pytest

import bigmm
from bigmm.errors import UsageError


def test_aliases(sleep):
    assert sleep.deviance == sleep.objective == -2 * sleep.llf == -2 * sleep.logLik()
    assert isinstance(sleep.sigma, float) and sleep.scale == sleep.sigma**2
    np.testing.assert_array_equal(sleep.beta, sleep.params)
    assert (sleep.nobs, sleep.npar, sleep.df_resid) == (180, 6, 174)
    assert sleep.converged and not sleep.is_singular and sleep.monte_carlo_error is None
    assert sleep.formula == "Reaction ~ Days + (Days | Subject)" and sleep.reml


def test_frozen(sleep):
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        sleep.theta = np.zeros(3)
    for array in (sleep.theta, sleep.beta, sleep.fitted.estimates.vcov, sleep.fitted.estimates.b[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
    params, modes = sleep.params, sleep.ranef()["Subject"]
    params["Days"], modes.iloc[0, 0] = 0.0, 1e9
    assert sleep.params["Days"] == pytest.approx(10.467, abs=1e-3)
    assert sleep.ranef()["Subject"].iloc[0, 0] < 1e3


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_pickle(crossed, rows, pickler):
    again = pickler.loads(pickler.dumps(crossed))
    assert str(again.summary()) == str(crossed.summary())
    np.testing.assert_allclose(again.predict(rows, se=True), crossed.predict(rows, se=True), rtol=1e-12)
    with pytest.raises(ValueError, match="read-only"):
        again.theta[...] = 0.0
    with pytest.raises(UsageError, match="this fit was saved or pickled and no longer knows its data; pass newdata"):
        again.predict()


def test_what_is_not_there_yet(sleep):
    with pytest.raises(UsageError, match=r"bootstrap\(\) is not available in this version; use conf_int"):
        sleep.bootstrap(100)
    with pytest.raises(UsageError, match=r"refit\(\) is not available in this version; call bigmm.lmm\(\) or glmm\(\)"):
        sleep.refit(reml=False)


def test_rank_deficient_columns_have_nan_slots():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    data = {"y": x + rng.normal(size=60), "x": x, "twice": 2 * x, "g": [f"g{i % 6}" for i in range(60)]}
    import pandas as pd

    frame = pd.DataFrame(data)
    model = bigmm.lmm("y ~ x + twice + (1 | g)", frame, progress=False)
    reduced = bigmm.lmm("y ~ x + (1 | g)", frame, progress=False)
    assert list(model.params.index) == ["Intercept", "x", "twice"]
    assert model.params.isna().tolist() == model.bse.isna().tolist() == [False, False, True]
    assert model.npar == reduced.npar
    np.testing.assert_allclose(model.predict(frame, se=True), reduced.predict(frame, se=True), rtol=1e-6)
    assert "columns dropped because they depend on earlier ones: twice" in str(model.summary())
