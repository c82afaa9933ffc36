"""`bigmm warmup`: what is compiled beforehand is not compiled again."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from numba import config

from bigmm import compilation

FIRST_FITS = """
import json, sys
import bigmm
from bigmm.compilation import watched
from bigmm.datasets import sleepstudy, penicillin
with watched() as total:
    if "linear" in sys.argv:
        bigmm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin()).summary()
        bigmm.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy()).summary()
    if "generalized" in sys.argv:
        data = sleepstudy().assign(slow=lambda d: (d.Reaction > 300).astype(int))
        bigmm.glmm("slow ~ Days + (1 | Subject)", data, family="bernoulli").summary()
print(total.kernels)
"""


def kernels_of_first_fits(*kinds, **settings):
    """How many kernels a new process compiles for its first fits."""
    environment = dict(os.environ) | settings
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FIRST_FITS, *kinds],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return int(ended.stdout)


@pytest.mark.slow
@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_first_fits_after_a_warmup_compile_nothing(bigmm):
    """In the cache of this machine, which may know some kernels already."""
    ended = bigmm("warmup", "--family", "bernoulli", "--quiet")
    assert ended.code == 0
    assert "kernels compiled in" in ended.out
    assert "; cache: /" in ended.out
    assert kernels_of_first_fits("linear", "generalized") == 0


@pytest.mark.slow
@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_a_cache_of_its_own(tmp_path):
    """As for a container image whose package cannot be written."""
    place = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    command = [sys.executable, "-m", "bigmm", "warmup", "--only", "linear", "--log", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ) | place, check=True)
    last = json.loads(ended.stderr.splitlines()[-1])
    assert (last["event"], last["cache"]) == ("compiled", str(tmp_path / "kernels"))
    assert last["kernels"] > 50
    assert f"cache: {tmp_path / 'kernels'}\n" in ended.stdout
    assert kernels_of_first_fits("linear", **place) == 0


def test_options_that_contradict_each_other(bigmm):
    ended = bigmm("warmup", "--only", "linear", "--family", "poisson")
    assert ended.code == 2
    assert "--family: only for generalized models" in ended.err


def test_what_takes_long_is_said_once(monkeypatch):
    said = []
    monkeypatch.setattr(compilation._Notice, "say", said.append)
    short, long = compilation.Compilation(3, 0.9), compilation.Compilation(4, 1.1)
    for total in (short, long, long):
        compilation._Notice.check(total)
    assert said == [compilation.NOTICE]
