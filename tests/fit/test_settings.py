import pytest

from bigmm.errors import UsageError
from bigmm.fit.settings import memory_bytes, progress_callback, settings


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
