"""Satterthwaite's degrees of freedom from the curvature of the profiled criterion.

The covariance matrix C of the coefficients is a function of the covariance parameters psi and of sigma. With sigma
profiled out, log sigma^2 given psi has variance 2 / m and is independent of psi to first order. For a contrast l

    Var(l'Cl) = g' (2 H^-1) g + 2 v^2 / m,    df = 2 v^2 / Var(l'Cl),

where v = l'Cl, H is the Hessian of the profiled criterion in psi, g the derivative of v along the profile, and m is
n - p (REML) or n (ML).
That equals the formula in (theta, sigma) of Kuznetsova, Brockhoff and Christensen (2017), J. Stat. Softw. 82(13).
Both derivatives are central differences of exact values: of the gradient, and of C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

STEP = 1e-4
"""Step of the differences, in units of the parameter or of 1, whichever is larger."""


@dataclass(frozen=True, slots=True)
class ProfileCurvature:
    """The criterion and C near the optimum.

    Parameters
    ----------
    hessian : (K, K) second derivatives of the profiled criterion in the K parameters that are not at a boundary.
    slopes : (K, p, p) derivatives of C along the profile.
    covariance : (p, p) C at the optimum.
    dof : m, what the residual sum of squares is divided by.
    """

    hessian: np.ndarray
    slopes: np.ndarray
    covariance: np.ndarray
    dof: int

    def parameter_covariance(self) -> np.ndarray:
        """(K, K) covariance 2 H^-1 of the parameters; directions without curvature have none."""
        if not len(self.hessian):
            return np.zeros((0, 0))
        # The criterion is -2 log L, hence the factor 2.
        return 2.0 * np.linalg.pinv(self.hessian, rcond=1e-12, hermitian=True)


def profile_curvature(
    gradient: Callable[[np.ndarray], np.ndarray],
    covariance: Callable[[np.ndarray], np.ndarray],
    optimum: np.ndarray,
    dof: int,
) -> ProfileCurvature:
    """Differentiate gradient and C at the optimum.

    Parameters
    ----------
    gradient, covariance : functions of the parameters (K,): exact gradient (K,) and C (p, p), sigma profiled out.
    optimum : (K,) parameters at the optimum. A scale that is 0 there moves neither C nor the other parameters to first
        order (C is even in it), so it is treated as known.
    """
    free = np.flatnonzero(optimum != 0.0)
    hessian = np.zeros((len(free), len(free)))
    center = covariance(optimum)
    slopes = np.zeros((len(free), *center.shape))
    for row, parameter in enumerate(free):
        step = STEP * max(abs(optimum[parameter]), 1.0)
        sides = []
        for sign in (1.0, -1.0):
            moved = np.array(optimum)
            moved[parameter] += sign * step
            sides.append((gradient(moved)[free], covariance(moved)))
        hessian[row] = (sides[0][0] - sides[1][0]) / (2.0 * step)
        slopes[row] = (sides[0][1] - sides[1][1]) / (2.0 * step)
    return ProfileCurvature((hessian + hessian.T) / 2.0, slopes, center, dof)


VALUE_STEP = 1e-2
"""Share of a parameter: second differences of values lose half of the digits, so the step is longer."""


def value_curvature(
    value: Callable[[np.ndarray], float],
    covariance: Callable[[np.ndarray], np.ndarray],
    optimum: np.ndarray,
    free: np.ndarray,
    dof: int,
) -> ProfileCurvature:
    """The same where there is no gradient: second differences of the criterion, extrapolated from two steps.

    Parameters
    ----------
    free : positions of the parameters that are not at a bound.
    """
    # Relative to the parameter, whose size is the user's choice.
    steps = VALUE_STEP * np.where(optimum == 0.0, 1.0, np.abs(optimum))

    def moved(signs: dict[int, float], share: float) -> np.ndarray:
        out = np.array(optimum)
        for parameter, sign in signs.items():
            out[parameter] += sign * share * steps[parameter]
        return out

    def differences(share: float) -> tuple[np.ndarray, np.ndarray]:
        hessian, slopes = np.zeros((len(free), len(free))), np.zeros((len(free), *center.shape))
        for a, first in enumerate(free):
            for b, second in enumerate(free[: a + 1]):
                if first == second:
                    ends = value(moved({first: 1}, share)), value(moved({first: -1}, share))
                    change = ends[0] - 2.0 * middle + ends[1]
                else:
                    change = 0.25 * sum(
                        s * t * value(moved({first: s, second: t}, share)) for s in (1, -1) for t in (1, -1)
                    )
                hessian[a, b] = hessian[b, a] = change / (share**2 * steps[first] * steps[second])
            rise = covariance(moved({first: 1}, share)) - covariance(moved({first: -1}, share))
            slopes[a] = rise / (2.0 * share * steps[first])
        return hessian, slopes

    center, middle = covariance(optimum), value(optimum)
    coarse, fine = differences(2.0), differences(1.0)
    # Richardson's extrapolation: the errors of second order in the step cancel.
    hessian, slopes = ((4.0 * f - c) / 3.0 for f, c in zip(fine, coarse, strict=True))
    return ProfileCurvature(hessian, slopes, center, dof)


def contrast_df(curvature: ProfileCurvature, contrasts: np.ndarray) -> np.ndarray:
    """Degrees of freedom of each contrast.

    Parameters
    ----------
    contrasts : (r, p) one contrast a row.

    Returns
    -------
    (r,) degrees of freedom.
    """
    variance = np.einsum("ri,ij,rj->r", contrasts, curvature.covariance, contrasts)
    slopes = np.einsum("ri,kij,rj->rk", contrasts, curvature.slopes, contrasts)
    parameters = curvature.parameter_covariance()
    spread = np.einsum("rk,kl,rl->r", slopes, parameters, slopes) + 2.0 * variance**2 / curvature.dof
    return np.asarray(2.0 * variance**2 / spread)


def joint_df(degrees: Sequence[float] | np.ndarray) -> float:
    """Denominator degrees of freedom of an F test from those of its q orthogonal contrasts.

    The q squared t statistics have the sum of expectations E = sum nu / (nu - 2); an F statistic with d degrees has
    q d / (d - 2). Fai and Cornelius (1996), J. Stat. Comput. Simul. 54, 363-378. Contrasts with nu <= 2 add nothing.
    """
    values = np.asarray(degrees, float)
    if len(values) == 1:
        return float(values[0])
    if np.ptp(values) < 1e-8 * values.max():  # the formula would lose all digits
        return float(values.mean())
    large = values[values > 2.0]
    expectation = float((large / (large - 2.0)).sum())
    if expectation <= len(values):
        return 2.0
    return 2.0 * expectation / (expectation - len(values))
