"""The options of how a fit runs, as one value that the rooms above share."""

from __future__ import annotations

from dataclasses import dataclass

from bigmm.execute.progress import ProgressCallback


@dataclass(frozen=True, slots=True)
class Settings:
    """How a fit runs.

    Attributes
    ----------
    solver : "auto", "exact" or "iterative".
    optimizer : a name that `optimize.minimize` knows.
    memory_limit : bytes.
    progress : takes the events of passes, None for nobody.
    """

    solver: str
    optimizer: str
    memory_limit: int
    progress: ProgressCallback | None
