"""`bigmm demo`: a real fit to real data, from nothing to results in one command."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from pathlib import Path

import click

from bigmm.atomic import check_destination, shown_path
from bigmm.cli.console import Console, talking
from bigmm.cli.fit import code_of, fit_model, verdict
from bigmm.cli.output import Destinations, destinations, write_results

FORMULA = "y ~ service + (1|s) + (1|d) + (1|dept)"
SOME = "studage == '2'"
NOTICEABLE = 5.0
"""A fit of some of the rows that takes more seconds than this has compiled kernels."""


@click.command()
@click.option(
    "--out", metavar="DIR", default="bigmm-demo", show_default=True, help="Where the lake and the results go."
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left there.")
@talking
@click.pass_obj
def demo(console: Console, out: str, overwrite: bool) -> int:
    """Fit 73,421 ratings of lectures at ETH Zurich: students, lecturers and departments as crossed random effects."""
    place = shown_path(out)
    lake = place / "lake"
    check_destination(lake, overwrite=overwrite)
    with destinations(str(place / "results"), None, overwrite) as places:
        return fit_ratings(console, places, lake, overwrite)


def fit_ratings(console: Console, places: Destinations, lake: Path, overwrite: bool) -> int:
    """Write the lake, fit it, write the results beside it, and say what to try next."""
    from bigmm.datasets import insteval, write_lake

    frame, results = insteval(), lake.with_name("results")
    # Small files on purpose: the demo shows a lake of folders with several files each.
    files = write_lake(frame, lake, partition_by="dept", rows_per_file=4000, overwrite=overwrite)
    console.result(f"{len(frame):,} ratings in {len(files)} Parquet files under {lake}")
    compiled = seconds_to_compile(lake)
    if compiled > NOTICEABLE:
        console.result(f"kernels compiled, once on this machine: {compiled:.0f} s")
    console.result(f"fitting {FORMULA}\n")
    start = time.perf_counter()
    fitted = fit_model(console, "lmm", FORMULA, str(lake))
    seconds = time.perf_counter() - start
    record = {"run_id": console.run_id, **fitted.as_record()}
    written = write_results(console, fitted, record, places, code_of(fitted))
    if not console.quiet:
        console.result(f"{fitted.summary()}\n")
        console.result(f"{seconds:.2f} s from Parquet to estimates: {times(record['seconds'])}")
        console.result(f"summary, tables and saved model: {results}/")
        command = shlex.quote(as_called())
        console.result(f"    {command} summary {results}\n    {command} ranef {results} --group dept")
        console.result(f"    {command} predict {results} {lake} --out {lake.with_name('predictions')}")
    console.result(str(written))
    return verdict(console, fitted)


def seconds_to_compile(lake: Path) -> float:
    """Fit some of the rows, so that the time of the fit has no compilation in it: numba keeps what it compiles."""
    import bigmm

    start = time.perf_counter()
    bigmm.lmm(FORMULA, str(lake), filter=SOME)
    return time.perf_counter() - start


def as_called() -> str:
    """How to call this command again: by its name where the shell finds it, else by the path it was called by."""
    called = Path(sys.argv[0])
    program = shutil.which("bigmm")
    if called.name != "bigmm" or (program is not None and Path(program).resolve() == called.resolve()):
        return "bigmm"
    return str(called)


def times(seconds: dict[str, float]) -> str:
    """The phases of a fit in the order they ran, for people."""
    return ", ".join(f"{phase} {value:.2f} s" for phase, value in seconds.items())
