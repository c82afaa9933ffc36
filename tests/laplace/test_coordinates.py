"""The search's coordinates: any square root of a covariance, orthonormal columns, whitened coefficients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bigmm.families import family
from bigmm.laplace.coordinates import Coordinates, row_frame
from bigmm.laplace.objective import Parameters
from bigmm.objective.covariances import ModelCovariance, RootElements, TermCovariance, lower_factor
from tests.laplace.models import Rows, differences

CASES = [("one slope", "single"), ("nested slopes", "nested"), ("crossed slopes", "crossed")]


class Square(Rows):
    """The same model for engines that take every element of a square root."""

    @property
    def roots(self) -> RootElements:
        joints = [(t.joint, t.slots) for t in self.covariances.terms]
        elements = [(joint, row, column) for joint, slots in joints for column in slots for row in slots]
        return RootElements(tuple(elements), self.covariances.widths)


def drawn(kind: str) -> tuple[Rows, Square]:
    rows = Rows.draw(family("bernoulli", "probit"), kind)
    return rows, Square(**{name: getattr(rows, name) for name in Rows.__dataclass_fields__})


def turned(rows: Rows, square: Square) -> np.ndarray:
    """The engine's psi with each template times a rotation: not triangular, the same covariance."""
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    beta, theta, _ = rows.parameters().split(rows.psi)
    matrices = [lam @ turn if len(lam) == 2 else lam for lam in rows.covariances.lambdas(theta)]
    return np.concatenate([beta, square.roots.values(matrices)])


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_any_square_root_is_the_same_model(kind, engine):
    rows, square = drawn(kind)
    expected = getattr(rows, engine)(False).value(rows.psi)
    assert getattr(square, engine)(False).value(turned(rows, square)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_gradient_by_every_element_of_a_square_root(kind, engine):
    rows, square = drawn(kind)
    made, psi = getattr(square, engine)(False), turned(rows, square)
    assert made.evaluate(psi).gradient == pytest.approx(differences(made.value, psi), rel=1e-6, abs=1e-6)


def coordinates(kind: str, engine: str) -> tuple[Rows, Coordinates]:
    rows, square = drawn(kind)
    made = getattr(square, engine)(False)
    root = np.linalg.qr(rows.x, mode="r") / np.sqrt(len(rows.y))
    frame = row_frame(rows.covariances, [covariates for _, covariates, _ in rows.terms], root)
    information = rows.x.T @ (rows.x * np.linspace(0.1, 0.3, len(rows.y))[:, None])
    return rows, Coordinates(made.value, made.evaluate, information, rows.parameters(), frame)


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_value_and_gradient_at_a_point_of_the_search(kind, engine):
    rows, found = coordinates(kind, engine)
    beta, theta, _ = rows.parameters().split(rows.psi)
    point = found.inward(beta, theta, 0.0)
    assert found.outward(point) == pytest.approx(rows.psi, rel=1e-10)
    model = found.evaluate(point)
    assert model.value == pytest.approx(getattr(rows, engine)(False).value(rows.psi), rel=1e-10)
    assert model.gradient == pytest.approx(differences(found.value, point), rel=1e-6, abs=1e-6)
    assert np.allclose(model.hessian, model.hessian.T)
    step = 1e-6 * np.eye(len(point))
    expected = np.array([(found.outward(point + s) - found.outward(point - s)) / 2e-6 for s in step]).T
    assert found.user_jacobian(point) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_the_rotation_leads_to_the_users_template(kind, engine):
    rows, found = coordinates(kind, engine)
    beta, theta, _ = rows.parameters().split(rows.psi)
    point = found.inward(beta, theta, 0.0)
    joint = rows.covariances.joint(rows.parameters().split(rows.psi)[1])
    for root, rotation, lam in zip(found.square_roots(point), found.rotations(point), joint, strict=True):
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(len(lam)), atol=1e-12)
        np.testing.assert_allclose(lam @ rotation, root, atol=1e-12)


def test_the_rotation_of_a_singular_template():
    """A column of zeros leaves a row of the rotation free: it stays orthogonal, and the product right."""
    covariances = ModelCovariance((TermCovariance("g", ("1", "x"), 0, (0, 1), 0),), (2,))
    frame = row_frame(covariances, [(0, 1)], np.array([[1.0, 3.0], [0.0, 2.0]]))
    found = Coordinates(None, None, np.zeros((0, 0)), Parameters(0, 3, False, True, 9), frame)
    point = np.array([0.0, 0.0, 0.7])
    root, rotation = found.square_roots(point)[0], found.rotations(point)[0]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(2), atol=1e-14)
    lam = covariances.joint(found.outward(point))[0]
    np.testing.assert_allclose(lam @ lam.T, root @ root.T, atol=1e-14)
    np.testing.assert_allclose(lower_factor(root), lam, atol=1e-14)


