"""The rules that tell parameters without a finite estimate from those that are merely poorly known."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.errors import DataError
from bigmm.families import family
from bigmm.laplace.start import Start
from bigmm.search import separation

NAMES = np.array(["Intercept", "x"], object)


def start(ll: float) -> Start:
    return Start(np.array([0.3, -8.0]), 1.0, np.eye(2), ll, 3, 1.0, np.array([0.1, 0.1]))


@pytest.mark.parametrize("name", ["bernoulli", "binomial"])
def test_separation_needs_every_row_right(name):
    with pytest.raises(DataError, match=r"complete separation: .*every 'y' .*\(coefficient 'x' grows"):
        separation.check_separation(family(name), start(-0.001), "y", NAMES)
    separation.check_separation(family(name), start(-0.7), "y", NAMES)


def test_other_families_fit_perfectly_if_they_can():
    separation.check_separation(family("poisson"), start(-0.001), "y", NAMES)


@pytest.mark.parametrize(
    ("beta", "error", "largest", "lost"),
    [
        (25.0, 1e4, 1.0, True),
        (-14.0, 1.0, 1.0, False),
        (25.0, 25.0, 1.0, False),
        (0.001, 40.0, 1.0, False),
        (3.0, 1e4, 1e-6, False),
    ],
)
def test_quasi_separation(beta, error, largest, lost):
    estimates, errors = np.array([0.3, beta]), np.array([0.1, error])
    suspects = separation.lost_coefficients(family("bernoulli"), estimates, errors, start(-100.0))
    found = separation.without_estimate(suspects, errors, np.array([1.0, largest]), NAMES)
    assert bool(found) == lost
    assert found.startswith("quasi-complete separation: 'x' can grow without limit") or not lost


def test_dispersion():
    gamma, counts = family("gamma"), family("negative_binomial")
    low, high = separation.dispersion_bounds(gamma, 2.0)
    assert low < np.log(2.0) < high
    assert separation.runaway_dispersion(gamma, 0.0, (low, high)) == ""
    assert "the dispersion of gamma is not identified: it falls to 0 without limit" in separation.runaway_dispersion(
        gamma, low, (low, high)
    )
    assert "grows without limit" in separation.runaway_dispersion(gamma, high, (low, high))
    bounds = separation.dispersion_bounds(counts, 2.0)
    assert "use family='poisson'" in separation.runaway_dispersion(counts, bounds[1], bounds)
    assert separation.runaway_dispersion(family("poisson"), 0.0, bounds) == ""


def test_variance():
    names = ("g.(Intercept)", "g.x")
    found = separation.runaway_variance(family("bernoulli"), np.array([0.5, 80.0]), names)
    assert found.startswith("the standard deviation of g.x runs away (80 on the scale of the linear predictor)")
    assert separation.runaway_variance(family("bernoulli"), np.array([0.5, 8.0]), names) == ""
    assert separation.runaway_variance(family("poisson"), np.array([0.5, 80.0]), names) == ""
