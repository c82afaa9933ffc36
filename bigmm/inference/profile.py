"""Profile likelihood of every parameter of a linear mixed model, fitted by maximum likelihood.

The deviance with one parameter at a value, minimised over all others, exceeds its minimum by zeta^2. Limits of an
interval are the values at which |zeta| is a normal quantile (Bates, Maechler, Bolker and Walker 2015, section 5.1).

A coefficient at b: y less x b, without the column x, is the same model, and its blocks are a congruence of A's. A
standard deviation at a value leaves sigma = value / |row of lambda|, so the others are searched without a constraint.
A correlation at a value is a constraint on theta.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from bigmm.blocks.gram import Gram
from bigmm.covariance import Covariance
from bigmm.errors import UsageError
from bigmm.objective.covariances import ModelCovariance, TermCovariance, lower_factor
from bigmm.objective.criterion import Criterion, fixed_map

Deviance = Callable[[float], float]
DevianceAndGradient = Callable[[np.ndarray], tuple[float, np.ndarray]]

NEAR_BOUND = 4.0
"""Search points of a correlation beyond this size have next to no slope: tanh(4) is 7e-4 from its bound."""
STEPS = 40
"""Steps of the search for a limit; it takes about five, since zeta is nearly linear."""
EXACT = 1e-9
"""A limit is found when zeta is so near to its quantile."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, as a function of its value.

    Parameters
    ----------
    name : in the manner of lme4's confint, such as ``sd_Days|Subject``.
    estimate : its maximum likelihood estimate. error : a rough standard error, for the first step.
    deviance : the deviance at a value, minimised over all other parameters.
    lower, upper : bounds of its values.
    """

    name: str
    estimate: float
    error: float
    deviance: Deviance
    lower: float = -np.inf
    upper: float = np.inf


def zeta(parameter: Parameter, value: float, minimum: float) -> float:
    """The signed root of the excess of the deviance over its minimum."""
    # Both are ends of a search: near the estimate rounding may leave the excess negative.
    excess = max(parameter.deviance(value) - minimum, 0.0)
    return float(np.copysign(np.sqrt(excess), value - parameter.estimate))


def limit(parameter: Parameter, minimum: float, quantile: float) -> float:
    """The value at which zeta is a quantile (negative: below the estimate), or the bound before which it is not.

    A secant search on zeta, kept between values that are known to lie on either side.
    """
    sign = np.sign(quantile)
    bound = parameter.upper if sign > 0 else parameter.lower
    if np.isfinite(bound):
        if abs(bound - parameter.estimate) <= 1e-12 * max(1.0, abs(bound)):
            return float(bound)
        if abs(zeta(parameter, bound, minimum)) <= abs(quantile):
            return float(bound)
    near, near_zeta = parameter.estimate, 0.0
    far, far_zeta = (bound, np.nan) if np.isfinite(bound) else (np.nan, np.nan)
    value = parameter.estimate + quantile * parameter.error
    if np.isfinite(bound) and sign * (value - bound) >= 0:
        value = 0.5 * (parameter.estimate + bound)
    for _ in range(STEPS):
        reached = zeta(parameter, value, minimum)
        if abs(reached - quantile) <= EXACT * abs(quantile):
            return value
        if abs(reached) > abs(quantile):
            far, far_zeta = value, reached
        else:
            near, near_zeta = value, reached
        if np.isfinite(far) and abs(far - near) <= 1e-10 * max(abs(far), abs(far - parameter.estimate)):
            break
        value = _next(near, near_zeta, far, far_zeta, quantile, parameter, bound)
    return value


def _next(
    near: float, near_zeta: float, far: float, far_zeta: float, quantile: float, parameter: Parameter, bound: float
) -> float:
    """The next value: by the secant where both sides are known, else by proportion."""
    if np.isfinite(far_zeta):
        share = (quantile - near_zeta) / (far_zeta - near_zeta)
        # Off both ends, so that every step makes the interval smaller.
        return near + min(max(share, 0.01), 0.99) * (far - near)
    if near == parameter.estimate:
        return 0.5 * (near + far) if np.isfinite(far) else near + 2.0 * quantile * parameter.error
    value = parameter.estimate + (near - parameter.estimate) * min(quantile / near_zeta if near_zeta else 4.0, 4.0)
    return 0.5 * (near + bound) if np.isfinite(bound) and abs(value - near) >= abs(bound - near) else value


# --------------------------------------------------------------------------------------------------- coefficients


def coefficient(
    criterion: Criterion, theta: np.ndarray, name: str, position: int, estimate: float, error: float
) -> Parameter:
    """The parameter of one coefficient; position: in the user's order."""
    gram = criterion.gram
    if any(not term.penalized for term in gram.terms):
        raise UsageError("profiles are not available where a factor among the fixed effects is kept as levels")
    direction = fixed_map(gram)[gram.fixed_order][position]
    moved = 0.0 if gram.one is None else float((gram.y_shift * gram.one)[gram.fixed_order][position])
    size = float(direction @ direction)
    basis = np.linalg.svd(direction[None])[2][1:].T  # (p, p - 1), the columns that the coefficient is not in
    start = np.array(theta)

    def deviance(value: float) -> float:
        # The shortest vector whose coefficient has this value. The columns of `basis` do not change it.
        fixed = direction * ((value - moved) / size)
        change = np.zeros((len(direction) + 1, len(direction)))
        change[:-1, :-1], change[:-1, -1], change[-1, -1] = basis, -fixed, 1.0
        reduced = Criterion(congruent(gram, change), criterion.covariances, False)
        least, start[:] = minimum(reduced, start)
        return least

    return Parameter(name, estimate, error, deviance)


