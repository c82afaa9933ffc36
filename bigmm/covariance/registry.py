"""All structures by their names in formulas: `name(columns | group)`."""

from __future__ import annotations

from functools import cache

from bigmm.covariance.ar1 import Autoregression
from bigmm.covariance.compound_symmetry import CompoundSymmetry
from bigmm.covariance.diagonal import Diagonal
from bigmm.covariance.protocol import Covariance
from bigmm.covariance.unstructured import Unstructured

STRUCTURES: dict[str, type[Covariance]] = {
    structure.name: structure
    for structure in (
        Unstructured,
        Diagonal,
        CompoundSymmetry,
        Autoregression,
    )
}


# A structure is frozen and has no parameters of its own, so all terms of one name and width share it.
@cache
def covariance(name: str, width: int) -> Covariance:
    """The named structure over so many columns. With one column every structure is a variance, as `Unstructured`."""
    return Unstructured(1) if width == 1 else STRUCTURES[name](width)
