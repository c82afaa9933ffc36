"""Trouble with a generalized model is named: what is wrong, where, and what to do."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bigmm
from bigmm.errors import BigmmWarning, DataError, FormulaError, UsageError
from tests.fit.test_glmm import rows

ONE, TWO = "y ~ x + (1 | g)", "y ~ x + (1 | g) + (1 | h)"


@pytest.fixture(scope="module")
def frame():
    return rows()


@pytest.mark.parametrize(("formula", "nagq"), [(ONE, 1), (ONE, 9), (ONE, 0), (TWO, 1), (TWO, 0)])
@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_complete_separation(frame, formula, nagq, link):
    frame = frame.assign(y=(frame["x"] > 0.1) * 1.0)
    message = (
        r"complete separation: the fixed effects predict every 'y' without error \(coefficient 'x' grows without "
        r"limit\), so "
        "the likelihood has no maximum: drop or merge that covariate"
    )
    with pytest.raises(DataError, match=message):
        bigmm.glmm(formula, frame, family="bernoulli", nagq=nagq, link=link)


@pytest.mark.parametrize(("family", "response", "value"), [("bernoulli", "y", 1.0), ("poisson", "k", 0.0)])
@pytest.mark.parametrize("terms", ["(1 | g)", "(1 | g) + (1 | h)"])
@pytest.mark.parametrize("nagq", [0, 1])
def test_quasi_separation_names_the_coefficient_and_keeps_the_rest(frame, family, response, value, terms, nagq):
    rare = np.arange(400) % 10 == 0
    frame = frame.assign(rare=rare * 1.0, **{response: np.where(rare, value, frame[response])})
    fit = bigmm.glmm(f"{response} ~ x + rare + {terms}", frame, family=family, nagq=nagq)
    assert not fit.converged
    assert re.match(
        r"quasi-complete separation: 'rare' can grow without limit.*drop or merge", fit.optimizer_result.advice
    )
    others = bigmm.glmm(f"{response} ~ x + {terms}", frame[~rare], family=family, nagq=nagq)
    assert others.converged
    assert fit.params["x"] == pytest.approx(others.params["x"], abs=2e-3)
    assert fit.objective == pytest.approx(others.objective, abs=1e-2)


def test_rare_events_are_not_separation():
    """One event in a small category: a large standard error, but an estimate."""
    frame = rows(4000)
    frame["rare"] = (np.arange(4000) % 100 == 0) * 1.0
    frame.loc[frame["rare"] == 1.0, "y"] = 1.0
    frame.loc[0, "y"] = 0.0
    fit = bigmm.glmm("y ~ x + rare + (1 | g)", frame, family="bernoulli")
    assert fit.converged, fit.optimizer_result.advice
    assert 2.0 < fit.params["rare"] < 6.0


def test_levels_that_predict_the_response(frame):
    frame = frame.assign(y=(frame["g"].str[1:].astype(int) % 2) * 1.0)
    fit = bigmm.glmm("y ~ 1 + (1 | g)", frame, family="bernoulli")
    assert not fit.converged
    assert re.match(
        r"the standard deviation of g\.\S+ runs away \(\S+ on the scale of the linear predictor\): its levels predict "
        "the response without error; drop the term",
        fit.optimizer_result.advice,
    )


@pytest.mark.parametrize(
    ("family", "value"), [("poisson", 0.0), ("negative_binomial", 0.0), ("bernoulli", 1.0), ("gamma", 2.0)]
)
def test_a_constant_response(frame, family, value):
    message = rf"the response is constant: 'y' .*is {value:g} in all 400 rows, so there is no variance to explain"
    with pytest.raises(DataError, match=message):
        bigmm.glmm(ONE, frame.assign(y=value), family=family)


def test_counts_that_are_all_zero_with_an_offset(frame):
    with pytest.raises(DataError) as caught:
        fit = bigmm.glmm("y ~ x + (1 | g)", frame.assign(y=0.0), family="poisson", offset="off")
        assert not fit.converged and "quasi-complete separation: 'Intercept'" in fit.optimizer_result.advice
        raise DataError("said by the advice")
    assert re.search("said by the advice|constant|vanish", str(caught.value))


OUTSIDE = [
    ("bernoulli", 2.0, "response 2: a bernoulli response is 0 or 1; recode it, or use family='binomial' with weights="),
    ("binomial", 1.25, "response 1.25: a binomial response is a proportion from 0 to 1; write cbind"),
    ("poisson", -1.0, "response -1: a poisson response is a count"),
    ("poisson", 0.5, "response 0.5: a poisson response is a count 0, 1, 2, ...; give an exposure as offset"),
    ("negative_binomial", 2.5, "response 2.5: a negative_binomial response is a count"),
    ("gamma", 0.0, "response 0: a gamma response is greater than 0; drop the row, or model the zeros apart"),
    ("inverse_gaussian", -3.0, "response -3: an inverse_gaussian response is greater than 0"),
]


@pytest.mark.parametrize(("family", "bad", "message"), OUTSIDE)
def test_a_response_outside_the_range_is_found_in_its_file(frame, tmp_path, family, bad, message):
    good = {"gamma": frame["pos"], "inverse_gaussian": frame["pos"]}.get(family, frame["y"]).to_numpy().copy()
    good[257] = bad
    table = pa.Table.from_pandas(frame.assign(v=good), preserve_index=False)
    for number in range(2):
        pq.write_table(table.slice(200 * number, 200), tmp_path / f"part-{number}.parquet", row_group_size=50)
    with pytest.raises(
        DataError, match=rf"part-1\.parquet, row groups 0-3: response 'v', row 57: {re.escape(message)}"
    ):
        bigmm.glmm("v ~ x + (1 | g)", tmp_path, family=family)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, r"response 'p': proportion 0\.25 needs its number of trials: give weights=, or successes / trials"),
        (
            "trials",
            r"response 'p': proportion 0\.25 times its number of trials is not an integer: are the weights the numbers",
        ),
    ],
)
def test_proportions_without_trials_are_doubted_once(frame, weights, message):
    frame = frame.assign(p=np.where(frame["y"] == 1, 0.25, 0.75), trials=5)
    with pytest.warns(BigmmWarning, match=message) as caught:
        bigmm.glmm("p ~ x + (1 | g)", frame, family="binomial", weights=weights, n_workers=2)
    assert len([w for w in caught if w.category is BigmmWarning]) == 1


def test_proper_proportions_are_not_doubted(frame):
    frame = frame.assign(p=np.where(frame["y"] == 1, 0.25, 0.75), trials=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", BigmmWarning)
        assert bigmm.glmm("p ~ x + (1 | g)", frame, family="binomial", weights="trials").converged


@pytest.mark.parametrize(
    ("formula", "offset", "name"),
    [
        ("k ~ x + (1 | g)", "off", "'off'"),
        ("k ~ x + offset(off) + (1 | g)", None, "'off'"),
        ("k ~ x + offset(2 * off) + (1 | g)", "more", "'2 * off' + 'more'"),
    ],
)
def test_offsets_that_overflow_are_named(frame, formula, offset, name):
    frame = frame.assign(off=0.0, more=0.0)
    frame.loc[7, "off"] = 800.0
    highest = 1600 if "2 *" in formula else 800
    message = (
        "the deviance is not finite at the starting values (PIRLS found no mode): check for complete separation, "
        f"extreme covariates or offsets, and the link. Offset {name} goes from 0 to {highest}: mend such rows; an "
        "exposure enters as its logarithm"
    )
    with pytest.raises(DataError) as caught:
        bigmm.glmm(formula, frame, family="poisson", offset=offset)
    assert str(caught.value) == message


def test_offsets_that_end_at_the_edge_are_named(frame):
    frame = frame.assign(off=0.0)
    frame.loc[7, "off"] = 1e6
    message = r"(working weights vanish|deviance is not finite).*Offset 'off' goes from 0 to 1e\+06: mend such rows"
    with pytest.raises(DataError, match=message):
        bigmm.glmm("pos ~ x + (1 | g)", frame, family="gamma", link="log", offset="off")


def test_usual_offsets_are_not_blamed(frame):
    with pytest.raises(DataError, match=r"extreme covariates or offsets, and the link$"):
        bigmm.glmm("k ~ x + (1 | g)", frame, family="poisson", offset="off", theta0=[1e200])


@pytest.mark.parametrize("offset", [800.0, -1e4])
def test_a_large_constant_offset_is_no_trouble(frame, offset):
    plain = bigmm.glmm("k ~ x + (1 | g)", frame, family="poisson")
    moved = bigmm.glmm("k ~ x + (1 | g)", frame.assign(off=offset), family="poisson", offset="off")
    assert moved.converged
    assert moved.objective == pytest.approx(plain.objective, abs=1e-6)
    assert moved.params["Intercept"] + offset == pytest.approx(plain.params["Intercept"], abs=1e-4)


def test_covariates_of_any_size(frame):
    heavy = frame.assign(z=np.exp(10.0 * frame["x"]))
    fit = bigmm.glmm("k ~ z + (1 | g)", heavy, family="poisson")
    assert fit.converged and np.isfinite(fit.objective)


@pytest.mark.parametrize(
    ("family", "link", "response"),
    [
        ("gamma", "log", "pos"),
        ("gaussian", "log", "pos"),
        ("gaussian", "identity", "gauss"),
        ("negative_binomial", "log", "k"),
        ("inverse_gaussian", "log", "pos"),
    ],
)
@pytest.mark.parametrize("terms", ["(1 | row)", "(1 | g) + (1 | row)"])
def test_one_row_per_level_and_a_dispersion(frame, family, link, response, terms):
    message = (
        f"grouping factor 'row' has 400 levels for 400 rows: with one row per level its variance cannot be told apart "
        f"from the dispersion of {family}; remove the term, use a coarser factor, or a family without dispersion"
    )
    with pytest.raises(DataError, match=message):
        bigmm.glmm(f"{response} ~ x + {terms}", frame, family=family, link=link)


def test_one_row_per_level_without_dispersion_is_overdispersion(frame):
    rng = np.random.default_rng(2)
    frame = frame.assign(k=rng.poisson(np.exp(0.5 + 0.4 * frame["x"] + 0.8 * rng.normal(size=400))).astype(float))
    fit = bigmm.glmm("k ~ x + (1 | row)", frame, family="poisson")
    assert fit.converged and not fit.is_singular
    assert fit.theta[0] == pytest.approx(0.8, abs=0.15)


def test_counts_that_are_not_overdispersed(frame):
    frame = frame.assign(k=3.0 + np.arange(400) % 2)
    fit = bigmm.glmm("k ~ x + (1 | g)", frame, family="negative_binomial")
    assert not fit.converged
    assert "the shape of the negative binomial grows without limit" in fit.optimizer_result.advice
    assert "use family='poisson'" in fit.optimizer_result.advice
    poisson = bigmm.glmm("k ~ x + (1 | g)", frame, family="poisson")
    assert fit.objective == pytest.approx(poisson.objective, abs=1e-4)


@pytest.mark.parametrize(
    ("terms", "shown"),
    [
        ("(1 | g) + (1 | h)", r"\(Intercept \| g\), \(Intercept \| h\)"),
        ("(1 + x | g)", r"\(Intercept \+ x \| g\)"),
        ("(1 + x || g)", r"\(Intercept \| g\), \(x \| g\.1\)"),
    ],
)
def test_quadrature_needs_one_scalar_term(frame, terms, shown):
    message = (
        rf"nagq=9 needs exactly one scalar random effect such as \(1 \| g\), but the formula has {shown}: use nagq=1 "
        rf"\(Laplace\)"
    )
    with pytest.raises(UsageError, match=message):
        bigmm.glmm(f"y ~ x + {terms}", frame, family="bernoulli", nagq=9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"link": "inverse"}, "link 'inverse' does not go with family 'bernoulli': use one of logit, probit"),
        ({"link": "logistick"}, "unknown link 'logistick': use one of logit"),
        ({"family": "tweedie"}, "unknown family 'tweedie': use one of bernoulli, binomial, poisson"),
        ({"nagq": -1}, r"nagq must be 0 \(fast\), 1 \(Laplace\) or a number of quadrature points up to 100, got -1"),
        ({"nagq": 2.5}, "nagq must be .* got 2.5"),
        ({"nagq": True}, "nagq must be .* got True"),
        ({"nagq": 100_000}, "nagq must be .* up to 100, got 100000"),
        ({"laplace": "full"}, "laplace must be 'expected' or 'observed', got 'full'"),
        (
            {"family": "gamma", "laplace": "expected"},
            "laplace='expected' is no likelihood for gamma, .*: use 'observed'",
        ),
        ({"se": "robust"}, "se must be 'hessian' or 'rx', got 'robust'"),
        ({"theta0": [1.0, 2.0]}, r"theta0 must have 1 elements \(g\.\S+\), got \(2,\)"),
        ({"store": "s.zarr"}, "store= is not available"),
    ],
)
def test_calls_that_cannot_be_meant(frame, options, message):
    with pytest.raises(UsageError, match=message):
        bigmm.glmm(ONE, frame, **{"family": "bernoulli", **options})


def test_a_fixed_factor_with_many_levels(frame):
    message = (
        r"fixed factor 'row' has 400 levels: a generalized model keeps its columns dense; use \(1 \| row\) or fewer "
        r"levels"
    )
    with pytest.raises(UsageError, match=message):
        bigmm.glmm("y ~ C(row) + (1 | g)", frame, family="bernoulli")


def test_no_random_term(frame):
    with pytest.raises(FormulaError, match=r"no random term such as \(1 \| g\)"):
        bigmm.glmm("y ~ x", frame, family="bernoulli")


def test_one_level(frame):
    with pytest.raises(
        DataError, match=r"grouping factor 'one' has one level \(a\); a random effect needs at least two"
    ):
        bigmm.glmm("y ~ x + (1 | one)", frame.assign(one="a"), family="bernoulli")
