"""Frozen fits: summary, inference, prediction, simulation, save and load."""

from bigmm.results.comparison import likelihood_ratio
from bigmm.results.fitted import FittedLmm
from bigmm.results.fitted_glmm import FittedGlmm
from bigmm.results.glmm_model import GlmmResults
from bigmm.results.lmm_model import LmmResults
from bigmm.results.loader import load
from bigmm.results.model import MixedModelResults

__all__ = ["FittedGlmm", "FittedLmm", "GlmmResults", "LmmResults", "MixedModelResults", "load", "likelihood_ratio"]
