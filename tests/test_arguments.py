"""Calls that do not fit are answered with what was meant: names of lme4, glmmTMB, statsmodels and pandas."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.arguments import NAMES_ELSEWHERE, did_you_mean, folded, strict
from bigmm.datasets import sleepstudy
from bigmm.errors import ArgumentError, FormulaError, UsageError

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def fit():
    return bigmm.lmm(FORMULA, sleepstudy())


@pytest.fixture(scope="module")
def rows():
    return sleepstudy().assign(f=lambda d: np.where(d["Days"] > 4, "late", "soon"), b=lambda d: d["Reaction"] > 300)


LINEAR = [
    ({"REML": False}, "lmm() has no argument 'REML': write reml=False"),
    ({"method": "REML"}, "REML or maximum likelihood is reml=True or reml=False"),
    ({"nAGQ": 0}, "nagq= belongs to glmm()"),
    ({"groups": "Subject"}, "grouping factors belong to the formula"),
    ({"re_formula": "~Days"}, "random effects belong to the formula"),
    ({"vc_formula": {}}, "random effects belong to the formula"),
    ({"control": None}, "optimizer=, started by theta0="),
    ({"start": [1.0]}, "starting values of theta are theta0="),
    ({"subset": "Days > 1"}, "rows are chosen by filter="),
    ({"na.action": "na.omit"}, "dropped unless drop_missing=False"),
    ({"missing": "drop"}, "dropped unless drop_missing=False"),
    ({"verbose": 1}, "progress=True shows a bar"),
    ({"family": "poisson"}, "fitted by glmm(formula, data, family=...)"),
    ({"success": "Y"}, "success= belongs to glmm()"),
    ({"freq_weights": "w"}, "they do not repeat rows"),
    ({"random_state": 1}, "the seed is seed="),
    ({"n_jobs": 2}, "threads of this process are n_workers="),
    ({"weigths": "w"}, "did you mean 'weights'?"),
    ({"Filter": "Days > 1"}, "write filter='Days > 1'"),
    ({"zzz": 1}, "it takes formula, data, reml"),
]


@pytest.mark.parametrize(("options", "message"), LINEAR)
def test_names_of_other_packages(options, message):
    """The error is a TypeError too, as Python's own for an unknown argument."""
    with pytest.raises(ArgumentError) as caught:
        bigmm.lmm(FORMULA, sleepstudy(), **options)
    assert message in str(caught.value)
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2


GENERALIZED = [
    ({"REML": False}, "REML is for linear mixed models"),
    ({"nAGQ": 9}, "write nagq=9"),
    ({"trials": "n"}, "numbers of trials are weights="),
    ({"exposure": "t"}, "offset(log(column))"),
    ({"ziformula": "~1"}, "zero inflation is not available"),
    ({"dispformula": "~1"}, "not available"),
]


@pytest.mark.parametrize(("options", "message"), GENERALIZED)
def test_names_of_other_packages_for_generalized_models(options, message):
    with pytest.raises(ArgumentError) as caught:
        bigmm.glmm(FORMULA, sleepstudy(), family="poisson", **options)
    assert message in str(caught.value)


def test_methods(fit):
    calls = [
        (lambda: fit.predict(re_form=None), "which random effects count is random="),
        (lambda: fit.predict(allow_new_levels=True), "new_levels="),
        (lambda: fit.predict(exog=None), "new rows are newdata="),
        (lambda: fit.predict(level=0.9), "se=True gives their standard errors"),
        (lambda: fit.predict(interval="confidence"), "se=True gives their standard errors"),
        (lambda: fit.simulate(use_u=True), "use_modes=True"),
        (lambda: fit.simulate(n=10), "is nsim="),
        (lambda: fit.summary(alpha=0.05), "conf_int(level=...)"),
        (lambda: fit.tidy(conf_level=0.9), "level=0.95"),
        (lambda: fit.conf_int(Level=0.9), "write level=0.9"),
        (lambda: bigmm.lrt(fit, fit, level=0.9), "conf_int(level=...)"),
        (lambda: bigmm.plan(FORMULA, sleepstudy(), REML=True), "write reml=True"),
        (lambda: bigmm.lmm_from_arrays(1, 2, 3, REML=True), "write reml=True"),
    ]
    for call, message in calls:
        with pytest.raises(ArgumentError) as caught:
            call()
        assert message in str(caught.value)


