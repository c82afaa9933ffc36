"""Responses outside the family's range, doubtful proportions, and starting values."""

import numpy as np
import pytest

from bigmm.families import FAMILIES, check_response, doubt_response, family, rows, start_eta, start_mean
from tests.families.pairs import PAIRS, sample_rows


@pytest.mark.parametrize("kind", PAIRS, ids=str)
def test_what_a_family_gives_it_also_takes(kind):
    y, w, _eta = sample_rows(kind)
    assert check_response(kind, y, w) is None and check_response(kind, y, None) is None
    assert doubt_response(kind, y, w) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bernoulli", 2.0, "response 2: a bernoulli response is 0 or 1; recode it, or use family='binomial' with "),
        ("bernoulli", 0.5, "response 0.5: a bernoulli response is 0 or 1"),
        ("binomial", 1.25, "response 1.25: a binomial response is a proportion from 0 to 1; write cbind(successes, "),
        ("binomial", -0.1, "response -0.1: a binomial response is a proportion from 0 to 1"),
        ("poisson", -1.0, "response -1: a poisson response is a count 0, 1, 2, ...; give an exposure as offset"),
        ("poisson", 1.5, "response 1.5: a poisson response is a count"),
        ("negative_binomial", -3.0, "response -3: a negative_binomial response is a count"),
        ("gamma", 0.0, "response 0: a gamma response is greater than 0; drop the row, or model the zeros apart"),
        ("inverse_gaussian", -2.0, "response -2: an inverse_gaussian response is greater than 0"),
        ("beta", 0.0, "response 0: a beta response lies strictly between 0 and 1; use family='binomial' for successes"),
        ("beta", 1.0, "response 1: a beta response lies strictly between 0 and 1"),
        ("truncated_poisson", 0.0, "response 0: a truncated_poisson response is a count 1, 2, 3, ...; use family="),
        ("truncated_poisson", 1.5, "response 1.5: a truncated_poisson response is a count 1, 2, 3, ..."),
        ("gaussian", np.inf, "response inf is not a finite number: drop or mend the row"),
        ("poisson", np.nan, "response nan is not a finite number"),
    ],
)
def test_a_response_outside_the_range_is_named(name, value, message):
    fine = 0.5 if name == "beta" else 1.0
    y = np.array([fine, fine, value, value])
    row, text = check_response(family(name), y, None)
    assert row == 2 and text.startswith(message)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_bad_weight_is_named(weight):
    row, text = check_response(family("binomial"), np.full(3, 0.5), np.array([2.0, weight, 4.0]))
    assert row == 1 and text == f"weight {weight:g} is not a non-negative number"


def test_counts_may_carry_rounding_errors():
    assert check_response(family("poisson"), np.array([3.0 + 1e-9, 1e9 + 1e-6]), None) is None


def test_a_proportion_that_is_no_number_of_successes_is_doubted():
    kind, y = family("binomial"), np.array([0.5, 1.0 / 3.0, 0.3])
    assert doubt_response(kind, y, np.array([2.0, 3.0, 10.0])) is None
    row, text = doubt_response(kind, y, np.array([2.0, 3.0, 7.0]))
    assert row == 2 and text.startswith("proportion 0.3 times its number of trials is not an integer")
    row, text = doubt_response(kind, y, None)
    assert row == 0 and text.startswith("proportion 0.5 needs its number of trials: give weights=")
    assert doubt_response(family("poisson"), y, None) is None


@pytest.mark.parametrize("kind", PAIRS, ids=str)
def test_starting_values_have_a_mean_in_range_and_a_finite_likelihood(kind):
    y, w, _eta = sample_rows(kind)
    eta = start_eta(kind, y, w)
    if kind.name in ("bernoulli", "binomial") and kind.link == "log":
        assert (eta < 0.0).all()
    assert np.isfinite(rows.score_full(kind, y, w, eta, 1.0)).all()
    np.testing.assert_allclose(rows.mean(kind, eta), start_mean(kind, y, w), rtol=1e-12)


def test_starting_means_are_r_s():
    y, w = np.array([0.0, 1.0]), np.array([1.0, 3.0])
    np.testing.assert_allclose(start_mean(family("binomial"), y, w), [0.25, 0.875])
    np.testing.assert_allclose(start_mean(family("bernoulli"), y, None), [0.25, 0.75])
    np.testing.assert_allclose(start_mean(family("poisson"), y, w), [0.1, 1.1])
    np.testing.assert_allclose(start_mean(family("negative_binomial"), y, w), [1.0 / 6.0, 1.0])
    np.testing.assert_allclose(start_mean(family("gamma"), y + 2.0, w), [2.0, 3.0])


def test_gaussian_with_a_log_link_starts_from_any_response():
    y = np.array([-2.0, 0.0, 3.0])
    for link in FAMILIES["gaussian"].links:
        assert np.isfinite(start_eta(family("gaussian", link), y)).all()
