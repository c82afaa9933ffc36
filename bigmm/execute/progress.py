"""What a pass over the rows reports while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True, slots=True)
class Progress:
    """One report: totals are 0 when unknown, ``seconds`` counts from the start of the pass."""

    label: str
    rows_done: int
    rows_total: int
    lanes_done: int
    lanes_total: int
    seconds: float


ProgressCallback = Callable[[Progress], None]


class Reporter:
    """Adds up rows and lanes and hands a `Progress` to the callback, always in the thread that called the executor."""

    def __init__(self, callback: ProgressCallback | None, label: str, rows_total: int, lanes_total: int):
        self.callback, self.label = callback, label
        self.rows_done, self.rows_total, self.lanes_done, self.lanes_total = 0, rows_total, 0, lanes_total
        self.start = perf_counter()

    def add(self, rows: int = 0, lanes: int = 0) -> None:
        """Count and report."""
        # No lock: every executor calls this in the caller's thread.
        self.rows_done += rows
        self.lanes_done += lanes
        if self.callback is not None:
            totals = (self.rows_done, self.rows_total, self.lanes_done, self.lanes_total)
            self.callback(Progress(self.label, *totals, perf_counter() - self.start))