def test_too_many_and_too_few():
    with pytest.raises(ArgumentError, match=r"lmm\(\) takes formula and data by position, but 3 values were given"):
        bigmm.lmm(FORMULA, sleepstudy(), "Subject")
    with pytest.raises(ArgumentError, match=r"lmm\(\) needs data"):
        bigmm.lmm(FORMULA)
    with pytest.raises(ArgumentError, match=r"glmm\(\) needs family, such as family='bernoulli'"):
        bigmm.glmm(FORMULA, sleepstudy())
    with pytest.raises(ArgumentError, match=r"lmm\(\) needs formula and data, such as formula='y ~ x"):
        bigmm.lmm()


@pytest.mark.parametrize("call", [bigmm.lmm, bigmm.plan, lambda f, d: bigmm.glmm(f, d, family="poisson")])
def test_swapped_formula_and_data(call, rows):
    for data in (rows, "lake/", "~/lake"):
        with pytest.raises(UsageError, match="formula and data are the other way round: the formula 'Reaction ~"):
            call(data, FORMULA)
    with pytest.raises(UsageError, match=r"the formula must be text such as .*, not pandas\..*DataFrame"):
        call(rows, rows)


def test_a_path_with_a_tilde_is_no_formula():
    with pytest.raises(bigmm.DataError, match="no such"):
        bigmm.lmm(FORMULA, "~/no-such-lake")


def test_the_signature_stays():
    assert list(inspect.signature(bigmm.lmm).parameters)[:3] == ["formula", "data", "reml"]
    assert bigmm.lmm.__name__ == "lmm" and "REML" in bigmm.lmm.__doc__


def test_the_table_holds_folded_names():
    assert [name for name in NAMES_ELSEWHERE if folded(name) != name] == []


def test_a_type_error_inside_is_not_changed():
    @strict
    def broken(a):
        return a + "text"

    with pytest.raises(TypeError, match="unsupported operand") as caught:
        broken(1)
    assert not isinstance(caught.value, ArgumentError)


def test_did_you_mean():
    assert did_you_mean("Helmer", ["Sum", "Helmert"]) == "did you mean 'Helmert'?"
    assert did_you_mean("zzz", ["Sum"]) == ""


CODINGS = [
    (np.eye(2), "not numpy.ndarray; for a coding of your own"),
    (pd.DataFrame(np.eye(2)), "not pandas"),
    ([[1], [2]], "not builtins.list"),
    (len, "not builtins.builtin_function_or_method"),
    (None, "not builtins.NoneType"),
]


@pytest.mark.parametrize(("coding", "message"), CODINGS)
def test_a_matrix_is_no_contrast(rows, coding, message):
    with pytest.raises(UsageError, match=r"contrasts\['f'\] must be the name of a coding \(Treatment, ") as caught:
        bigmm.lmm("Reaction ~ f + (1 | Subject)", rows, contrasts={"f": coding})
    assert message in str(caught.value)


def test_names_of_contrasts(rows):
    def fit(call="f", **options):
        return bigmm.lmm(f"Reaction ~ {call} + (1 | Subject)", rows, **options)

    for options in ({"contrasts": {"f": "Helmer"}}, {"call": "C(f, Helmer)"}, {"call": "C(f, contr.helmer)"}):
        with pytest.raises(FormulaError, match="did you mean 'Helmert'"):
            fit(**options)
    with pytest.raises(FormulaError, match="a formula sees columns only, no variables of Python"):
        fit("C(f, contr)")
    with pytest.raises(FormulaError, match=r"categories=\{column: \[\.\.\.\]\}"):
        fit("C(f, levels=['soon', 'late'])")
    with pytest.raises(FormulaError, match=r"write C\(f, Treatment\('level'\)\)"):
        fit("C(f, base='soon')")
    with pytest.raises(UsageError, match="contrasts names 'F', which is no factor of the formula; did you mean 'f'"):
        fit(contrasts={"F": "Sum"})
    with pytest.raises(UsageError, match=r"categories\['f'\] must be a list of levels"):
        fit(categories={"f": "ab"})


class Logit:
    """As statsmodels names a link."""


class Binomial:
    """As statsmodels names a family."""

    def __init__(self):
        self.link = Logit()


