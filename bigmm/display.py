"""A progress bar on stderr for the events of a pass: rows, rows a second, time left (rich)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bigmm.compilation import tell
from bigmm.errors import UsageError

if TYPE_CHECKING:
    from bigmm.execute import Progress
    from bigmm.execute.progress import ProgressCallback


def progress_callback(progress: Any) -> ProgressCallback | None:
    """What ``progress=`` means: True is a bar on stderr, None or False is nothing, and a function is taken as it is."""
    if progress is None or progress is False:
        return None
    if progress is True:
        return ProgressBar()
    if not callable(progress):
        raise UsageError("progress must be True, False, None or a function that takes a bigmm.execute.Progress")
    return progress


class ProgressBar:
    """One row a pass. As a context manager it shows all passes of a fit, called without one after the other."""

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
        self.entered = False
        tell(self.display.console.print)

    def __enter__(self) -> ProgressBar:
        self.entered = True
        self.display.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.display.stop()

    def __call__(self, event: Progress) -> None:
        by_rows = event.rows_total > 0
        done, total = (event.rows_done, event.rows_total) if by_rows else (event.lanes_done, event.lanes_total)
        if not self.entered:
            self.display.start()
        if event.label not in self.tasks:
            self.tasks[event.label] = self.display.add_task(event.label, total=total or None, pace="")
        # The first event may come within the resolution of the clock.
        rate = event.rows_done / event.seconds if event.seconds > 0 else 0.0
        pace = f"{rate / 1e6:.2f} M rows/s" if by_rows and rate else ""
        self.display.update(self.tasks[event.label], completed=done, total=total or None, pace=pace)
        if not self.entered and event.lanes_total and event.lanes_done == event.lanes_total:
            self.display.stop()
