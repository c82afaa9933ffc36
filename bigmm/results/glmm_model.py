"""The fitted generalized linear mixed model that users hold."""

from __future__ import annotations

from dataclasses import dataclass

from bigmm.results.fitted_glmm import FittedGlmm
from bigmm.results.model import LmmResults


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GlmmResults(LmmResults):
    """A fitted generalized linear mixed model, deep-frozen; see `LmmResults` for the conventions."""

    fitted: FittedGlmm
