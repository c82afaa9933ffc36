"""Every way to fail ends in its exit code, says what and where and what to do, and leaves nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import bigmm as package
from bigmm.cli import cluster, listener
from bigmm.datasets import sleepstudy, write_lake
from tests.cli.cases import SLEEP


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("Reaction ~ Days + (Days | Subject", "^"),
        ("Reaction ~ Dais + (1 | Subject)", "Dais"),
        ("Reaction ~ system('x') + (1 | Subject)", "system"),
    ],
)
def test_2_a_formula_slip(bigmm, sleep_lake, tmp_path, formula, message):
    ended = bigmm("fit", formula, sleep_lake, "--out", tmp_path / "out")
    assert ended.code == 2
    assert message in ended.err
    assert ended.out == ""
    assert listing(tmp_path) == []


def test_65_missing_file(bigmm, tmp_path):
    ended = bigmm("fit", SLEEP, tmp_path / "nosuch.parquet", "--out", tmp_path / "out")
    assert ended.code == 65
    assert str(tmp_path / "nosuch.parquet") in ended.err
    assert listing(tmp_path) == []


def test_65_a_truncated_file(bigmm, tmp_path):
    files = write_lake(sleepstudy(), tmp_path / "lake", rows_per_file=50)
    files[2].write_bytes(files[2].read_bytes()[:-20])
    ended = bigmm("fit", SLEEP, tmp_path / "lake", "--out", tmp_path / "out")
    assert ended.code == 65
    assert "part-00002.parquet" in ended.err
    assert listing(tmp_path) == ["lake"]


def test_65_an_infinite_value(bigmm, tmp_path):
    frame = sleepstudy()
    frame.loc[120, "Days"] = np.inf
    write_lake(frame, tmp_path / "lake", rows_per_file=50)
    ended = bigmm("fit", SLEEP, tmp_path / "lake", "--json", tmp_path / "fit.json")
    assert ended.code == 65
    for word in ("part-00002.parquet", "Days", "inf"):
        assert word in ended.err
    assert listing(tmp_path) == ["lake"]


def test_73_the_place_is_taken(bigmm, sleep_lake, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("precious")
    for options in ((), ("--overwrite",)):
        ended = bigmm("fit", SLEEP, sleep_lake, "--out", tmp_path / "out", *options)
        assert ended.code == 73
        assert "out exists and is not empty: it holds precious, which bigmm did not write" in ended.err
        assert listing(tmp_path / "out") == ["precious"]
    (tmp_path / "out" / "precious").unlink()
    assert bigmm("fit", SLEEP, sleep_lake, "--out", tmp_path / "out").code == 0
    ended = bigmm("fit", SLEEP, sleep_lake, "--out", tmp_path / "out")
    assert ended.code == 73
    assert f"{tmp_path / 'out'} exists and is not empty: choose another place or say overwrite" in ended.err
    assert bigmm("fit", SLEEP, sleep_lake, "--out", tmp_path / "out", "--overwrite").code == 0
    assert listing(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("out", "data", "message"),
    [
        ("lake", "lake", "results would replace them"),
        (".", "lake", "results would replace them"),
        ("lake", "lake/*.parquet", "results would replace them"),
        ("lake/results", "lake", "the next run would read it"),
    ],
)
def test_2_results_over_the_data(bigmm, sleep_lake, tmp_path, monkeypatch, out, data, message):
    shutil.copytree(sleep_lake, tmp_path / "lake")
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path / "lake")
    ended = bigmm("fit", SLEEP, data, "--out", out, "--overwrite")
    assert ended.code == 2
    assert message in ended.err
    assert listing(tmp_path / "lake") == before


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a place where nobody may write, not even root")
def test_73_no_permission(bigmm, sleep_lake, monkeypatch):
    monkeypatch.setattr(package, "lmm", None)  # refused before the work, not after
    for option in ("--out", "--json"):
        ended = bigmm("fit", SLEEP, sleep_lake, option, "/sys/kernel/fit")
        assert ended.code == 73
        assert "cannot write /sys/kernel/fit" in ended.err


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 32 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a tiny file system")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", place], capture_output=True, check=False
    ).returncode:
        pytest.skip("this machine does not let us mount a tiny file system")
    yield place
    subprocess.run(["umount", place], check=True)


def test_73_the_disk_is_full(bigmm, sleep_lake, full_disk):
    ended = bigmm("fit", SLEEP, sleep_lake, "--out", full_disk / "out")
    assert ended.code == 73
    assert "No space left on device; the disk is full: free some space" in ended.err
    assert listing(full_disk) == []
    (full_disk / "filler").write_bytes(bytes(32 << 10))
    ended = bigmm("fit", SLEEP, sleep_lake, "--json", full_disk / "fit.json")
    assert ended.code == 73
    assert listing(full_disk) == ["filler"]


@pytest.mark.cluster
def test_75_no_scheduler(bigmm, sleep_lake, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    ended = bigmm("fit", SLEEP, sleep_lake, "--scheduler", "tcp://127.0.0.1:9")
    assert ended.code == 75
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in ended.err


@pytest.mark.cluster
def test_75_no_scheduler_is_said_once(sleep_lake):
    """By us: Dask has nothing to add."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    arguments = ["fit", SLEEP, str(sleep_lake), "--scheduler", f"tcp://127.0.0.1:{port}"]
    script = (
        "from bigmm.cli import cluster; cluster.CONNECT_SECONDS = 0.5; "
        f"from bigmm.cli.app import main; main({arguments!r})"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 75
    assert ended.stderr.count("\n") == 1 and f"no Dask scheduler answers at tcp://127.0.0.1:{port}" in ended.stderr


@pytest.mark.parametrize("address", ["foo", "tcp://head", "tcp://head:port", "head:99999", "tcp://a b:8786", ""])
def test_2_what_is_no_address(bigmm, sleep_lake, address):
    ended = bigmm("fit", SLEEP, sleep_lake, "--scheduler", address)
    assert ended.code == 2
    assert f"--scheduler {address}: not an address; write host and port, such as tcp://head:8786" in ended.err


@pytest.mark.parametrize(
    "address", ["tcp://head:8786", "head:8786", "tls://10.0.0.1:8786", "tcp://[::1]:8786", "ws://head:80/"]
)
def test_what_is_an_address(address):
    assert listener.ADDRESS.fullmatch(address)


def test_78_a_saved_fit_of_another_version(bigmm, sleep_lake, tmp_path, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr("bigmm.results.save.VERSION", 999)
        assert bigmm("fit", SLEEP, sleep_lake, "--quiet", "--out", tmp_path / "out").code == 0
    ended = bigmm("summary", tmp_path / "out")
    assert ended.code == 78
    assert "version 999" in ended.err


def test_65_a_damaged_saved_fit(bigmm, sleep_lake, tmp_path):
    assert bigmm("fit", SLEEP, sleep_lake, "--quiet", "--out", tmp_path / "out").code == 0
    manifest = tmp_path / "out" / "model" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("1743", "1742"))
    ended = bigmm("summary", tmp_path / "out")
    assert ended.code == 65
    assert f"{manifest} does not match its checksum, it is damaged" in ended.err
    ended = bigmm("summary", sleep_lake)
    assert ended.code == 65
    assert "no saved fit at" in ended.err


def test_70_a_bug(bigmm, sleep_lake, monkeypatch, tmp_path):
    def broken(*arguments, **options):
        raise RuntimeError("the unexpected")

    monkeypatch.setattr(package, "lmm", broken)
    ended = bigmm("fit", SLEEP, sleep_lake, "--out", tmp_path / "out")
    assert ended.code == 70
    assert ended.err.splitlines() == [
        "bigmm: RuntimeError: the unexpected",
        "This is a bug in bigmm. Please report it with the traceback that --debug shows.",
    ]
    assert "Traceback" in bigmm("fit", SLEEP, sleep_lake, "--debug").err
    assert listing(tmp_path) == []


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (7, 7), ("no licence", 1)])
def test_a_system_exit_keeps_its_code(bigmm, sleep_lake, monkeypatch, code, expected):
    """A library below may end the process; an end that is no success must not look like one."""

    def lmm(*arguments, **options):
        raise SystemExit(code)

    monkeypatch.setattr(package, "lmm", lmm)
    ended = bigmm("fit", SLEEP, sleep_lake)
    assert ended.code == expected
    assert ended.err == ("bigmm: no licence\n" if expected == 1 else "")


