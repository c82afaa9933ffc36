"""A fit of matrices and a fit of a formula answer the same questions with the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import bigmm
from bigmm.datasets import sleepstudy
from bigmm.results.fit_results import FitResults

NUMBERS = "beta theta sigma scale objective deviance llf aic bic nobs npar df_resid reml converged".split()
SERIES = "params bse tvalues zvalues pvalues effective_df".split()


@pytest.fixture(scope="module")
def matrices(sleep):
    """The model of `sleep`: intercept and slope of each subject, Lambda repeated along the diagonal."""
    frame = sleepstudy()
    x = np.column_stack([np.ones(len(frame)), frame["Days"]])
    subject = pd.Categorical(frame["Subject"]).codes
    rows = np.repeat(np.arange(len(frame)), 2)
    z = sp.csr_array((x.ravel(), (rows, (2 * subject[:, None] + np.arange(2)).ravel())), shape=(len(frame), 36))

    def relative(theta):
        return sp.csr_array(sp.kron(sp.eye_array(18), np.array([[theta[0], 0.0], [theta[1], theta[2]]])))

    columns = pd.DataFrame(x, columns=["Intercept", "Days"])
    start, lower = np.array([1.0, 0.0, 1.0]), np.array([0.0, -np.inf, 0.0])
    return bigmm.lmm_from_arrays(frame["Reaction"].to_numpy(), columns.to_numpy(), z, relative, start, lower)


def test_both_kinds_agree(sleep, matrices):
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(matrices, name), getattr(sleep, name), rtol=2e-4, err_msg=name)
    for name in SERIES:
        ours, other = (getattr(fit, name) for fit in (matrices, sleep))
        np.testing.assert_allclose(ours.to_numpy(), other.to_numpy(), rtol=1e-3, err_msg=name)
    np.testing.assert_allclose(matrices.conf_int(), sleep.conf_int(), rtol=1e-3)
    np.testing.assert_allclose(matrices.vcov(), sleep.vcov(), rtol=1e-3)
    np.testing.assert_allclose(matrices.glance(), sleep.glance(), rtol=1e-3)
    assert matrices.logLik() == matrices.llf and matrices.effective_df_error is None


def test_what_is_shared_is_written_once(sleep, matrices):
    for fit in (sleep, matrices):
        assert isinstance(fit, FitResults)
        own = vars(type(fit))
        assert not set(NUMBERS + SERIES) & set(own)
        with pytest.raises(ValueError, match="read-only"):
            fit.theta[0] = 0.0
