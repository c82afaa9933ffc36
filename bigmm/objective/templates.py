"""Former names of `bigmm.objective.covariances`, until the last module has moved."""

from bigmm.objective.covariances import ModelCovariance as Templates
from bigmm.objective.covariances import TermCovariance as Template
from bigmm.objective.covariances import covariances_for as templates_for
from bigmm.objective.covariances import lower_factor

__all__ = ["Template", "Templates", "lower_factor", "templates_for"]
