"""Is the response one the family can give, and from which mean to start."""

from __future__ import annotations

import numpy as np

from bigmm.families.distribution import Column, Mask
from bigmm.families.registry import Family
from bigmm.families.rows import eta_of

Fault = tuple[int, str]


def check_response(family: Family, y: Column, w: Column | None) -> Fault | None:
    """(row, message) of the first response or weight the family cannot have, None when all are fine.

    y: (n,); w: (n,) prior weights, the trials of a binomial, or None. The caller adds file and row group.
    """
    if w is not None:
        fault = _first(~((w >= 0.0) & np.isfinite(w)), w, "weight {value} is not a non-negative number")
        if fault:
            return fault
    fault = _first(~np.isfinite(y), y, "response {value} is not a finite number: drop or mend the row")
    if fault:
        return fault
    # Kernels do not look again: a response out of range would give nan far from its row.
    record = family.distribution
    return _first(record.outside_range(y), y, f"response {{value}}: {record.range_message}")


def doubt_response(family: Family, y: Column, w: Column | None) -> Fault | None:
    """(row, message) of the first binomial proportion that is no number of successes: a BigmmWarning, as in R."""
    doubt = family.distribution.doubt(y, w)
    return None if doubt is None else _first(doubt[0], y, doubt[1])


def _first(bad: Mask, values: Column, message: str) -> Fault | None:
    if not bad.any():
        return None
    row = int(np.argmax(bad))
    return row, message.format(value=f"{values[row]:.15g}")


def start_mean(family: Family, y: Column, w: Column | None) -> Column:
    """(n,) means to start PIRLS from, inside the family's range."""
    return family.distribution.start_mean(y, np.ones_like(y) if w is None else w, family.link)


def start_eta(family: Family, y: Column, w: Column | None = None) -> Column:
    """(n,) linear predictors to start PIRLS from: the link of `start_mean`."""
    return eta_of(family, start_mean(family, y, w))
