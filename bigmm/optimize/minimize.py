"""`minimize`: choose the method, restart, try the boundary, certify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from bigmm.optimize import newton, nlopt_methods, score
from bigmm.optimize.differences import local_model
from bigmm.optimize.outcome import LocalModel, Outcome, Problem

CERTIFIED = 1e-4
"""A point is certified when a Newton step would gain less than this (deviance units)."""
BOUNDARY = 1e-4
"""Scales below this are shown as singular (lme4's isSingular tolerance)."""
MAX_RESTARTS = 4


class LowestPoint:
    """The lowest point of all evaluations: an end above it is no minimum, whatever gradient and curvature say."""

    def __init__(self, problem: Problem):
        self.problem, self.lowest = problem, (np.inf, np.zeros(0))
        evaluate = problem.evaluate
        self.watched = replace(
            problem,
            value=lambda theta: self._noted(theta, _value(problem, theta)),
            evaluate=None if evaluate is None else lambda theta: self._evaluated(theta, _model(evaluate, theta)),
        )

    def _noted(self, theta: np.ndarray, value: float) -> float:
        # A copy, since a method may go on writing to its theta.
        if value < self.lowest[0]:
            self.lowest = float(value), np.array(theta, float)
        return value

    def _evaluated(self, theta: np.ndarray, model: LocalModel) -> LocalModel:
        self._noted(theta, model.value)
        return model

    def is_lower(self, outcome: Outcome) -> bool:
        """Was the criterion lower somewhere than at this end?"""
        # where the score decides, values may be higher by what the two disagree about
        slack = score.WORSE if self.problem.noisy else CERTIFIED + 1e-12 * abs(self.lowest[0])
        return not outcome.value <= self.lowest[0] + slack and np.isfinite(self.lowest[0])

    def judged(self, outcome: Outcome) -> Outcome:
        """The outcome, not converged when it is not the lowest point."""
        if not (outcome.converged and self.is_lower(outcome)):
            return outcome
        advice = (
            f"the criterion was lower by {outcome.value - self.lowest[0]:.2g} at another point of the search: try "
            "another start (theta0=), covariates on a similar scale, or a simpler random-effects structure"
        )
        return replace(outcome, status="stopped", advice=advice)


def _value(problem: Problem, theta: np.ndarray) -> float:
    """The value; inf where there is none, also because an algorithm of linear algebra found no end."""
    try:
        return problem.value(theta)
    except np.linalg.LinAlgError:
        return np.inf


def _model(evaluate: Callable[[np.ndarray], LocalModel], theta: np.ndarray) -> LocalModel:
    """The local model; not finite where there is none."""
    try:
        return evaluate(theta)
    except np.linalg.LinAlgError:
        return newton.Stepped(np.inf, np.full(len(theta), np.nan), np.full((len(theta), len(theta)), np.nan))


def minimize(problem: Problem, method: str = "auto") -> Outcome:
    """Minimise over theta.

    "auto": trust-region Newton with average information from the given starts (all of them where evaluations are cheap
    and n_theta >= 3), NLopt BOBYQA when that does not end in a certified minimum. Any other name: that method alone.
    """
    if method not in ("auto", "newton"):
        nlopt_methods.algorithm(method)
    watch = LowestPoint(problem)
    outcome = _minimized(watch.watched, method)
    if watch.is_lower(outcome) and method == "auto" and problem.evaluate is not None and not problem.noisy:
        # The search has passed a lower point, so it goes on from there.
        again = _minimized(replace(watch.watched, starts=(watch.lowest[1],)), "newton")
        outcome = again if again.value < outcome.value else outcome
    return watch.judged(outcome)


def _minimized(problem: Problem, method: str) -> Outcome:
    if not len(problem.lower):
        return _finish(problem, np.zeros(0), "none", 1, 1, 1)
    if problem.evaluate is None:
        return _without_gradient(problem, "bobyqa" if method in ("auto", "newton") else method)
    if method not in ("auto", "newton"):
        return _by_nlopt(problem, problem.starts[0], method)
    if problem.noisy:
        theta, model, evaluations = score.run(problem, problem.evaluate, problem.starts[0])
        return _finish(problem, theta, "score", evaluations, evaluations, 1, model)
    several = problem.cheap and (len(problem.lower) >= 3 or problem.has_several_minima)
    starts = problem.starts if several else problem.starts[:1]
    states = [newton.run(problem, newton.init(problem, start)) for start in starts]
    lowest = min(states, key=lambda s: s.model.value)
    best = (
        newton.sharpen(problem, newton.polish(problem, lowest)) if problem.cheap else newton.last_step(problem, lowest)
    )
    evaluations = sum(s.evaluations for s in states) + best.evaluations - lowest.evaluations
    gradients = sum(s.gradient_evaluations for s in states) + best.gradient_evaluations - lowest.gradient_evaluations
    outcome = _finish(problem, best.theta, "newton", evaluations, gradients, len(starts), best.model)
    if method == "auto" and not outcome.converged:
        # BOBYQA compares values only, so it can leave a point where the gradient is of no help.
        second = _by_nlopt(problem, problem.rectify(best.theta), "bobyqa")
        again = newton.run(problem, newton.init(problem, second.theta))
        polished = newton.sharpen(problem, newton.polish(problem, again))
        theta = polished.theta if polished.model.value <= second.value else second.theta
        other = _finish(
            problem,
            theta,
            "newton, then bobyqa",
            evaluations + second.evaluations + polished.evaluations,
            gradients + polished.gradient_evaluations,
            len(starts) + 1,
        )
        # where neither is a minimum, the lower one is the better answer
        lower = other.converged or not outcome.value < other.value
        outcome = other if lower else replace(other, **_place(outcome))
    return outcome


def _place(outcome: Outcome) -> dict[str, Any]:
    """Where an outcome ended and how, without the effort."""
    effort = ("method", "evaluations", "gradient_evaluations", "starts")
    return {f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name not in effort}


def _by_nlopt(problem: Problem, start: np.ndarray, name: str) -> Outcome:
    theta, _, evaluations, gradients = nlopt_methods.run(problem, start, name)
    return _finish(problem, theta, name, evaluations, gradients, 1)


def _finish(
    problem: Problem,
    theta: np.ndarray,
    method: str,
    evaluations: int,
    gradients: int,
    starts: int,
    local: LocalModel | None = None,
) -> Outcome:
    """Rectify signs, try scales of exactly 0, certify by gradient and curvature; local: the model at theta."""
    # The sign of a scale is arbitrary (see `newton`); a reported theta has none below 0.
    unsigned, theta = theta, problem.rectify(theta)
    scales = np.flatnonzero(problem.lower == 0)
    assert problem.evaluate is not None
    model = local if local is not None and np.array_equal(theta, unsigned) else problem.evaluate(theta)
    theta, model, tried = _try_boundary(problem, theta, model, scales)
    # The second one is relative to theta, and notices what runs away where the first one is flat.
    decrease = max(newton.expected_decrease(model), newton.expected_decrease(_relative(theta, model)))
    at_boundary = (problem.lower == 0) & (np.abs(theta) <= BOUNDARY)
    free = ~(at_boundary & (theta == 0))
    saddle = _is_saddle(problem, theta, model, at_boundary)
    # Values of a noisy problem cannot tell a fall of this size.
    saddle = saddle and (problem.noisy or _falls(problem, theta, model, at_boundary))
    converged = bool(np.isfinite(model.value) and decrease <= CERTIFIED and not saddle)
    advice = "" if converged else _advice(model, decrease, saddle)
    largest = float(np.abs(model.gradient[free]).max(initial=0.0))
    return Outcome(
        theta,
        float(model.value),
        model.gradient,
        method,
        "converged" if converged else "stopped",
        evaluations + tried,
        gradients + 1,
        decrease,
        largest,
        at_boundary,
        starts,
        advice,
    )


def _relative(theta: np.ndarray, model: LocalModel) -> LocalModel:
    """The local model for changes of theta in shares of itself: what runs away has no gradient and no curvature left,
    but its logarithm has."""
    unit = np.where(theta == 0, 1.0 / np.sqrt(np.maximum(np.abs(np.diagonal(model.hessian)), 1e-300)), np.abs(theta))
    return newton.Stepped(model.value, model.gradient * unit, model.hessian * unit[:, None] * unit)


def _is_saddle(problem: Problem, theta: np.ndarray, model: LocalModel, at_boundary: np.ndarray) -> bool:
    """Does the criterion fall away from the boundary (KKT), by more than rounding may feign?

    At theta = 0 the gradient vanishes by evenness; the curvature is twice the derivative in the covariance, and
    decides. A covariance may be better although no single variance is, hence the smallest eigenvalue over all zero
    elements.
    """
    curvature = np.diagonal(model.hessian)
    # Rounding may leave this share of the largest curvature.
    slack = np.full(len(theta), 1e-6 * max(float(np.abs(curvature).max(initial=0.0)), 1e-300))
    if problem.curvature_noise is not None:
        slack = np.maximum(slack, problem.curvature_noise)
    zero = np.flatnonzero(at_boundary | (theta == 0.0))
    if not at_boundary.any() or not np.all(np.isfinite(model.hessian)):
        return False
    # In units of its slack, an eigenvalue below -1 is beyond rounding in every direction.
    scaled = model.hessian / np.sqrt(slack[:, None] * slack)
    return bool(
        np.any(np.diagonal(scaled)[at_boundary] < -1.0) or np.linalg.eigvalsh(scaled[np.ix_(zero, zero)])[0] < -1.0
    )


def _falls(problem: Problem, theta: np.ndarray, model: LocalModel, at_boundary: np.ndarray) -> bool:
    """Does the criterion fall by more than what is certified, along the negative curvature at zero? Where a variance
    can stand for another one it falls by next to nothing, and that is no saddle."""
    zero = np.flatnonzero(at_boundary | (theta == 0.0))
    values, vectors = np.linalg.eigh(model.hessian[np.ix_(zero, zero)])
    direction = np.zeros(len(theta))
    direction[zero] = vectors[:, 0]
    if values[0] >= 0.0:
        return True
    first = np.sqrt(2.0 * CERTIFIED / -values[0])  # where the curvature alone would gain as much
    return any(
        problem.value(problem.rectify(theta + first * factor * direction)) < model.value - 0.5 * CERTIFIED
        # The quartic term limits the fall along an even function, so the best length is not known.
        for factor in (0.25, 0.5, 1.0, 2.0, 4.0, 16.0)
    )


def _try_boundary(
    problem: Problem, theta: np.ndarray, model: LocalModel, scales: np.ndarray
) -> tuple[np.ndarray, LocalModel, int]:
    """(theta with small scales set to exactly 0 where that costs nothing, the model there, scales that were tried)."""
    assert problem.evaluate is not None
    tried = 0
    for i in scales:
        # The quadratic model is the cheap test, which spares an evaluation of most scales.
        cost = 0.5 * abs(model.hessian[i, i]) * theta[i] ** 2
        if theta[i] == 0 or cost > 1e-3:
            continue
        trial = theta.copy()
        trial[i] = 0.0
        tried += 1
        # Ties go to 0: a variance that gains nothing is reported as absent.
        if problem.value(trial) <= model.value + 1e-9 + 1e-12 * abs(model.value):
            theta = trial
            model = problem.evaluate(theta)
    return theta, model, tried


def _advice(model: LocalModel, decrease: float, saddle: bool) -> str:
    if not np.isfinite(model.value):
        return "the criterion is not finite here: check the scale of the response and of the covariates"
    if saddle:
        return "a variance at zero would be better positive: try another optimizer or start (theta0=)"
    return (
        f"a further step would still lower the criterion by about {decrease:.2g}: try optimizer='bobyqa', another "
        "start (theta0=), covariates on a similar scale, or a simpler random-effects structure"
    )


def _without_gradient(problem: Problem, name: str) -> Outcome:
    """Minimise from the best of the starts and again from where that ended, until the end is certified by differences
    (models with their own Lambda)."""
    values = [problem.value(start) for start in problem.starts]
    theta = problem.starts[int(np.argmin(values))]
    evaluations, attempts, certified = len(values), 0, False
    while attempts < MAX_RESTARTS and not certified:
        theta, _, more, _ = nlopt_methods.run(problem, theta, name)
        theta, tried = _zeroed(problem, problem.rectify(theta))
        model = local_model(problem.value, theta, problem.lower)
        decrease = max(newton.expected_decrease(model), model.value - model.best[0])
        curvature = np.diagonal(model.hessian)
        saddle = bool(np.any(curvature < -1e-6 * np.abs(curvature).max()))
        certified = bool(np.isfinite(model.value) and decrease <= CERTIFIED and not saddle)
        evaluations, attempts, end = evaluations + more + tried + model.evaluations, attempts + 1, theta
        # The differences may have met a lower point, where the next attempt starts.
        theta = model.best[1]
    at_boundary = end <= problem.lower + BOUNDARY
    advice = (
        ""
        if certified
        else (
            f"by finite differences the criterion could still fall by about {decrease:.2g}: try another start "
            "(theta0=) or optimizer, bounds (lower=), or a smoother or simpler lambda_fn"
        )
    )
    largest = float(np.abs(model.gradient).max(initial=0.0))
    return Outcome(
        end,
        model.value,
        model.gradient,
        name,
        "converged" if certified else "stopped",
        evaluations,
        0,
        decrease,
        largest,
        at_boundary,
        len(values),
        advice,
    )


def _zeroed(problem: Problem, theta: np.ndarray) -> tuple[np.ndarray, int]:
    """Small elements with a bound of 0 set to it where that costs nothing; how many were tried."""
    small = np.flatnonzero((problem.lower == 0) & (theta != 0) & (np.abs(theta) < 1e-2))
    value = problem.value(theta)
    for i in small:
        trial = theta.copy()
        trial[i] = 0.0
        cost = problem.value(trial) - value
        if cost <= 1e-9 + 1e-12 * abs(value):
            theta, value = trial, value + cost
    return theta, len(small) + 1
