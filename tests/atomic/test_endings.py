"""Whatever ends a writer: the old or the new output is at the target, whole, and the exit code agrees.

A writer is ended at each of its calls to the operating system in turn (`endings`), the switch included.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from bigmm.atomic import whole_directory
from bigmm.atomic.lock import hidden_name
from tests.atomic.endings import STOPPED, WRITTEN


def endings(project, folder, name, *choices):
    (folder / "place").mkdir()
    command = [sys.executable, "-m", "tests.atomic.endings", str(folder / "place" / name), *choices]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all("error" not in line for line in lines), lines
    assert len(lines) > 12
    assert {tuple(line["names"]) for line in lines} == {(name,)}, "something is left beside the output"
    return lines


@pytest.mark.parametrize("mode", ["exchange", "journal"])
@pytest.mark.parametrize("number", ["kill", "terminate", "interrupt"])
def test_an_overwrite_leaves_the_old_or_the_new(project, tmp_path, number, mode):
    lines = endings(project, tmp_path, "results", number, "overwrite", mode)
    before = [line["before"] for line in lines]
    assert set(before) <= {"old", "new", "ABSENT"}
    assert {"old", "new"} <= set(before)
    # two renames have a moment between them, which the next start ends, with or without --overwrite
    assert before.count("ABSENT") == (1 if (number, mode) == ("kill", "journal") else 0)
    assert {line["settled"] for line in lines} == {"old", "new"}
    assert all(line["kept"] for line in lines)
    codes = {STOPPED: "old", WRITTEN: "new"}
    assert all(line["before"] == codes[line["code"]] for line in lines if line["code"] != -signal.SIGKILL)


@pytest.mark.parametrize("number", ["kill", "terminate"])
@pytest.mark.parametrize("name", ["results", "fit.json"])
def test_a_first_output_is_absent_or_whole(project, tmp_path, number, name):
    lines = endings(project, tmp_path, name, number, "fresh", "exchange")
    assert {line["before"] for line in lines} == {"ABSENT", "new"}
    codes = {STOPPED: "ABSENT", WRITTEN: "new"}
    assert all(line["before"] == codes[line["code"]] for line in lines if line["code"] != -signal.SIGKILL)


def test_a_file_is_the_old_or_the_new(project, tmp_path):
    lines = endings(project, tmp_path, "fit.json", "kill", "overwrite", "exchange")
    assert {line["before"] for line in lines} == {"old", "new"}


def test_a_file_that_appeared_in_what_was_replaced_is_kept(tmp_path):
    """The writer was killed after the exchange and before it looked: the next one removes its own alone."""
    for text in ("old", "new"):
        with whole_directory(tmp_path / text) as draft:
            (draft / "a").write_text(text)
    out, hidden = tmp_path / "out", hidden_name(tmp_path / "out", "-0123abcd")
    (tmp_path / "old").rename(hidden)
    (tmp_path / "new").rename(out)
    (hidden / "thesis.tex").touch()
    with whole_directory(out, overwrite=True):
        pass
    assert (hidden / "thesis.tex").exists()
    (hidden / "thesis.tex").unlink()
    with whole_directory(out, overwrite=True):
        pass
    assert not hidden.exists()
