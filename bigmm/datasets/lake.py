"""Write a table as a Parquet lake: hive directories, several files each, page checksums, all or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bigmm.atomic import marked_table, shown_path, whole_directory
from bigmm.errors import UsageError

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def write_lake(
    frame: pd.DataFrame | pa.Table,
    directory: str | os.PathLike[str],
    *,
    partition_by: str | Sequence[str] = (),
    rows_per_file: int = 1_000_000,
    row_group_rows: int = 250_000,
    overwrite: bool = False,
) -> list[Path]:
    """Write a table as a lake of Parquet files with page checksums: ``directory/key=value/part-00000.parquet``.

    Parameters
    ----------
    frame : pandas DataFrame or pyarrow Table
        The rows. They keep their order within a file.
    directory : path
        The place, which appears whole or not at all, with a hidden file `.bigmm` that marks it.
    partition_by : str or sequence of str
        Columns that go into the names of folders, and not into the files. Without any the files lie flat.
    rows_per_file, row_group_rows : int
        Most rows of a file, and of a row group.
    overwrite : bool
        Replace a directory that bigmm wrote. No other is replaced.

    Returns
    -------
    list of Path
        The files in order.

    Raises
    ------
    UsageError
        If a key is no column, or a size is below 1.
    OutputError
        If the place cannot be written, or is taken.
    TemporaryError
        If another run writes it.
    """
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    keys = [partition_by] if isinstance(partition_by, str) else list(partition_by)
    _check(table, keys, rows_per_file, row_group_rows)
    written: list[Path] = []
    with whole_directory(directory, overwrite=overwrite) as draft:
        for folder, part in _partitions(table, keys):
            # A flat lake is written into the draft itself, which is there already.
            (draft / folder).mkdir(parents=True, exist_ok=True)
            for number, start in enumerate(range(0, part.num_rows, rows_per_file)):
                name = folder / f"part-{number:05d}.parquet"
                pq.write_table(
                    marked_table(part.slice(start, rows_per_file)),
                    draft / name,
                    row_group_size=row_group_rows,
                    compression="zstd",
                    write_page_checksum=True,
                )
                written.append(name)
    return [shown_path(directory) / name for name in written]


def _check(table: pa.Table, keys: list[str], rows_per_file: int, row_group_rows: int) -> None:
    for key in keys:
        if key not in table.column_names:
            raise UsageError(
                f"partition_by names {key!r}, which is not among the columns: {', '.join(table.column_names)}"
            )
    if len(keys) == len(table.column_names):
        raise UsageError("partition_by names every column: at least one must be left for the files")
    for name, value in (("rows_per_file", rows_per_file), ("row_group_rows", row_group_rows)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")


def _partitions(table: pa.Table, keys: list[str]) -> Iterator[tuple[Path, pa.Table]]:
    """(hive folder, rows of that folder without the keys), in the order of the keys' values."""
    if not keys:
        yield Path(), table
        return
    # pandas groups declared categories in their order, and the row numbers keep theirs
    index = table.select(keys).to_pandas()
    columns = table.drop_columns(keys)
    by: str | list[str] = keys[0] if len(keys) == 1 else keys
    for values, rows in index.groupby(by, observed=True, dropna=False, sort=True).indices.items():
        # pandas gives tuples for several keys, and bare values for one.
        parts = values if isinstance(values, tuple) else (values,)
        folder = Path(*(f"{quote(key, safe='')}={_hive(value)}" for key, value in zip(keys, parts)))
        yield folder, columns.take(pa.array(cast("Sequence[int]", rows)))


def _hive(value: object) -> str:
    return HIVE_NULL if pd.isna(value) else quote(str(value), safe="")  # type: ignore[call-overload]
