"""Memory limits as users write them, and memory that is given back."""

from __future__ import annotations

import ctypes
import re
import sys
from typing import Any

import pyarrow as pa

from bigmm.errors import UsageError

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}


def in_units(nbytes: float) -> str:
    """Bytes as people read them: "37.2 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1024
    return f"{nbytes:.4g} TiB"


def memory_bytes(limit: Any) -> int:
    """Bytes of "4GiB", "500MB", a number, or None: nine tenths of the memory that is free now."""
    if limit is None:
        import psutil

        # The tenth is for what the memory model does not count.
        return int(0.9 * psutil.virtual_memory().available)
    # bool is an int in Python, and True no limit of one byte.
    if isinstance(limit, (int, float)) and not isinstance(limit, bool):
        if limit <= 0:
            raise UsageError(f"memory_limit must be positive, got {limit}")
        return int(limit)
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", str(limit))
    if not match or match[2].upper() not in _UNITS or match[1].count(".") > 1 or float(match[1]) <= 0:
        raise UsageError(
            f"memory_limit {limit!r} is not a size: write for example '4GiB', '500MB' or a number of bytes"
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def give_back() -> None:
    """Hand to the system what Arrow and the C library keep of what was freed: after a pass that is most of its peak."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none and keeps little
        if trim is not None:
            trim(0)
