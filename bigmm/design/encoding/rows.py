"""Which rows of a partition can be used: missing, infinite and zero-weight ones are found, dropped and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bigmm.design.encoding.cells import floats, missing_rows
from bigmm.errors import DataError

ZERO_WEIGHT = "(zero weight)"
"""Name under which rows of weight zero are counted, where others have that of a column."""


@dataclass(frozen=True, slots=True)
class UsableRows:
    """Which rows stay: ``table`` without incomplete rows, ``places`` their rows in the partition (None: all)."""

    table: pa.Table
    places: np.ndarray | None
    dropped: tuple[tuple[str, int], ...]

    def without(self, name: str, bad: np.ndarray) -> UsableRows:
        """Drop the rows marked in bad (n,), counted under a name."""
        keep = ~bad
        places = np.flatnonzero(keep) if self.places is None else self.places[keep]
        return UsableRows(self.table.filter(pa.array(keep)), places, (*self.dropped, (name, int(bad.sum()))))

    def counts(self) -> tuple[tuple[str, int], ...]:
        """Rows dropped by name."""
        total: dict[str, int] = {}
        for name, count in self.dropped:
            total[name] = total.get(name, 0) + count
        return tuple(total.items())

    def row(self, place: int) -> int:
        """Row number, counted from 1, in the partition."""
        return int(place if self.places is None else self.places[place]) + 1


def complete_rows(table: pa.Table, names: tuple[str, ...], weights: str | None, drop: bool, where: str) -> UsableRows:
    """Leave out rows with a null or NaN in a used column or with weight zero; refuse infinite and negative ones."""
    bad: np.ndarray | None = None
    dropped: list[tuple[str, int]] = []
    for name in names:
        missing = missing_rows(name, table.column(name), where)
        if missing is None:
            continue
        if not drop:
            row = int(np.argmax(missing)) + 1
            raise DataError(f"{where}: column {name!r} has no value in row {row}; drop_missing=True would leave it out")
        # A row that lacks several values is charged once, to the first column, as the counts have to add up.
        bad, count = _add(bad, missing)
        if count:
            dropped.append((name, count))
    if weights is not None:
        zero = zero_weights(weights, floats(table.column(weights)), where)
        if zero is not None:
            bad, count = _add(bad, zero)
            dropped += [(ZERO_WEIGHT, count)] if count else []
    if bad is None:
        return UsableRows(table, None, ())
    keep = ~bad
    return UsableRows(table.filter(pa.array(keep)), np.flatnonzero(keep), tuple(dropped))


def _add(bad: np.ndarray | None, more: np.ndarray) -> tuple[np.ndarray, int]:
    if bad is None:
        return more.copy(), int(more.sum())
    fresh = more & ~bad
    return bad | more, int(fresh.sum())


def zero_weights(name: str, w: np.ndarray, where: str) -> np.ndarray | None:
    """(n,) bool where a weight is zero, or None; a negative weight is a DataError with the spot."""
    # The table still has the rows with NaN weights here, and these must not hide a negative one.
    if not w.size or np.nanmin(w) > 0:
        return None
    negative = np.flatnonzero(w < 0)
    if negative.size:
        raise DataError(
            f"{where}: weight {name!r} is {w[negative[0]]} in row {negative[0] + 1}; weights must not be negative"
        )
    zero = w == 0
    return zero if zero.any() else None


def bad_expressions(values: Mapping[str, np.ndarray], rows: UsableRows, where: str) -> tuple[str, np.ndarray] | None:
    """The first expression that gives NaN, with the rows (n,) bool; an infinite one is a DataError with the spot."""
    for text, value in values.items():
        with np.errstate(all="ignore"):
            # The same test by one sum as for columns: an overflowing sum only costs the closer look.
            if np.isfinite(value.sum()):
                continue
        infinite = np.isinf(value) if value.ndim == 1 else np.isinf(value).any(axis=1)
        if infinite.any():
            row = rows.row(int(np.argmax(infinite)))
            raise DataError(f"{where}: {text} is infinite in row {row}; mend the row, or leave it out with filter=")
        missing = np.isnan(value) if value.ndim == 1 else np.isnan(value).any(axis=1)
        if missing.any():
            return text, missing
    return None
