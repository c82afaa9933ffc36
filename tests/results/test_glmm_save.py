"""Saved generalized fits: the same model comes back by family and link; another objective is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.errors import DataError, VersionError
from bigmm.results import GlmmResults, LmmResults
from tests.results.test_save import parts, reseal


@pytest.mark.parametrize("name", ["poisson", "shares", "gamma", "negative"])
def test_everything_comes_back(name, request, some, tmp_path):
    model = request.getfixturevalue(name)
    loaded = bigmm.load(model.save(tmp_path / "model"))
    assert isinstance(loaded, GlmmResults) and not isinstance(loaded, LmmResults)
    assert loaded.family == model.family and loaded.dispersion == model.dispersion
    assert str(loaded.summary()) == str(model.summary())
    assert loaded.as_record() == model.as_record()
    np.testing.assert_array_equal(loaded.u, model.u)
    for group, frame in model.ranef(condvar=True).items():
        pd.testing.assert_frame_equal(loaded.ranef(condvar=True)[group], frame)
    new = some.assign(g=["NEW", *some["g"].iloc[1:]])
    pd.testing.assert_frame_equal(loaded.predict(new, se=True), model.predict(new, se=True))
    pd.testing.assert_frame_equal(loaded.augment(some), model.augment(some))
    np.testing.assert_array_equal(loaded.simulate(some, seed=3), model.simulate(some, seed=3))
    pd.testing.assert_series_equal(loaded.effective_df, model.effective_df)
    with pytest.raises(ValueError, match="read-only"):
        loaded.theta[...] = 0.0


def test_another_laplace_objective_is_refused(poisson, tmp_path):
    saved = poisson.save(tmp_path / "model")
    reseal(saved, objective=poisson.objective + 1e-3)
    with pytest.raises(VersionError, match=r"was saved with objective .*, but evaluates to .*fit again"):
        bigmm.load(saved)


def test_another_theta_is_refused(poisson, shares, tmp_path):
    """log|M| is evaluated at the saved theta; for quadrature it is what can be evaluated without rows."""
    for model, what in ((poisson, "objective"), (shares, r"log\|M\|")):
        saved = model.save(tmp_path / "model", overwrite=True)
        reseal(saved, theta=(1.01 * model.theta).tolist())
        with pytest.raises(VersionError, match=f"was saved with {what} .*, but evaluates to"):
            bigmm.load(saved)


def test_the_fast_fit_is_checked_too(some, tmp_path):
    fast = bigmm.glmm("hit ~ x + (1 | g) + (1 | h)", some, family="bernoulli", nagq=0, progress=False)
    saved = fast.save(tmp_path / "model")
    assert bigmm.load(saved).objective == fast.objective
    reseal(saved, penalized=fast.fitted.penalized + 1.0)
    with pytest.raises(VersionError, match="was saved with objective"):
        bigmm.load(saved)


def test_damage_is_noticed(shares, tmp_path):
    saved = shares.save(tmp_path / "model")
    estimates = [path for path in parts(saved) if "estimates" in path.parts]
    assert len(estimates) >= 4
    for path in estimates:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(DataError, match="restore the directory from a copy or fit again"):
            bigmm.load(saved)
        path.write_bytes(content)
    bigmm.load(saved)
