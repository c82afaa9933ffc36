"""Real data sets, small enough to ship, and a writer that turns any table into a partitioned Parquet lake.

Each function returns a pandas DataFrame; factors are Categorical columns with lme4's order of levels. SOURCES.md beside
this file says where the data come from.
"""

from bigmm.datasets.lake import write_lake
from bigmm.datasets.shipped import cake, dyestuff, insteval, pastes, penicillin, sleepstudy

__all__ = ["cake", "dyestuff", "insteval", "pastes", "penicillin", "sleepstudy", "write_lake"]
