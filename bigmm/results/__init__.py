"""Frozen fits: summary, inference, prediction, simulation, save and load."""

from bigmm.results.fitted import FittedLmm
from bigmm.results.fitted_glmm import FittedGlmm
from bigmm.results.glmm_model import GlmmResults
from bigmm.results.model import LmmResults, likelihood_ratio, load

__all__ = ["FittedGlmm", "FittedLmm", "GlmmResults", "LmmResults", "load", "likelihood_ratio"]
