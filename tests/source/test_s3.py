"""A lake in an object store (a local moto server) through pyarrow's own S3 filesystem."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from bigmm.errors import DataError, ReadError
from bigmm.source import faults, open_source

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def options(server):
    host, port = server.get_host_and_port()
    return f"endpoint_override={host}:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"


@pytest.fixture
def bucket(options, lake):
    system, path = fs.FileSystem.from_uri(f"s3://key:secret@lake?{options}")
    system.create_dir(path)
    fs.copy_files(str(lake), f"{path}/ratings", fs.LocalFileSystem(), system)
    return system


def test_read_from_s3(bucket, options, lake, read_all):
    source = open_source(f"s3://key:secret@lake/ratings?{options}", filter="year == 2021", partition_bytes=1)
    assert source.reader.remote
    assert source.partitions[0].where == "s3://lake/ratings/year=2021/site=a/part.parquet, row group 0"
    local = open_source(lake, filter="year == 2021", partition_bytes=1)
    assert read_all(source, ["x", "g", "site"]) == read_all(local, ["x", "g", "site"])
    assert source.description == "s3://lake/ratings"


def test_a_glob_on_s3(bucket, options):
    assert open_source(f"s3://key:secret@lake/ratings/*/site=b/*.parquet?{options}").rows_total == 2000


def test_missing_key_and_bucket(bucket, options):
    for place in ("lake/nowhere", "nobucket/x.parquet"):
        with pytest.raises(DataError, match=rf"no such file or directory: s3://{place}$"):
            open_source(f"s3://key:secret@{place}?{options}")


def test_an_object_replaced_during_the_fit(bucket, options, table):
    url = f"s3://key:secret@lake/ratings/year=2020/site=a/part.parquet?{options}"
    source = open_source(url)
    with bucket.open_output_stream("lake/ratings/year=2020/site=a/part.parquet") as stream:
        pq.write_table(table.slice(0, 10), stream)
    with pytest.raises(DataError, match=r"s3://lake/ratings/year=2020/site=a/part\.parquet changed during the fit"):
        source.read(source.partitions[0], ["x"])


def test_a_server_that_is_gone_is_a_read_error_after_the_retries(bucket, server, monkeypatch):
    monkeypatch.setattr(faults, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(faults, "FIRST_PAUSE_SECONDS", 0.05)
    options = "endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with pytest.raises(ReadError, match=r"gave up reading s3://lake/ratings after 0 s of retries"):
        open_source(f"s3://key:secret@lake/ratings?{options}")
