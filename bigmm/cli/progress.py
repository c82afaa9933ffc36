"""Progress as lines for programs; `bigmm.display` has the bar for people."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

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
        # The last event of a pass is never left out, so that a reader sees the final counts.
        if event.label == self.label and now < self.due and not finished:
            return
        self.label, self.due = event.label, now + LINE_INTERVAL
        remaining = seconds_left(event)
        self.emit(
            "progress",
            label=event.label,
            rows_done=event.rows_done,
            rows_total=event.rows_total,
            lanes_done=event.lanes_done,
            lanes_total=event.lanes_total,
            seconds=round(event.seconds, 3),
            rows_per_second=round(event.rows_done / event.seconds) if event.seconds > 0 else None,
            seconds_left=None if remaining is None else round(remaining, 1),
        )
