"""What a fit would read, hold and compute, said before the pass over the rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bigmm.accumulate import accumulator_bytes
from bigmm.design import DesignSpec, joint_terms
from bigmm.design.layout import Layout
from bigmm.errors import MemoryLimitError, UsageError
from bigmm.execute import cut_lanes
from bigmm.families import family as family_named
from bigmm.fit.clock import Clock
from bigmm.fit.held_levels import held_bytes
from bigmm.fit.opened import opened
from bigmm.fit.settings import settings
from bigmm.fit.staying import staying
from bigmm.solver import EXACT_TAIL
from bigmm.source import Source


@dataclass(frozen=True, slots=True)
class PlannedTerm:
    """A grouping factor: levels, covariates per level, and how its part of the Cholesky factor is stored.

    kind: "block-diagonal" (eliminated level by level), "dense" (crossed), or "block-diagonal, if nested" where only the
    pass can tell whether each level lies in one level of the larger factor.
    """

    name: str
    levels: int
    width: int
    kind: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """rows, partitions, lanes: what is read; passes over the rows (the first reads grouping columns only);
    coefficients: p; theta: number of variance parameters; pass_bytes: peak of the pass; solver: what "auto" would
    choose,
    solver_reason: why; solver_bytes and flops: of it, per evaluation of gradient and criterion; memory_limit: bytes;
    fits: whether both stay below it."""

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
    solver: str
    solver_reason: str
    solver_bytes: int
    flops: float
    memory_limit: int
    fits: bool
    family: str | None = None

    def as_record(self) -> dict[str, Any]:
        """A dict of plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        width = max([len("grouping factor"), *(len(t.name) for t in self.terms)])
        lines = [
            f"Formula: {self.formula}",
            f"Data: {self.data}: {self.rows:,} rows in {self.partitions} partitions, {self.lanes} lanes",
            f"Reads: {self._reads()}",
            f"Fixed effects: {self.coefficients}; variance parameters: {self.theta}",
            f"{'grouping factor':<{width}}  {'levels':>12}  width  {'memory':>10}  block",
            *(f"{t.name:<{width}}  {t.levels:>12,}  {t.width:>5}  {_size(t.bytes):>10}  {t.kind}" for t in self.terms),
            f"Pass: about {_size(self.pass_bytes)} at peak with {self.workers} workers",
            f"Solver: {self.solver} ({self.solver_reason}), about {_size(self.solver_bytes)} and "
            f"{self.flops:.2g} flops per evaluation",
            f"Memory limit: {_size(self.memory_limit)}: {'fits' if self.fits else 'does NOT fit'}",
        ]
        if self.family is not None:
            lines.insert(1, f"Family: {self.family}")
        return "\n".join(lines)

    def _reads(self) -> str:
        columns = ", ".join(self.columns)
        if self.family is None:
            return f"{self.passes} passes over {columns} (the first over grouping columns only)"
        return (
            f"once over {columns} into shards (after grouping columns); "
            "each evaluation looks at the shards 1 to 5 times"
        )