def congruent(gram: Gram, change: np.ndarray) -> Gram:
    """The blocks of [X y] T, T (p + 1, m + 1)."""
    m = change.shape[1] - 1
    terms = tuple(replace(term, dense=term.dense @ change) for term in gram.terms)
    return replace(
        gram,
        terms=terms,
        xy=change.T @ gram.xy @ change,
        x_basis=np.eye(m),
        y_shift=0.0,
        one=None,
        active=np.ones(m, bool),
        fixed_order=np.arange(m),
    )


def minimum(criterion: Criterion, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """The least profiled deviance and its theta, from a theta near to it."""

    def both(theta: np.ndarray) -> tuple[float, np.ndarray]:
        evaluation = criterion.evaluate(theta)
        return evaluation.value, evaluation.gradient

    return _search(both, theta, criterion.covariances)


def _search(
    both: DevianceAndGradient, start: np.ndarray, covariances: ModelCovariance, free: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Minimise over the free elements of theta, all of them by default, in the structures' search coordinates.

    The deviance is even in a scale, so that a scale of zero is stationary whether it is a minimum or not, and so is a
    correlation at its bound. The search goes from a small scale and from a correlation inside too, and the better end
    counts.
    """
    free = np.arange(len(start)) if free is None else free
    if not len(free):
        return float(both(start)[0]), start
    coordinates = SearchCoordinates(covariances)
    point = coordinates.inward(start)
    ends = [_descent(both, point, free, coordinates)]
    inside = coordinates.inside(start)
    inside = np.where(np.isin(np.arange(len(start)), free), inside, point)
    if not np.array_equal(inside, point):
        ends.append(_descent(both, inside, free, coordinates))
    return min(ends, key=lambda end: end[0])


@dataclass(frozen=True, slots=True)
class SearchCoordinates:
    """Search points of theta: each element has any value, and is a function of its own element of theta alone."""

    covariances: ModelCovariance

    def inward(self, theta: np.ndarray) -> np.ndarray:
        """(n_theta,) the search point of theta."""
        return self._each(lambda structure, part: structure.to_search(part, np.ones(structure.width)), theta)

    def outward(self, point: np.ndarray) -> np.ndarray:
        """(n_theta,) theta of a search point."""
        return self._each(lambda structure, part: structure.from_search(part, np.ones(structure.width)), point)

    def slopes(self, point: np.ndarray) -> np.ndarray:
        """(n_theta,) derivatives of `outward`."""
        return self._each(lambda structure, part: structure.slopes(part, np.ones(structure.width))[0], point)

    def inside(self, theta: np.ndarray) -> np.ndarray:
        """(n_theta,) a search point near theta, with elements of lambda away from 0 and correlations from bounds."""
        terms = self.covariances.terms
        correlated = self._each(
            lambda structure, part: np.arange(len(part)) == len(part) - (structure.correlation(part) is not None), theta
        ).astype(bool)
        typical = max(1e-3, float(np.abs(theta[~correlated]).max(initial=0.0))) if terms else 0.0
        small = ~correlated & (np.abs(theta) < 1e-2 * typical)
        point = self.inward(np.where(small, 0.3 * typical, theta))
        return np.where(correlated & (np.abs(point) > NEAR_BOUND), 0.5 * NEAR_BOUND * np.sign(point), point)

    def _each(self, change: Callable[[Covariance, np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
        return np.concatenate([change(term.covariance, values[term.part]) for term in self.covariances.terms])


def _descent(
    both: DevianceAndGradient, start: np.ndarray, free: np.ndarray, coordinates: SearchCoordinates
) -> tuple[float, np.ndarray]:
    """Minimise from a search point, in units of the start: parameters of different size are alike there."""
    chosen = start[free]
    units = np.where(np.abs(chosen) > 1e-3, np.abs(chosen), max(1e-3, float(np.abs(chosen).mean())))
    point = np.array(start)

    def scaled(x: np.ndarray) -> tuple[float, np.ndarray]:
        point[free] = x * units
        value, gradient = both(coordinates.outward(point))
        gradient = (gradient * coordinates.slopes(point))[free] * units
        # The line search of BFGS takes differences of values, which infinity would make NaN.
        return (value, gradient) if np.isfinite(value) else (1e300, np.zeros(len(x)))

    result = minimize(scaled, chosen / units, jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 200})
    point[free] = result.x * units
    return float(result.fun), coordinates.outward(point)


# -------------------------------------------------------------------------------------- variance parameters, sigma


@dataclass(frozen=True, slots=True)
class GivenScale:
    """The deviance at (theta, log sigma) and its derivatives."""

    value: float
    theta: np.ndarray
    log_sigma: float


def given_scale(criterion: Criterion, theta: np.ndarray, log_sigma: float) -> GivenScale:
    """The deviance where sigma is not profiled out: log|M| + m log(2 pi sigma^2) + r^2 / sigma^2."""
    covariances, variance, m = criterion.covariances, float(np.exp(2.0 * log_sigma)), criterion.dof
    factor = criterion.factor(theta)
    value = factor.logdet_z + m * (np.log(2.0 * np.pi) + 2.0 * log_sigma) + factor.pwrss / variance
    lams, bases = covariances.working(criterion.gram, theta), [term.basis for term in criterion.gram.terms]
    halves = [(j, bases[j] @ along @ lams[j].T) for j, along in covariances.directions(theta)]
    changes = [(j, half + half.T) for j, half in halves]
    levels = factor.moments(factor.solution(), lams, changes, criterion.reml)
    frames = tuple(map(np.eye, covariances.widths))
    gradient = criterion.gradient_of(frames, theta, levels.projected, levels.outer, variance)
    return GivenScale(value - criterion.gram.sum_log_w, gradient, 2.0 * (m - factor.pwrss / variance))


def sigma_parameter(criterion: Criterion, theta: np.ndarray, sigma: float) -> Parameter:
    """The residual standard deviation."""
    start = np.array(theta)

    def deviance(value: float) -> float:
        def both(theta: np.ndarray) -> tuple[float, np.ndarray]:
            point = given_scale(criterion, theta, float(np.log(value)))
            return point.value, point.theta

        least, start[:] = _search(both, start, criterion.covariances)
        return least

    # at sigma = 0 the deviance is infinite: there is no bound to ask
    return Parameter("sigma", sigma, sigma / np.sqrt(2.0 * criterion.gram.n), deviance)


def term_parameters(criterion: Criterion, theta: np.ndarray, sigma: float, term: TermCovariance) -> list[Parameter]:
    """Standard deviations and correlations of a term, column by column of its lower triangle."""
    structure, out = term.covariance, []
    single = structure.correlation(theta[term.part]) is not None
    distinct = {columns[0] for columns in structure.columns}
    for column in range(term.width):
        if column in distinct or not single:
            out.append(_deviation(criterion, theta, sigma, term, column))
        if single:
            continue  # the structure has one correlation for all pairs
        if structure.is_invariant:
            out += [_correlation(criterion, theta, term, row, column) for row in range(column + 1, term.width)]
    if single:
        out.append(_common_correlation(criterion, theta, term))
    return out


def _deviation(criterion: Criterion, theta: np.ndarray, sigma: float, term: TermCovariance, column: int) -> Parameter:
    structure, start = term.covariance, np.array(theta)
    estimate = sigma * float(np.linalg.norm(structure.lam(theta[term.part])[column]))

    def deviance(value: float) -> float:
        if value == 0.0:
            return _without(criterion, theta, term, column)

        def both(point: np.ndarray) -> tuple[float, np.ndarray]:
            # sigma follows from the value: sd = sigma |row|. So log sigma falls as the row grows.
            row = structure.lam(point[term.part])[column]
            size = float(np.linalg.norm(row))
            if size == 0.0:
                return np.inf, np.zeros(len(point))
            scale = given_scale(criterion, point, float(np.log(value / size)))
            gradient = np.array(scale.theta)
            slopes = structure.directions(point[term.part])[:, column] @ row / size**2
            gradient[term.part] -= scale.log_sigma * slopes
            return scale.value, gradient

        # A row of zeros has no direction that could be scaled to the value.
        if not structure.lam(start[term.part])[column].any():
            start[term.part] = structure.start(np.eye(term.width) * 0.1)
        least, start[:] = _search(both, start, criterion.covariances)
        return least

    levels = criterion.gram.terms[term.joint].n_levels
    error = max(estimate, 0.1 * sigma) / np.sqrt(2.0 * levels)
    return Parameter(f"sd_{term.names[column]}|{label(term)}", estimate, error, deviance, 0.0)


def _without(criterion: Criterion, theta: np.ndarray, term: TermCovariance, column: int) -> float:
    """The least deviance where the standard deviation of one column is zero."""
    structure = term.covariance
    rows = np.abs(structure.directions(theta[term.part])).sum(axis=2) > 0.0  # (n, k): rows that a parameter moves
    is_scale = (rows.sum(axis=1) == 1) | (structure.lower == 0.0)  # with no scale of its own, a column is zero
    zeroed = np.flatnonzero(rows[:, column] & is_scale) + term.start
    start = np.array(theta)
    start[zeroed] = 0.0

    def both(point: np.ndarray) -> tuple[float, np.ndarray]:
        evaluation = criterion.evaluate(point)
        return evaluation.value, evaluation.gradient

    return _search(both, start, criterion.covariances, np.setdiff1d(np.arange(len(theta)), zeroed))[0]


def _correlation(criterion: Criterion, theta: np.ndarray, term: TermCovariance, row: int, column: int) -> Parameter:
    """The correlation of two columns of an unstructured term.

    With the two columns first, lambda is [[a, 0], [rho b, sqrt(1 - rho^2) b], ...]: rho can be held, all else is free.
    """
    structure, k = term.covariance, term.width
    order = [column, row, *(c for c in range(k) if c not in (column, row))]
    turn = np.eye(k)[:, order]  # columns of the term from the reordered ones
    frames = [np.eye(width) for width in criterion.covariances.widths]
    frames[term.joint][term.block] = turn
    lam = structure.lam(theta[term.part])
    start = np.array(theta)
    start[term.part] = structure.start(lower_factor(turn.T @ lam))
    second, third = term.start + 1, term.start + k  # of [1, 0] and [1, 1], column by column
    size = float(np.hypot(start[second], start[third]))
    estimate = start[second] / size if size > 0.0 else 0.0
    start[second] = size
    free = np.delete(np.arange(len(theta)), third)

    def deviance(value: float) -> float:
        complement = np.sqrt(max(1.0 - value**2, 0.0))

        def both(x: np.ndarray) -> tuple[float, np.ndarray]:
            point = np.array(x)
            side = 1.0 if x[second] * x[term.start] >= 0.0 else -1.0  # the correlation has the sign of a b
            point[second], point[third] = side * value * x[second], complement * x[second]
            moved = np.array(point)
            moved[term.part] = structure.start(lower_factor(turn @ structure.lam(point[term.part])))
            evaluation = criterion.evaluate_along(moved, tuple(frames), point)
            gradient = np.array(evaluation.gradient)
            gradient[second] = side * value * evaluation.gradient[second] + complement * evaluation.gradient[third]
            return evaluation.value, gradient

        return _search(both, start, criterion.covariances, free)[0]

    name = f"cor_{term.names[row]}.{term.names[column]}|{label(term)}"
    levels = criterion.gram.terms[term.joint].n_levels
    return Parameter(name, float(estimate), max((1.0 - estimate**2) / np.sqrt(levels), 1e-3), deviance, -1.0, 1.0)


def _common_correlation(criterion: Criterion, theta: np.ndarray, term: TermCovariance) -> Parameter:
    """The one correlation of a structure, its last parameter."""
    fixed_position = term.start + term.size - 1
    free = np.delete(np.arange(len(theta)), fixed_position)

    def deviance(value: float) -> float:
        def both(point: np.ndarray) -> tuple[float, np.ndarray]:
            point = np.array(point)
            point[fixed_position] = value  # to the last bit, at a bound too
            evaluation = criterion.evaluate(point)
            return evaluation.value, evaluation.gradient

        start = np.array(theta)
        start[fixed_position] = value
        return _search(both, start, criterion.covariances, free)[0]

    estimate, structure = float(theta[fixed_position]), term.covariance
    error = max((1.0 - estimate**2) / np.sqrt(criterion.gram.terms[term.joint].n_levels), 1e-3)
    bounds = float(structure.lower[-1]), float(structure.upper[-1])
    return Parameter(f"cor|{label(term)}", estimate, error, deviance, *bounds)


def label(term: TermCovariance) -> str:
    """The grouping factor of a term, without the number that tells terms of one factor apart."""
    return re.sub(r"\.\d+$", "", term.group)


def parameters_of(
    criterion: Criterion, theta: np.ndarray, sigma: float, names: Any, beta: np.ndarray, errors: np.ndarray
) -> list[Parameter]:
    """All parameters in lme4's order: terms, sigma, coefficients."""
    out = [p for term in criterion.covariances.terms for p in term_parameters(criterion, theta, sigma, term)]
    out.append(sigma_parameter(criterion, theta, sigma))
    for position, name in enumerate(names):
        if np.isfinite(beta[position]):
            out.append(coefficient(criterion, theta, name, position, float(beta[position]), float(errors[position])))
    return out
