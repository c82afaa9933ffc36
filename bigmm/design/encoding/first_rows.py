"""The first rows, encoded: what a pass must know of the columns before it begins."""

from __future__ import annotations

import numpy as np

from bigmm.design.layout import DesignChunk
from bigmm.design.spec import DesignSpec
from bigmm.source.partition import Source

HEAD_ROWS = 65_536
ENOUGH_ROWS = 64
LOOKS = 16
"""Most partitions that are read in search of complete rows."""


def first_rows(source: Source, spec: DesignSpec) -> DesignChunk:
    """Encode the first rows. They tell the shift of the columns, and whether there are weights and an offset.

    Where few of them are complete, partitions spread over the data are read instead, until one has more.
    """
    head = spec.encode(source.head(spec.used_columns, HEAD_ROWS), "the first rows")
    # Files are often sorted by time, and columns that came late lack values in all early partitions.
    positions = np.unique(np.linspace(0, len(source.partitions) - 1, LOOKS).astype(int)) if source.partitions else ()
    for position in positions:
        if _counted(head) >= min(ENOUGH_ROWS, max(head.rows_read, 2)):
            break
        partition = source.partitions[position]
        chunk = spec.encode(source.read(partition, spec.used_columns), partition.where)
        if _counted(chunk) > _counted(head):
            head = chunk
    return head


def _counted(chunk: DesignChunk) -> int:
    """Complete rows with a weight."""
    return chunk.rows if chunk.w is None else int(np.count_nonzero(chunk.w))
