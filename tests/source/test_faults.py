"""Which errors are tried again, and what users are told."""

from __future__ import annotations

import errno
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmm.errors import DataError, ReadError, UsageError
from bigmm.source import faults, open_source
from bigmm.source.faults import guarded, is_transient

SHIPPED_SECONDS = faults.RETRY_SECONDS


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(faults, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(faults, "RETRY_SECONDS", 0.05)


class Failing:
    """Raises ``error`` the first ``times`` calls."""

    def __init__(self, error, times=10**9):
        self.error, self.times, self.calls = error, times, 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return "read"


TRANSIENT = [
    OSError("When reading information for key 'k': AWS Error NETWORK_CONNECTION during HeadObject: curlCode: 7"),
    OSError("AWS Error UNKNOWN (HTTP status 503) during GetObject operation: Slow down"),
    OSError("AWS Error INTERNAL_FAILURE (HTTP status 500)"),
    TimeoutError("read timed out"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    pa.lib.ArrowException("Unknown error: GetProperties failed. N5Azure4Core4Http18TransportExceptionE: Fail to get"),
    OSError("google::cloud::Status(UNAVAILABLE: Retry policy exhausted, CURL error [6]=Could not resolve hostname)"),
]
PERMANENT = [
    (FileNotFoundError("no key"), DataError, "no such file: lake/a.parquet, row group 3"),
    (OSError("AWS Error NO_SUCH_KEY during GetObject"), DataError, "no such file: lake/a.parquet"),
    (OSError("AWS Error ACCESS_DENIED (HTTP status 403)"), DataError, "no permission to read lake/a.parquet"),
    (PermissionError(errno.EACCES, "Permission denied"), DataError, "Check the file's permissions or the credentials"),
    (OSError("could not verify page integrity, CRC checksum verification failed"), DataError, "damaged or unreadable"),
    (OSError("Corrupt snappy compressed data."), DataError, "Write the file again from its origin"),
    (pa.ArrowInvalid("Couldn't deserialize thrift"), DataError, "damaged or unreadable Parquet in lake/a.parquet"),
]
AZURE = "Unknown error: Check failed: N5Azure4Core11Credentials23AuthenticationExceptionE: Failed to get token"
PERMANENT += [
    (OSError("Unable to load libjvm"), UsageError, "cannot open lake/a.parquet.* Install a Java runtime"),
    (pa.lib.ArrowException(AZURE), DataError, "no credentials to read lake/a.parquet"),
    (OSError("google::cloud::Status(Could not create a OAuth2 access token)"), DataError, "no credentials to read"),
    (OSError("curlCode: 60, SSL peer certificate or SSH remote key was not OK"), DataError, "no trusted connection to"),
]
WHERE = "lake/a.parquet, row group 3"


@pytest.mark.parametrize("error", TRANSIENT, ids=str)
def test_transient_errors_are_tried_again_on_remote_filesystems(error):
    action = Failing(error, times=3)
    assert guarded(action, WHERE, remote=True) == "read"
    assert action.calls == 4


@pytest.mark.parametrize("error", TRANSIENT, ids=str)
def test_after_the_retries_it_is_a_read_error(error):
    action = Failing(error)
    with pytest.raises(ReadError, match=r"gave up reading lake/a\.parquet, row group 3 after 0 s of retries") as caught:
        guarded(action, WHERE, remote=True)
    assert action.calls > 2
    assert caught.value.exit_code == 74


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize(("error", "kind", "message"), PERMANENT, ids=lambda value: str(value)[:40])
def test_permanent_errors_are_raised_at_once(error, kind, message, remote):
    action = Failing(error)
    with pytest.raises(kind, match=message):
        guarded(action, WHERE, remote)
    assert action.calls == 1


def test_a_local_input_output_error_is_a_read_error_without_retries():
    action = Failing(OSError(errno.EIO, "Input/output error"))
    with pytest.raises(ReadError, match="cannot read lake/a.parquet, row group 3: .*Input/output error"):
        guarded(action, WHERE, remote=False)
    assert action.calls == 1


def test_bugs_and_lack_of_memory_are_not_dressed_up():
    for error in (KeyError("bug"), pa.ArrowMemoryError("malloc of size 1 failed")):
        with pytest.raises(type(error)):
            guarded(Failing(error), WHERE, remote=True)


def test_by_default_remote_reads_are_tried_for_a_minute_at_least():
    assert SHIPPED_SECONDS >= 60
    assert is_transient(OSError("anything unknown"))


@pytest.mark.parametrize("pattern", ["", "/part.parquet", "/*.parquet"])
@pytest.mark.parametrize("name", [b"la\xffke", b"nowhere\xff"])
def test_a_name_that_is_not_utf_8_is_told_readably(tmp_path, pattern, name):
    folder = os.path.join(os.fsencode(tmp_path), b"la\xffke")
    os.makedirs(folder)
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "part.parquet")
    os.rename(tmp_path / "part.parquet", os.path.join(folder, b"part.parquet"))
    with pytest.raises(DataError, match=r"(la|nowhere)\\xff\S*: its name is not UTF-8\. Rename"):
        open_source(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)) + pattern)


def test_a_working_directory_that_was_deleted(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(DataError, match=r"no such file or directory: x\.parquet \(the working directory was deleted\)"):
        open_source("x.parquet")
