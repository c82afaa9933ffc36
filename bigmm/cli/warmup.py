"""`bigmm warmup`: compile kernels before they are needed, for container images and CI."""

from __future__ import annotations

import os
import time

import click

from bigmm.cli.console import Console, talking
from bigmm.families import NAMES


@click.command()
@click.option(
    "--family",
    "families",
    type=click.Choice([name for name in NAMES if name != "gaussian"]),
    multiple=True,
    help="Family of generalized models to compile for, once for each family; all by default.",
)
@click.option(
    "--only", type=click.Choice(["linear", "generalized"]), help="Kind of model to compile for; both by default."
)
@talking
@click.pass_obj
def warmup(console: Console, families: tuple[str, ...], only: str | None) -> int:
    """Compile the numerical kernels into numba's cache, so that no fit has to.

    The cache is in NUMBA_CACHE_DIR where that is set, else beside the package or in the user's cache directory.
    """
    from bigmm.compilation import watched

    if families and only == "linear":
        raise click.UsageError("--family: only for generalized models; leave out --only linear.")
    start = time.perf_counter()
    with watched() as total:
        # Imported inside of the watch, which then counts what an import compiles too.
        from bigmm.fit.warmup import warm_up

        for model in warm_up(families, only != "generalized", only != "linear"):
            if not console.quiet:
                console.say(f"compiling for {model}")
            console.event("compiling", model=model)
    seconds = time.perf_counter() - start
    place = cache_place()
    console.event("compiled", kernels=total.kernels, seconds=round(seconds, 3), cache=place)
    console.result(f"{total.kernels} kernels compiled in {seconds:.0f} s; cache: {place}")
    return 0


def cache_place() -> str:
    """The directory of the kernels' cache, in words where there is none."""
    from bigmm.blocks.exact import factor_kernels

    # numba has no public way to ask where it keeps its cache.
    cache = getattr(factor_kernels.eliminate, "_cache", None)
    path = getattr(cache, "cache_path", None)
    if path is None:
        return "none, since no directory can be written: set NUMBA_CACHE_DIR"
    return os.path.dirname(path) if os.environ.get("NUMBA_CACHE_DIR") else path
