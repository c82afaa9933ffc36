import numpy as np
import pytest

import bigmm
from bigmm.errors import UsageError
from bigmm.fit.options import memory_bytes, progress_callback, settings


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("4GiB", 4 << 30), ("500MB", 500_000_000), ("1.5 kib", 1536), ("12", 12), (7.9, 7), (1 << 20, 1 << 20)],
)
def test_sizes(limit, expected):
    assert memory_bytes(limit) == expected


@pytest.mark.parametrize("limit", ["", "GiB", "1.2.3MB", "5 parsecs", "0", "-4GiB", True])
def test_what_is_no_size(limit):
    with pytest.raises(UsageError, match="memory_limit .* is not a size"):
        memory_bytes(limit)


def test_the_default_is_most_of_what_is_free():
    assert memory_bytes(None) > 1 << 20


def test_progress():
    assert progress_callback(None) is None
    assert progress_callback(False) is None
    assert progress_callback(print) is print


def test_auto_is_decided_later():
    assert settings("auto", "auto", "1GiB", None).solver == "auto"


def test_progress_true_shows_a_bar_and_fits(capsys):
    import bigmm

    fit = bigmm.lmm("Yield ~ 1 + (1 | Batch)", bigmm.datasets.dyestuff(), progress=True)
    assert fit.nobs == 30


SLIPS = {
    "threads as text": ({"n_workers": "2"}, "n_workers must be a number of threads, got '2'"),
    "half a thread": ({"n_workers": 1.5}, "n_workers must be a number of threads, got 1.5"),
    "no thread": ({"n_workers": 0}, "n_workers must be at least 1"),
    "an address": (
        {"client": "tcp://x:8786"},
        r"connected distributed.Client, got 'tcp://x:8786'.*distributed.Client\(",
    ),
    "a cluster": ({"client": object()}, r"client=cluster.get_client\(\)"),
    "a criterion's name": ({"reml": "ML"}, "reml must be True or False, got 'ML'"),
    "a number for a bool": ({"drop_missing": 0}, "drop_missing must be True or False, got 0"),
    "partitions as text": (
        {"partition_bytes": "64MB"},
        "partition_bytes must be a positive number of bytes, got '64MB'",
    ),
    "no partitions": ({"partition_bytes": 0}, "partition_bytes must be a positive number"),
    "a start in words": ({"theta0": "one"}, "theta0 must be numbers, one per element of theta, got 'one'"),
    "one coding for all": ({"contrasts": "Sum"}, "contrasts must be a dict by column, such as {'f': 'Sum'}, got 'Sum'"),
    "categories of nothing": ({"categories": ["a", "b"]}, "categories must be a dict by column"),
    "optimizer by number": ({"optimizer": 3}, "optimizer must be a name .* got 3"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slips_are_refused_by_name(name):
    options, message = SLIPS[name]
    data = bigmm.datasets.dyestuff()
    with pytest.raises(UsageError, match=message):
        bigmm.lmm("Yield ~ 1 + (1 | Batch)", data, **options)
    if "reml" not in options:
        with pytest.raises(UsageError, match=message):
            bigmm.glmm("Yield ~ 1 + (1 | Batch)", data, family="gamma", **options)
    if not {"theta0", "optimizer"} & set(options):
        with pytest.raises(UsageError, match=message):
            bigmm.plan("Yield ~ 1 + (1 | Batch)", data, **options)


def test_numpys_numbers_are_numbers():
    fit = bigmm.lmm(
        "Yield ~ 1 + (1 | Batch)", bigmm.datasets.dyestuff(), reml=np.bool_(False), n_workers=np.int64(1), theta0=[1]
    )
    assert fit.reml is False
