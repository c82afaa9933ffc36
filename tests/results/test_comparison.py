"""Likelihood-ratio tables against lme4's anova, and refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.datasets import sleepstudy
from bigmm.errors import UsageError


@pytest.fixture(scope="module")
def smaller():
    return bigmm.lmm("Reaction ~ 1 + (Days | Subject)", sleepstudy(), reml=False, progress=False)


def test_table_is_lme4s_anova(sleep, smaller):
    """sleep is a REML fit: it is refitted by ML, as lme4's anova does."""
    table = smaller.anova(sleep)
    assert list(table.columns) == ["npar", "AIC", "BIC", "logLik", "deviance", "Chisq", "Df", "Pr(>Chisq)"]
    assert list(table["npar"]) == [5, 6]
    np.testing.assert_allclose(table["AIC"], [1785.4759, 1763.9393], atol=2e-4)
    np.testing.assert_allclose(table["BIC"], [1801.4407, 1783.0971], atol=2e-4)
    np.testing.assert_allclose(table["logLik"], [-887.73794, -875.96967], atol=1e-4)
    last = table.iloc[1]
    assert last["Chisq"] == pytest.approx(23.53654, abs=2e-4) and last["Df"] == 1
    assert last["Pr(>Chisq)"] == pytest.approx(1.22564e-6, rel=1e-3)
    assert np.isnan(table["Chisq"].iloc[0]) and np.isnan(table["Pr(>Chisq)"].iloc[0])


def test_order_does_not_matter_and_nothing_changes(sleep, smaller):
    before = sleep.objective
    np.testing.assert_array_equal(bigmm.lrt(sleep, smaller), bigmm.lrt(smaller, sleep))
    assert sleep.objective == before and sleep.reml


def test_different_rows_are_refused(sleep):
    other = bigmm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy().iloc[:150], progress=False)
    with pytest.raises(
        UsageError, match="fitted to 180 and 150 rows: a likelihood-ratio test needs the same rows"
    ) as caught:
        sleep.anova(other)
    assert "filter=" in str(caught.value)


def test_different_responses_are_refused(sleep):
    frame = sleepstudy().assign(Slow=lambda f: f["Reaction"] ** 1.1)
    other = bigmm.lmm("Slow ~ Days + (1 | Subject)", frame, progress=False)
    with pytest.raises(UsageError, match=r"different responses \(Reaction and Slow"):
        sleep.anova(other)
    frame["Reaction"] = frame["Slow"]
    same_name = bigmm.lmm("Reaction ~ Days + (1 | Subject)", frame, progress=False)
    with pytest.raises(UsageError, match="different responses .* or other values of it"):
        sleep.anova(same_name)


def test_different_weights_are_named():
    frame = sleepstudy().assign(w=np.linspace(0.5, 2.0, 180), v=np.linspace(1.0, 3.0, 180))
    none, w, v = (bigmm.lmm("Reaction ~ Days + (1 | Subject)", frame, weights=k) for k in (None, "w", "v"))
    with pytest.raises(UsageError, match=r"different weights \(none and 'w', or other values of them\).*same weights="):
        none.anova(w)
    with pytest.raises(UsageError, match=r"different weights \('v' and 'w'"):
        v.anova(w)
    renamed = bigmm.lmm("Reaction ~ 1 + (1 | Subject)", frame.assign(u=frame["w"]), weights="u")
    assert len(w.anova(renamed)) == 2, "the same numbers"


def test_one_model_or_no_model(sleep):
    with pytest.raises(UsageError, match="a likelihood-ratio test compares at least two models"):
        bigmm.lrt(sleep)
    with pytest.raises(UsageError, match=r"lrt\(\) compares fitted mixed models of lmm\(\) or glmm\(\), got str"):
        bigmm.lrt(sleep, "other")


