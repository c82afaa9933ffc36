"""`bigmm demo`: a real fit to real data, from nothing to results in one command."""

from __future__ import annotations

import time
from pathlib import Path

import click

from bigmm.atomic import check_destination
from bigmm.cli.console import Console, talking
from bigmm.cli.fit import fit_model, verdict
from bigmm.cli.output import write_results

FORMULA = "y ~ service + (1|s) + (1|d) + (1|dept)"


@click.command()
@click.option(
    "--out", metavar="DIR", default="bigmm-demo", show_default=True, help="Where the lake and the results go."
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left there.")
@talking
@click.pass_obj
def demo(console: Console, out: str, overwrite: bool) -> int:
    """Fit 73,421 ratings of lectures at ETH Zurich: students, lecturers and departments as crossed random effects."""
    from bigmm.datasets import insteval, write_lake

    lake, results = Path(out) / "lake", Path(out) / "results"
    for place in (lake, results):
        check_destination(place, overwrite=overwrite)
    frame = insteval()
    files = write_lake(frame, lake, partition_by="dept", rows_per_file=4000, overwrite=overwrite)
    console.result(f"{len(frame):,} ratings in {len(files)} Parquet files under {lake}")
    console.result(f"fitting {FORMULA}\n")
    begun = time.perf_counter()
    fitted = fit_model(console, "lmm", FORMULA, str(lake))
    seconds = time.perf_counter() - begun
    record = {"run_id": console.run_id, **fitted.as_record()}
    written = write_results(fitted, record, str(results), overwrite=overwrite)
    if not console.quiet:
        console.result(f"{fitted.summary()}\n")
        console.result(f"{seconds:.2f} s from Parquet to estimates: {times(record['seconds'])}")
        console.result(f"summary, tables and saved model: {results}/")
        console.result(f"    bigmm summary {results}\n    bigmm ranef {results} --group dept")
        console.result(f"    bigmm predict {results} {lake} --out {Path(out) / 'predictions'}")
    console.result(str(written))
    return verdict(console, fitted)


def times(seconds: dict[str, float]) -> str:
    """The phases of a fit in the order they ran, for people."""
    return ", ".join(f"{phase} {value:.2f} s" for phase, value in seconds.items())
