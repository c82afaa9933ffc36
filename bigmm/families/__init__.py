"""Response distributions and links, one file for each distribution.

`NAMES` is the registry: each name is a file of this folder whose `DISTRIBUTION` is the record of one family
(`distribution.Distribution`). Every other table of families in the package is read off it. Kernels import the device
functions of `scores` and `links`, which take scalars and numbers of families. Other code uses the columns of `rows`.

Names are imported on first use, so that the command line can list `NAMES` without numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigmm.families.links import LINKS
    from bigmm.families.names import family
    from bigmm.families.registry import FAMILIES, Family
    from bigmm.families.response import check_response, doubt_response, start_eta, start_mean
    from bigmm.families.rows import simulate

# Kernels know a family by its position here: append new names at the end.
NAMES = (
    "bernoulli",
    "binomial",
    "poisson",
    "negative_binomial",
    "gaussian",
    "gamma",
    "inverse_gaussian",
    "beta",
    "truncated_poisson",
)

__all__ = [
    "FAMILIES",
    "LINKS",
    "NAMES",
    "Family",
    "check_response",
    "doubt_response",
    "family",
    "simulate",
    "start_eta",
    "start_mean",
]

_FILES = {
    "FAMILIES": "registry",
    "Family": "registry",
    "LINKS": "links",
    "family": "names",
    "simulate": "rows",
    **dict.fromkeys(("check_response", "doubt_response", "start_eta", "start_mean"), "response"),
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    globals()[name] = value
    return value
