"""Frozen fits: summary, inference, prediction, simulation, save and load."""

from bigmm.results.fitted import FittedLmm
from bigmm.results.model import LmmResults, likelihood_ratio, load

__all__ = ["FittedLmm", "LmmResults", "load", "likelihood_ratio"]
