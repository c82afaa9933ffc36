"""bigmm: linear mixed models for tables bigger than memory, with lme4's answers.

    import bigmm
    m = bigmm.lmm("y ~ 1 + x + (1 + x | g) + (1 | h)", "lake/")
    print(m.summary())

Names are imported on first use, so that ``import bigmm`` (and ``bigmm --help``) costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bigmm.errors import (
    ArgumentError,
    BigmmError,
    BigmmWarning,
    ConvergenceWarning,
    DataError,
    FormulaError,
    MemoryLimitError,
    OutputError,
    ReadError,
    SingularFitWarning,
    TemporaryError,
    UsageError,
    VersionError,
)
from bigmm.forks import at_work as _at_work
from bigmm.kernel_cache import settle as _settle_kernel_cache
from bigmm.version import __version__

_settle_kernel_cache()

if TYPE_CHECKING:
    from bigmm.fit import Plan, lmm, lmm_from_arrays, plan
    from bigmm.results import LmmResults, load
    from bigmm.results import likelihood_ratio as lrt

_LAZY = {
    "lmm": ("bigmm.fit", "lmm"),
    "lmm_from_arrays": ("bigmm.fit", "lmm_from_arrays"),
    "glmm": ("bigmm.fit", "glmm"),
    "GlmmResults": ("bigmm.results", "GlmmResults"),
    "plan": ("bigmm.fit", "plan"),
    "Plan": ("bigmm.fit", "Plan"),
    "LmmResults": ("bigmm.results", "LmmResults"),
    "load": ("bigmm.results", "load"),
    "lrt": ("bigmm.results", "likelihood_ratio"),
    "datasets": ("bigmm.datasets", None),
}

__all__ = [
    "ArgumentError",
    "BigmmError",
    "BigmmWarning",
    "ConvergenceWarning",
    "DataError",
    "FormulaError",
    "GlmmResults",
    "LmmResults",
    "MemoryLimitError",
    "OutputError",
    "Plan",
    "ReadError",
    "SingularFitWarning",
    "TemporaryError",
    "UsageError",
    "VersionError",
    "__version__",
    "datasets",
    "glmm",
    "lmm",
    "lmm_from_arrays",
    "load",
    "lrt",
    "plan",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'bigmm' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    with _at_work():  # a fork meanwhile would leave the child with the lock of the import
        loaded = importlib.import_module(module)
    return loaded if attribute is None else getattr(loaded, attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
