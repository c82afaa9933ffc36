"""Which levels have rows that count.

Levels are learned from the columns of factors alone, so a level may have no row that is complete in the other columns.
The look for such levels reads all used columns only where a level that still lacks a row occurs, and ends when every
level has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from bigmm.design.spec import DesignSpec
from bigmm.execute import Executor
from bigmm.source.partition import Partition, Source

Masks = dict[tuple[str, ...], np.ndarray]


def levels_with_rows(
    spec: DesignSpec, source: Source, workers: Executor, factors: Sequence[tuple[str, ...]]
) -> tuple[Masks, bool]:
    """Which levels have a row that counts.

    Partitions are looked at in growing batches until every level has such a row.

    Parameters
    ----------
    factors: columns of each factor that is asked about.

    Returns {columns of a factor: (n_levels,) bool}, and whether all partitions were looked at: that is a pass.
    """
    masks = {columns: np.zeros(spec.level_count(columns), dtype=bool) for columns in factors}
    first, size = 0, 1
    while first < len(source.partitions) and not all(mask.all() for mask in masks.values()):
        missing = {columns: ~mask for columns, mask in masks.items() if not mask.all()}
        batch = source.partitions[first : first + size]
        for covered in workers.map(partial(covered_levels, source, spec, missing), batch, label="levels"):
            for columns, numbers in covered.items():
                masks[columns][numbers] = True
        # Batches double: nearly always the first partitions show every level, and else all workers are soon busy.
        first, size = first + size, max(2 * size, workers.n_workers)
    return masks, first >= len(source.partitions) > 0


def covered_levels(
    source: Source, spec: DesignSpec, missing: Mapping[tuple[str, ...], np.ndarray], partition: Partition
) -> dict[tuple[str, ...], np.ndarray]:
    """Numbers of the levels in question that have a row of the partition that counts; a pure task.

    missing: the levels in question, (n_levels,) bool by columns of a factor. All columns are read where one occurs.
    """
    names = list(dict.fromkeys(name for columns in missing for name in columns))
    table = source.read(partition, names)
    if not any(len(_numbers(spec, columns, table, mask)) for columns, mask in missing.items()):
        return {}
    # The second read is rare: most partitions hold only levels that already have a row.
    complete = spec.completeness(source.read(partition, spec.used_columns), partition.where)
    return {columns: _numbers(spec, columns, complete, mask) for columns, mask in missing.items()}


def _numbers(spec: DesignSpec, columns: tuple[str, ...], table: pa.Table, missing: np.ndarray) -> np.ndarray:
    numbers = spec.level_numbers(columns, table)
    flags = np.zeros(len(missing) + 1, dtype=bool)
    flags[numbers] = True  # -1 marks the last, which is no level
    return np.flatnonzero(flags[:-1] & missing)
