"""Variances whose best estimate is zero: exactly zero, certified, said to be singular; whatever the method."""

import json
from pathlib import Path

import numpy as np
import pytest

import bigmm

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = {case["id"]: case for case in json.loads((REFERENCE / "reference.json").read_text())["cases"]}
SINGULAR = sorted(
    name for name, case in CASES.items() if case["expected"].get("is_singular") and len(case["expected"]["theta"]) <= 3
)


def fit(name, **options):
    case = CASES[name]
    return bigmm.lmm(
        case["formula"], REFERENCE / "data" / f"{case['data']}.parquet", reml=case["REML"], weights=case["weights"],
        offset=case["offset"], **options,
    )  # fmt: skip


def test_there_are_singular_cases():
    assert any("dyestuff2" in name for name in SINGULAR)


@pytest.mark.parametrize("name", SINGULAR)
def test_singular_fits_are_certified(name):
    model = fit(name)
    outcome = model.fitted.outcome
    assert model.is_singular
    assert outcome.converged
    zero = outcome.at_boundary
    assert zero.any()
    assert np.all(outcome.theta[zero] == 0.0)
    # KKT: no direction away from zero lowers the criterion
    criterion = model.fitted.criterion
    for i in np.flatnonzero(zero):
        for step in (1e-3, 1e-1):
            moved = outcome.theta.copy()
            moved[i] = step
            assert criterion.value(moved) >= outcome.value


@pytest.mark.parametrize("optimizer", ["newton", "bobyqa", "newuoa", "cobyla", "nelder_mead", "lbfgs", "slsqp"])
def test_every_method_finds_exactly_zero(optimizer):
    name = next(name for name in SINGULAR if "dyestuff2" in name)
    model = fit(name, optimizer=optimizer)
    assert model.converged, model.fitted.outcome.advice
    assert model.theta.tolist() == [0.0]
    assert model.objective == pytest.approx(CASES[name]["expected"]["objective"], abs=1e-6)


def test_a_start_at_zero_is_left_when_zero_is_not_the_minimum():
    name = next(name for name in CASES if name.startswith("dyestuff") and not CASES[name]["expected"]["is_singular"])
    model = fit(name, theta0=[0.0])
    assert model.converged
    assert model.theta[0] > 0.1
    stuck = fit(name, theta0=[0.0], optimizer="newton")
    assert not stuck.converged
    assert "a variance at zero would be better positive" in stuck.fitted.outcome.advice
