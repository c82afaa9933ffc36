"""CrossProducts and theta -> criterion, gradient, estimates."""

from bigmm.objective.covariances import ModelCovariance, TermCovariance, covariances_for
from bigmm.objective.criterion import Criterion, Estimates
from bigmm.objective.evaluation import Evaluation, Objective
from bigmm.objective.start import moment_start
from bigmm.objective.templates import Template, Templates, templates_for

__all__ = [
    "Criterion",
    "Estimates",
    "Evaluation",
    "ModelCovariance",
    "Objective",
    "Template",
    "Templates",
    "TermCovariance",
    "covariances_for",
    "moment_start",
    "templates_for",
]
