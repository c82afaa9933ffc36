"""Output appears whole or not at all, whatever ends the writer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from bigmm.atomic import check_destination, output_error, whole_directory, whole_file, write_text
from bigmm.errors import OutputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_directory_appears_when_the_block_ends(tmp_path):
    with whole_directory(tmp_path / "new" / "out") as draft:
        (draft / "part").mkdir()
        (draft / "part" / "a.txt").write_text("a")
        assert not (tmp_path / "new" / "out").exists()
    assert (tmp_path / "new" / "out" / "part" / "a.txt").read_text() == "a"
    assert names(tmp_path / "new") == ["out"]
    assert (tmp_path / "new" / "out").stat().st_mode & 0o777 == (tmp_path / "new").stat().st_mode & 0o777


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_nothing_is_left_of_an_interrupted_write(tmp_path, interruption):
    with pytest.raises(interruption), whole_directory(tmp_path / "out") as draft:
        (draft / "half").write_text("half")
        raise interruption
    with pytest.raises(interruption), whole_file(tmp_path / "file") as draft:
        draft.write_text("half")
        raise interruption
    assert names(tmp_path) == []


def test_threads_of_an_interrupted_writer_do_not_bring_it_back(tmp_path):
    def straggle(draft):
        for _ in range(8):
            time.sleep(0.01)
            (draft / "deep").mkdir(parents=True, exist_ok=True)

    with pytest.raises(ValueError), whole_directory(tmp_path / "out") as draft:
        threading.Thread(target=straggle, args=(draft,)).start()
        raise ValueError
    assert names(tmp_path) == []
    time.sleep(0.1)
    assert names(tmp_path) == []


def test_the_old_directory_survives_a_failed_replacement(tmp_path):
    with whole_directory(tmp_path / "out") as draft:
        (draft / "old").touch()
    with pytest.raises(ValueError), whole_directory(tmp_path / "out", overwrite=True) as draft:
        raise ValueError
    assert names(tmp_path / "out") == ["old"]
    with whole_directory(tmp_path / "out", overwrite=True) as draft:
        (draft / "new").touch()
    assert names(tmp_path / "out") == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_file_replaces_its_predecessor(tmp_path):
    write_text(tmp_path / "a.json", "1")
    write_text(tmp_path / "a.json", "2")
    assert (tmp_path / "a.json").read_text() == "2"
    assert names(tmp_path) == ["a.json"]


def test_errors_name_path_reason_and_advice(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/out: Not a directory; a part of the path is a file"):
        check_destination(tmp_path / "file" / "out")
    with pytest.raises(OutputError, match="file exists: choose another place or say overwrite"):
        check_destination(tmp_path / "file")
    with pytest.raises(
        OutputError, match=r"nosuch/a\.json: No such file or directory; its parent directory does not exist"
    ):
        write_text(tmp_path / "nosuch" / "a.json", "")
    with pytest.raises(OutputError, match="Is a directory; it is a directory: name a file"):
        write_text(tmp_path, "")
    full = output_error("out", OSError(errno.ENOSPC, ""))
    assert (
        str(full)
        == "cannot write out: No space left on device; the disk is full: free some space or choose another place"
    )


def test_a_full_disk_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="the disk is full"), whole_directory(tmp_path / "out") as draft:
        (draft / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a place where nobody may write, not even root")
def test_no_permission():
    with pytest.raises(OutputError, match="cannot write /sys/kernel/out: .*: choose another place"):
        check_destination("/sys/kernel/out")


KILLED = """
import os, signal, sys
from bigmm import atomic
if sys.argv[2] == "between":
    # die after the old directory stepped aside, before the new one took its place
    rename = os.rename
    os.rename = lambda a, b: os.kill(os.getpid(), signal.SIGKILL) if "partial" not in str(b) else rename(a, b)
with atomic.whole_directory(sys.argv[1], overwrite=True) as draft:
    (draft / "new").touch()
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["writing", "between"])
def test_the_next_write_sweeps_up_after_a_kill(tmp_path, moment):
    with whole_directory(tmp_path / "out") as draft:
        (draft / "old").touch()
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out"), moment], check=False)
    assert any("partial" in name for name in names(tmp_path))
    with pytest.raises(ValueError), whole_directory(tmp_path / "out", overwrite=True):
        assert names(tmp_path / "out") == ["old"]
        raise ValueError
    assert names(tmp_path) == ["out"]
