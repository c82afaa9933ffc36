"""CrossProducts and theta -> criterion, gradient, estimates."""

from bigmm.objective.criterion import Criterion, Estimates
from bigmm.objective.evaluation import Evaluation, Objective
from bigmm.objective.start import moment_start
from bigmm.objective.templates import Template, Templates, templates_for

__all__ = [
    "Criterion",
    "Estimates",
    "Evaluation",
    "Objective",
    "Template",
    "Templates",
    "moment_start",
    "templates_for",
]
