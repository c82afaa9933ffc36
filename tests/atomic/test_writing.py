"""Output appears whole or not at all, whatever ends the writer."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from bigmm.atomic import (
    check_destination,
    check_file,
    output_error,
    reserved,
    reserved_file,
    whole_directory,
    whole_file,
    write_text,
)
from bigmm.errors import OutputError, ReadError, TemporaryError, UsageError


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
    assert names(tmp_path / "out") == [".bigmm", "old"]
    with whole_directory(tmp_path / "out", overwrite=True) as draft:
        (draft / "new").touch()
    assert names(tmp_path / "out") == [".bigmm", "new"]
    assert names(tmp_path) == ["out"]


def test_a_file_replaces_its_predecessor(tmp_path):
    record = '{"bigmm_version": "0"}'
    write_text(tmp_path / "a.json", record)
    (tmp_path / "a.json").chmod(0o600)
    write_text(tmp_path / "a.json", record * 2)
    assert (tmp_path / "a.json").read_text() == record * 2
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o600
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"PAR1 rows PAR1", b"{}", b"[1]", b"notes", b"[" * 200_000])
def test_a_file_of_somebody_else_is_not_replaced(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    for write in (lambda: check_file(tmp_path / "file"), lambda: write_text(tmp_path / "file", "1")):
        with pytest.raises(OutputError, match="file exists and is not what bigmm writes there: it is not replaced"):
            write()
    assert (tmp_path / "file").read_bytes() == content
    assert names(tmp_path) == ["file"]


def test_an_empty_file_is_filled(tmp_path):
    """`--json "$(mktemp)"`"""
    (tmp_path / "file").touch()
    write_text(tmp_path / "file", "1")
    assert (tmp_path / "file").read_text() == "1"


def test_a_device_and_a_pipe_are_written_into(tmp_path):
    write_text(os.devnull, "1")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    os.mkfifo(tmp_path / "pipe")
    content = []
    reader = threading.Thread(target=lambda: content.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "1")
    reader.join()
    assert content == ["1"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_an_open_file_is_appended_to(tmp_path, name):
    """A shell's `>` made the file and keeps it open: replacing it would lose what else is printed."""
    code = "from bigmm.atomic import write_text\nprint('before')\n" + f"write_text({name!r}, 'text\\n')\nprint('after')"
    (tmp_path / "file").write_text("mine\n")
    with open(tmp_path / "file", "a") as stream:
        subprocess.run([sys.executable, "-c", code], stdout=stream, check=True)
    assert (tmp_path / "file").read_text() == "mine\nbefore\ntext\nafter\n"


def test_an_open_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with open(tmp_path / "file") as stream:
        for name in (f"/dev/fd/{stream.fileno()}", "/dev/fd/987654"):
            with pytest.raises(OutputError, match="Bad file descriptor"):
                check_file(name)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_steps_of_a_writer_are_not_taken_for_somebody_elses_files(tmp_path, overwrite):
    """Whoever comes while another run writes is told so, whatever the directory looks like just then."""
    with reserved(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "half").touch()
        with pytest.raises(TemporaryError, match="another run is writing"):
            check_destination(tmp_path / "out", overwrite=overwrite)
    with pytest.raises(OutputError, match="it holds half, which bigmm did not write"):
        check_destination(tmp_path / "out", overwrite=overwrite)
    assert names(tmp_path) == ["out"]


def test_a_name_with_a_slash_at_its_end_is_no_file(tmp_path):
    for name in ("new/", "new/.", "."):
        with pytest.raises(UsageError, match="is the name of a directory: name a file"):
            check_file(f"{tmp_path}/{name}")


def test_a_file_has_one_writer(tmp_path):
    with reserved_file(tmp_path / "record.json") as place:
        with pytest.raises(TemporaryError, match="another run is writing"), reserved_file(tmp_path / "record.json"):
            pass
        write_text(place, "{}")
    assert names(tmp_path) == ["record.json"]


