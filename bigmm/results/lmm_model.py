"""The fitted linear mixed model that users hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bigmm.results.certificate import Certificate, certify
from bigmm.results.fitted import FittedLmm
from bigmm.results.model import MixedModelResults
from bigmm.results.predictor import predictor, variance
from bigmm.results.rows import Augment, NormalNoise


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LmmResults(MixedModelResults):
    """A fitted linear mixed model, deep-frozen. statsmodels names first, lme4 names as aliases, broom.mixed tables.

    Coefficients come in the order of the formula, theta in lme4's order (lower triangles column by column, terms by
    decreasing number of levels).
    """

    fitted: FittedLmm

    def certify(
        self,
        client: Any = None,
        n_workers: int | None = None,
        memory_limit: Any = None,
        tile: int | None = None,
        *,
        progress: Any = None,
    ) -> Certificate:
        """The exact objective at `theta`, beside what the iterative solver says and its stated Monte Carlo error.

        One Cholesky factorization in tiles that live on the workers of a cluster (client, else the current one), or
        in threads of this process (n_workers), there in a temporary file where they do not fit. memory_limit: of this
        process or of the whole cluster; "4GiB" or bytes. tile: rows of a tile; the result has the same bits on any
        number of workers for the same tile. Raises MemoryLimitError before it starts when it does not fit.
        """
        return certify(self.fitted, client, n_workers, memory_limit, tile, progress)

    def _augmenter(self, rows: int | None, of_fit: bool) -> Augment:
        return Augment(
            predictor(self.fitted, of_fit=of_fit), variance(self.fitted, rows), self.sigma, max(1, self.fitted.rank)
        )

    def _noise(self) -> NormalNoise:
        return NormalNoise(self.sigma)
