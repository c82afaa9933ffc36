"""What the command line refuses before it reads a row."""

from __future__ import annotations

import click
import pytest

from bigmm.cli.options import Bytes, model_call

FORMULA = "y ~ x + (1 | g)"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 << 30),
        ("500 MB", 500_000_000),
        ("1.5g", 1_500_000_000),
        ("64k", 64_000),
        ("123", 123),
        ("2 TiB", 2 << 40),
    ],
)
def test_sizes(text, size):
    assert Bytes().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "lots", "-1GB", "4 parsecs", "0"])
def test_sizes_that_are_none(text):
    with pytest.raises(click.BadParameter, match="is not a size: write 4GiB|leaves no memory"):
        Bytes().convert(text, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", FORMULA], "Missing argument 'DATA...'"),
        (
            ["fit", FORMULA, "lake", "--memory-limit", "much"],
            "'much' is not a size: write 4GiB, 500MB or a number of bytes",
        ),
        (["fit", FORMULA, "lake", "--nosuch"], "No such option"),
        (["fit", FORMULA, "lake", "--workers", "0"], "Invalid value for '--workers'"),
        (
            ["fit", FORMULA, "lake", "--workers", "2", "--scheduler", "tcp://x:1"],
            "--scheduler and --workers exclude each other",
        ),
        (
            ["fit", FORMULA, "lake", "--family", "poisson", "--reml"],
            "--reml: a generalized model is fitted by maximum likelihood; leave the option out",
        ),
        (
            ["fit", FORMULA, "lake", "--nagq", "1", "--se", "rx"],
            "--nagq, --se: only for generalized models; say which with --family (bernoulli, poisson, ...) or --link",
        ),
        (
            ["plan", FORMULA, "lake", "--laplace", "observed"],
            "--laplace: only for generalized models; say which with --family",
        ),
        (["fit", FORMULA, "lake", "--family", "poisson", "--nagq", "-1"], "Invalid value for '--nagq'"),
        (["fit", FORMULA, "lake", "--family", "poisson", "--laplace", "nosuch"], "Invalid value for '--laplace'"),
        (["fit", FORMULA, "lake", "--family", "poisson", "--se", "nosuch"], "Invalid value for '--se'"),
        (["fit", FORMULA, "lake", "--mc-tol", "0.01"], "Option '--mc-tol' requires 2 arguments"),
        (
            ["fit", FORMULA, "lake", "--mc-tol", "0.01", "0"],
            "Invalid value for '--mc-tol': 0.0 is not in the range x>0",
        ),
        (["fit", FORMULA, "lake", "--mc-tol", "little", "1"], "'little' is not a valid float"),
        (["fit", FORMULA, "lake", "--seed", "-1"], "Invalid value for '--seed'"),
        (["fit", FORMULA, "lake", "--seed", "0.5"], "'0.5' is not a valid integer"),
        (["fit", FORMULA, "lake", "--family", "nosuch"], "Invalid value for '--family'"),
        (["summary", "nosuch"], "nosuch does not exist: name a directory written by `bigmm fit --out` or by save()"),
        (["nosuch"], "No such command 'nosuch'"),
    ],
)
def test_refusals(bigmm, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    ended = bigmm(*arguments)
    assert ended.code == 2
    assert message in ended.err
    assert ended.out == ""


def test_refusals_as_json_lines(bigmm):
    ended = bigmm("fit", FORMULA, "lake", "--log", "json", "--family", "gamma", "--reml")
    assert ended.code == 2
    assert [(line["level"], line["event"], line["exit_code"]) for line in ended.events] == [("error", "failed", 2)]


@pytest.mark.parametrize(
    ("given", "call"),
    [
        ((None, "gaussian", None), ("lmm", {"reml": True})),
        ((False, "gaussian", "identity"), ("lmm", {"reml": False})),
        ((None, "gaussian", "log"), ("glmm", {"family": "gaussian", "link": "log"})),
        ((False, "poisson", None), ("glmm", {"family": "poisson", "link": None})),
    ],
)
def test_which_model_is_meant(given, call):
    assert model_call(*given, nagq=None, laplace=None) == call
    if call[0] == "glmm":
        assert model_call(*given, nagq=0)[1] == call[1] | {"nagq": 0}
