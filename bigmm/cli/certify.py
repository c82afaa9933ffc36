"""`bigmm certify`: the exact objective at the optimum of a saved iterative fit."""

from __future__ import annotations

import click

from bigmm.cli import options, output
from bigmm.cli.cluster import connected
from bigmm.cli.console import Console, talking
from bigmm.cli.saved import load
from bigmm.errors import UsageError

#: The fit's objective is farther from the exact one than its stated error allows.
NOT_WITHIN = 3


@click.command()
@click.argument("model")
@options.where_options
@click.option(
    "--memory-limit",
    type=options.Bytes(),
    metavar="SIZE",
    help="Of this process, or of all workers together; what does not fit is refused, e.g. 4GiB.",
)
@click.option("--tile", type=click.IntRange(min=1), metavar="ROWS", help="Rows of a tile; chosen by size by default.")
@click.option("--json", "json_file", metavar="FILE", help="Write the certificate as one JSON object; - for stdout.")
@talking
@click.pass_obj
def certify(
    console: Console,
    model: str,
    scheduler: str | None,
    workers: int | None,
    memory_limit: int | None,
    tile: int | None,
    json_file: str | None,
) -> int:
    """Check the objective of MODEL, fitted by the iterative solver, against the exact one at its theta.

    One tiled Cholesky factorization, on the workers of a Dask scheduler or in threads of this process. Ends with 0 when
    the difference is within so many of the stated Monte Carlo errors that more are as rare as 4 normal ones (Student's
    t: the error is estimated from few probes), else with 3.
    """
    options.check_where(scheduler, workers)
    output.check_outputs(None, json_file, False, (model,))
    fitted = load(model)
    if fitted.fitted.kind != "lmm":
        raise UsageError(f"{model} is a generalized model; the exact objective is certified for linear ones only")
    with connected(scheduler) as client, console.progress() as progress:
        certificate = fitted.certify(client, workers, memory_limit, tile, progress=progress)
    # The certificate is written in both cases: the difference is the result that was asked for.
    code = 0 if certificate.within else NOT_WITHIN
    console.event("certified", exit_code=code, **certificate.as_record())
    return output.deliver_record(console, certificate.as_record(), str(certificate), json_file, code)
