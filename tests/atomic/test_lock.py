"""One writer at a time, told by the kernel: processes, host names and namespaces make no difference."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from bigmm.atomic import reserved, whole_directory
from bigmm.atomic.lock import hidden_name, locked
from bigmm.atomic.writing import _sweep
from bigmm.errors import OutputError, TemporaryError

SECOND = """
import sys
from bigmm.atomic import whole_directory
from bigmm.errors import BigmmError
try:
    with whole_directory(sys.argv[1], overwrite=len(sys.argv) > 2) as draft:
        (draft / "second").touch()
except BigmmError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def second(target, *options):
    done = subprocess.run([sys.executable, "-c", SECOND, str(target), *options], capture_output=True, text=True)
    return done.returncode, done.stdout


def test_a_second_writer_is_told_to_try_later(tmp_path):
    """Also when the parents of the target were made by the first."""
    target = tmp_path / "new" / "out"
    with whole_directory(target) as draft:
        (draft / "first").touch()
        for options in ((), ("overwrite",)):
            code, said = second(target, *options)
            assert code == 75
            assert f"another run is writing {target}: wait until it has ended, or choose another place" in said
    assert second(target)[0] == 73
    assert second(target, "overwrite")[0] == 0
    assert sorted(path.name for path in target.parent.iterdir()) == ["out"]
    assert (target / "second").exists()


def test_the_place_is_reserved_before_the_work(tmp_path):
    with reserved(tmp_path / "out") as place:
        with pytest.raises(TemporaryError) as caught, reserved(tmp_path / "out"):
            pass
        assert caught.value.exit_code == 75
        with whole_directory(place) as draft:
            (draft / "a").touch()
    with pytest.raises(OutputError, match="exists and is not empty"), reserved(tmp_path / "out"):
        pass


def test_a_lock_on_a_file_that_lost_its_name_is_none(tmp_path):
    """The holder removes the file; whoever has it open by then locks a file that nobody else can find."""
    path = hidden_name(tmp_path / "out", ".lock")
    opened = os.open

    def late(name, *arguments):
        handle = opened(name, *arguments)
        os.open = opened
        path.unlink()  # the holder is done between our opening and our locking
        return handle

    path.touch()
    os.open = late
    try:
        with locked(tmp_path / "out", "out"), pytest.raises(TemporaryError), locked(tmp_path / "out", "out"):
            pass
    finally:
        os.open = opened
    assert list(tmp_path.iterdir()) == []


def test_a_file_left_by_a_killed_writer_is_no_lock(tmp_path):
    hidden_name(tmp_path / "out", ".lock").touch()
    with whole_directory(tmp_path / "out") as draft:
        (draft / "a").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_live_draft_is_not_swept_even_if_the_lock_file_is_deleted(tmp_path):
    with whole_directory(tmp_path / "out") as draft:
        (draft / "a").write_text("a")
        _sweep(tmp_path / "out")
        hidden_name(tmp_path / "out", ".lock").unlink()
        _sweep(tmp_path / "out")
    assert (tmp_path / "out" / "a").read_text() == "a"


def test_names_have_one_length(tmp_path):
    assert len(hidden_name(tmp_path / ("n" * 255), "-12345678-old").name) < 60


def test_a_result_that_was_put_aside_is_not_removed_with_a_file_of_somebody_else(tmp_path):
    """A writer that was killed right after the exchange has not yet looked for such files."""
    target = tmp_path / "out"
    with whole_directory(target) as draft:
        (draft / "first").touch()
    kept, gone = (hidden_name(target, f"-{number:08x}") for number in (1, 2))
    for aside in (kept, gone):
        shutil.copytree(target, aside)
    (kept / "notes.txt").write_text("mine")
    with whole_directory(target, overwrite=True) as draft:
        (draft / "second").touch()
    assert (kept / "notes.txt").read_text() == "mine"
    assert not gone.exists()
