"""What gradient, curvature and modes need of the levels, reduced to a few numbers or left as arrays per level.

`LevelsHere` computes it where all levels are on the driver; `objective.held` asks shards for their parts and adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bigmm.blocks.compress import compress
from bigmm.blocks.exact.solve import Solution, residual_products, tall_product
from bigmm.blocks.gram import Gram
from bigmm.blocks.structure import Structure
from bigmm.objective.information import Changes, average_information
from bigmm.objective.start import level_squares, moment_start
from bigmm.objective.templates import Templates

Lams = tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True)
class LevelMoments:
    """outer: per term (k, k) sum over levels of s_l s_l', s = Z'W(y - X beta - Z b); projected: per term (k, k) sum of
    (Z'PZ)_ll, None for unpenalized ones; information (n_theta, n_theta): f_i'P f_j, see `average_information`. Working
    basis."""

    outer: tuple[np.ndarray, ...]
    projected: tuple[np.ndarray | None, ...]
    information: np.ndarray


@dataclass(frozen=True, slots=True)
class Modes:
    """Per penalized term (q, k) spherical and original conditional modes; sequences may fetch a term when asked."""

    u: Sequence[np.ndarray]
    b: Sequence[np.ndarray]


def modes_from(scores: Sequence[np.ndarray], lams: Lams, joint: Lams) -> Modes:
    """u = Lambda's and b = lambda u from the scores of the penalized terms; lams in the working basis."""
    u = tuple(score @ lam for score, lam in zip(scores, lams, strict=True))
    return Modes(u, tuple(u_j @ lam.T for u_j, lam in zip(u, joint, strict=True)))


class LevelsHere:
    """The part of an `Algebra` that is the same wherever the structure holds all levels."""

    structure: Structure
    quadratic: Any
    projected: Any

    def moments(self, factor: Any, solution: Solution, lams: Lams, changes: Changes, with_fixed: bool) -> LevelMoments:
        """See `LevelMoments`; changes: of every parameter; with_fixed: P projects X out (REML)."""
        score = residual_products(self.structure, lams, solution)
        projected = self.projected(factor, with_fixed)
        information = average_information(self.structure, partial(self.quadratic, factor), changes, score)
        return LevelMoments(tuple(tall_product(s, s) for s in score), projected, information)

    def modes(self, factor: Any, solution: Solution, lams: Lams, joint: Lams) -> Modes:
        """Conditional modes of every penalized term."""
        score = residual_products(self.structure, lams, solution)
        penalized = [j for j, term in enumerate(self.structure.gram.terms) if term.penalized]
        return modes_from([score[j] for j in penalized], tuple(lams[j] for j in penalized), joint[: len(penalized)])

    def start(self, templates: Templates) -> np.ndarray:
        """(n_theta,) starting value; see `moment_start`."""
        return moment_start(self.structure.gram, templates)

    def squares(self) -> tuple[np.ndarray, ...]:
        """Per penalized term (k, k) Z'WZ of an average level, working basis."""
        return level_squares(self.structure.gram)

    def level_counts(self) -> tuple[int, ...]:
        """Per penalized term how many levels there are."""
        terms = (term for term in self.structure.gram.terms if term.penalized)
        return tuple(t.n_levels if t.multiplicity is None else int(t.multiplicity.sum()) for t in terms)

    def compressed(self) -> Gram | None:
        """A smaller Gram with the same criterion, where levels share diagonal blocks."""
        small = compress(self.structure.gram)
        return None if small is self.structure.gram else small

    def gathered_gram(self) -> Gram | None:
        """All blocks in one place, where they are elsewhere; None: they are in the criterion's own Gram."""
        return None
