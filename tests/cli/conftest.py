"""Runs the command line in this process or in one of its own, on real Parquet lakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bigmm.cli.app import run
from bigmm.datasets import sleepstudy, write_lake


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.rstrip("\n").splitlines()[-1]

    @property
    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.err.splitlines()]


@pytest.fixture
def bigmm(capfd):
    """Run a command in this process."""

    def call(*arguments: object) -> Ended:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return call


@pytest.fixture
def start(project):
    """Start a command in a process of its own."""
    children = []

    def call(*arguments: object, **options: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "bigmm", *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(project), "PYTHONUNBUFFERED": "1"}
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment} | options
        children.append(subprocess.Popen(command, **settings))
        return children[-1]

    yield call
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()
        for stream in (child.stdout, child.stderr):
            if stream:
                stream.close()


@pytest.fixture(scope="session")
def sleep_lake(tmp_path_factory) -> Path:
    """The sleep study in four files."""
    lake = tmp_path_factory.mktemp("sleep") / "lake"
    write_lake(sleepstudy(), lake, rows_per_file=50)
    return lake