@pytest.fixture(scope="module")
def large_lake(tmp_path_factory):
    """Three million rows: a second or so of work."""
    rng = np.random.default_rng(1)
    rows = 3_000_000
    frame = pd.DataFrame({"y": rng.normal(size=rows), "x": rng.normal(size=rows), "g": rng.integers(0, 100_000, rows)})
    lake = tmp_path_factory.mktemp("large") / "lake"
    write_lake(frame, lake, rows_per_file=200_000, row_group_rows=50_000)
    return lake


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated")],
)
def test_a_signal_in_mid_pass_leaves_nothing_behind(start, large_lake, tmp_path, number, code, word):
    outputs = ("--out", tmp_path / "out", "--json", tmp_path / "fit.json")
    child = start("fit", "y ~ x + (x | g)", large_lake, "--log", "json", *outputs)
    for line in child.stderr:
        event = json.loads(line)
        if event["event"] == "progress" and 0 < event["rows_done"] < event["rows_total"]:
            child.send_signal(number)
            break
    out, err = child.communicate(timeout=300)
    assert child.returncode == code
    last = [json.loads(line) for line in err.splitlines()][-1]
    assert (last["event"], last["exit_code"]) == ("failed", code)
    assert last["message"] == f"{word}; nothing is half-written"
    assert out == ""
    assert listing(tmp_path) == []
