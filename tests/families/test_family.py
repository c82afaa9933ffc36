"""Names, numbers, defaults, and what is refused."""

import dataclasses
import pickle

import numpy as np
import pytest

from bigmm.errors import UsageError
from bigmm.families import FAMILIES, LINKS, NAMES, family, rows
from tests.families.pairs import PAIRS, sample_rows


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("bernoulli", "bernoulli"),
        ("Gamma", "gamma"),
        ("inverse.gaussian", "inverse_gaussian"),
        ("InverseGaussian", "inverse_gaussian"),
        ("nb", "negative_binomial"),
        ("negative.binomial", "negative_binomial"),
        ("NegativeBinomial", "negative_binomial"),
        ("nbinom2", "negative_binomial"),
        ("normal", "gaussian"),
        ("beta_family", "beta"),
        ("truncatedPoisson", "truncated_poisson"),
    ],
)
def test_spellings_of_other_packages_are_understood(spelling, name):
    assert family(spelling).name == name


def test_default_links():
    defaults = {name: family(name).link for name in FAMILIES}
    assert defaults == {
        "bernoulli": "logit",
        "binomial": "logit",
        "poisson": "log",
        "negative_binomial": "log",
        "gaussian": "identity",
        "gamma": "inverse",
        "inverse_gaussian": "log",
        "beta": "logit",
        "truncated_poisson": "log",
    }


def test_ids_are_distinct_small_integers():
    assert [family(name).family_id for name in NAMES] == list(range(len(NAMES)))
    assert sorted(LINKS.values()) == list(range(8))


def test_a_family_is_a_frozen_value():
    kind = family("poisson", "sqrt")
    assert family(kind) == kind and family(kind, "log").link == "log"
    assert pickle.loads(pickle.dumps(kind)) == kind
    assert str(kind) == "poisson (sqrt link)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind.name = "gamma"


def test_who_has_a_dispersion():
    dispersed = {name for name in FAMILIES if family(name).has_dispersion}
    assert dispersed == {"negative_binomial", "gaussian", "gamma", "inverse_gaussian", "beta"}


@pytest.mark.parametrize("kind", PAIRS, ids=str)
def test_canonical_means_expected_and_observed_weights_agree(kind):
    y, w, eta = sample_rows(kind)
    _ll, _d1, fisher, observed, fisher_slope, observed_slope = rows.score_full(kind, y, w, eta, 1.7)
    assert np.allclose(fisher, observed, rtol=1e-12, atol=0.0) == kind.canonical
    assert np.allclose(fisher_slope, observed_slope, rtol=1e-10, atol=1e-14) == kind.canonical


@pytest.mark.parametrize(
    ("name", "link", "message"),
    [
        ("weibull", None, "unknown family 'weibull': use one of bernoulli, binomial, poisson, negative_binomial, "),
        ("poisson", "loglog", "unknown link 'loglog': use one of logit, probit, cloglog, cauchit, log, identity, "),
        ("poisson", "logit", "link 'logit' does not go with family 'poisson': use one of log, identity, inverse, sqrt"),
        ("binomial", "sqrt", "link 'sqrt' does not go with family 'binomial': use one of logit, probit, "),
        ("inverse_gaussian", "1/mu^2", "unknown link '1/mu^2': use one of "),
        (3, None, "family must be a name such as 'poisson', not 3"),
        ("poisson", 3, "link must be a name such as 'log', not 3"),
    ],
)
def test_what_is_refused(name, link, message):
    with pytest.raises(UsageError) as caught:
        family(name, link)
    assert message in str(caught.value)
