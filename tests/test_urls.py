"""No secret of a URL is shown, in whatever place of the URL it stands and whoever prints it."""

from __future__ import annotations

import pytest

from bigmm.urls import shown_url, shown_value, without_secrets

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://AKIA:s3cr3t@bucket/lake/*.parquet", "s3://bucket/lake/*.parquet"),
        ("s3://AKIA:s3cr3t/KEY@bucket/lake?scheme=http", "s3://bucket/lake"),
        ("s3://AKIA:a@s3cr3t@bucket/lake", "s3://bucket/lake"),
        ("s3://AKIA:a/b@s3cr3t/c@bucket/lake", "s3://bucket/lake"),
        ("s3://AKIA:s3cr3t%2FKEY@bucket/lake", "s3://bucket/lake"),
        ("s3://AKIA:12/s3cr3t@bucket/lake", "s3://bucket/lake"),
        ("s3://AKIA:s3cr3t?x@bucket/lake", "s3://bucket/lake"),
        ("s3://AKIA:s3cr3t#x@bucket/lake", "s3://bucket/lake"),
        ("s3://AKIA:ab?s3cr3t@bucket/lake", "s3://bucket/lake"),
        ("s3://bucket/lake?access_key=AKIA&secret_key=s3cr3t", "s3://bucket/lake"),
        ("https://user:s3cr3t@host:8443/x.parquet", "https://host:8443/x.parquet"),
        ("https://s3cr3t@host/x.parquet", "https://host/x.parquet"),
        ("https://host/x.parquet?X-Amz-Signature=s3cr3t&X-Amz-Expires=60", "https://host/x.parquet"),
        (
            "https://a.blob.core.windows.net/c/x.parquet?sv=2024&sig=s3cr3t%3D",
            "https://a.blob.core.windows.net/c/x.parquet",
        ),
        ("https://host/x.parquet#s3cr3t", "https://host/x.parquet"),
        ("abfs://account:s3cr3t==@container/x", "abfs://container/x"),
        ("simplecache::https://user:s3cr3t@host/x", "simplecache::https://host/x"),
        ("s3:/AKIA:s3cr3t@bucket/lake", "s3:/bucket/lake"),  # a slip, which makes it a path
        (" s3://AKIA:s3cr3t@bucket/lake", " s3://bucket/lake"),
    ],
)
def test_a_url_without_its_secrets(url, shown):
    assert SECRET not in shown
    assert shown_url(url) == shown
    assert without_secrets(f"cannot open '{url}'.") == f"cannot open '{shown}'."
    assert SECRET not in without_secrets(f"cannot open '{url}': try again", [url])
    assert SECRET not in str(shown_value({"data": [url, (url,)], "message": f"no {url}"}))


@pytest.mark.parametrize(
    "place",
    [
        "lake/x.parquet",
        "lake/what?.parquet",
        "/data/a@b/x.parquet",
        "s3://bucket/lake/user@host/x.parquet",
        "https://host:8443/a/x.parquet",
        "http://[::1]:8000/x.parquet",
        "abfss://container@account.dfs.core.windows.net/x.parquet",
        "file:" + "///data/x.parquet",
        "tcp://127.0.0.1:8786",
        "/data/odd://name",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(place):
    assert shown_url(place) == place


@pytest.mark.parametrize(
    "text",
    [
        "Cannot parse URI: 's3://AKIA:s3cr3t/KEY@b/l' due to invalid port s3cr3t",
        "the secret is s3cr3t/KEY, or s3cr3t%2FKEY",
        "no bucket KEY@b",
    ],
)
def test_pieces_of_a_secret_in_the_text_of_others(text):
    found = without_secrets(text, ["s3://AKIA:s3cr3t/KEY@b/l"])
    assert SECRET not in found and "KEY" not in found.replace("***", "")


def test_harmless_options_may_be_named():
    assert without_secrets("no region eu-1", ["s3://b/l?region=eu-1&secret_key=s3cr3t"]) == "no region eu-1"
