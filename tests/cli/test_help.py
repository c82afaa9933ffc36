"""Help is quick, and names everything a user has to know."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HEAVY = ("dask", "distributed", "formulaic", "numba", "numpy", "pandas", "pyarrow", "rich", "scipy", "zarr")


def used_seconds() -> float:
    """Processor time of the children that have ended: a busy machine takes longer, but not more of it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_answers_in_half_a_second(start):
    seconds = []
    for _ in range(4):
        begun = used_seconds()
        child = start("--help")
        out, _ = child.communicate(timeout=300)
        seconds.append(used_seconds() - begun)
        assert child.returncode == 0
    assert "Linear and generalized linear mixed models for Parquet lakes" in out
    assert min(seconds) < 0.5


def test_the_command_line_starts_without_heavy_modules(project):
    code = f"import sys, bigmm.cli; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "fit",
            (
                "--reml",
                "--ml",
                "--weights",
                "--offset",
                "--out",
                "--scheduler",
                "--workers",
                "--memory-limit",
                "--json",
                "--family",
                "--link",
                "--nagq",
                "--laplace",
                "--se",
                "--mc-tol",
                "--seed",
            ),
        ),
        ("plan", ("levels, blocks, bytes, passes", "--filter", "--family")),
        ("summary", ("MODEL",)),
        ("ranef", ("--group", "--condvar")),
        ("predict", ("--new-levels", "--population", "--se", "--type")),
        ("certify", ("--scheduler", "--workers", "--memory-limit", "--tile", "--json", "else with 3")),
        ("demo", ("73,421", "--out")),
    ],
)
def test_every_command_explains_itself(bigmm, command, words):
    ended = bigmm(command, "--help")
    assert ended.code == 0
    for word in words:
        assert word in ended.out


def test_exit_codes_are_in_the_help(bigmm):
    text = " ".join(bigmm("--help").out.split())
    for code in (
        "0 fitted and converged",
        "2 usage or formula",
        "3 fitted, but",
        "65 bad data",
        "70 a bug",
        "73 cannot write",
    ):
        assert code in text


def test_version(bigmm):
    ended = bigmm("--version")
    assert ended.code == 0
    assert ended.out.startswith("bigmm, version ")
