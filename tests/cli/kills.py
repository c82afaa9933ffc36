"""Command lines that are killed: `python -m tests.cli.kills PLACE COMMAND OVERWRITE FRACTION...`.

One process imports everything and forks a command for each fraction; the command is killed at that share of its calls
to the operating system that concern the output's directory. Prints a JSON line each: what is at --out then, and after
the next start. PLACE holds `lake`, `model`, and a finished `old` and `new` output to compare with.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pandas
import pyarrow.parquet
import zarr

import bigmm.fit
import bigmm.results
from bigmm.cli.app import run
from bigmm.errors import OutputError

IMPORTED = (pandas, pyarrow.parquet, zarr, bigmm.fit, bigmm.results)
#: They tell the time of the run.
TIMED = ("fit.json", "manifest.json", "zarr.json", "summary.txt", ".bigmm")
FORMULAS = {"old": "Reaction ~ 1 + (1 | Subject)", "new": "Reaction ~ Days + (1 | Subject)"}


def arguments(place: Path, command: str, text: str, out: Path) -> list[str]:
    """The command line that writes the old or the new output."""
    if command == "fit":
        return ["fit", FORMULAS[text], str(place / "lake"), "--quiet", "--workers", "1", "--out", str(out)]
    kind = {"old": "--random", "new": "--population"}[text]
    return ["predict", str(place / "model"), str(place / "lake"), kind, "--quiet", "--out", str(out)]


def content(folder: Path) -> dict[str, bytes]:
    """The files below and what is in them, but for what tells the time."""
    return {
        path.relative_to(folder).as_posix(): b"" if path.name in TIMED else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def state(place: Path, out: Path) -> str:
    """ABSENT, old or new when it is that to the byte, else what it has too many or too few."""
    if not out.exists():
        return "ABSENT"
    there = content(out)
    for text in ("old", "new"):
        if there == content(place / text):
            return text
    return f"TORN {sorted(there)}"


def command_process(line: list[str], folder: Path, stop: float) -> int:
    """Fork the command; it is killed at its event number `stop`. Returns the exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    events = 0

    def hook(name: str, given: tuple) -> None:
        nonlocal events
        if name != "os.kill" and name.startswith(("os.", "open", "shutil.", "ctypes.dlopen", "fcntl.")):
            about = [item for item in given if isinstance(item, str | bytes | os.PathLike)]
            if not about or any(os.fsdecode(item).startswith(str(folder)) for item in about):
                events += 1
                if events >= stop:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 1)
        code = run(line)
    (folder.parent / "events").write_text(str(events))
    os._exit(code)


def main(place: Path, command: str, overwrite: bool, fractions: list[float]) -> None:
    """A trial for each fraction."""
    folder = place / "outputs"
    folder.mkdir()
    out = folder / "out"
    for text in ("old", "new"):
        if command_process(arguments(place, command, text, place / text), folder, float("inf")):
            raise SystemExit(f"the {text} output could not be made")
    line = arguments(place, command, "new", out) + ["--overwrite"] * overwrite
    command_process(line, folder, float("inf"))
    for fraction in fractions:
        code, stop = 0, float("inf")
        while code == 0:  # the number of events differs between runs; this one got through
            total = int((place / "events").read_text())
            shutil.rmtree(folder)
            folder.mkdir()
            if overwrite:
                shutil.copytree(place / "old", out)
            stop = min(stop - 1 - total // 50, 1 + int(fraction * total))
            code = command_process(line, folder, stop)
        before = state(place, out)
        try:
            bigmm.atomic.check_destination(out)
            taken = False
        except OutputError:
            taken = True
        again = command_process([*line, *["--overwrite"] * (not overwrite)], folder, float("inf"))
        names = sorted(path.name for path in folder.iterdir())
        ended = {"stop": stop, "of": total, "code": code, "before": before, "taken": taken}
        print(json.dumps(ended | {"again": again, "after": state(place, out), "names": names}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "overwrite", [float(word) for word in sys.argv[4:]])
