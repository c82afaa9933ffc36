"""What hypotheses about a fit give, where the right answer follows from the model itself."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bigmm
from bigmm.datasets import sleepstudy
from bigmm.errors import UsageError

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return bigmm.lmm(FORMULA, sleepstudy())


@pytest.fixture(scope="module")
def balanced():
    """24 groups in 3 treatments, 4 rows each: the classical split-plot analysis has exact degrees of freedom."""
    generator = np.random.default_rng(5)
    group, treatment = np.repeat(np.arange(24), 4), np.repeat(np.tile(["a", "b", "c"], 8), 4)
    effect = generator.normal(size=24)[group]
    within = np.tile(["p", "q", "r", "s"], 24)
    y = effect + (treatment == "b") * 0.5 + (within == "s") + generator.normal(size=96)
    return pd.DataFrame({"y": y, "g": group.astype(str), "t": treatment, "w": within})


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
@pytest.mark.parametrize("kind", ["I", "II", "III"])
def test_a_balanced_split_plot_is_the_classical_analysis(balanced, ddf, kind):
    """Whole plots: F on 2 and 21 degrees of freedom from group means; split plots: F on 3 and 69 - 6 = 63."""
    model = bigmm.lmm("y ~ t * w + (1 | g)", balanced)
    table = model.anova(type=kind, ddf=ddf)
    means = balanced.groupby(["g", "t"])["y"].mean().reset_index()
    expected = stats.f_oneway(*(part["y"] for _, part in means.groupby("t"))).statistic
    assert table.loc["t", "F"] == pytest.approx(expected, rel=1e-6)
    assert table.loc["t", "dendf"] == pytest.approx(21, rel=1e-5)
    assert table.loc["w", "dendf"] == pytest.approx(63, rel=1e-5)
    assert list(table["numdf"]) == [2, 3, 6]


def test_type_three_does_not_depend_on_the_coding(balanced):
    frame = balanced.drop(index=range(7))
    plain = bigmm.lmm("y ~ t * w + (1 | g)", frame).anova()
    coded = bigmm.lmm("y ~ t * w + (1 | g)", frame, contrasts={"t": "Sum", "w": "Helmert"}).anova()
    np.testing.assert_allclose(plain["F"], coded["F"], rtol=1e-6)
    np.testing.assert_allclose(plain["dendf"], coded["dendf"], rtol=1e-3)  # Fai and Cornelius' df has no unique axes


def test_t_and_f_tests(sleep):
    """lmerTest: contest1D(c(0, 1)) has t 6.7715 with 17 df; a single hypothesis has F = t^2."""
    single = sleep.t_test("Days = 5").iloc[0]
    assert single["statistic"] == pytest.approx((10.467286 - 5) / 1.545790, rel=1e-5)
    assert single["df"] == pytest.approx(17, rel=1e-6)
    joint = sleep.f_test("Days = 5").iloc[0]
    assert joint["F"] == pytest.approx(single["statistic"] ** 2, rel=1e-9)
    assert joint["p.value"] == pytest.approx(single["p.value"], rel=1e-9)
    chi = sleep.wald_test("Days = 5, Days + Intercept = 0").iloc[0]
    assert chi["df"] == 2 and chi["p.value"] == pytest.approx(stats.chi2.sf(chi["statistic"], 2))


def test_a_hypothesis_said_twice_counts_once(sleep):
    once, twice = sleep.f_test("Days = 1"), sleep.f_test("Days = 1, 2*Days = 2")
    np.testing.assert_allclose(once, twice, rtol=1e-9)
    with pytest.raises(UsageError, match="contradict each other"):
        sleep.f_test("Days = 1, 2*Days = 3")


def test_units_and_origins_change_nothing():
    frame = sleepstudy()
    other = frame.assign(Days=1e6 * frame["Days"] + 3e7)
    ours = bigmm.lmm(FORMULA, frame).tidy().iloc[1]
    far = bigmm.lmm(FORMULA, other).tidy().iloc[1]
    for column in ("statistic", "df", "p.value"):
        assert far[column] == pytest.approx(ours[column], rel=1e-4), column


def test_a_variance_of_zero_is_treated_as_known():
    """With the variance at zero the model is a regression: Satterthwaite's df is n - p."""
    frame = sleepstudy()
    frame["Reaction"] -= frame.groupby("Subject")["Reaction"].transform("mean")
    model = bigmm.lmm("Reaction ~ Days + (1 | Subject)", frame)
    assert model.is_singular
    np.testing.assert_allclose(model.tidy()["df"], 178.0, rtol=1e-6)
    assert "variance parameters at zero are treated as known" in str(model.summary())


def test_saved_and_pickled_fits_have_the_same_degrees_of_freedom(sleep, tmp_path):
    sleep.save(tmp_path / "fit")
    for other in (bigmm.load(tmp_path / "fit"), pickle.loads(pickle.dumps(sleep))):
        np.testing.assert_allclose(other.tidy()["df"], sleep.tidy()["df"], rtol=1e-6)


def test_what_is_refused(sleep):
    with pytest.raises(UsageError, match="ddf='kenward' *: choose one of auto, satterthwaite, kenward-roger, normal"):
        sleep.tidy(ddf="kenward")
    with pytest.raises(UsageError, match="defined for REML fits only"):
        bigmm.lmm(FORMULA, sleepstudy(), reml=False).tidy(ddf="kenward-roger")
    with pytest.raises(UsageError, match=r"anova\(type='IV'\): choose one of I, II, III"):
        sleep.anova(type="IV")


def test_generalized_models_keep_z_and_wald_tests():
    cbpp = Path(__file__).parents[1] / "reference" / "data" / "cbpp.parquet"
    model = bigmm.glmm("incidence / size ~ period + (1 | herd)", cbpp, family="binomial")
    assert "df" not in model.tidy() and "Pr(>|z|)" in str(model.summary())
    table = model.anova()
    joint = model.wald_test([name for name in model.params.index if name.startswith("period")])
    assert table.loc["period", "statistic"] == pytest.approx(joint["statistic"].iloc[0], rel=1e-9)
    with pytest.raises(UsageError, match="degrees of freedom are defined for linear mixed models"):
        model.t_test("Intercept", ddf="satterthwaite")
