"""`bigmm fit`: from Parquet to estimates, with results on disk."""

from __future__ import annotations

import time
from typing import Any

import click

from bigmm.cli import options, output
from bigmm.cli.cluster import connected
from bigmm.cli.console import Console, talking

#: Exit codes of a fit: trustworthy, or written but doubtful.
CONVERGED, DOUBTFUL = 0, 3


@click.command()
@options.model_options
@options.family_options
@click.option(
    "--se",
    type=click.Choice(["hessian", "rx"]),
    help="Standard errors of a generalized model: the objective's Hessian (default), or the working model.",
)
@click.option("--optimizer", metavar="NAME", default="auto", show_default=True, help="How the criterion is minimised.")
@options.probe_options
@options.where_options
@click.option(
    "--out", metavar="DIR", help="Write summary, tables and the saved model there; appears whole or not at all."
)
@click.option(
    "--json", "json_file", metavar="FILE", help="Write the record of the fit as one JSON object; - for stdout."
)
@click.option("--overwrite", is_flag=True, help="Replace what is in DIR.")
@talking
@click.pass_obj
def fit(
    console: Console,
    formula: str,
    data: tuple[str, ...],
    reml: bool | None,
    family: str,
    link: str | None,
    nagq: int | None,
    laplace: str | None,
    success: tuple[str, ...],
    se: str | None,
    mc_tol: tuple[float, float] | None,
    scheduler: str | None,
    workers: int | None,
    out: str | None,
    json_file: str | None,
    overwrite: bool,
    **model: Any,
) -> int:
    """Fit a linear or generalized linear mixed model to Parquet files.

    \b
    bigmm fit "y ~ 1 + x + (1 + x | g)" lake/ --out results
    bigmm fit "y ~ x + (1 | g)" "s3://bucket/lake/*.parquet" --ml --json fit.json
    bigmm fit "cbind(yes, no) ~ x + (1 | g)" lake/ --family binomial --link probit --nagq 9
    """
    kind, particular = options.model_call(reml, family, link, nagq=nagq, laplace=laplace, success=success, se=se)
    options.check_where(scheduler, workers)
    with output.destinations(out, json_file, overwrite, data) as places:
        with connected(scheduler) as client:
            settings = model | particular | ({} if mc_tol is None else {"mc_tol": mc_tol})
            fitted = fit_model(
                console, kind, formula, options.as_data(data), client=client, n_workers=workers, **settings
            )
        return deliver(console, fitted, places)


def fit_model(
    console: Console, kind: str, formula: str, data: Any, *, filter_: str | None = None, **settings: Any
) -> Any:
    """Call `bigmm.lmm` or `bigmm.glmm` (`kind`) with progress and events."""
    import bigmm

    console.event("start", formula=formula, data=data, version=bigmm.__version__)
    start = time.perf_counter()
    with console.progress() as progress:
        # The public call, and no inner one: the command line can do what Python can, with the same checks.
        fitted = getattr(bigmm, kind)(formula, data, filter=filter_, progress=progress, **settings)
    console.event(
        "fitted",
        seconds=round(time.perf_counter() - start, 3),
        nobs=fitted.nobs,
        objective=float(fitted.objective),
        converged=bool(fitted.converged),
        is_singular=bool(fitted.is_singular),
    )
    return fitted


def deliver(console: Console, fitted: Any, places: output.Destinations) -> int:
    """Write what was asked for, then print the summary, and name the JSON file on the last line of stdout."""
    record = {"run_id": console.run_id, **fitted.as_record()}
    written = output.write_results(console, fitted, record, places, code_of(fitted))
    if places.json_file == output.STDOUT:
        console.record(output.as_json(record).rstrip("\n"))
    else:
        if not console.quiet:
            console.result(str(fitted.summary()))
        if written is not None:
            console.result(written)
    code = verdict(console, fitted)
    out = None if places.directory is None else str(places.directory.name)
    console.event("finished", exit_code=code, json=written, out=out)
    return code


def verdict(console: Console, fitted: Any) -> int:
    """0, or 3 with the reason when the fit is not to be trusted as it is."""
    from bigmm.results.doubts import doubts

    for doubt in doubts(fitted.fitted):
        console.warn(str(doubt))
    return code_of(fitted)


def code_of(fitted: Any) -> int:
    """The exit code that a fit earns."""
    return CONVERGED if fitted.converged and not fitted.is_singular else DOUBTFUL
