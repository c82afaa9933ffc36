"""Parquet behind an HTTP server, through fsspec, whose HTTP filesystem calls every failure a missing file."""

from __future__ import annotations

import http.server

import pytest

from bigmm.errors import BigmmError, DataError, ReadError
from bigmm.source import faults, open_source
from tests.servers import serving


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(faults, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(faults, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def server(lake):
    """Sends files of the lake, and for a path that is a number that status; counts the requests."""
    pytest.importorskip("aiohttp")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(lake))

        def send_head(self):
            running.requests += 1
            status = self.path.split("/")[1]
            if not status.isdigit():
                return super().send_head()
            self.send_response(int(status))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.requests = 0
    with serving(running):
        yield running


def url_of(server, path):
    """With secrets."""
    return f"http://user:s3cr3t@127.0.0.1:{server.server_address[1]}/{path}?sig=s3cr3t"


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (404, DataError, "no such file"),
        (410, DataError, "no such file"),
        (401, DataError, "no permission to read"),
        (403, DataError, "no permission to read"),
        (400, DataError, "the server refuses to send"),
        (500, ReadError, "gave up reading"),
        (503, ReadError, "gave up reading"),
        (429, ReadError, "gave up reading"),
    ],
)
def test_what_a_server_answers(server, status, kind, message):
    with pytest.raises(kind, match=rf"{message}.*http://127\.0\.0\.1:\d+/{status}/x\.parquet") as caught:
        open_source(url_of(server, f"{status}/x.parquet"))
    assert "s3cr3t" not in str(caught.value)
    assert "http://http://" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("path", ["x.parquet", "lake/*.parquet"])
def test_a_dead_server_is_not_a_missing_file(server, scheme, path):
    url = url_of(server, path).replace("http", scheme)
    server.shutdown()
    server.server_close()
    with pytest.raises(ReadError, match="gave up reading") as caught:
        open_source(url)
    assert "s3cr3t" not in str(caught.value)


def test_a_server_without_tls(server):
    with pytest.raises(BigmmError) as caught:
        open_source(url_of(server, "x.parquet").replace("http", "https"))
    assert caught.value.exit_code in (65, 74)


def test_a_file_is_read_and_its_name_holds_no_secret(server, lake, read_all):
    path = next(lake.rglob("*.parquet")).relative_to(lake).as_posix()
    source = open_source(url_of(server, path).partition("?")[0])
    assert source.rows_total
    shown = f"http://127.0.0.1:{server.server_address[1]}/{path}"
    assert source.description == shown
    assert source.partitions[0].where.startswith(shown + ", row group")
    assert "s3cr3t" not in repr(source.partitions)
