"""Progress events become lines once a second, with pace and time left."""

from __future__ import annotations

from bigmm.cli.progress import Lines, seconds_left
from bigmm.execute import Progress


def test_time_left_at_the_pace_so_far():
    assert seconds_left(Progress("pass", 250, 1000, 1, 4, 2.0)) == 6.0
    assert seconds_left(Progress("pass", 0, 1000, 0, 4, 2.0)) is None
    assert seconds_left(Progress("pass", 10, 0, 0, 4, 2.0)) is None


def test_one_line_a_second_and_the_last():
    now = [0.0]
    lines = []
    report = Lines(lambda event, **details: lines.append((event, details)), clock=lambda: now[0])
    for step in range(1, 41):
        now[0] = step / 10
        report(Progress("pass", step * 10, 400, step // 40, 1, now[0]))
    report(Progress("next", 10, 400, 0, 1, 0.1))
    assert [details["rows_done"] for _, details in lines] == [10, 110, 210, 310, 400, 10]
    assert lines[1][1]["rows_per_second"] == 100
    assert lines[1][1]["seconds_left"] == 2.9
