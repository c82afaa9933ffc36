"""The fitted linear mixed model that users hold."""

from __future__ import annotations

from dataclasses import dataclass

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

    def _augmenter(self) -> Augment:
        return Augment(predictor(self.fitted), variance(self.fitted), self.sigma, max(1, self.fitted.rank))

    def _noise(self) -> NormalNoise:
        return NormalNoise(self.sigma)
