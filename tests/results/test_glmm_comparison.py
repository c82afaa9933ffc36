"""Likelihood-ratio tables of generalized models, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import bigmm
from bigmm.errors import UsageError


@pytest.fixture(scope="module")
def fits(some):
    def fit(formula="hit ~ x + (1 | g)", data=some, **options):
        return bigmm.glmm(formula, data, **({"family": "bernoulli", "se": "rx", "progress": False} | options))

    return fit


@pytest.fixture(scope="module")
def full(fits):
    return fits()


def test_table(fits, full):
    null = fits("hit ~ 1 + (1 | g)")
    table = bigmm.lrt(full, null)
    assert list(table.index) == [null.formula, full.formula] and list(table["npar"]) == [2, 3]
    chisq = null.objective - full.objective
    last = table.iloc[-1]
    assert last["Chisq"] == pytest.approx(chisq) and last["Df"] == 1
    assert last["Pr(>Chisq)"] == pytest.approx(stats.chi2.sf(chisq, 1))
    np.testing.assert_array_equal(full.anova(null), table)


def test_other_rows_and_responses(fits, full, some):
    with pytest.raises(UsageError, match="fitted to 400 and 300 rows: a likelihood-ratio test needs the same rows"):
        full.anova(fits(data=some.iloc[:300]))
    with pytest.raises(UsageError, match=r"different responses \(hit and success, or other values of it\)"):
        full.anova(fits("success ~ x + (1 | g)", some.assign(success=(some["hit"] == "yes") * 1.0)))
    flipped = some.assign(hit=np.where(some["x"] > 0.2, "yes", "no"), x=some["off"])
    with pytest.raises(UsageError, match="different responses"):
        full.anova(fits(data=flipped))


def test_other_families_and_links(fits, full, poisson, negative, some):
    with pytest.raises(
        UsageError,
        match=r"different families \(bernoulli \(logit link\) and bernoulli \(probit link\)\): they are not nested; "
        "compare their AIC instead",
    ):
        full.anova(fits(link="probit"))
    with pytest.raises(
        UsageError, match=r"different families \(poisson \(log link\) and negative_binomial \(log link\)"
    ):
        poisson.anova(negative)


def test_other_approximations(fits, full):
    message = r"approximated differently \(Laplace approximation and {}\): their difference is no likelihood ratio"
    with pytest.raises(UsageError, match=message.format("adaptive Gauss-Hermite quadrature, nagq = 5")):
        full.anova(fits(nagq=5))
    with pytest.raises(UsageError, match=message.format("Laplace approximation, nagq = 0: coefficients from PIRLS")):
        full.anova(fits(nagq=0))
    one, other = fits(link="cloglog"), fits(link="cloglog", laplace="observed")
    with pytest.raises(UsageError, match="expected weights and Laplace approximation, observed weights"):
        one.anova(other)
    full.anova(fits("hit ~ 1 + (1 | g)", laplace="observed"))  # the same criterion with a canonical link


def test_linear_and_generalized(some):
    linear = bigmm.lmm("positive ~ x + (1 | g)", some, reml=False, progress=False)
    other = bigmm.glmm("positive ~ x + (1 | g)", some, family="gaussian", se="rx", progress=False)
    with pytest.raises(
        UsageError, match="a linear mixed model and a generalized linear mixed model were given: fit both with lmm"
    ):
        bigmm.lrt(linear, other)
