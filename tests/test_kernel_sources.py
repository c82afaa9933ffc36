"""A cached kernel is compiled anew when a function that it calls has changed in another file."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

import bigmm
from bigmm import kernel_sources

PACKAGE = Path(bigmm.__file__).parent
KERNEL = """
import numpy as np
from bigmm.blocks.trial import twice_of
print(twice_of(3.0), sum(twice_of.stats.cache_hits.values()))
"""


@pytest.mark.parametrize("cache", ["named", "beside"])
def test_a_changed_device_function_is_compiled_into_the_kernels_that_call_it(tmp_path, cache):
    package = tmp_path / "bigmm"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    device, kernel = package / "families" / "trial.py", package / "blocks" / "trial.py"
    device.write_text("from bigmm.kernel import njit\n\n@njit(cache=True)\ndef twice(x):\n    return 2.0 * x\n")
    kernel.write_text(
        "from bigmm.kernel import njit\nfrom bigmm.families.trial import twice\n\n"
        "@njit(cache=True)\ndef twice_of(x):\n    return twice(x)\n"
    )
    environment = dict(os.environ) | {"PYTHONPATH": str(tmp_path), "NUMBA_DISABLE_JIT": "0"}
    environment.pop("NUMBA_CACHE_DIR", None)
    if cache == "named":
        environment["NUMBA_CACHE_DIR"] = str(tmp_path / "kernels")

    def answers():
        command = [sys.executable, "-c", KERNEL]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.split()

    def cached():
        return sorted(p.name for p in tmp_path.rglob("trial.twice_of*"))

    assert answers() == ["6.0", "0"]
    files = cached()
    assert answers() == ["6.0", "1"]
    device.write_text(device.read_text().replace("2.0", "5.0"))
    assert answers() == ["15.0", "0"]
    assert answers() == ["15.0", "1"]
    assert cached() == files, "the new code takes the place of the old"
    (package / "cli" / "app.py").write_text("")
    assert answers() == ["15.0", "1"], "what no kernel calls changes no stamp"


def test_every_function_that_a_kernel_calls_is_in_its_sources(monkeypatch):
    """Over all kernels of the package, those of the branches over the families included."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "bigmm."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    kernels = {
        id(value): value
        for name, module in list(sys.modules.items())
        if name.startswith("bigmm.")
        for value in vars(module).values()
        if isinstance(value, Dispatcher)
    }
    if not kernels:
        pytest.skip("nothing is compiled")
    for kernel in kernels.values():
        sources = _closure(Path(kernel.py_func.__code__.co_filename))
        for called in _called(kernel):
            assert Path(called.__code__.co_filename) in sources, (kernel, called)


def _closure(file):
    paths, queue = set(), [file]
    while queue:
        path = queue.pop()
        if path not in paths:
            paths.add(path)
            queue.extend(kernel_sources._source(path)[1])
    return paths


def _called(kernel):
    """Python functions of all compiled functions that a kernel calls, directly or not."""
    functions, queue = {}, [kernel]
    while queue:
        function = queue.pop().py_func
        if function not in functions:
            functions[function] = None
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            names = [function.__globals__.get(name) for name in function.__code__.co_names]
            queue.extend(value for value in (*cells, *names) if isinstance(value, Dispatcher))
    return functions


def test_numba_imported_first_makes_no_difference():
    script = (
        "import {}\nimport {}\nfrom bigmm.families.special import digamma\n"
        "print(digamma._cache._impl.locator.get_source_stamp())"
    )
    environment = dict(os.environ) | {"NUMBA_DISABLE_JIT": "0"}
    stamps = {
        subprocess.run([sys.executable, "-c", script.format(*order)], capture_output=True, env=environment).stdout
        for order in (("numba", "bigmm"), ("bigmm", "numba"))
    }
    assert len(stamps) == 1
    assert stamps.pop().startswith(b"(")