@pytest.mark.parametrize("slots", [((0, 1),), ((0,), (1,))])
def test_working_columns_are_the_same_model(slots):
    """Z = Z_working T: T F eta is a square root of T lambda lambda' T', for terms that T maps to themselves and for
    independent ones, which in working columns are not."""
    starts = np.cumsum([0, *(len(own) * (len(own) + 1) // 2 for own in slots)])
    terms = [TermCovariance("g", tuple(map(str, own)), 0, own, int(at)) for own, at in zip(slots, starts, strict=False)]
    covariances, basis = ModelCovariance(tuple(terms), (2,)), np.array([[1.0, 100.0], [0.0, 1.0]])
    rows = row_frame(covariances, [(0, 1)], np.diag([1.0, 2.0]), [basis])
    assert rows.roots.elements == ((0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1))
    theta = np.array([0.5, 0.2, 0.3])[: covariances.n_theta]
    eta = rows.frame.inward(theta)
    assert rows.frame.outward(eta) == pytest.approx(theta, rel=1e-9)
    found = Coordinates(None, None, np.zeros((0, 0)), Parameters(0, len(theta), False, True, 9), rows)
    root, lam = found.square_roots(eta)[0], basis @ covariances.joint(theta)[0]
    np.testing.assert_allclose(root @ root.T, lam @ lam.T, rtol=1e-9)
    np.testing.assert_allclose(lam @ found.rotations(eta)[0], root, rtol=1e-9, atol=1e-9)
    assert np.array_equal(rows.roots.joint(found.engine(eta))[0], root)


def test_coefficients_are_searched_where_the_information_is_the_identity():
    rng = np.random.default_rng(1)
    x = np.column_stack([np.ones(50), 1e6 * rng.normal(size=50), 1e4 + rng.normal(size=50)])
    information, calls = x.T @ x, []
    covariances = ModelCovariance(
        (TermCovariance("g", ("1",), 0, (0,), 0), TermCovariance("h", ("1",), 1, (0,), 1)), (1, 1)
    )
    found = Coordinates(
        calls.append,
        None,
        information,
        Parameters(3, 2, False, False, 50),
        row_frame(covariances, [(0,), (0,)], x[:1, :1]),
    )
    psi = np.array([0.3, 2e-6, 0.1, 0.7, 0.2])
    point = found.inward(psi[:3], psi[3:], 0.0)
    assert found.outward(point) == pytest.approx(psi, rel=1e-10)
    jacobian = found.jacobian(point)
    assert jacobian[:3, :3].T @ information @ jacobian[:3, :3] == pytest.approx(np.eye(3), abs=1e-2)
    assert np.array_equal(jacobian[3:, 3:], np.eye(2))
    found.value(point)
    assert calls[0] == pytest.approx(psi, rel=1e-10)


@pytest.mark.parametrize("structure", ["cs", "ar1", "diag"])
@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_value_gradient_and_root_of_a_structure(kind, engine, structure):
    """A structured term in place of each wide one: the engine takes every element of its root."""
    rows, square = drawn(kind)
    terms, start = [], 0
    for term in rows.covariances.terms:
        terms.append(replace(term, start=start, structure=structure))
        start += terms[-1].size
    covariances = ModelCovariance(tuple(terms), rows.covariances.widths)
    root = np.linalg.qr(rows.x, mode="r") / np.sqrt(len(rows.y))
    frame = row_frame(covariances, [covariates for _, covariates, _ in rows.terms], root)
    made, information = getattr(square, engine)(False), rows.x.T @ rows.x
    parameters = replace(rows.parameters(), n_theta=covariances.n_theta)
    found = Coordinates(made.value, made.evaluate, information, parameters, frame)
    theta = np.concatenate([t.covariance.start(0.6 * np.eye(t.width)) for t in covariances.terms])
    point = found.inward(rows.psi[: parameters.n_beta], theta, 0.0)
    assert found.outward(point)[parameters.n_beta :] == pytest.approx(theta, rel=1e-10)
    for made_root, lam in zip(found.square_roots(point), covariances.joint(theta), strict=True):
        np.testing.assert_allclose(made_root @ made_root.T, lam @ lam.T, atol=1e-14)
    model = found.evaluate(point)
    assert model.gradient == pytest.approx(differences(found.value, point), rel=1e-6, abs=1e-6)
    assert np.allclose(model.hessian, model.hessian.T)
