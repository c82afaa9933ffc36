"""What every test module may use: quiet hypothesis profiles, the checkout, and a cluster of worker processes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code; CI repeats the same examples so that a red run can be repeated.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


SLOWEST = 20


def pytest_addoption(parser: Any) -> None:
    """`--record-durations FILE` writes the slowest tests and the time of all."""
    parser.addoption(
        "--record-durations", metavar="FILE", help="write the slowest tests and the sum of all times there"
    )


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Write the record that was asked for: seconds of setup, call and teardown together, test by test."""
    target = config.getoption("--record-durations")
    if not target:
        return
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "nodeid"):
                seconds[report.nodeid] += report.duration
    slowest = [f"| {name} | {time:.1f} |" for name, time in seconds.most_common(SLOWEST)]
    lines = [f"{len(seconds)} tests, {seconds.total():.0f} seconds", "", "| test | seconds |", "|---|---|", *slowest]
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text("\n".join(lines) + "\n")
    terminalreporter.write_line(f"{lines[0]}; the slowest {len(slowest)} are in {target}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Any:
    """Skip tests of LLVM intrinsics where kernels run as plain Python (NUMBA_DISABLE_JIT=1)."""
    try:
        return (yield)
    except NotImplementedError as error:
        if os.environ.get("NUMBA_DISABLE_JIT") != "1" or "not usable in pure-python" not in str(error):
            raise
        pytest.skip(f"needs the compiler: {error}")


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes, in which a task may kill its worker any number of times."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    settings = {"distributed.scheduler.allowed-failures": 0}
    workers = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with dask.config.set(settings), distributed.LocalCluster(**workers, silence_logs=50) as running:
        yield running


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """A client of the module's cluster, both workers up."""
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster) as connected:
        connected.wait_for_workers(2, timeout=180)
        yield connected
