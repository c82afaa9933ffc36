"""Writers that end at a chosen event: `python -m tests.atomic.endings FOLDER HOW OVERWRITE SWITCH`.

A process without threads forks a writer for event 1, 2, 3, ... up to the last; an event is a call to the operating
system that Python audits. Prints one JSON line a writer: how it ended, and what was at the target before
anything else looked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from bigmm.atomic import settled_path, switch, watched, whole_directory, whole_file
from bigmm.cli.signals import Interrupted, Terminated, termination
from bigmm.errors import OutputError

NUMBERS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
WRITTEN, STOPPED = 0, 99
LAST = 10**6
"""An event that never comes: the writer gets through, and leaves the number of events."""


def write(target: Path, text: str, overwrite: bool) -> None:
    """A directory with two files and a folder, or a file when the target has a suffix."""
    if target.suffix:
        with whole_file(target, replaceable=lambda path: True) as draft:
            draft.write_text(text * 2)
        return
    with whole_directory(target, overwrite=overwrite) as draft:
        (draft / "a").write_text(text)
        (draft / "deep").mkdir()
        (draft / "deep" / "b").write_text(text)


def state(target: Path) -> str:
    """The text in the target when it is whole; ABSENT, or what is wrong."""
    if not target.exists():
        return "ABSENT"
    if target.suffix:
        text = target.read_text()
    else:
        names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*"))
        if names != [".bigmm", "a", "deep", "deep/b"]:
            return f"TORN {names}"
        text = (target / "a").read_text() + (target / "deep" / "b").read_text()
    return text[: len(text) // 2] if text[: len(text) // 2] * 2 == text else f"TORN {text!r}"


def end_at(event: int, number: int) -> list[str]:
    """Send this process a signal at its so manieth audited event from here on; returns the list of events so far."""
    events: list[str] = []

    def hook(name: str, arguments: tuple) -> None:
        if name.startswith(("os.", "open", "fcntl.", "shutil.", "ctypes.")) and name != "os.kill":
            events.append(name)
            if len(events) == event:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    return events


def writer(target: Path, event: int, number: int, overwrite: bool) -> None:
    """Write with an end at an event; the exit code is that of the command line."""
    settled: list[Path] = []
    try:
        with termination([]), watched(settled.append):
            events = end_at(event, number)
            write(target, "new", overwrite)
            if event == LAST:
                (target.parent.parent / "events").write_text(str(len(events)))
    except (Terminated, Interrupted):
        os._exit(WRITTEN if settled else STOPPED)
    except BaseException as error:
        print(json.dumps({"error": repr(error)}), flush=True)
        os._exit(1)
    os._exit(WRITTEN)


def trial(target: Path, event: int, number: int, overwrite: bool) -> tuple[int, str]:
    """(exit code, state of the target) of a writer that ends at an event."""
    for leftover in target.parent.iterdir():
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    if overwrite:
        write(target, "old", False)
    child = os.fork()
    if child == 0:
        writer(target, event, number, overwrite)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, state(target)


def main(folder: str, how: str, overwrite: str, mode: str) -> None:
    """Every event in turn."""
    if mode == "journal":
        switch._renameat2 = lambda old, new, flags: False  # type: ignore[assignment]
    target = Path(folder)
    trial(target, LAST, NUMBERS[how], overwrite == "overwrite")
    for event in range(1, int((target.parent.parent / "events").read_text()) + 1):
        code, before = trial(target, event, NUMBERS[how], overwrite == "overwrite")
        settled = state(settled_path(target))
        try:
            write(target, "next", False)
            kept = False
        except OutputError:
            kept = True
        write(target, "last", True)
        names = sorted(path.name for path in target.parent.iterdir())
        line = {"event": event, "code": code, "before": before, "settled": settled, "kept": kept, "names": names}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
