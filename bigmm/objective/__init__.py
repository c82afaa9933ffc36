"""CrossProducts and theta -> criterion, gradient, estimates."""

from bigmm.objective.criterion import Criterion, Estimates, Evaluation
from bigmm.objective.start import moment_start
from bigmm.objective.templates import Template, Templates, templates_for

__all__ = ["Criterion", "Estimates", "Evaluation", "Template", "Templates", "moment_start", "templates_for"]