def _size(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.4g} {unit}"
        n /= 1024
    return f"{n:.4g} TiB"


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
) -> Plan:
    """What ``lmm(formula, data, ...)`` (``glmm(...)`` when a family is given) would read, hold and compute; reads the
    grouping columns, fits nothing. ``reml`` is taken for symmetry: both criteria cost the same."""
    how = settings(solver, "auto", memory_limit, progress)
    chosen_family = None if family is None else family_named(family, link)
    if chosen_family is None and (nagq is not None or laplace is not None):
        raise UsageError("nagq= and laplace= belong to a generalized model: give family= too")
    begun = opened(
        formula,
        data,
        how,
        Clock(),
        weights=weights,
        offset=offset,
        client=client,
        n_workers=n_workers,
        filter=filter,
        partition_bytes=partition_bytes,
        contrasts=contrasts,
        categories=categories,
        drop_missing=drop_missing,
        binomial=chosen_family is not None and chosen_family.name in ("binomial", "bernoulli"),
        refuse_large=False,
    )
    source, workers, spec = begun.source, begun.workers, begun.spec
    layout, rows = spec.layout, sum(p.rows for p in source.partitions)
    per_pass = pass_bytes(source, spec, workers.n_workers)
    terms, exact_bytes, flops = _planned_terms(layout, rows)
    chosen, why = _planned_solver(terms, exact_bytes, how.solver, how.memory_limit)
    stays = staying(source, spec, workers, how) if chosen_family is None else None
    if chosen_family is not None:
        chosen, why = "exact", "generalized models have no other yet"
    elif stays is not None:
        chosen, why = "exact", stays.why
        terms, flops = terms_of_chain(layout)
        per_pass, exact_bytes = held_bytes(source, spec, stays.head, how, workers.n_workers)
    solver_bytes = exact_bytes if chosen == "exact" else _iterative_bytes(terms, layout, rows)
    lanes = cut_lanes(source.partitions, accumulator_bytes=accumulator_bytes(layout, rows))
    theta = sum(len(t.covariates) * (len(t.covariates) + 1) // 2 for t in layout.terms)
    return Plan(
        formula,
        source.description,
        rows,
        len(source.partitions),
        len(lanes),
        workers.n_workers,
        tuple(spec.used_columns),
        2,
        len(layout.fixed_names),
        theta,
        terms,
        per_pass,
        chosen,
        why,
        solver_bytes,
        flops if chosen == "exact" else 4.0 * ITERATIVE_VECTORS * sum(_pairs(terms, rows)),
        how.memory_limit,
        max(per_pass, solver_bytes) <= how.memory_limit,
        None if chosen_family is None else str(chosen_family),
    )


def _planned_terms(layout: Layout, rows: int) -> tuple[tuple[PlannedTerm, ...], int, float]:
    """Per factor what it stores; the exact solver's bytes and flops per evaluation, nested factors counted as crossed
    unless the formula says that they are nested."""
    p = len(layout.fixed_names)
    terms, size, flops, total = [], p + 1, 0.0, 0
    largest = None
    for joint in joint_terms(layout):
        grouping = layout.groupings[joint.grouping]
        q, k = grouping.n_levels, len(joint.covariates)
        nested = largest is not None and set(grouping.variables) < set(largest.variables)
        if largest is None or nested:
            kind, largest = "block-diagonal" + (", nested" if nested else ""), grouping
            held = 8 * q * k * (3 * k + 2 * (p + 1))
            flops += 6.0 * q * k * k * (k + p + 1)
        else:
            kind = "dense" if joint.fixed_factor is not None else "dense, unless nested"
            held = 8 * q * k * min(q * k, rows)
            size += q * k
        total += 8 * q * k * (k + p + 1)
        terms.append(PlannedTerm(grouping.name, q, k, kind, held))
    dense = 5 * 8 * size * size
    return tuple(terms), total + dense + (terms[0].bytes if terms else 0), flops + 1.4 * size**3


def terms_of_chain(layout: Layout) -> tuple[tuple[PlannedTerm, ...], float]:
    """Per factor what all shards hold of it, and the flops of an evaluation."""
    p, terms, flops = len(layout.fixed_names), [], 0.0
    for number, joint in enumerate(joint_terms(layout)):
        grouping, k = layout.groupings[joint.grouping], len(joint.covariates)
        kind = "block-diagonal, with the workers" + (", nested" if number else "")
        held = grouping.n_levels * (8 * k * (len(layout.columns) + 1) + 8)
        terms.append(PlannedTerm(grouping.name, grouping.n_levels, k, kind, held))
        flops += 6.0 * grouping.n_levels * k * k * (k + p + 1)
    return tuple(terms), flops


ITERATIVE_VECTORS = 32
"""Probes and deflation vectors that the iterative solver starts with."""


def _planned_solver(terms: tuple[PlannedTerm, ...], needed: int, requested: str, limit: int) -> tuple[str, str]:
    """`fit.solve.choose_solver` before the pass: factors that may turn out to be nested are counted as crossed."""
    size = sum(t.levels * t.width for t in terms if t.kind.startswith("dense"))
    crossed = size > 0 and all(t.kind != "dense" for t in terms)
    if requested != "auto":
        return requested, "as asked for"
    if not crossed:
        return "exact", "all factors are eliminated level by level"
    if needed > limit:
        return "iterative", f"a dense block of {size:,} columns does not fit, unless factors are nested"
    if size > EXACT_TAIL:
        return "iterative", f"a dense block of {size:,} columns is slow, unless factors are nested"
    return "exact", f"the dense block of {size:,} columns is small"


def _pairs(terms: tuple[PlannedTerm, ...], rows: int) -> list[int]:
    """At most so many pairs of levels meet, per pair of factors, times their widths."""
    return [min(rows, a.levels * b.levels) * a.width * b.width for i, a in enumerate(terms) for b in terms[i + 1 :]]


def _iterative_bytes(terms: tuple[PlannedTerm, ...], layout: Layout, rows: int) -> int:
    """Cross-blocks twice, their factors and two index tables; the vectors of conjugate gradients."""
    effects = sum(t.levels * t.width for t in terms)
    return 48 * sum(_pairs(terms, rows)) + 8 * effects * (6 * ITERATIVE_VECTORS + len(layout.fixed_names) + 1)


def pass_bytes(source: Source, spec: DesignSpec, n_workers: int) -> int:
    """Peak of the pass: per worker a partition, its encoded columns and an accumulator; the merge tree's waiting
    ones."""
    rows = sum(p.rows for p in source.partitions)
    layout = spec.layout
    share = len(spec.used_columns) / max(len(source.schema), 1)
    partition = max(
        (int(p.nbytes * share) + 8 * p.rows * (len(layout.columns) + 2) for p in source.partitions), default=0
    )
    accumulator = accumulator_bytes(layout, max((p.rows for p in source.partitions), default=0) if rows else 0)
    at_once = min(n_workers, max(len(source.partitions), 1))
    return at_once * partition + (at_once + 3) * accumulator


def check_pass_memory(source: Source, spec: DesignSpec, n_workers: int, limit: int) -> None:
    """Raises MemoryLimitError, naming what to change, when the pass would not fit."""
    needed = pass_bytes(source, spec, n_workers)
    if needed > limit:
        biggest = max(spec.layout.groupings, key=lambda g: g.n_levels, default=None)
        factor = f"; grouping factor {biggest.name!r} has {biggest.n_levels:,} levels" if biggest is not None else ""
        raise MemoryLimitError(
            f"the pass over the rows needs about {_size(needed)} with {n_workers} workers but the memory limit is "
            f"{_size(limit)}{factor}: raise memory_limit, use fewer workers (n_workers=1), or smaller partitions "
            "(partition_bytes=, smaller row groups)"
        )