FAMILIES = [
    ("logistic", "write family='bernoulli', whose link is the logit"),
    ("probit", "it is a link: write family='bernoulli', link='probit'"),
    ("binomial(link = 'probit')", "write family='binomial', link='probit'"),
    ("Gamma(log)", "write family='gamma', link='log'"),
    ("quasipoisson", "it is not available"),
    ("poison", "did you mean 'poisson'?"),
    (Binomial, "write family='binomial'"),
    (Binomial(), "write family='binomial', link='logit'"),
    (None, "family must be a name such as 'poisson', not None"),
]


@pytest.mark.parametrize(("family", "message"), FAMILIES)
def test_families_of_other_packages(rows, family, message):
    with pytest.raises(UsageError) as caught:
        bigmm.glmm("b ~ Days + (1 | Subject)", rows, family=family)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("link", "message"),
    [("ln", "write link='log'"), ("lgit", "did you mean 'logit'?"), (Logit(), "write link='logit'"), (Logit, "logit")],
)
def test_links_of_other_packages(rows, link, message):
    with pytest.raises(UsageError) as caught:
        bigmm.glmm("b ~ Days + (1 | Subject)", rows, family="bernoulli", link=link)
    assert message in str(caught.value)


@pytest.mark.parametrize("role", ["weights", "offset"])
def test_a_series_has_the_index_of_the_data(rows, role):
    """pandas would align by index, numpy by position: with another order they are different models."""
    values = pd.Series(np.linspace(1.0, 2.0, len(rows)), index=rows.index)
    expected = bigmm.lmm(FORMULA, rows.assign(v=values), **{role: "v"}).objective
    for given in (values, values.to_numpy(), values.tolist()):
        assert bigmm.lmm(FORMULA, rows, **{role: given}).objective == expected
    for given in (values.sample(frac=1.0, random_state=1), values.set_axis(values.index + 1)):
        with pytest.raises(UsageError, match=f"{role} is a Series whose index is not that of the data: align it"):
            bigmm.lmm(FORMULA, rows, **{role: given})
    with pytest.raises(UsageError, match=f"{role} must be the name of a column, or one number per row"):
        bigmm.lmm(FORMULA, rows, **{role: ["a"] * len(rows)})


def test_options_that_are_true_or_false(fit, tmp_path):
    calls = [
        lambda: bigmm.lmm(FORMULA, sleepstudy(), reml="no"),
        lambda: bigmm.lmm(FORMULA, sleepstudy(), drop_missing="no"),
        lambda: fit.predict(sleepstudy(), out=tmp_path / "a", overwrite="no"),
        lambda: fit.save(tmp_path / "b", overwrite="no"),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="must be True or False, got 'no'"):
            call()
    with pytest.raises(UsageError, match=r"keep must be a list of columns, such as keep=\['Days'\]"):
        fit.augment(keep="Days")
    with pytest.raises(UsageError, match="must be a dict by grouping"):
        fit.ranef(levels=["308"])
    with pytest.raises(UsageError, match="choose one of response"):
        fit.residuals(sleepstudy())


def test_estimators_of_scikit_learn_too():
    from sklearn.base import clone

    from bigmm.sklearn import GLMMClassifier, GLMMRegressor, LMMRegressor

    with pytest.raises(ArgumentError, match=r"LMMRegressor\(\) has no argument 'REML': write reml=False"):
        LMMRegressor("y ~ x + (1 | g)", REML=False)
    with pytest.raises(ArgumentError, match=r"GLMMClassifier\(\) has no argument 'nAGQ': write nagq=9"):
        GLMMClassifier("y ~ x + (1 | g)", nAGQ=9)
    with pytest.raises(ArgumentError, match=r"GLMMRegressor\(\) takes formula by position, but 2 values were given"):
        GLMMRegressor("y ~ x + (1 | g)", "poisson")
    model = clone(LMMRegressor("y ~ x + (1 | g)", reml=False, random=["g"]))
    assert model.get_params()["reml"] is False and model.get_params()["random"] == ["g"]


def test_an_estimator_refuses_random_effects_it_does_not_have(rows):
    from bigmm.sklearn import LMMRegressor

    model = LMMRegressor(FORMULA, random=["(1 | Subject)"]).fit(rows)
    expected = bigmm.lmm(FORMULA, rows).predict(rows, random=["(1 | Subject)"])
    np.testing.assert_allclose(model.predict(rows), expected, rtol=1e-12)
    for random in ("no", ["subject"]):
        with pytest.raises(UsageError, match="random"):
            LMMRegressor(FORMULA, random=random).fit(rows)
