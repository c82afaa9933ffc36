"""`bigmm plan`: what a fit would read, hold and compute, before it does."""

from __future__ import annotations

from typing import Any

import click

from bigmm.cli import options, output
from bigmm.cli.cluster import connected
from bigmm.cli.console import Console, talking
from bigmm.errors import MemoryLimitError


@click.command()
@options.model_options
@options.family_options
@options.where_options
@click.option("--json", "json_file", metavar="FILE", help="Write the plan as one JSON object; - for stdout.")
@talking
@click.pass_obj
def plan(
    console: Console,
    formula: str,
    data: tuple[str, ...],
    scheduler: str | None,
    workers: int | None,
    json_file: str | None,
    filter_: str | None,
    reml: bool | None,
    family: str,
    link: str | None,
    nagq: int | None,
    laplace: str | None,
    success: tuple[str, ...],
    **model: Any,
) -> int:
    """Say what a fit would read, hold and compute: levels, blocks, bytes, passes.

    Levels are counted by a pass over the grouping columns alone. Ends with 2, as the fit would, when that is refused
    for the memory limit.
    """
    _, particular = options.model_call(reml, family, link, nagq=nagq, laplace=laplace, success=success)
    options.check_where(scheduler, workers)
    output.check_outputs(None, json_file, False, data)
    import bigmm

    with connected(scheduler) as client, console.progress() as progress:
        planned = bigmm.plan(
            formula,
            options.as_data(data),
            filter=filter_,
            client=client,
            n_workers=workers,
            progress=progress,
            **(model | particular),
        )
    # The plan is printed in full also where the fit would be refused: it says what is too large.
    code = MemoryLimitError.exit_code if planned.refused else 0
    return output.deliver_record(console, planned.as_record(), str(planned), json_file, code)
