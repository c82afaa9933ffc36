"""A user-written Lambda(theta), checked every time it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from bigmm.errors import UsageError


@dataclass(frozen=True, slots=True)
class CheckedLambda:
    """theta (n_theta,) -> (q, q) lower-triangular csr_array; raises UsageError naming theta when it is not that."""

    function: Callable[[np.ndarray], Any]
    q: int

    def __call__(self, theta: np.ndarray) -> sp.csr_array:
        # A copy, because the function is the user's and may write to its argument.
        value = self.function(np.array(theta, float))
        try:
            matrix = sp.csr_array(value.tocsr() if hasattr(value, "tocsr") else np.asarray(value, float), dtype=float)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{_call(theta)} did not return a matrix: {error}") from error
        if matrix.shape != (self.q, self.q):
            raise UsageError(
                f"{_call(theta)} returned shape {matrix.shape}, but Z has {self.q} columns: return ({self.q}, {self.q})"
            )
        if not np.isfinite(matrix.data).all():
            raise UsageError(
                f"{_call(theta)} returned values that are not finite: keep theta in its domain with lower=, or by a "
                "transformation inside lambda_fn such as exp or tanh"
            )
        above = sp.triu(matrix, k=1, format="coo")
        # A user's sparse matrix may store zeros above the diagonal.
        above.eliminate_zeros()
        if above.nnz:
            raise UsageError(
                f"{_call(theta)} is not lower-triangular: element ({above.row[0]}, {above.col[0]}) is {above.data[0]:g}"
                "; return a factor Lambda with Var(b) = sigma^2 Lambda Lambda', for example a Cholesky factor"
            )
        return matrix


def _call(theta: np.ndarray) -> str:
    return f"lambda_fn(theta={np.array2string(np.asarray(theta), precision=6, separator=', ')})"


@dataclass(frozen=True, slots=True)
class ScalarLambda:
    """theta[0] times the identity: independent random effects of one variance."""

    q: int

    def __call__(self, theta: np.ndarray) -> sp.csr_array:
        return sp.csr_array(theta[0] * sp.eye_array(self.q, format="csr"))


def start_and_bounds(lambda_fn: Any, theta0: Any, lower: Any) -> tuple[np.ndarray, np.ndarray]:
    """(start (n_theta,), lower bounds (n_theta,)); raises UsageError. Without lambda_fn: 1 and 0."""
    if lambda_fn is None:
        theta0, lower = (1.0 if theta0 is None else theta0), (0.0 if lower is None else lower)
    if theta0 is None:
        raise UsageError(
            "lambda_fn needs theta0: a start, one number per element of theta (it also says how many there are)"
        )
    start = np.atleast_1d(np.asarray(theta0, float)).copy()
    if start.ndim != 1 or not len(start) or not np.isfinite(start).all():
        raise UsageError(f"theta0 must be a vector of finite numbers, got {theta0!r}")
    if lambda_fn is None and len(start) != 1:
        raise UsageError(
            f"without lambda_fn there is one theta (Lambda = theta I), but theta0 has {len(start)} elements"
        )
    bounds = np.full(len(start), -np.inf) if lower is None else np.asarray(lower, float)
    if bounds.ndim > 1 or bounds.size not in (1, len(start)) or np.isnan(bounds).any():
        raise UsageError(
            f"lower must have one bound per element of theta0 ({len(start)}); -inf means none; got {lower!r}"
        )
    # A broadcast array is a read-only view of one number.
    bounds = np.broadcast_to(bounds, start.shape).copy()
    if np.any(start < bounds):
        raise UsageError(f"theta0 {start} lies below its lower bound {bounds}")
    return start, bounds


def checked_lambda(lambda_fn: Any, q: int) -> Callable[[np.ndarray], sp.csr_array]:
    """The function the criterion calls."""
    if lambda_fn is None:
        return ScalarLambda(q)
    if not callable(lambda_fn):
        raise UsageError(f"lambda_fn must be a function of theta, got a {type(lambda_fn).__name__}")
    return CheckedLambda(lambda_fn, q)
