"""Where work runs: threads of this process or a Dask cluster, with the same bits."""

from bigmm.execute.executor import Executor, executor
from bigmm.execute.held import Held, exchange, hold, hold_each
from bigmm.execute.lanes import Lane, cut_lanes
from bigmm.execute.progress import Progress

__all__ = ["Executor", "Held", "Lane", "Progress", "cut_lanes", "exchange", "executor", "hold", "hold_each"]
