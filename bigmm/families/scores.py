"""Device functions by the numbers of family and link, for kernels. They read no tables: the branches are compiled in.

The branches over the families are written from the registry when this module is imported, so that each family of the
registry has one, and a number without a family raises ValueError.

An eta that has no mean in the family (see `in_domain`) gives ll = -inf and zeros: the step is to be halved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bigmm.families.distribution import Device
from bigmm.families.links import bounded
from bigmm.families.registry import FAMILIES
from bigmm.families.special import device
from bigmm.kernel import njit

OUTSIDE = -math.inf


# These functions have no cache of their own, for numba has none for closures: their code is part of the cached kernels
# that call them.
compiled = njit(nogil=True, error_model="numpy")


def branches(name: str, functions: Sequence[Device], first: int = 0) -> Any:
    """Compile a function (family_id, *arguments) that calls the function of the family with that number.

    Four families at a time, which is less to compile than a function for each of them.

    Parameters
    ----------
    name : what the function does. Compiled code is found by the module and this name, in caches too: two functions of
        one name would be taken for each other when kernels that two processes have cached come together in a third.
    functions : one device function for each family, in the order of the numbers.
    first : number of the first of these families.
    """
    end = first + len(functions)
    # Numbers from `end` on raise, so what fills the places is never called. It has the type of the others: numba takes
    # a function that only raises for one that returns None, and would not know the type of what is returned.
    a, b, c, d = [*functions[:4], *[functions[-1]] * 3][:4]
    others = branches(name, functions[4:], first + 4) if len(functions) > 4 else None

    def choose(family_id, *arguments):  # type: ignore[no-untyped-def]
        """The function of one of four families, or the branches of the others."""
        if family_id == first:
            return a(*arguments)
        if family_id == first + 1:
            return b(*arguments)
        if family_id == first + 2:
            return c(*arguments)
        if family_id == first + 3:
            return d(*arguments)
        return others(family_id, *arguments)  # type: ignore[misc]

    def choose_last(family_id, *arguments):  # type: ignore[no-untyped-def]
        """The function of one of the last families."""
        if family_id < first or family_id >= end:
            raise ValueError("no family has this number")
        if family_id == first:
            return a(*arguments)
        if family_id == first + 1:
            return b(*arguments)
        if family_id == first + 2:
            return c(*arguments)
        return d(*arguments)

    chosen = choose_last if others is None else choose
    chosen.__name__ = chosen.__qualname__ = f"{name}_from_{first}"
    return compiled(chosen)


_records = tuple(FAMILIES.values())

in_domain = branches("in_domain", [d.in_domain for d in _records])
"""(family_id, link_id, eta): whether eta gives a mean that the family allows (False for nan)."""
variance = branches("variance", [d.variance for d in _records])
"""(family_id, mu, phi): variance of one observation of weight 1; see `Distribution.variance`."""
deviance_row = branches("deviance_row", [d.deviance_row for d in _records])
"""(family_id, y, w, mu, phi): weighted unit deviance (McCullagh & Nelder 1989, section 2.3.1), at least 0. Its signed
root is R's deviance residual."""
mean = branches("mean", [d.mean for d in _records])
"""(family_id, link_id, eta): mean of the response."""
mean_derivative = branches("mean_derivative", [d.mean_derivative for d in _records])
"""(family_id, link_id, eta): d mean / d eta."""
eta_of = branches("eta_of", [d.eta_of for d in _records])
"""(family_id, link_id, mu): the linear predictor with this mean; nan where there is none."""

_score_inside = branches("score_inside", [d.score_full for d in _records])
_dispersion_inside = branches("dispersion_inside", [d.dispersion_derivatives for d in _records])
_constant = branches("constant", [d.constant for d in _records])


@device
def score(
    family_id: int, link_id: int, y: float, w: float, eta: float, phi: float
) -> tuple[float, float, float, float]:
    """(ll, d1, w_fisher, w_observed) of one row.

    ll: weighted log-likelihood up to `constant`, d1 = d ll / d eta, w_observed = -d2 ll / d eta2, w_fisher its
    expectation. w: number of trials for the binomial (y the proportion); a divisor of phi where phi is a scale; else a
    multiplier of ll.
    """
    ll, d1, fisher, observed, _fisher_slope, _observed_slope = score_full(family_id, link_id, y, w, eta, phi)
    return ll, d1, fisher, observed


@device
def score_full(
    family_id: int, link_id: int, y: float, w: float, eta: float, phi: float
) -> tuple[float, float, float, float, float, float]:
    """(ll, d1, w_fisher, w_observed, d w_fisher / d eta, d w_observed / d eta) of one row; see `score`."""
    # Before the domain: a row that does not count must not stop a step.
    if w == 0.0:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if not in_domain(family_id, link_id, eta):
        return OUTSIDE, 0.0, 0.0, 0.0, 0.0, 0.0
    return _score_inside(family_id, link_id, y, w, bounded(link_id, eta), phi)  # type: ignore[no-any-return]


@device
def dispersion_derivatives(
    family_id: int, link_id: int, y: float, w: float, eta: float, phi: float
) -> tuple[float, float, float]:
    """(d ll, d d1, d w_observed) / d log phi of one row; zeros for families without a dispersion."""
    if w == 0.0 or not in_domain(family_id, link_id, eta):
        return 0.0, 0.0, 0.0
    return _dispersion_inside(family_id, link_id, y, w, bounded(link_id, eta), phi)  # type: ignore[no-any-return]


@device
def constant(family_id: int, y: float, w: float) -> float:
    """What `score` leaves out: with it, the sum is R's log density. 0 for rows of weight 0."""
    if w == 0.0:
        return 0.0
    return _constant(family_id, y, w)  # type: ignore[no-any-return]
