"""Where work runs: threads of this process or a Dask cluster, with the same bits."""

from bigmm.execute.executor import Executor, executor
from bigmm.execute.lanes import Lane, cut_lanes
from bigmm.execute.progress import Progress

__all__ = ["Executor", "Lane", "Progress", "cut_lanes", "executor"]
