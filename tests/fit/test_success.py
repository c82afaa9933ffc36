"""Which level of a categorical response is modelled: said by success=, shown everywhere, refused where unclear."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import bigmm
from bigmm.errors import DataError, UsageError
from bigmm.sklearn import GLMMClassifier

FORMULA = "out ~ x + (1 | g)"


def levelled(levels, seed=4, n=600):
    """Rows whose response is levels[i], i being 0, 1 (or 2) by a logit model."""
    rng = np.random.default_rng(seed)
    g, x = rng.integers(0, 20, n), rng.normal(size=n)
    eta = 0.3 + 0.8 * x + rng.normal(size=20)[g]
    number = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
    if len(levels) > 2:
        number += (number == 1) & (rng.random(n) < 0.4)
    return pd.DataFrame({"out": np.array(levels)[number], "number": number, "x": x, "g": g})


def fit(frame, formula=FORMULA, **options):
    return bigmm.glmm(formula, frame, **({"family": "bernoulli", "se": "rx"} | options))


@pytest.fixture(scope="module")
def three():
    return levelled(["a", "b", "c"])


def coded(frame, ones):
    """The same model of a response recoded by hand: the truth that success= has to give."""
    return fit(frame.assign(y=frame["number"].isin(ones) * 1.0), "y ~ x + (1 | g)")


def same(one, other):
    assert one.objective == pytest.approx(other.objective, rel=1e-12)
    np.testing.assert_allclose(one.params, other.params, rtol=1e-8)
    np.testing.assert_allclose(one.predict(), other.predict(), rtol=1e-8)


@pytest.mark.parametrize("family", ["bernoulli", "binomial"])
def test_three_levels_are_refused_with_rs_rule(three, family):
    message = (
        r"the response 'out' has 3 levels \('a', 'b', 'c'\), and a binomial response has two: say which count as 1, "
        r"such as success='c'; success=\['b', 'c'\] is R's rule, all but the first level"
    )
    with pytest.raises(UsageError, match=message):
        fit(three, family=family)
    with pytest.raises(UsageError, match=message):
        bigmm.plan(FORMULA, three, family=family)
    with pytest.raises(UsageError, match=message):
        fit(three.assign(out=pd.Categorical(three["out"])), family=family)


def test_rs_rule_and_any_other(three):
    same(fit(three, success=["b", "c"]), coded(three, [1, 2]))
    same(fit(three, success="c"), coded(three, [2]))
    same(fit(three, success=["a", "c"], family="binomial"), coded(three, [0, 2]))


COLUMNS = {
    "text": (["no", "yes"], "no", "'no'", "'yes'"),
    "booleans": ([False, True], False, "False", "True"),
    "numbers 1 and 2": ([1, 2], 1, "1", "2"),
    "floats": ([1.0, 2.5], 1.0, "1", "2.5"),
    "numbers 0 and 1": ([0, 1], 0, "0", "1"),
    "dates": (np.array(["2020-01-31", "2021-01-31"], dtype="M8[s]"), "2020-01-31 00:00:00", "2020-01-31", "2021-01-31"),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_the_first_of_two_levels_can_be_modelled(kind):
    values, success, zero, one = COLUMNS[kind]
    frame = levelled(values)
    flipped = fit(frame, success=success)
    same(flipped, coded(frame, [0]))
    assert f"Response: out (modelled level {zero}" in str(flipped.summary())
    assert f" against {one}" in str(flipped.summary())
    assert flipped.as_record()["success"][0].startswith(zero.strip("'"))
    np.testing.assert_allclose(flipped.predict(frame.drop(columns="out")), flipped.predict(), rtol=1e-13)


@pytest.mark.parametrize("table", [pa.Table.from_pandas, pl.from_pandas])
def test_other_tables(three, table):
    same(fit(table(three), success="c"), coded(three, [2]))


def test_two_levels_without_success_model_the_second_and_say_so():
    frame = levelled(["N", "Y"])
    model = fit(frame)
    same(model, coded(frame, [1]))
    assert "Response: out (modelled level 'Y' against 'N')" in str(model.summary())
    assert "Response: out (modelled level &#x27;Y&#x27; against &#x27;N&#x27;)" in model._repr_html_()
    assert repr(model).startswith(f"<GlmmResults {FORMULA!r}, modelled level 'Y' against 'N': 600 rows")
    record = json.loads(json.dumps(model.as_record()))
    assert (record["response"], record["success"], record["failure"]) == ("out", ["Y"], ["N"])
    ordered = fit(frame.assign(out=pd.Categorical(frame["out"], categories=["Y", "N"])))
    assert "modelled level 'N' against 'Y'" in repr(ordered), "declared order, as in R"
    numeric = coded(frame, [1])
    assert "Response: y (modelled value 1 against 0)" in str(numeric.summary())
    assert numeric.as_record()["success"] is None


def test_a_saved_model_keeps_it(three, tmp_path):
    model = fit(three, success=["c", "a"])
    again = bigmm.load(model.save(tmp_path / "fit"))
    assert "modelled levels 'a', 'c' against 'b'" in repr(again) and repr(again) == repr(model)
    np.testing.assert_allclose(again.residuals(data=three), model.residuals(), rtol=1e-12)
    np.testing.assert_allclose(again.residuals(data=three), three["number"].isin([0, 2]) - model.predict(), atol=1e-12)


def test_classifier_says_what_its_codes_stand_for():
    frame = levelled(["N", "Y"])
    classifier = GLMMClassifier(FORMULA).fit(frame)
    assert list(classifier.classes_) == ["N", "Y"]
    assert "Response: out (modelled level 'Y' against 'N')" in str(classifier.result_.summary())
    np.testing.assert_allclose(classifier.predict_proba(frame)[:, 1], fit(frame).predict(), rtol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"success": "C"}, r"success='C' is no level of the response 'out'; did you mean 'c'\? its levels are 'a', "),
        ({"success": 3}, r"success='3' is no level of the response 'out'; its levels are 'a', 'b', 'c'"),
        ({"success": ["a", "b", "c"]}, "success= names all levels of the response 'out'"),
        ({"success": []}, r"success=\[\]: name the level of the response that counts as 1"),
        ({"success": [None]}, "name the level of the response that counts as 1"),
        ({"success": ["a", 1]}, "a list of levels of one type"),
        ({"success": "c", "family": "poisson"}, "success='c' is for family 'bernoulli' or 'binomial', not 'poisson'"),
        ({"success": "c", "formula": "cbind(x, x) ~ x + (1 | g)"}, r"but this one is cbind\(x, x\)"),
        ({"success": "c", "formula": "x / g ~ x + (1 | g)"}, "success= names levels of a response that is a column"),
    ],
)
def test_what_cannot_be_meant(three, options, message):
    with pytest.raises(UsageError, match=message):
        fit(three, **options)


def test_a_linear_model_has_no_success(three):
    with pytest.raises(UsageError, match=r"lmm\(\) has no argument 'success': success= belongs to glmm\(\)"):
        bigmm.lmm("x ~ 1 + (1 | g)", three, success="a")


def test_one_level(three):
    with pytest.raises(DataError, match=r"the response 'out' has one level \('a'\): there is nothing to model"):
        fit(three.assign(out="a"))


def test_numbers_beyond_one_name_the_option(three):
    with pytest.raises(DataError, match="response 2: a bernoulli response is 0 or 1; .* with success="):
        fit(three, "number ~ x + (1 | g)")
    same(fit(three, "number ~ x + (1 | g)", success=[1, 2]), coded(three, [1, 2]))


def lost_third(how):
    """Two levels and a third, `na`, of rows that do not count, and the options that leave these rows out."""
    frame = levelled(["no", "yes"])
    third = np.arange(len(frame)) % 4 == 0
    frame = frame.assign(out=frame["out"].where(~third, "na"), w=np.where(third, 0.0, 1.0))
    if how == "weight":
        return frame, frame[~third], {"weights": "w"}
    if how == "filter":
        return frame, frame[~third], {"filter": "out != 'na'"}
    return frame.assign(x=frame["x"].where(~third)), frame[~third], {}


@pytest.mark.parametrize("how", ["missing", "weight", "filter"])
@pytest.mark.parametrize("success", [None, "yes", ["na", "yes"]])
def test_a_third_level_without_rows_that_count_is_no_level(how, success):
    """The truth is the fit of the rows that count."""
    frame, rest, options = lost_third(how)
    if how == "filter" and success == ["na", "yes"]:
        with pytest.raises(UsageError, match="success='na' is no level of the response 'out'"):
            fit(frame, success=success, **options)
        return
    model, truth = fit(frame, success=success, **options), fit(rest, success="yes")
    assert model.objective == pytest.approx(truth.objective, rel=1e-12)
    np.testing.assert_allclose(model.params, truth.params, rtol=1e-8)
    bigmm.plan(FORMULA, frame, family="bernoulli", success=success, **options)


def test_success_names_a_level_without_rows_that_count():
    frame, _, _ = lost_third("missing")
    message = "success='na' is no level with complete rows of the response 'out'; .*'no', 'yes'"
    with pytest.raises(UsageError, match=message):
        fit(frame, success="na")


@pytest.mark.parametrize("success", [1, True, 1.0, "1", "True", np.int64(1), np.bool_(True)])
@pytest.mark.parametrize("kind", ["int8", "bool", "float32", "category", "Int64", "boolean"])
def test_numbers_and_booleans_that_are_the_same_number(success, kind):
    """docs/levels.md: True and 1 are one level, also in success=."""
    frame = levelled([0, 1]).drop(columns="out")
    truth = fit(frame, "number ~ x + (1 | g)")
    same(fit(frame.assign(number=frame["number"].astype(kind)), "number ~ x + (1 | g)", success=success), truth)


def test_success_that_is_no_text():
    """The command line hands over bytes that are no UTF-8 as lone surrogates."""
    with pytest.raises(UsageError, match="name the level of the response"):
        fit(levelled(["no", "yes"]), success="\udce9")
    with pytest.raises(UsageError, match="name the level of the response"):
        fit(levelled([0, 1]), success=2**70)
