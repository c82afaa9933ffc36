"""Commands on a saved model: `bigmm summary`, `bigmm ranef`, `bigmm predict`."""

from __future__ import annotations

from typing import Any

import click

from bigmm.atomic import check_apart, check_file, is_table, shown_path, whole_file
from bigmm.cli import options, output
from bigmm.cli.cluster import connected
from bigmm.cli.console import Console, talking
from bigmm.errors import UsageError


@click.command()
@click.argument("model")
@click.option(
    "--json", "json_file", metavar="FILE", help="Write the record of the fit as one JSON object; - for stdout."
)
@talking
@click.pass_obj
def summary(console: Console, model: str, json_file: str | None) -> int:
    """Print the summary of MODEL, a directory written by `bigmm fit --out` or by save()."""
    output.check_outputs(None, json_file, False, (model,))
    fitted = load(model)
    return output.deliver_record(console, fitted.as_record(), str(fitted.summary()), json_file)


@click.command()
@click.argument("model")
@click.option("--group", metavar="NAME", help="Only this grouping factor.")
@click.option("--condvar", is_flag=True, help="Add conditional standard deviations.")
@click.option("--out", metavar="FILE", help="Write Parquet instead of printing; needs --group when there are several.")
@talking
@click.pass_obj
def ranef(console: Console, model: str, group: str | None, condvar: bool, out: str | None) -> int:
    """Print the conditional modes of the random effects of MODEL as CSV, one table a grouping factor."""
    if out is not None:
        check_apart(out, [model], option="--out")
        check_file(out, is_table)
    frames = load(model).ranef(condvar=condvar)
    if group is not None and group not in frames:
        raise UsageError(f"no grouping factor {group!r}; the model has {', '.join(map(repr, frames))}")
    chosen = {group: frames[group]} if group is not None else frames
    if out is None:
        for name, frame in chosen.items():
            if len(chosen) > 1:
                console.record(f"# {name}")
            console.record(output.with_level(frame).to_csv(index=False).rstrip("\n"))
        return 0
    if len(chosen) > 1:
        raise UsageError(f"--out writes one table; say which with --group: {', '.join(map(repr, frames))}")
    console.expect(0)
    with whole_file(out, replaceable=is_table) as draft:
        for frame in chosen.values():
            output.write_frame(output.with_level(frame), draft)
    console.result(out)
    return 0


@click.command()
@click.argument("model")
@click.argument("data", nargs=-1, required=True)
@click.option(
    "--out", metavar="DIR", required=True, help="Directory of Parquet files to write; appears whole or not at all."
)
@click.option(
    "--type",
    type=click.Choice(["response", "link"]),
    default="response",
    show_default=True,
    help="Means of the response, or the linear predictor.",
)
@options.random_options
@click.option(
    "--new-levels",
    type=click.Choice(["population", "raise", "missing"]),
    default="population",
    show_default=True,
    help="What a level not seen in fitting gets: random effect zero, an error, or a null.",
)
@click.option("--se", is_flag=True, help="Add standard errors.")
@click.option("--overwrite", is_flag=True, help="Replace what is in DIR.")
@options.scheduler_option
@talking
@click.pass_obj
def predict(
    console: Console,
    model: str,
    data: tuple[str, ...],
    out: str,
    overwrite: bool,
    scheduler: str | None,
    random: tuple[str, ...],
    population: bool,
    **choices: Any,
) -> int:
    """Predict for the rows of DATA with MODEL, out of core; every row keeps its columns and gains the prediction."""
    chosen = options.random_choice(random, population)
    output.check_outputs(out, None, overwrite, (model, *data))
    fitted = load(model)
    console.expect(0)
    with connected(scheduler) as client, console.progress() as progress:
        written = fitted.predict(
            options.as_data(data),
            random=chosen,
            out=out,
            overwrite=overwrite,
            client=client,
            progress=progress,
            **choices,
        )
    console.event("finished", exit_code=0, out=str(written))
    console.result(str(shown_path(out)))
    return 0


def load(path: str) -> Any:
    """The saved model in a directory of `fit --out`, or a saved model itself."""
    directory = output.model_directory(path)
    import bigmm

    return bigmm.load(directory)
