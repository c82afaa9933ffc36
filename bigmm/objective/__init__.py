"""CrossProducts and theta -> criterion, gradient, estimates."""

from bigmm.objective.covariances import ModelCovariance, TermCovariance, covariances_for
from bigmm.objective.criterion import Criterion, Estimates
from bigmm.objective.evaluation import Evaluation, Objective
from bigmm.objective.start import moment_start

__all__ = [
    "Criterion",
    "Estimates",
    "Evaluation",
    "ModelCovariance",
    "Objective",
    "TermCovariance",
    "covariances_for",
    "moment_start",
]
