"""The recipes: orchestration only."""

from bigmm.fit.arrays import lmm_from_arrays
from bigmm.fit.glmm import glmm
from bigmm.fit.lmm import lmm
from bigmm.fit.plan import Plan, plan

__all__ = ["Plan", "glmm", "lmm", "lmm_from_arrays", "plan"]
