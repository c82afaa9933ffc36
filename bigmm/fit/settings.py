"""What users may say about how a fit runs: checked once, as one frozen value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from bigmm.errors import UsageError
from bigmm.execute.progress import ProgressCallback

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
SOLVERS = ("auto", "exact", "iterative")


@dataclass(frozen=True, slots=True)
class Settings:
    """solver: "auto", "exact" or "iterative"; optimizer: a name `optimize.minimize` knows; memory_limit: bytes;
    progress: callback or None."""

    solver: str
    optimizer: str
    memory_limit: int
    progress: ProgressCallback | None


def settings(solver: str, optimizer: str, memory_limit: Any, progress: Any) -> Settings:
    """Check the options that say how a fit runs; raises UsageError."""
    from bigmm.optimize import nlopt_methods

    if solver not in SOLVERS:
        raise UsageError(f"unknown solver {solver!r}: choose 'auto', 'exact' or 'iterative'")
    if optimizer not in ("auto", "newton"):
        nlopt_methods.algorithm(optimizer)
    return Settings(solver, optimizer, memory_bytes(memory_limit), progress_callback(progress))


def memory_bytes(limit: Any) -> int:
    """Bytes of "4GiB", "500MB", a number, or None: nine tenths of the memory that is free now."""
    if limit is None:
        import psutil

        return int(0.9 * psutil.virtual_memory().available)
    if isinstance(limit, (int, float)) and not isinstance(limit, bool):
        if limit <= 0:
            raise UsageError(f"memory_limit must be positive, got {limit}")
        return int(limit)
    found = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", str(limit))
    if not found or found[2].upper() not in _UNITS or found[1].count(".") > 1 or float(found[1]) <= 0:
        raise UsageError(
            f"memory_limit {limit!r} is not a size: write for example '4GiB', '500MB' or a number of bytes"
        )
    return int(float(found[1]) * _UNITS[found[2].upper()])


def progress_callback(progress: Any) -> ProgressCallback | None:
    """A callable as it is; True: a bar on stderr; None or False: nothing."""
    if progress is None or progress is False:
        return None
    if progress is True:
        from bigmm.display import Bar

        return Bar()
    if not callable(progress):
        raise UsageError("progress must be True, False, None or a function that takes a bigmm.execute.Progress")
    return progress
