"""Minimise a function with bounds; the outcome is a value with advice."""

from bigmm.optimize.minimize import minimize
from bigmm.optimize.outcome import Outcome, Problem

__all__ = ["Outcome", "Problem", "minimize"]
