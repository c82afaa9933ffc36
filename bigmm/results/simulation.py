"""Parametric simulation: new random effects and new noise, the same whatever the partitioning or the workers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bigmm.arguments import true_or_false
from bigmm.errors import UsageError
from bigmm.results.draws import check_seed, standard_normal
from bigmm.results.fitted import FittedModel
from bigmm.results.new_effects import new_effects
from bigmm.results.predictor import check_new_levels, predictor
from bigmm.results.rows import Noise, Simulate


def drawn_modes(fitted: FittedModel, number: int, seed: int, replicate: int) -> np.ndarray:
    """(n_levels + 1, k) draws b = sigma lambda z for every label of joint term `number`, the last row zero."""
    joint = fitted.joints[number]
    n_levels = joint.n_levels
    values = np.zeros((n_levels + 1, joint.width))
    for place, (term, lam) in enumerate(zip(fitted.terms, fitted.lambdas(), strict=True)):
        if term.joint == number:
            # One draw for each label in order: a level's draw does not depend on which levels have rows.
            z = standard_normal(seed, ("mode", term.group, place, replicate), 0, n_levels * term.width)
            # Terms of one grouping are independent and may share a covariate, so their effects add.
            values[:n_levels, list(term.slots)] += fitted.estimates.sigma * z.reshape(n_levels, term.width) @ lam.T
    return values


def simulation(
    fitted: FittedModel, noise: Noise, seed: int, nsim: int, use_modes: bool, new_levels: str, of_fit: bool = False
) -> Simulate:
    """The row task that simulates `nsim` responses; with use_modes the estimated modes stay and only noise is new;
    of_fit: for the rows of the fit."""
    if not isinstance(nsim, (int, np.integer)) or isinstance(nsim, bool) or nsim < 1:
        raise UsageError(f"nsim must be at least 1, got {nsim!r}")
    check_seed(seed)
    true_or_false("use_modes", use_modes)
    base = predictor(fitted, of_fit=of_fit)
    models = tuple(
        base if use_modes else replace(base, modes=_modes(fitted, seed, replicate)) for replicate in range(nsim)
    )
    drawn = new_effects(fitted, int(seed)) if check_new_levels(new_levels) == "population" and not use_modes else None
    return Simulate(models, noise, int(seed), new_levels, drawn)


def _modes(fitted: FittedModel, seed: int, replicate: int) -> tuple[np.ndarray | None, ...]:
    return tuple(
        drawn_modes(fitted, number, seed, replicate) if joint.fixed_factor is None else None
        for number, joint in enumerate(fitted.joints)
    )