def test_the_same_offset_written_in_two_ways():
    """H0: slope 1, against a free slope. lme4 1.1-31: anova gives Chisq 64.385 on 1 Df for these rows."""
    rng, n = np.random.default_rng(11), 300
    g, x = rng.integers(0, 10, n), rng.normal(size=n)
    rng.normal(size=n)
    y = 1 + 0.5 * x + 2 * rng.normal(size=10)[g] + rng.normal(size=n)
    data = pd.DataFrame({"x": x, "g": g, "y": y, "one": 1.0})
    free = bigmm.lmm("y ~ x + (1 | g)", data, reml=False)
    fixed = "y ~ offset(x) + (1 | g)"
    ways = [(fixed, {}), ("y ~ 1 + (1 | g)", {"offset": "x"}), ("y ~ 1 + (1 | g)", {"offset": x})]
    ways += [(fixed, {"weights": "one"}), (fixed, {"weights": np.ones(n)})]
    for formula, options in ways:
        model = bigmm.lmm(formula, data, reml=False, **options)
        assert free.anova(model)["Chisq"].iloc[1] == pytest.approx(64.385, abs=1e-3)
    # the same offset, however it is written, still tells two responses apart
    other = bigmm.lmm("y ~ 1 + (1 | g)", data.assign(y=y[::-1] + x), reml=False, offset="x")
    with pytest.raises(UsageError, match="the models have different responses"):
        bigmm.lmm("y ~ offset(x) + (1 | g)", data, reml=False).anova(other)
    # two vectors may be two offsets
    half = bigmm.lmm("y ~ 1 + (1 | g)", data, reml=False, offset=x / 2)
    assert np.isfinite(bigmm.lmm("y ~ x + (1 | g)", data, reml=False, offset=x).anova(half)["Chisq"].iloc[1])


def test_models_with_as_many_parameters_are_refused(sleep):
    frame = sleepstudy().assign(z=np.tile(np.arange(10.0) ** 2, 18))
    one, other = (bigmm.lmm(f"Reaction ~ {x} + (1 | Subject)", frame) for x in ("Days", "z"))
    with pytest.raises(UsageError, match=r"have the same number of parameters, 4: neither is nested .* AIC or BIC"):
        bigmm.lrt(one, other)
    with pytest.raises(UsageError, match=r"\(AIC 1755.63\)"):
        bigmm.lrt(bigmm.lmm("Reaction ~ z + (Days | Subject)", frame), sleep)


def nested_warnings(*fits):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bigmm.lrt(*fits)
    assert all(w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught if w.category is bigmm.BigmmWarning]


def test_models_that_are_not_nested_are_named():
    frame = sleepstudy().assign(z=np.tile(np.arange(10.0) ** 2, 18), k=np.tile([0.0, 1.0], 90), h=np.arange(180) % 7)

    def fit(formula):
        return bigmm.lmm(f"Reaction ~ {formula}", frame, reml=False)

    small = fit("Days + (1 | Subject)")
    (text,) = nested_warnings(small, fit("z + k + (1 | Subject)"))
    assert (
        "does not seem to be nested in" in text
        and "it has 'Days', which the larger one lacks; the p value holds only if it is" in text
    )
    (text,) = nested_warnings(small, fit("Days + z + (1 | h)"))
    assert "(... | Subject)" in text
    frame["day"] = frame["Days"].astype(int).astype(str)
    assert nested_warnings(small, fit("day + (1 | Subject)")) == [], "a trend against a factor of the same values"
    for large in (
        "C(Days) + (1 | Subject)",
        "Days + z + (1 | Subject)",
        "Days + (Days | Subject)",
        "poly(Days, 3) + (1 | Subject)",
    ):
        assert nested_warnings(small, fit(large)) == []


def test_a_larger_model_that_fits_worse_is_named():
    frame = sleepstudy()
    good = bigmm.lmm("Reaction ~ Days + (1 | Subject)", frame, reml=False)
    bad = bigmm.lmm("Reaction ~ I(Days > 3) + I(Days > 8) + (1 | Subject)", frame, reml=False)
    (text,) = nested_warnings(good, bad)
    assert "its deviance is lower by" in text


def test_kinds_are_told_apart_before_rows(sleep):
    frame = sleepstudy().iloc[:150].assign(b=lambda d: (d["Reaction"] > 300) * 1.0)
    other = bigmm.glmm("b ~ Days + (1 | Subject)", frame, family="bernoulli", se="rx")
    with pytest.raises(UsageError, match="a linear mixed model and a generalized linear mixed model were given"):
        bigmm.lrt(sleep, other)
