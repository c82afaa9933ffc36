"""The worked page of `docs/extending/statistic.md` is code that runs."""

import re
from pathlib import Path

import pytest

import bigmm
from bigmm.datasets import penicillin
from bigmm.errors import UsageError


@pytest.fixture(scope="module")
def intraclass_correlations():
    text = (Path(__file__).parents[2] / "docs" / "extending" / "statistic.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    space: dict = {}
    exec(compile("from __future__ import annotations\n" + code, "statistic.md", "exec"), space)  # noqa: S102
    return space["intraclass_correlations"]


def test_the_statistic_of_the_page_has_the_digits_of_lme4(intraclass_correlations):
    """lme4 1.1-31 prints variances of 0.7169 (plate), 3.7309 (sample) and 0.3024 (residual)."""
    fit = bigmm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin())
    found = intraclass_correlations(fit.fitted)
    total = 0.7169 + 3.7309 + 0.3024
    assert found["plate"] == pytest.approx(0.7169 / total, abs=2e-4)
    assert found["sample"] == pytest.approx(3.7309 / total, abs=2e-4)


def test_families_without_a_residual_variance_are_refused(intraclass_correlations):
    rows = penicillin().assign(large=lambda d: (d.diameter > 23).astype(int))
    fit = bigmm.glmm("large ~ 1 + (1 | plate)", rows, family="bernoulli", nagq=0)
    with pytest.raises(UsageError, match="needs a residual variance"):
        intraclass_correlations(fit.fitted)
