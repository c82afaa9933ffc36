"""Where work runs: threads of this process or a Dask cluster, with the same bits."""

from bigmm.execute.choice import executor
from bigmm.execute.executor import Executor
from bigmm.execute.lanes import Lane, cut_lanes
from bigmm.execute.progress import Progress
from bigmm.execute.sharded import Sharded

__all__ = ["Executor", "Lane", "Progress", "Sharded", "cut_lanes", "executor"]
