"""The estimable coefficients of a fit and their covariance, in the user's order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigmm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Estimable coefficients.

    Parameters
    ----------
    names : (p_all,) names of all coefficients, in the order of the formula.
    positions : (p,) positions of the estimable ones among all.
    beta : (p,) estimates.
    covariance : (p, p) their covariance matrix.
    """

    names: tuple[str, ...]
    positions: np.ndarray
    beta: np.ndarray
    covariance: np.ndarray

    def rows(self, matrix: np.ndarray) -> np.ndarray:
        """Restrict hypotheses to the estimable coefficients.

        Parameters
        ----------
        matrix : (r, p_all) one hypothesis a row.

        Returns
        -------
        (r, p) the same in the estimable coefficients.

        Raises
        ------
        UsageError
            A hypothesis uses a coefficient that is not estimable.
        """
        matrix = np.atleast_2d(np.asarray(matrix, float))
        if matrix.shape[1] != len(self.names):
            raise UsageError(
                f"a hypothesis has one number for each of the {len(self.names)} coefficients "
                f"({', '.join(self.names)}), this one has {matrix.shape[1]}"
            )
        dropped = np.ones(len(self.names), bool)
        dropped[self.positions] = False
        used = np.flatnonzero(dropped & (matrix != 0.0).any(axis=0))
        if len(used):
            raise UsageError(
                f"the coefficient {self.names[used[0]]!r} is not estimable, because its column depends on earlier "
                "ones; a hypothesis cannot use it"
            )
        return matrix[:, self.positions]


def coefficients(names: tuple[str, ...], beta: np.ndarray, vcov: np.ndarray) -> Coefficients:
    """The estimable part of beta (p_all,) and vcov (p_all, p_all), which have NaN where a column was dropped."""
    positions = np.flatnonzero(np.isfinite(beta))
    return Coefficients(names, positions, beta[positions], vcov[np.ix_(positions, positions)])
