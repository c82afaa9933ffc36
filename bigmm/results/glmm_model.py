"""The fitted generalized linear mixed model that users hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from bigmm.errors import UsageError
from bigmm.families import Family
from bigmm.results.fitted_glmm import FittedGlmm
from bigmm.results.model import MixedModelResults
from bigmm.results.predictor import predictor, variance
from bigmm.results.rows_generalized import AugmentGeneralized, FamilyNoise


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GlmmResults(MixedModelResults):
    """A fitted generalized linear mixed model. It cannot be changed.

    Attributes have the names of statsmodels, with lme4's names as aliases; tables are those of R's broom.mixed. theta,
    varcorr, ranef and vcov are on the scale of the linear predictor. theta is not divided by sigma, in families with a
    dispersion too (glmmTMB's convention). `objective` is -2 log L on R's scale, constants included, for every nagq.
    """

    fitted: FittedGlmm

    @property
    def family(self) -> Family:
        """Response distribution and link."""
        return self.fitted.family

    @property
    def link(self) -> str:
        """Name of the link."""
        return self.fitted.family.link

    @property
    def dispersion(self) -> float:
        """The dispersion phi that docs/glmm.md defines for each family; 1 for families without one."""
        return self.fitted.dispersion

    @property
    def nagq(self) -> int:
        """0: coefficients from PIRLS; 1: Laplace approximation; k: adaptive quadrature with k points."""
        return self.fitted.nagq

    @property
    def laplace(self) -> str:
        """The working weights in log|M|: "expected" or "observed"."""
        return self.fitted.laplace

    @property
    def se_method(self) -> str:
        """The source of standard errors: "hessian" of the maximised objective, or "rx", the working model at theta."""
        return self.fitted.se_method

    def certify(self, *where: Any, **how: Any) -> NoReturn:
        """Raise UsageError: the exact objective of a generalized model is that of a fit with solver="exact"."""
        raise UsageError(
            "certify() is for linear models only: the exact objective of a generalized one needs its modes found "
            "again; compare with a fit with solver='exact'"
        )

    def _augmenter(self, rows: int | None, of_fit: bool) -> AugmentGeneralized:
        fitted = self.fitted
        return AugmentGeneralized(
            predictor(fitted, of_fit=of_fit),
            variance(fitted, rows),
            fitted.family,
            fitted.dispersion,
            fitted.sigma,
            max(1, fitted.rank),
            fitted.laplace == "observed",
        )

    def _noise(self) -> FamilyNoise:
        return FamilyNoise(self.fitted.family, self.fitted.dispersion)
