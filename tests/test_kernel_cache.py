"""Compiled kernels where neither the package's directory nor a home can be written: really by another user."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bigmm import kernel_cache
from tests.execute.processes import Processes

UID = 54321
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="another user can only be had by root with setpriv",
)
KERNEL = """
import math, os, sys, tempfile
import bigmm
from bigmm.families.special import digamma
import numba
assert abs(digamma(1.0) + 0.57721566490153286) < 1e-14
print(numba.config.CACHE_DIR or "none")
"""


@pytest.fixture
def shared_folder():
    """A directory that every user reaches, as /tmp is (pytest's own are closed)."""
    folder = Path(tempfile.mkdtemp(prefix="bigmm-test-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def as_other_user(project, *command, **environment):
    """Run a command as a user without a home."""
    settings = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(project)} | environment
    drop = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *command]
    return subprocess.run(drop, capture_output=True, text=True, cwd="/", env=settings)


@needs_root
def test_a_private_directory_is_used_again_and_never_anothers(project, shared_folder):
    def compiled():
        ended = as_other_user(project, sys.executable, "-c", KERNEL, TMPDIR=str(shared_folder))
        assert ended.returncode == 0, ended.stderr
        return Path(ended.stdout.strip())

    first = compiled()
    assert first == shared_folder / f"bigmm-kernels-{UID}"
    state = first.stat()
    assert (state.st_uid, stat.S_IMODE(state.st_mode)) == (UID, 0o700)
    assert list(first.glob("*/special.digamma*"))
    assert compiled() == first
    for spoil in (lambda: os.chown(first, 0, 0), lambda: (os.chown(first, UID, UID), first.chmod(0o770))):
        spoil()
        other = compiled()
        assert other != first and other.parent == shared_folder
        assert not other.exists(), "a directory for one process only goes with it"
    shutil.rmtree(first)
    first.symlink_to("/")
    assert compiled() != first


@needs_root
@pytest.mark.cluster
def test_workers_of_a_cluster_do_the_same(project, shared_folder, tmp_path):
    def compiled():
        import numba

        from bigmm.families.special import digamma

        assert abs(digamma(1.0) + 0.57721566490153286) < 1e-14
        return numba.config.CACHE_DIR

    processes = Processes(tmp_path, 0)
    options = ("--no-nanny", "--no-dashboard", "--local-directory", str(shared_folder / "dask"))
    settings = {"HOME": "/nonexistent", "PYTHONPATH": str(project), "TMPDIR": str(shared_folder)}
    drop = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", sys.executable]
    worker = subprocess.Popen(
        [*drop, "-m", "distributed.cli.dask_worker", processes.address, *options],
        env={"PATH": os.environ["PATH"], **settings},
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        with processes.client() as client:
            assert client.submit(compiled).result(60) == str(shared_folder / f"bigmm-kernels-{UID}")
    finally:
        worker.kill()
        worker.wait()
        processes.close()


@needs_root
def test_without_any_place_to_write_kernels_are_compiled_each_time(project):
    """A read-only file system: nothing to write at all."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("no mount namespace")
    places = ("/tmp", "/var/tmp", "/dev/shm")
    # the places stay as they are but for writing: the checkout may lie in one of them
    mounts = "; ".join(f"mount --bind {place} {place}; mount -o remount,bind,ro {place}" for place in places)
    inner = ["unshare", "-m", "sh", "-c", f'mount --make-rprivate /; {mounts}; cd /; exec "$@"', "sh"]
    drop = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", sys.executable, "-c", KERNEL]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(project)}
    ended = subprocess.run([*inner, *drop], capture_output=True, text=True, cwd="/", env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "none"


def test_numba_decides_where_it_can(monkeypatch):
    """An ordinary installation: nothing is named."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    kernel_cache.settle()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_no_directory_where_others_could_put_their_own(tmp_path):
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert not kernel_cache._is_safe_parent(str(open_to_all))
    open_to_all.chmod(0o1777)
    assert kernel_cache._is_safe_parent(str(open_to_all))
