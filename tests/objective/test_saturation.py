"""Random effects that the fixed effects reproduce: P Z = 0 by algebra, so REML is the same at every variance."""

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.objective import Criterion
from tests.oracle import SHAPES, Rows

BREAKS = [26, 30, 54, 25, 70, 52, 51, 26, 67, 18, 21, 29, 17, 12, 18, 35, 30, 36, 36, 21, 24, 18, 10, 43, 28, 15, 26]
BREAKS += [27, 14, 29, 19, 29, 31, 41, 20, 44, 42, 26, 19, 16, 39, 28, 21, 39, 29, 20, 21, 24, 17, 13, 15, 15, 16, 28]
"""R's warpbreaks (Tippett 1950): wool A and B, tension L, M and H, nine looms each."""


def warpbreaks() -> pd.DataFrame:
    tension = np.tile(np.repeat(["L", "M", "H"], 9), 2)
    return pd.DataFrame({"breaks": np.array(BREAKS, float), "wool": np.repeat(["A", "B"], 27), "tension": tension})


def rows(origin: float = 0.0) -> pd.DataFrame:
    rng, n = np.random.default_rng(1), 600
    g, h, x = rng.integers(0, 12, n), rng.integers(0, 9, n), rng.normal(size=n)
    y = rng.normal(size=12)[g] + 0.7 * rng.normal(size=9)[h] + x * (1 + 0.5 * rng.normal(size=12)[g])
    return pd.DataFrame({"y": y + rng.normal(size=n), "g": g, "h": h, "x": x + origin, "w": rng.uniform(0.5, 2, n)})


def test_warpbreaks_is_converged_at_zero_and_says_why():
    """lme4 1.1-31: 379.0768 at theta 0, 1 and 10."""
    model = bigmm.lmm("breaks ~ wool * tension + (1 | tension:wool)", warpbreaks())
    assert model.objective == pytest.approx(379.0768, abs=1e-4)
    assert model.converged
    assert model.is_singular
    assert model.theta.tolist() == [0.0]
    assert model.optimizer_result.advice == (
        "the fixed effects have a coefficient for every level of 'tension:wool', so the REML criterion does not depend "
        "on the variance of its random effects 'Intercept', which is set to 0; remove them, or the fixed effects"
    )


SATURATED = {
    "y ~ C(g) + (1 | g)": [True],
    "y ~ C(g) + (1 | g) + (1 | h)": [True, False],
    "y ~ C(g) * x + (1 + x | g)": [True, True, True],
    "y ~ C(g) * x + (1 + x || g)": [True, True],
    "y ~ C(g) + x + (1 + x | g)": [True, True, False],
    "y ~ C(g):x + (1 + x | g)": [False, True, True],
    "y ~ C(g) * C(h) + (1 | g:h) + (1 | g) + (1 | h)": [True, True, True],
    "y ~ C(h) + (1 | g:h) + (1 | h)": [False, True],
    "y ~ x + (1 + x | g)": [False, False, False],
}


@pytest.mark.parametrize(
    "how", [{}, {"weights": "w"}, {"solver": "iterative"}, {"optimizer": "bobyqa", "solver": "exact"}], ids=str
)
@pytest.mark.parametrize("formula", SATURATED)
def test_variances_without_information_are_zero(formula, how):
    model = bigmm.lmm(formula, rows(), **how)
    saturated = np.array(SATURATED[formula])
    assert model.converged, model.optimizer_result.advice
    assert np.all(model.theta[saturated] == 0.0)
    assert ("does not depend" in model.optimizer_result.advice) == bool(np.any(SATURATED[formula]))
    if np.all(saturated) and model.solver == "exact":  # any other variance is as good
        other = model.fitted.criterion.value(np.where(model.fitted.criterion.lower == 0, 1.0, 0.3))
        assert other == pytest.approx(model.objective, abs=1e-6)


def test_maximum_likelihood_has_its_minimum_at_zero():
    model = bigmm.lmm("y ~ C(g) + (1 | g)", rows(), reml=False)
    assert model.converged
    assert model.theta.tolist() == [0.0]
    assert model.optimizer_result.advice == ""


def test_a_covariate_far_from_zero_is_not_mistaken_for_the_intercept():
    near, far = (bigmm.lmm("y ~ C(g) + x + (1 + x | g)", rows(origin)) for origin in (0.0, 1e4))
    assert far.converged
    assert far.objective == pytest.approx(near.objective, abs=1e-5)
    assert "'x'" not in far.optimizer_result.advice
    assert far.theta[1:] @ far.theta[1:] == pytest.approx(near.theta[1:] @ near.theta[1:], rel=1e-3)


def test_a_factor_kept_as_levels():
    """A factor among the fixed effects that is no block of dummy columns."""
    shape = next(shape for shape in SHAPES.values() if shape.fixed)
    drawn = Rows.draw(shape, 1)
    criterion = Criterion(drawn.gram, drawn.covariances, True)
    assert criterion.rank > shape.fixed
    from bigmm.search.linear import minimize_criterion

    assert minimize_criterion(criterion, "auto").converged
