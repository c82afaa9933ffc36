"""A fit that is singular or not converged gives a Python warning, once, at the line that called bigmm."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import bigmm
from bigmm.datasets import sleepstudy
from bigmm.errors import BigmmWarning
from bigmm.sklearn import LMMRegressor

SINGULAR, NOISE = "y ~ 1 + (1 | g)", "y ~ x + (1 | g)"


def noise(n=60, seed=1):
    """Groups that differ less than chance would let them: every group has the same mean."""
    rng = np.random.default_rng(seed)
    g = np.arange(n) % 6
    y, x = rng.normal(size=n), rng.normal(size=n)
    frame = pd.DataFrame({"y": y, "x": x, "g": g})
    frame["y"] -= frame.groupby("g")["y"].transform("mean")
    frame["b"] = np.tile([0.0, 1.0], n // 2)[np.argsort(np.argsort(g, kind="stable"), kind="stable")]
    return frame


def said(call):
    """(classes of the warnings that a call gives, their files, its result)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    ours = [w for w in caught if issubclass(w.category, BigmmWarning)]
    return [w.category for w in ours], {w.filename for w in ours}, result


def matrices():
    frame = noise()
    z = sp.csr_array(pd.get_dummies(frame["g"]).to_numpy(float))
    return bigmm.lmm_from_arrays(frame["y"].to_numpy(), np.ones((60, 1)), z)


FITS = {
    "lmm": lambda: bigmm.lmm(SINGULAR, noise()),
    "glmm": lambda: bigmm.glmm("b ~ 1 + (1 | g)", noise(), family="bernoulli"),
    "arrays": matrices,
    "sklearn": lambda: LMMRegressor(SINGULAR).fit(noise()),
}


@pytest.mark.parametrize("kind", FITS)
def test_a_singular_fit_warns_once_at_the_users_line(kind):
    classes, files, _ = said(FITS[kind])
    assert classes == [bigmm.SingularFitWarning] and files == {__file__}


def test_a_fit_that_has_not_converged_warns_with_its_advice():
    """An optimizer without gradients that starts in a corner; the fixture of the boundary tests does the same."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": np.repeat(np.arange(12), 10), "x": rng.normal(size=120)})
    frame["y"] = (frame["x"] > 0.0) * 1.0
    frame.loc[frame.index[:40], "y"] = 1.0
    frame["f"] = np.where(frame.index < 40, "sure", np.where(frame.index < 80, "a", "b"))
    frame.loc[frame.index[40:], "y"] = rng.integers(0, 2, 80)
    classes, files, fit = said(lambda: bigmm.glmm("y ~ f + (1 | g)", frame, family="bernoulli"))
    assert not fit.converged and bigmm.ConvergenceWarning in classes and files == {__file__}
    assert classes.count(bigmm.ConvergenceWarning) == 1


def test_a_good_fit_is_silent():
    classes, _, _ = said(lambda: bigmm.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy()))
    assert classes == []


def test_neither_tables_nor_saved_fits_warn_again(tmp_path):
    _, _, fit = said(FITS["lmm"])
    fit.save(tmp_path / "fit")
    for call in (fit.summary, fit.tidy, lambda: bigmm.load(tmp_path / "fit"), lambda: fit.predict(noise())):
        assert said(call)[0] == []


def test_a_refit_for_a_test_does_not_say_it_again():
    _, _, small = said(lambda: bigmm.lmm(SINGULAR, noise()))
    _, _, large = said(lambda: bigmm.lmm(NOISE, noise()))
    assert small.is_singular and large.is_singular and small.reml and large.reml
    classes, _, table = said(lambda: bigmm.lrt(small, large))
    assert classes == [] and len(table) == 2


def test_classes():
    for category in (bigmm.SingularFitWarning, bigmm.ConvergenceWarning):
        assert issubclass(category, BigmmWarning) and issubclass(category, UserWarning)
    with pytest.warns(bigmm.SingularFitWarning, match="a variance is estimated as zero, or a correlation as"):
        FITS["lmm"]()


def test_an_error_filter_makes_it_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error", bigmm.SingularFitWarning)
        with pytest.raises(bigmm.SingularFitWarning):
            FITS["lmm"]()
