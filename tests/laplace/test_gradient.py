"""Every family with every link, in both engines: the value against dense matrices, the gradient against differences."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.families import rows
from tests.families.pairs import PAIRS
from tests.laplace.models import KINDS, Rows, dense_laplace, differences

TOLERANCE = 1e-6
SINGLE = ["one", "one slope"]


def weight_kinds(family) -> list[bool]:
    """Which weights log|M| may take: observed or not."""
    if family.has_dispersion:
        return [True]
    return [False] if family.canonical else [False, True]


CASES = [
    pytest.param(family, observed, id=f"{family.name}-{family.link}-{'observed' if observed else 'expected'}")
    for family in PAIRS
    for observed in weight_kinds(family)
]


def check(model: Rows, engine, observed: bool, by_differences: bool = True) -> None:
    found = engine.evaluate(model.psi)
    assert np.isfinite(found.value)
    assert found.value == pytest.approx(engine.value(model.psi), rel=1e-13)
    assert found.value == pytest.approx(dense_laplace(model, model.psi, observed), rel=1e-10)
    if by_differences:
        gradient = differences(engine.value, model.psi)
        assert np.abs(found.gradient - gradient).max() <= TOLERANCE * np.abs(gradient).max()


@pytest.mark.parametrize(("family", "observed"), CASES)
@pytest.mark.parametrize("kind", SINGLE)
def test_single_factor(family, observed, kind):
    model = Rows.draw(family, kind)
    check(model, model.single(observed), observed)


@pytest.mark.parametrize(("family", "observed"), CASES)
@pytest.mark.parametrize("kind", ["crossed", "nested", "crossed slopes"])
def test_several_terms(family, observed, kind):
    model = Rows.draw(family, kind)
    check(model, model.crossed(observed), observed)


@pytest.mark.parametrize(("family", "observed"), CASES)
@pytest.mark.parametrize("kind", SINGLE)
def test_the_engines_agree_on_one_factor(family, observed, kind):
    model = Rows.draw(family, kind)
    one, other = model.single(observed).evaluate(model.psi), model.crossed(observed).evaluate(model.psi)
    # Newton's last step on a beta response with heavy tails is longer: log|M| is off by as much as its modes are.
    precision = 1e-10 if (family.name, family.link) == ("beta", "cauchit") else 1e-11
    assert one.value == pytest.approx(other.value, rel=precision)
    assert np.abs(one.gradient - other.gradient).max() <= 1e-8 * np.abs(one.gradient).max()


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_without_weights_and_offset(kind):
    family = PAIRS[0]
    model = Rows.draw(family, kind, weighted=False)
    assert model.w is None and model.offset is None
    check(model, model.single(False) if kind in SINGLE else model.crossed(False), False)


@pytest.mark.parametrize("family", [f for f in PAIRS if not f.has_dispersion and not f.canonical], ids=str)
def test_expected_and_observed_weights_differ(family):
    model = Rows.draw(family, "one")
    assert abs(model.single(False).value(model.psi) - model.single(True).value(model.psi)) > 1e-6


@pytest.mark.parametrize("family", PAIRS[:8:2], ids=str)
def test_a_template_below_zero_is_its_mirror_image(family):
    model = Rows.draw(family, "one slope")
    mirrored = model.psi.copy()
    mirrored[3:5] *= -1.0
    one, other = model.single(False).evaluate(model.psi), model.single(False).evaluate(mirrored)
    assert one.value == pytest.approx(other.value, rel=1e-12)
    assert one.gradient[3:5] == pytest.approx(-other.gradient[3:5], rel=1e-8)


@pytest.mark.parametrize("kind", list(KINDS))
def test_theta_zero_is_stationary_and_the_model_without_effects(kind):
    family = next(f for f in PAIRS if f.name == "poisson" and f.link == "log")
    model = Rows.draw(family, kind)
    psi = model.psi.copy()
    psi[3:] = 0.0
    found = (model.single(False) if kind in SINGLE else model.crossed(False)).evaluate(psi)
    eta = model.x @ psi[:3] + model.offset
    assert found.value == pytest.approx(-2.0 * rows.log_density(family, model.y, model.w, eta).sum(), rel=1e-12)
    scales = np.flatnonzero(model.covariances.lower == 0) + 3
    assert found.gradient[scales] == pytest.approx(0.0, abs=1e-9)


def test_levels_without_rows_count_nothing():
    family = PAIRS[0]
    model = Rows.draw(family, "one")
    keep = model.refs[0] != 3
    few = model.with_rows(keep)
    renumbered = Rows(**{**few.__dict__, "refs": (few.refs[0] - (few.refs[0] > 3),), "terms": ((8, (0,), False),)})
    one, other = few.single(False).evaluate(model.psi), renumbered.single(False).evaluate(model.psi)
    assert one.value == pytest.approx(other.value, rel=1e-13)
    assert one.gradient == pytest.approx(other.gradient, rel=1e-10)
