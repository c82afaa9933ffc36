"""The fitted linear mixed model that users hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from bigmm.arguments import strict
from bigmm.results import profiles
from bigmm.results.certificate import Certificate, certify
from bigmm.results.fitted import FittedLmm
from bigmm.results.model import MixedModelResults
from bigmm.results.predictor import predictor, variance
from bigmm.results.profiles import Profile
from bigmm.results.rows import Augment, NormalNoise


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LmmResults(MixedModelResults):
    """A fitted linear mixed model. It cannot be changed.

    Attributes have the names of statsmodels, with lme4's names as aliases; tables are those of R's broom.mixed.
    Coefficients come in the order of the formula. theta comes in lme4's order: lower triangles column by column, terms
    by decreasing number of levels.
    """

    fitted: FittedLmm

    @strict
    def profile(self, parameters: Any = "beta") -> Profile:
        """Compute the profile likelihood of parameters.

        Parameters
        ----------
        parameters : {"beta", "theta", "all"} or list of str
            See `conf_int`.

        Returns
        -------
        Profile
            ``.table`` has the columns parameter, value, zeta; ``.plot()`` draws it.
        """
        return profiles.profile(self.fitted, parameters)

    def _profile_limits(self, level: float, parameters: Any) -> pd.DataFrame:
        return profiles.intervals(self.fitted, level, parameters)

    def certify(
        self,
        client: Any = None,
        n_workers: int | None = None,
        memory_limit: Any = None,
        tile: int | None = None,
        *,
        progress: Any = None,
    ) -> Certificate:
        """Compute the exact objective at `theta`, and compare it with what the iterative solver says.

        One Cholesky factorization runs in tiles, which live on the workers of a cluster or in threads of this process;
        there they go to a temporary file where they do not fit.

        Parameters
        ----------
        client : distributed.Client, optional
            The cluster; the current client if there is one.
        n_workers : int, optional
            Threads of this process, where there is no cluster.
        memory_limit : str or int, optional
            Of this process, or of the whole cluster: "4GiB" or bytes.
        tile : int, optional
            Rows of a tile. The result has the same bits on any number of workers for the same tile.
        progress : bool or callable, optional
            True for a bar, or a function that takes `bigmm.execute.Progress` events.

        Returns
        -------
        Certificate
            The exact objective, the estimate with its Monte Carlo error, and whether they agree.

        Raises
        ------
        MemoryLimitError
            Before anything is computed, if the factor does not fit.
        """
        return certify(self.fitted, client, n_workers, memory_limit, tile, progress)

    def _augmenter(self, rows: int | None, of_fit: bool) -> Augment:
        return Augment(
            predictor(self.fitted, of_fit=of_fit), variance(self.fitted, rows), self.sigma, max(1, self.fitted.rank)
        )

    def _noise(self) -> NormalNoise:
        return NormalNoise(self.sigma)
