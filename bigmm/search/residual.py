"""A residual variance that is (nearly) zero: the advice of a search that cannot end because of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bigmm.blocks import Gram
from bigmm.optimize import Outcome

NO_RESIDUAL = 1e-3
"""A residual standard deviation below this share of the response's is nearly none."""


def with_residual_advice(outcome: Outcome, sigma: float, gram: Gram) -> Outcome:
    """The outcome; where the search has not converged because the effects reproduce the response, with advice that says
    so: theta is relative to sigma, and goes to infinity as sigma goes to zero."""
    spread = float(np.sqrt(gram.y_sum_squares_total / max(gram.n, 1)))
    # A small sigma alone is no fault: a search that converged is good.
    if outcome.converged or sigma > NO_RESIDUAL * spread:
        return outcome
    advice = (
        f"the residual variance is (nearly) zero: sigma is {sigma:.2g}, where the response has a standard deviation of "
        f"{spread:.2g}, so the effects reproduce the response; use fewer effects, or check that the response is not "
        "computed from the covariates and grouping factors"
    )
    return replace(outcome, advice=advice)
