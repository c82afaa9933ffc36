"""SIGKILL of `fit --out` and `predict --out`: the old or the new result is there, and the next run works."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys

import pytest

from bigmm.cli.app import run
from tests.cli.cases import SLEEP


def trials(project, lake, place, command, overwrite, fractions):
    """Kill the command at these shares of its way; check and return what was found."""
    shutil.copytree(lake, place / "lake")
    assert run(["fit", SLEEP, str(lake), "--quiet", "--out", str(place / "model")]) == 0
    arguments = [str(place), command, "overwrite" if overwrite else "fresh", *map(str, fractions)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.kills", *arguments], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(fractions)
    for line in lines:
        assert line["code"] == -9, line
        assert line["before"] in ("old" if overwrite else "ABSENT", "new"), line
        assert line["taken"] is (line["before"] != "ABSENT"), line
        assert (line["again"], line["after"], line["names"]) == (0, "new", ["out"]), line
    return lines


@pytest.mark.parametrize("command", ["fit", "predict"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_kills_at_chosen_events(project, sleep_lake, tmp_path, command, overwrite):
    """The first, one in the middle, and one near the end, where the switch is; tests/atomic has each event of it.

    How many events a run has differs a little (threads of zarr), so the last may come before or after the switch.
    """
    lines = trials(project, sleep_lake, tmp_path, command, overwrite, [0.0, 0.5, 0.999])
    assert [line["before"] for line in lines[:2]] == ["old" if overwrite else "ABSENT"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "predict"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_random_kills(project, sleep_lake, tmp_path, command, overwrite):
    """Fifty each, half of them in the last tenth of the events, where the switch is."""
    draw = random.Random(f"{command} {overwrite}")
    fractions = [draw.uniform(0.9 * (number % 2), 1.0) for number in range(50)]
    lines = trials(project, sleep_lake, tmp_path, command, overwrite, fractions)
    states = [line["before"] for line in lines]
    print({state: states.count(state) for state in sorted(set(states))})
    assert len(set(states)) == 2
