"""What every benchmark prints beside its figures: the machine, the versions, how long, and whether a claim holds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def announce(title: str, *packages: str) -> None:
    """Print what is measured, the processor, the load, and the versions of packages."""
    known = ", ".join(f"{name} {_version(name)}" for name in ("bigmm", "numpy", "pyarrow", "numba", *packages))
    print(f"== {title}")
    print(f"{processor()}, {cores()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {known}")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The model name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def timed(work: Callable[[], T]) -> tuple[float, float, T]:
    """Seconds, CPU seconds of all threads of this process, result."""
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - start, time.process_time() - cpu, result


def at_most(what: str, value: float, claim: float, aim: float | None = None, unit: str = "") -> bool:
    """Print whether ``what`` is within its claim."""
    return _verdict(value <= claim, f"{what} is {value:.3g}{unit}, claimed at most {claim:g}{unit}", aim, unit)


def at_least(what: str, value: float, claim: float, aim: float | None = None, unit: str = "") -> bool:
    """Print whether ``what`` reaches its claim."""
    return _verdict(value >= claim, f"{what} is {value:.3g}{unit}, claimed at least {claim:g}{unit}", aim, unit)


def _verdict(holds: bool, text: str, aim: float | None, unit: str) -> bool:
    print(f"{'PASS' if holds else 'MISSED'}: {text}{f' (aim {aim:g}{unit})' if aim is not None else ''}", flush=True)
    return holds


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
