"""The iterative factor with its probes: log|M| and its error.

    log|M| = log|stages| + log|P| + tr(S_hat - I) + tr f(S_hat),   f(s) = log s + 1 - s

The first moment, tr(S_hat - I), is known: zero where P has all diagonal blocks of S and no others (a free control
variate: docs/theory/iterative.md). tr f is estimated as in `probes`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from bigmm.blocks.iterative.factor import IterativeFactor
from bigmm.blocks.iterative.krylov import Solved, conjugate_gradients, lanczos_quadrature
from bigmm.blocks.iterative.probes import Probes, standard_error


@dataclass(frozen=True, slots=True)
class SampledFactor(IterativeFactor):
    """An iterative factor with probes: solved has the solutions for the probes, then for the basis.

    logdet_each (t,) is log|M| as each single probe would have it."""

    probes: Probes
    solved: Solved
    logdet_each: np.ndarray

    @property
    def n_probes(self) -> int:
        """t, the number of probes."""
        return len(self.logdet_each)

    @property
    def start(self) -> np.ndarray:
        """(r, t + d) probes, then the basis, in the type that they are solved in."""
        return _side_by_side(self, self.probes)

    @property
    def logdet_z(self) -> float:
        """log|M|."""
        return float(self.logdet_each.mean())

    @property
    def logdet_error(self) -> float:
        """Its Monte Carlo standard error."""
        return standard_error(self.logdet_each)


def sample(factor: IterativeFactor, probes: Probes) -> SampledFactor:
    """Solve for probes and basis; raises NotPositiveDefiniteError."""
    start = _side_by_side(factor, probes)
    solved = conjugate_gradients(factor.operator, start, factor.precision.probe_tolerance)
    # A factor becomes its subclass, which `dataclasses.replace` cannot do.
    fixed = {index.name: getattr(factor, index.name) for index in fields(IterativeFactor)}
    logdet_each = _logdet_each(factor, start, solved, probes.vectors.shape[1])
    return SampledFactor(**fixed, probes=probes, solved=solved, logdet_each=logdet_each)


def with_more_probes(factor: SampledFactor, probes: Probes) -> SampledFactor:
    """The factor at the same Lambda with more probes, of which the first are its own: only the new ones are solved."""
    old, t = factor.n_probes, probes.vectors.shape[1]
    start = _side_by_side(factor, probes)
    new = np.ascontiguousarray(start[:, old:t])
    more = conjugate_gradients(factor.operator, new, factor.precision.probe_tolerance)
    solved = _inserted(factor.solved, more, old)
    return replace(factor, probes=probes, solved=solved, logdet_each=_logdet_each(factor, start, solved, t))


def _side_by_side(factor: IterativeFactor, probes: Probes) -> np.ndarray:
    return np.concatenate([probes.vectors, probes.basis], axis=1, dtype=factor.precision.probes)


def _logdet_each(factor: IterativeFactor, start: np.ndarray, solved: Solved, t: int) -> np.ndarray:
    norms = np.einsum("rv,rv->v", start, start, dtype=np.float64)
    values = lanczos_quadrature(solved, norms, first_moment_free)
    # The basis is exact, so each probe's value has the whole of it; only probes spread.
    return factor.logdet + values[:t] + values[t:].sum()


def first_moment_free(s: np.ndarray) -> np.ndarray:
    """log s + 1 - s."""
    return np.log(s) + 1.0 - s


def _inserted(first: Solved, more: Solved, position: int) -> Solved:
    """The columns of ``more`` before column ``position`` of ``first``. Columns at rest have NaN coefficients."""
    steps = max(first.iterations, more.iterations)

    def columns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a[:, :position], b, a[:, position:]], axis=1)

    def padded(a: np.ndarray) -> np.ndarray:
        return np.concatenate([a, np.full((steps - len(a), a.shape[1]), np.nan)])

    return Solved(
        columns(first.x, more.x),
        columns(first.image, more.image),
        steps,
        columns(padded(first.alpha), padded(more.alpha)),
        columns(padded(first.beta), padded(more.beta)),
    )
