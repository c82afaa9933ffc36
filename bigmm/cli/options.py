"""Types and options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from bigmm.families import NAMES

UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1024,
    "mi": 1024**2,
    "gi": 1024**3,
    "ti": 1024**4,
}


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """A size like 4GiB, 500 MB or 1000000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read "4GiB" or a number of bytes."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?\s*", str(value).lower())
        if not match:
            self.fail(f"{value!r} is not a size: write 4GiB, 500MB or a number of bytes", param, ctx)
        # kB and KiB differ, as in Dask's sizes.
        size = int(float(match[1]) * UNITS[match[2]])
        if size < 1:
            self.fail(f"{value!r} leaves no memory at all", param, ctx)
        return size


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments and options that say which model: FORMULA, DATA... and those that every model takes."""
    options = (
        click.argument("formula"),
        click.argument("data", nargs=-1, required=True),
        click.option(
            "--reml/--ml",
            default=None,
            help="The REML criterion (default), or maximum likelihood; generalized models are fitted by the latter.",
        ),
        click.option(
            "--weights", metavar="COL", help="Column of prior weights: Var(e_i) = sigma^2 / w_i; trials of a binomial."
        ),
        click.option("--offset", metavar="COL", help="Column added to the linear predictor as it is."),
        click.option(
            "--filter", "filter_", metavar="EXPR", help="Keep only these rows, e.g. \"year >= 2020 and dept == 'D1'\"."
        ),
        click.option(
            "--solver", metavar="NAME", default="auto", show_default=True, help="How the equations are solved."
        ),
        click.option("--memory-limit", type=Bytes(), metavar="SIZE", help="Refuse a fit that needs more, e.g. 4GiB."),
        click.option(
            "--partition-bytes",
            type=Bytes(),
            metavar="SIZE",
            default="64MiB",
            show_default=True,
            help="Read so much at a time in each thread, counted as it is in memory.",
        ),
    )
    return _decorated(command, options)


def family_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What makes a model generalized: --family, --link, --nagq, --laplace."""
    options = (
        click.option(
            "--family",
            type=click.Choice(NAMES),
            default="gaussian",
            show_default=True,
            help="Distribution of the response.",
        ),
        click.option("--link", metavar="NAME", help="Link function; by default the usual one of the family."),
        click.option(
            "--nagq",
            type=click.IntRange(min=0),
            metavar="N",
            help="0 fast, 1 Laplace (default), N quadrature points for one scalar random effect.",
        ),
        click.option(
            "--laplace",
            type=click.Choice(["expected", "observed"]),
            help="Working weights in log|M|: expected as lme4, observed as glmmTMB.",
        ),
        click.option(
            "--success",
            metavar="LEVEL",
            multiple=True,
            help="Level of a categorical response that counts as 1, once for each level; all but the first is R's "
            "rule. By default the second of two levels.",
        ),
    )
    return _decorated(command, options)


def probe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The iterative solver's random vectors: --mc-tol, how small their errors are to be, and --seed."""
    tolerance = click.option(
        "--mc-tol",
        type=click.FloatRange(min=0, min_open=True),
        nargs=2,
        metavar="THETA OBJECTIVE",
        help="Monte Carlo errors of the iterative solver are brought below this share of each theta's standard error, "
        "and below this standard error of the objective.  [default: 0.01 0.05]",
    )
    seed = click.option(
        "--seed",
        type=click.IntRange(min=0),
        metavar="N",
        default=0,
        show_default=True,
        help="Fixes the probes of the iterative solver.",
    )
    return tolerance(seed(command))


def where_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the work runs: --workers threads of this process, or a --scheduler's workers."""
    workers = click.option(
        "--workers", type=click.IntRange(min=1), metavar="N", help="Threads of this process; all cores by default."
    )
    return scheduler_option(workers(command))


def scheduler_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--scheduler alone, for work that a cluster or all threads of this process do."""
    described = "Address of a running Dask scheduler, e.g. tcp://head:8786."
    return click.option("--scheduler", metavar="ADDRESS", help=described)(command)


def check_where(scheduler: str | None, workers: int | None) -> None:
    """A scheduler has its own workers."""
    if scheduler is not None and workers is not None:
        raise click.UsageError("--scheduler and --workers exclude each other: the scheduler has its own workers.")


def random_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which random effects a prediction has: all, --random NAME once or more, or --population."""
    chosen = click.option(
        "--random",
        metavar="[NAME]",
        multiple=True,
        is_flag=False,
        flag_value=EVERY,
        help="Random effects that count: a group such as g or a term such as '(1 | g)', once or more; all by default.",
    )
    population = click.option("--population", is_flag=True, help="Without random effects.")
    return chosen(population(command))


EVERY = ""
"""What --random without a name stands for: all random effects."""


def random_choice(random: tuple[str, ...], population: bool) -> bool | list[str]:
    """``random=`` of `predict`; click.UsageError where the options contradict each other."""
    if population and random:
        raise click.UsageError("--random and --population exclude each other.")
    return not population if not random or EVERY in random else list(random)


def model_call(reml: bool | None, family: str, link: str | None, **generalized: Any) -> tuple[str, dict[str, Any]]:
    """("lmm" or "glmm", the options that only that one takes); click.UsageError for options of the other."""
    chosen = {name: value for name, value in generalized.items() if value not in (None, ())}
    if "success" in chosen:
        chosen["success"] = list(chosen["success"])
    if family == "gaussian" and link in (None, "identity"):
        if chosen:
            names = ", ".join(f"--{name}" for name in chosen)
            raise click.UsageError(
                f"{names}: only for generalized models; say which with --family (bernoulli, poisson, ...) or --link."
            )
        return "lmm", {"reml": reml is not False}
    if reml:
        raise click.UsageError("--reml: a generalized model is fitted by maximum likelihood; leave the option out.")
    return "glmm", {"family": family, "link": link, **chosen}


def as_data(paths: tuple[str, ...]) -> str | list[str]:
    """One path as it is (it may be a glob or a URL), several as a list."""
    return paths[0] if len(paths) == 1 else list(paths)


def _decorated(command: Callable[..., Any], options: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
