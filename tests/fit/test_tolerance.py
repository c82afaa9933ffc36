"""What may be asked of Monte Carlo errors."""

from __future__ import annotations

import numpy as np
import pytest

import bigmm
from bigmm.errors import UsageError
from bigmm.search.options import checked_tolerance
from tests.fit.conftest import FORMULA


@pytest.mark.parametrize("given", [0.01, (0.01,), (0.01, 0.0), (-1, 1), (np.nan, 1.0), ("small", 1.0), None, (1, 1, 1)])
def test_what_is_no_tolerance(frame, given):
    with pytest.raises(UsageError, match="mc_tol must be two positive numbers"):
        bigmm.lmm(FORMULA, frame, solver="iterative", mc_tol=given)
    with pytest.raises(UsageError, match="such as .0.01, 0.05.; got"):
        bigmm.glmm("k ~ x + (1 | g) + (1 | h)", frame, family="poisson", mc_tol=given)


def test_numbers_of_any_kind_are_taken():
    assert checked_tolerance([1, np.float32(0.5)]) == (1.0, 0.5)
    assert checked_tolerance((0.01, np.inf)) == (0.01, np.inf)
