"""`bigmm.kernel.njit`: functions for callers and for Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from numba import config

MODULE = """
from bigmm.kernel import njit

@njit(cache=True)
def root(x):
    if x < 0.0:
        raise ValueError("no root of a negative number")
    return x ** 0.5

@njit(cache=True)
def sum_of_roots(x, y):
    return root(x) + root(y)

@njit(cache=True)
def product_of_roots(x, y):
    return root(x) * root(y)
"""
SCRIPT = """
import json, sys
import trial
from bigmm.compilation import watched
with watched() as total:
    answers = []
    for name, *arguments in json.loads(sys.argv[1]):
        try:
            answers.append(getattr(trial, name)(*arguments))
        except ValueError as error:
            answers.append(str(error))
print(json.dumps([answers, total.kernels]))
"""

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")


def test_functions_for_callers_and_for_python_and_their_caches(tmp_path):
    (tmp_path / "trial.py").write_text(MODULE)
    environment = dict(os.environ) | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}

    def answers(*calls):
        command = [sys.executable, "-c", SCRIPT, json.dumps(calls)]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    error = "no root of a negative number"
    first, second, alone = ("sum_of_roots", 4.0, 9.0), ("product_of_roots", 4.0, 9.0), ("root", 16.0)
    assert answers(first, ("sum_of_roots", 4.0, -1.0)) == [[5.0, error], 2]
    assert answers(first, ("sum_of_roots", 4.0, -1.0)) == [[5.0, error], 0]
    assert answers(second, ("product_of_roots", -1.0, 1.0)) == [[6.0, error], 1], (
        "the function that is called is cached"
    )
    assert answers(first, alone, ("root", -1.0), second) == [[5.0, 4.0, error, 6.0], 1], "for Python, anew"
    assert answers(alone, first, second, ("product_of_roots", -1.0, 1.0)) == [[4.0, 5.0, 6.0, error], 0]


def test_a_function_that_python_calls_after_its_caller():
    """In one process, without a cache."""
    from bigmm.kernel import njit

    @njit
    def root(x):
        if x < 0.0:
            raise ValueError("no root of a negative number")
        return x**0.5

    @njit
    def double_root(x):
        return 2.0 * root(x)

    assert double_root(9.0) == 6.0
    with pytest.raises(ValueError, match="no root"):
        double_root(-9.0)
    assert root(9.0) == 3.0
    with pytest.raises(ValueError, match="no root"):
        root(-9.0)

    @njit
    def triple_root(x):
        return 3.0 * root(x)

    assert triple_root(9.0) == 9.0
    assert double_root(16.0) == 8.0
