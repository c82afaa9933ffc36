"""Orders of categories that Parquet files keep: pandas' and polars' categoricals, ordered dictionaries of Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bigmm.source.faults import guarded
from bigmm.source.footers import Footer
from bigmm.source.partition import Fingerprint, Orders
from bigmm.source.rows import FileReader
from bigmm.source.schema import holds_text

#: The order of more categories than this is not looked up: they number a grouping factor, where order has no meaning.
_MOST_CATEGORIES = 100_000
# By remote: a remote read waits for the network, and many of them wait at the same time.
_THREADS = {False: 4, True: 16}
_POLARS_ENUM = b"_PL_ENUM_VALUES2"
_HOW = "Pass categories={{{name!r}: [...]}} in the order that is meant."


@dataclass(frozen=True, slots=True)
class FileOrders:
    """Looks up the order of categories of named columns, in every file of a lake: dictionaries hold it, footers do not.

    ``footers``: of the files with rows.
    """

    reader: FileReader
    footers: tuple[Footer, ...]

    def orders(self, columns: Iterable[str]) -> Orders:
        """See `Source.orders`."""
        levels: dict[str, tuple[Any, ...]] = {}
        lost: dict[str, str] = {}
        for name in columns:
            if any(self._declares(footer, name) for footer in self.footers):
                order = self._order(name)
                if isinstance(order, str):
                    lost[name] = f"{order}. {_HOW.format(name=name)}"
                elif order is not None:
                    levels[name] = order
        return Orders(levels, lost)

    def _declares(self, footer: Footer, name: str) -> bool:
        return name in footer.pandas or _is_ordered(footer.schema, name)

    def _order(self, name: str) -> tuple[Any, ...] | str | None:
        """The order that all files have; why it cannot be known, where it matters; None where it does not."""
        ordered = any(_must_be_known(footer, name) for footer in self.footers)
        if any(footer.pandas.get(name, (0,))[0] > _MOST_CATEGORIES for footer in self.footers):
            return None
        if any(name in f.pandas and _is_no_text(f.schema, name) for f in self.footers):
            return f"column {name!r} was a categorical of pandas, of values that are no text: Parquet loses their order"
        common = self._common(name)
        if common is not None or not ordered:
            return common
        return f"the files do not agree on the order of the categories of column {name!r}, or do not hold it whole"

    def _common(self, name: str) -> tuple[Any, ...] | None:
        """The order in all files; None, and the rest of them unread, as soon as one has another order or none."""
        # `pool.map` gives the files in their order, so the result does not depend on which answer comes first.
        common: tuple[Any, ...] | None = None
        with ThreadPoolExecutor(_THREADS[self.reader.remote]) as pool:
            for number, orders in enumerate(pool.map(lambda footer: self._in_file(footer, name), self.footers)):
                if orders is None or (number and orders != common):
                    pool.shutdown(cancel_futures=True)
                    return None
                common = orders
        return common

    def _in_file(self, footer: Footer, name: str) -> tuple[Any, ...] | None:
        """The categories of one file in order, or None where its dictionary does not hold them all."""
        if name not in footer.schema.names:
            return None
        noted = (footer.schema.field(name).metadata or {}).get(_POLARS_ENUM)
        if noted is not None:
            return _polars_values(noted)
        groups = [number for number, rows in enumerate(footer.rows) if rows]
        # pandas wrote one dictionary for the whole column, so the first row group has every category.
        if name in footer.pandas:
            groups = groups[:1]
        orders = {self._in_group(footer, group, name) for group in groups}
        if len(orders) != 1:
            return None
        values = orders.pop()
        count = footer.pandas.get(name, (None,))[0]
        # A writer that split the dictionary holds fewer entries than pandas noted.
        return values if count is None or values is None or len(values) == count else None

    def _in_group(self, footer: Footer, group: int, name: str) -> tuple[Any, ...] | None:
        mark = Fingerprint(footer.path, footer.size, footer.stamp, (group,), footer.rows[group], 0, footer.digest)

        def first() -> pa.Table:
            with self.reader.filesystem.open_input_file(footer.path) as stream:
                # A batch of one row carries the whole dictionary of its row group.
                return next(self.reader.batches(stream, mark, [name], [name], 1))

        chunk = guarded(first, f"{footer.path}, row group {group}", self.reader.remote).column(0).chunk(0)
        return tuple(chunk.dictionary.to_pylist()) if pa.types.is_dictionary(chunk.type) else None


def _is_ordered(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    return pa.types.is_dictionary(kind) and bool(kind.ordered)


def _is_no_text(schema: pa.Schema, name: str) -> bool:
    return name in schema.names and not holds_text(schema.field(name).type)


def _must_be_known(footer: Footer, name: str) -> bool:
    return footer.pandas.get(name, (0, False))[1] or _is_ordered(footer.schema, name)


def _polars_values(noted: bytes) -> tuple[Any, ...] | None:
    """The values of polars' note: for each its length in bytes, a semicolon, and its text."""
    values: list[str] = []
    place = 0
    try:
        while place < len(noted):
            end = noted.index(b";", place)
            # Lengths count bytes, so a category may hold a semicolon itself.
            length = int(noted[place:end])
            values.append(noted[end + 1 : end + 1 + length].decode())
            place = end + 1 + length
    except ValueError:
        return None
    return tuple(values)


def table_orders(table: pa.Table, noted: dict[str, tuple[int, bool]], description: str) -> Orders:
    """Orders of categories of a table in memory: of ordered dictionaries, and of categoricals that pandas noted."""
    levels: dict[str, tuple[Any, ...]] = {}
    lost: dict[str, str] = {}
    for name, count in _unique(table.column_names):
        if count > 1:
            continue
        kind = table.schema.field(name).type
        if pa.types.is_dictionary(kind) and (kind.ordered or name in noted):
            values = _dictionary(table.column(name))
            # Fewer entries than pandas noted are those that occur, in the order of their occurrence.
            if len(values) >= noted.get(name, (0, False))[0] or kind.ordered:
                levels[name] = values
        elif name in noted and not holds_text(kind):
            lost[name] = (
                f"column {name!r} of the {description} was a categorical of pandas, and the order was lost. "
                f"{_HOW.format(name=name)}"
            )
    return Orders(levels, lost)


def _unique(names: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, names.count(name)) for name in dict.fromkeys(names)]


def _dictionary(column: pa.ChunkedArray) -> tuple[Any, ...]:
    chunks = column.unify_dictionaries().chunks
    return tuple(chunks[0].dictionary.to_pylist()) if chunks else ()
