"""Where work runs: threads of this process or a Dask cluster, with the same bits."""

from bigmm.execute.executor import executor
from bigmm.execute.lanes import Lane, cut_lanes
from bigmm.execute.progress import Progress
from bigmm.execute.protocol import Executor
from bigmm.execute.sharded import Sharded

__all__ = ["Executor", "Lane", "Progress", "Sharded", "cut_lanes", "executor"]