def test_errors_name_path_reason_and_advice(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/out: Not a directory; a part of the path is a file"):
        check_destination(tmp_path / "file" / "out")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="file exists and is a file: name a directory"):
            check_destination(tmp_path / "file", overwrite=overwrite)
    with pytest.raises(OutputError, match=r"file/a\.json: Not a directory; a part of the path is a file"):
        write_text(tmp_path / "file" / "a.json", "")
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


@pytest.mark.parametrize("name", ["", " ", "\t\n", "a\0b"])
def test_what_is_no_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for check in (check_destination, check_file):
        with pytest.raises(UsageError, match="cannot write to"):
            check(name)


@pytest.mark.parametrize(
    "url",
    ["s3://key:sec/ret@bucket/out?a=b", "s3://key:a?ret@bucket/out", "gs://bucket", "http://host/x", "s3:/bucket/out"],
)
def test_object_stores_are_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"cannot write to .*name a local directory") as caught:
        check_destination(url)
    assert "ret" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_file_url_and_a_tilde_are_local(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with whole_directory((tmp_path / "a b").as_uri()) as draft:
        (draft / "x").touch()
    with whole_directory("~/c") as draft:
        (draft / "x").touch()
    assert names(tmp_path) == ["a b", "c"]
    with pytest.raises(UsageError, match="a local path follows after three slashes"):
        check_destination("file://results")


def test_names_that_are_too_long(tmp_path):
    for place in ("n" * 300, "new/" + "n" * 300, "n" * 300 + "/new", "/".join(["n" * 200] * 20)):
        with pytest.raises(OutputError, match="File name too long; choose a shorter name"):
            check_destination(tmp_path / place)
    with whole_directory(tmp_path / ("n" * 255)) as draft:
        (draft / "x").touch()
    assert names(tmp_path) == ["n" * 255]


def test_links_lead_to_the_place_that_is_written(tmp_path):
    with whole_directory(tmp_path / "real") as draft:
        (draft / "old").touch()
    (tmp_path / "link").symlink_to("real")
    with whole_directory(tmp_path / "link", overwrite=True) as draft:
        (draft / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == [".bigmm", "new"]
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    for place in ("dangling", "dangling/out"):
        with pytest.raises(OutputError, match="dangling is a link to a place that does not exist"):
            check_destination(tmp_path / place)
    with pytest.raises(OutputError, match="its links lead in a circle"):
        check_file(tmp_path / "circle")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_mount_point_is_no_place(tmp_path):
    (tmp_path / "volume").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "source").touch()
    mounts = [("other", "volume"), ("source", "file")]
    for source, place in mounts:
        mounted = subprocess.run(["mount", "--bind", tmp_path / source, tmp_path / place], capture_output=True)
        if mounted.returncode:
            pytest.skip("this machine does not let us mount")
    try:
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="something is mounted there: name a directory inside it"):
                check_destination(tmp_path / "volume", overwrite=overwrite)
        with pytest.raises(OutputError, match="something is mounted there"):
            check_file(tmp_path / "file")
        check_destination(tmp_path / "volume" / "out")
    finally:
        for _, place in mounts:
            subprocess.run(["umount", tmp_path / place], check=True)


def test_an_error_of_reading_is_not_one_of_writing(tmp_path):
    with pytest.raises(ReadError), whole_directory(tmp_path / "out"):
        raise ReadError("the network")


def test_what_was_made_for_nothing_goes_again(tmp_path):
    with pytest.raises(ValueError), whole_directory(tmp_path / "new" / "deep" / "out"):
        raise ValueError
    with reserved(tmp_path / "other" / "out"):
        pass
    assert names(tmp_path) == []


def test_what_appears_meanwhile_is_kept(tmp_path):
    with pytest.raises(OutputError, match="out exists and is not empty"), whole_directory(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("x")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["thesis.tex"]


def test_permissions_of_the_old_directory_stay(tmp_path):
    (tmp_path / "out").mkdir(mode=0o700)
    with whole_directory(tmp_path / "out") as draft:
        (draft / "x").touch()
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
