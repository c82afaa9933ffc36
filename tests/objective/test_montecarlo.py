"""The Monte Carlo error of a difference: paired probes against brute force, and when errors are independent."""

import numpy as np
import pytest

from bigmm.objective.montecarlo import difference_error, paired_error


def draws(rng, t, correlation):
    """(max(t1, t2), 2) pairs with unit variances."""
    root = np.linalg.cholesky([[1.0, correlation], [correlation, 1.0]])
    return rng.standard_normal((max(t), 2)) @ root.T


@pytest.mark.parametrize("t", [(8, 8), (8, 32), (32, 8)])
@pytest.mark.parametrize("correlation", [0.0, 0.9, -0.5])
def test_paired_error_is_the_spread_of_the_difference(t, correlation):
    rng = np.random.default_rng(0)
    differences, variances = [], []
    for _ in range(4000):
        pairs = draws(rng, t, correlation)
        a, b = pairs[: t[0], 0], pairs[: t[1], 1]
        differences.append(a.mean() - b.mean())
        variances.append(paired_error(a, b) ** 2)
    expected = 1.0 / t[0] + 1.0 / t[1] - 2.0 * correlation / max(t)
    assert np.mean(variances) == pytest.approx(expected, rel=0.05)
    assert np.var(differences) == pytest.approx(expected, rel=0.08)
    assert min(variances) >= 0.0


def test_equal_probes_leave_no_error():
    each = np.random.default_rng(1).standard_normal(16)
    assert paired_error(each, each + 3.0) == pytest.approx(0.0, abs=1e-15)


def record(seed=0, probed=("d",), objective=0.3):
    each = np.random.default_rng(seed).standard_normal(8)
    return {"objective": objective, "seed": seed, "probed": list(probed), "objective_each": list(each)}


def test_what_has_no_probes_in_common_has_independent_errors():
    other = record(1, objective=0.4)
    assert difference_error(record(), other).value == pytest.approx(0.5)
    assert "seeds differ" in difference_error(record(), other).how
    strange = difference_error(record(), record(probed=("e",), objective=0.4))
    assert strange.value == pytest.approx(0.5) and "no probed factor in common" in strange.how
    assert difference_error(record(), record()).how == "common probes"


def test_an_exact_fit_adds_no_error():
    one = difference_error(None, record())
    assert one.value == pytest.approx(0.3) and one.how == "one fit is exact"
    assert difference_error(None, None).value == 0.0
