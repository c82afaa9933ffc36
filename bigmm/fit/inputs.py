"""The opening of every recipe: the rows, the workers, and the design that the formula gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from bigmm.arguments import true_or_false
from bigmm.design import DesignSpec, learn
from bigmm.design.formula.parser import parse, required_columns
from bigmm.design.vectors import with_vectors
from bigmm.errors import UsageError
from bigmm.execute import Executor, executor
from bigmm.execute.clock import Clock
from bigmm.planning.limits import check_reading_memory, reading_threads
from bigmm.planning.settings import Settings
from bigmm.source import Source, open_source

EXAMPLES = {"contrasts": "{'f': 'Sum'}", "categories": "{'f': ['low', 'high']}"}


@dataclass(frozen=True, slots=True)
class InputOptions:
    """The arguments of a recipe that say what the rows are and how they are read, as `lmm` describes them.

    binomial: whether the response may be a factor or counts.
    """

    formula: str
    data: Any
    weights: Any
    offset: Any
    client: Any
    n_workers: int | None
    filter: Any
    partition_bytes: int
    contrasts: dict[str, str] | None
    categories: dict[str, list] | None
    drop_missing: bool
    binomial: bool = False
    success: Any = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """Rows, workers and the learned design.

    Attributes
    ----------
    source, spec : the rows, and the design.
    workers : who sums and evaluates.
    readers : the workers, or for a plan fewer threads that read within the memory limit.
    weights, offset : names of their columns, None without.
    """

    source: Source
    workers: Executor
    readers: Executor
    spec: DesignSpec
    weights: str | None
    offset: str | None


def open_inputs(options: InputOptions, how: Settings, clock: Clock, *, refuse_large: bool = True) -> Inputs:
    """Open the data, choose who works, and learn the design; phases "open" and "learn" of the clock.

    Parameters
    ----------
    refuse_large: whether MemoryLimitError is raised for partitions that the fit could not read. A plan is made in spite
        of them, by as few threads as it takes. What one thread cannot read within the limit is refused for a plan too.
    """
    _check(options)
    with clock("open"):
        # Vectors become columns, so that filters and partitions cut them together with their rows.
        data, weights, offset = with_vectors(options.data, options.weights, options.offset)
        limit = how.memory_limit if refuse_large else None
        source = open_source(data, filter=options.filter, partition_bytes=options.partition_bytes, memory_limit=limit)
        workers = executor(options.client, options.n_workers)
    # The formula is read before the levels are learned, so only the columns that it names count.
    columns = {*required_columns(parse(options.formula)), *(name for name in (weights, offset) if name is not None)}
    readers = workers
    if refuse_large:
        check_reading_memory(source, columns, workers, how.memory_limit)
    else:
        threads = reading_threads(source, columns, workers, how.memory_limit)
        # The forecast is still that of all workers: fewer threads only read.
        readers = workers if threads == workers.n_workers else executor(None, threads)
    with clock("learn"):
        spec = learn(
            options.formula,
            source,
            readers,
            weights=weights,
            offset=offset,
            contrasts=options.contrasts,
            categories=options.categories,
            drop_missing=bool(options.drop_missing),
            progress=how.progress,
            binomial=options.binomial,
            success=options.success,
        )
    return Inputs(source, workers, readers, spec, weights, offset)


def _check(options: InputOptions) -> None:
    """Raise UsageError for an option that has no meaning."""
    nbytes = options.partition_bytes
    # bool is a number in Python.
    if isinstance(nbytes, bool) or not isinstance(nbytes, Real) or not nbytes > 0:
        raise UsageError(f"partition_bytes must be a positive number of bytes, got {nbytes!r}")
    true_or_false("drop_missing", options.drop_missing)
    for name, value in (("contrasts", options.contrasts), ("categories", options.categories)):
        if value is not None and not isinstance(value, Mapping):
            raise UsageError(f"{name} must be a dict by column, such as {EXAMPLES[name]}, got {value!r}")
    check_order(options.formula, options.data)
    for name, levels in (options.categories or {}).items():
        # Text is iterable, letter by letter.
        if isinstance(levels, str | bytes) or not isinstance(levels, Iterable):
            raise UsageError(f"categories[{name!r}] must be a list of levels in their order, got {levels!r}")


def check_order(formula: Any, data: Any) -> None:
    """Raise UsageError unless the formula is text and came before the data."""
    if is_formula(data) and not is_formula(formula):
        raise UsageError(f"formula and data are the other way round: the formula {data!r} comes first, then the data")
    if not isinstance(formula, str):
        raise UsageError(
            f"the formula must be text such as 'y ~ x + (1 | g)', not {type(formula).__module__}."
            f"{type(formula).__qualname__}"
        )


def is_formula(value: Any) -> bool:
    """Whether a value is text with a response and a random term; a path may start with ~ and has no bar."""
    return isinstance(value, str) and "~" in value and "|" in value
