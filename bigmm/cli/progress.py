"""Two ways to show the `bigmm.execute.Progress` events of a run: a bar for people, lines for programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigmm.execute import Progress

#: Seconds between two lines about the same pass.
LINE_INTERVAL = 1.0


def seconds_left(event: Progress) -> float | None:
    """Seconds until the pass is done at the pace so far; None while that is not known."""
    if not event.rows_total or not event.rows_done or event.seconds <= 0:
        return None
    return (event.rows_total - event.rows_done) * event.seconds / event.rows_done


class Lines:
    """Progress as events: the first and the last of a pass, and one a second between."""

    def __init__(self, emit: Callable[..., None], clock: Callable[[], float] = time.monotonic):
        self.emit, self.clock = emit, clock
        self.label, self.due = "", 0.0

    def __call__(self, event: Progress) -> None:
        now = self.clock()
        finished = event.lanes_total > 0 and event.lanes_done == event.lanes_total
        if event.label == self.label and now < self.due and not finished:
            return
        self.label, self.due = event.label, now + LINE_INTERVAL
        left = seconds_left(event)
        self.emit(
            "progress",
            label=event.label,
            rows_done=event.rows_done,
            rows_total=event.rows_total,
            lanes_done=event.lanes_done,
            lanes_total=event.lanes_total,
            seconds=round(event.seconds, 3),
            rows_per_second=round(event.rows_done / event.seconds) if event.seconds > 0 else None,
            seconds_left=None if left is None else round(left, 1),
        )


class Bar:
    """A rich bar on stderr, one row a pass: rows, rows a second, time left."""

    def __init__(self) -> None:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Display

        self.display = Display(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeRemainingColumn(),
            console=Terminal(stderr=True),
            transient=True,
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Bar:
        self.display.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.display.stop()

    def __call__(self, event: Progress) -> None:
        by_rows = event.rows_total > 0
        done, total = (event.rows_done, event.rows_total) if by_rows else (event.lanes_done, event.lanes_total)
        if event.label not in self.tasks:
            self.tasks[event.label] = self.display.add_task(event.label, total=total or None, pace="")
        rate = event.rows_done / event.seconds if event.seconds > 0 else 0.0
        pace = f"{rate / 1e6:.2f} M rows/s" if by_rows and rate else ""
        self.display.update(self.tasks[event.label], completed=done, total=total or None, pace=pace)
