"""What a fit would read, hold and compute, said before the pass over the rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bigmm.arguments import strict, true_or_false
from bigmm.covariance import covariance
from bigmm.design.completion import planned_design
from bigmm.errors import UsageError
from bigmm.execute import cut_lanes
from bigmm.execute.clock import Clock
from bigmm.execute.memory import in_units
from bigmm.fit.inputs import InputOptions, open_inputs
from bigmm.fit.options import check_terms, glmm_options, settings
from bigmm.planning.forecast import (
    IN_WORDS,
    LOOKS,
    PlannedTerm,
    forecast_generalized,
    forecast_linear,
)
from bigmm.planning.limits import SMALL_BYTES, reading_bytes
from bigmm.planning.memory import accumulator_bytes
from bigmm.source import Inventory


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fit would read, hold and compute.

    Attributes
    ----------
    rows, partitions, lanes : int
        What is read.
    passes : int
        Passes over the rows. The first one reads the grouping columns only.
    looks_per_evaluation : tuple of two ints
        Least and largest number of looks at the shards of rows in an evaluation of a generalized model.
    coefficients, theta : int
        Numbers of fixed effects and of variance parameters.
    engine : str
        "blocks" or "levels" (with the workers) of a linear model; "single", "nested" or "crossed" of a generalized one.
    solver, solver_reason : str
        The solver that the fit will choose, and why.
    pass_bytes, solver_bytes : int
        Peak memory of the pass, and of an evaluation of criterion and gradient.
    flops : float
        Of an evaluation.
    memory_limit : int
        In bytes.
    fits, refused : bool
        Whether both peaks stay below the limit, and whether the fit is refused because they do not.
    files : Inventory, optional
        The files that the rows are in. None for tables in memory.
    """

    formula: str
    data: str
    rows: int
    partitions: int
    lanes: int
    workers: int
    columns: tuple[str, ...]
    passes: int
    coefficients: int
    theta: int
    terms: tuple[PlannedTerm, ...]
    pass_bytes: int
    engine: str
    solver: str
    solver_reason: str
    solver_bytes: int
    flops: float
    memory_limit: int
    fits: bool
    family: str | None = None
    looks_per_evaluation: tuple[int, int] | None = None
    refused: bool = False
    files: Inventory | None = None

    def as_record(self) -> dict[str, Any]:
        """A dict of plain values, for JSON."""
        return asdict(self) | {"files": None if self.files is None else self.files.as_record()}

    def __str__(self) -> str:
        width = max([len("grouping factor"), *(len(t.name) for t in self.terms)])
        lines = [
            f"Formula: {self.formula}",
            f"Data: {self.data}: {self.rows:,} rows in {self.partitions} partitions, {self.lanes} lanes",
            *(f"Files: {sentence}" for sentence in (self.files.sentences() if self.files is not None else ())),
            f"Reads: {self._reads()}",
            f"Fixed effects: {self.coefficients}; variance parameters: {self.theta}",
            f"{'grouping factor':<{width}}  {'levels':>12}  width  {'memory':>10}  block",
            *(
                f"{t.name:<{width}}  {t.levels:>12,}  {t.width:>5}  {in_units(t.bytes):>10}  {t.kind}"
                for t in self.terms
            ),
            f"Pass: about {in_units(self.pass_bytes)} at peak with {self.workers} workers",
            f"Engine: {IN_WORDS[self.engine]}",
            f"Solver: {self.solver} ({self.solver_reason}), about {in_units(self.solver_bytes)} and "
            f"{self.flops:.2g} flops per evaluation",
            f"Memory limit: {in_units(self.memory_limit)}: {self._fits()}",
        ]
        if self.family is not None:
            lines.insert(1, f"Family: {self.family}")
        return "\n".join(lines)

    def _fits(self) -> str:
        if self.fits:
            return "fits"
        return f"does NOT fit, {'and the fit is refused' if self.refused else 'but the fit is tried'}"

    def _reads(self) -> str:
        columns = ", ".join(self.columns)
        if self.family is None:
            return f"{self.passes} passes over {columns} (the first over grouping columns only)"
        # Set with every family, see `plan`.
        assert self.looks_per_evaluation is not None
        least, most = self.looks_per_evaluation
        looks = "once" if most == 1 else f"{least} to {most} times"
        return f"once over {columns} into shards (after grouping columns); each evaluation looks at the shards {looks}"


