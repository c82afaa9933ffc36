"""A process that is forked while a fit runs in another thread says so at once; it does not wait for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

#: Far beyond what a fit of 40 rows takes: it ends a test that would never end.
DEADLINE = 300

HEAD = """
import os, sys, threading, traceback
import pandas as pd
import bigmm

rows = pd.DataFrame({"y": [float(i * i % 7) for i in range(40)], "g": [i % 8 for i in range(40)]})

def fit(progress=None):
    return bigmm.lmm("y ~ 1 + (1 | g)", rows, n_workers=2, progress=progress)

def child(work):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def refused():
    try:
        fit()
    except bigmm.UsageError as error:
        print(error)
        return 7
    return 0
"""

DURING = """
busy, forked = threading.Event(), threading.Event()

def wait(event):
    busy.set()
    forked.wait()

thread = threading.Thread(target=fit, args=(wait,))
thread.start()
busy.wait()
code = child(refused)
forked.set()
thread.join()
assert fit().converged, "the parent works on"
sys.exit(code)
"""

DURING_AN_IMPORT = """
import importlib
busy, forked, plain = threading.Event(), threading.Event(), importlib.import_module

def slow(name):
    busy.set()
    forked.wait()
    return plain(name)

bigmm.importlib.import_module = slow
thread = threading.Thread(target=lambda: bigmm.load)
thread.start()
busy.wait()
code = child(refused)
forked.set()
thread.join()
sys.exit(code)
"""

AFTERWARDS = """
before = fit().objective
sys.exit(child(lambda: 0 if fit().objective == before else 1))
"""


def run(script):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEAD + script], capture_output=True, text=True, timeout=DEADLINE
    )


@pytest.mark.parametrize("script", [DURING, DURING_AN_IMPORT], ids=["fit", "import"])
def test_a_fork_during_work_in_another_thread_is_refused_by_the_child(script):
    ended = run(script)
    assert ended.returncode == 7, ended.stderr
    assert "start processes by 'spawn' or 'forkserver'" in ended.stdout


def test_a_fork_while_nothing_runs_works():
    ended = run(AFTERWARDS)
    assert ended.returncode == 0, ended.stderr