@strict
def plan(
    formula: str,
    data: Any,
    *,
    weights: str | None = None,
    offset: str | None = None,
    client: Any = None,
    solver: str = "auto",
    contrasts: dict[str, str] | None = None,
    categories: dict[str, list] | None = None,
    filter: Any = None,
    drop_missing: bool = True,
    progress: Any = None,
    memory_limit: Any = None,
    n_workers: int | None = None,
    partition_bytes: int = 64 << 20,
    reml: bool = True,
    family: Any = None,
    link: str | None = None,
    nagq: int | None = None,
    laplace: str | None = None,
    success: Any = None,
) -> Plan:
    """Say what a fit would read, hold and compute. The grouping columns are read, and nothing is fitted.

    Engine and solver are chosen by the functions that the fit calls.

    Parameters
    ----------
    formula, data, weights, offset, client, solver, contrasts, categories, filter, drop_missing
        As in `lmm`.
    progress, memory_limit, n_workers, partition_bytes, reml
        As in `lmm`. Both criteria cost the same.
    family, link, nagq, laplace, success
        As in `glmm`, for the plan of a generalized model.

    Returns
    -------
    Plan

    Raises
    ------
    FormulaError, UsageError, DataError, ReadError, TemporaryError
        What the fit would raise.
    """
    how = settings(solver, "auto", memory_limit, progress)
    # Checked although nothing depends on it, so that a call that lmm refuses is refused here too.
    true_or_false("reml", reml)
    if family is None and not (nagq is laplace is success is None):
        raise UsageError("nagq=, laplace= and success= belong to a generalized model: give family= too")
    options = None if family is None else glmm_options(family, link, 1 if nagq is None else nagq, laplace, success)
    rows_options = InputOptions(
        formula,
        data,
        weights=weights,
        offset=offset,
        client=client,
        n_workers=n_workers,
        filter=filter,
        partition_bytes=partition_bytes,
        contrasts=contrasts,
        categories=categories,
        drop_missing=drop_missing,
        binomial=options is not None and options.binomial,
        success=success,
    )
    inputs = open_inputs(rows_options, how, Clock(), refuse_large=False)
    source, workers = inputs.source, inputs.workers
    # Sizes are those of the rows that count; the fit finds these by a pass that a plan does not make.
    spec = planned_design(inputs.spec, source, inputs.readers)
    layout, rows = spec.layout, sum(p.rows for p in source.partitions)
    if options is None:
        ahead = forecast_linear(source, spec, workers, how)
    else:
        check_terms(spec, options.nagq)
        ahead = forecast_generalized(source, spec, workers, how, options.nagq)
    # A plan reads with fewer threads where it must. The fit would refuse, so the plan says that it does not fit.
    readable = reading_bytes(source, spec.used_columns, workers) <= max(how.memory_limit, SMALL_BYTES)
    lanes = cut_lanes(source.partitions, accumulator_bytes=accumulator_bytes(layout, rows))
    theta = sum(covariance(t.structure, len(t.covariates)).n_parameters for t in layout.terms)
    return Plan(
        formula,
        source.description,
        rows,
        len(source.partitions),
        len(lanes),
        workers.n_workers,
        tuple(spec.used_columns),
        inputs.spec.passes + 1,  # the fit's own pass is one more
        len(layout.fixed_names),
        theta,
        ahead.terms,
        ahead.pass_bytes,
        ahead.engine,
        ahead.solver,
        ahead.why,
        ahead.solver_bytes,
        ahead.flops,
        how.memory_limit,
        ahead.fits and readable,
        None if options is None else str(options.family),
        LOOKS.get(ahead.engine),
        ahead.refused or not readable,
        source.inventory,
    )
