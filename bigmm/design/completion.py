"""The design of the rows that count, where a pass finds that rows are dropped.

Levels and states are learned from the columns of factors and transforms alone, over all rows, because data without
missing values need no more. Rows that were dropped may have been all rows of a level, and may have moved the state of a
transform. Only then is the design another one, and the rows are passed over again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bigmm.design.columns import lme4_order
from bigmm.design.formula.expression import columns_of, unparse
from bigmm.design.learn import checked, learn_states
from bigmm.design.levels.coverage import Masks, levels_with_rows
from bigmm.design.levels.numbering import Levels
from bigmm.design.outcomes import check_outcomes
from bigmm.design.spec import DesignSpec
from bigmm.design.transforms.stateful import stateful_nodes
from bigmm.execute import Executor
from bigmm.source.partition import Source

PLANNED_ROWS = 1 << 22
"""A plan looks for grouping levels without complete rows in data of up to so many rows."""


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Counts of a pass.

    Attributes
    ----------
    n : int
        Number of rows that count.
    dropped : mapping of str to int
        Rows that were dropped, by reason.
    levels : mapping of tuple of str to array (n_levels,)
        Whether each level has rows, by the columns of the grouping factors that the pass has counted.
    """

    n: int
    dropped: Mapping[str, int]
    levels: Masks


def row_counts(spec: DesignSpec, n: int, dropped: Mapping[str, int], counts: Sequence[np.ndarray]) -> RowCounts:
    """Name what a pass has counted; counts: per joint term (n_levels,) rows, () where none were counted."""
    terms = spec.layout.joint if counts else ()
    levels = {spec.plan.groupings[t.grouping]: c > 0 for t, c in zip(terms, counts, strict=True)}
    return RowCounts(n, dropped, levels)


def complete_design(
    spec: DesignSpec, source: Source, workers: Executor, counts: RowCounts, progress: Any = None
) -> tuple[DesignSpec, int]:
    """The design of the rows that count, after a pass with a design that was learned from all rows.

    Parameters
    ----------
    spec: the design of the pass.
    source, workers: where the rows are, and who looks at them again where that is needed.
    counts: what the pass has counted.

    Returns the design, which is `spec` itself where nothing changes, and the number of passes that it took to know.
    Raises DataError for a factor that has one level left, FormulaError for a base level without rows.
    """
    dropped = {name for name, rows in counts.dropped.items() if rows}
    # A spec of complete rows is final, unless a state like that of log(scale(x)) decided which rows are complete.
    if not dropped or not counts.n or (spec.complete and not spec.completeness.needs_states):
        return spec, 0
    states, passes = spec.states, 0
    if _states_saw(spec, dropped):
        states, passes = learn_states(spec, source, workers, progress)
    # The pass has counted the levels of its groupings, so only factors that it did not count are looked up again.
    masks = dict(counts.levels)
    unknown = [(name,) for name in spec.coded_columns if (name,) not in masks]
    covered, everywhere = levels_with_rows(spec, source, workers, unknown)
    masks |= covered
    coded = all(masks[name,].all() for name in spec.coded_columns)
    passes += everywhere
    # Grouping levels without rows do no harm: their blocks are zero. Only their number can reorder theta.
    if coded and states == spec.states and _same_order(spec, masks):
        return spec, passes
    return checked(spec.with_levels(masks, states)), passes


def check_response(spec: DesignSpec, source: Source, workers: Executor) -> int:
    """Look whether more than two levels of the response have rows that count where nobody said which of them are 1.

    Returns the passes over all rows that it took to know. Raises UsageError.
    """
    response = spec.response
    if response.ones is None or spec.settings.success is not None or len(response.ones) <= 2:
        return 0
    name = str(response.node.value)
    masks, everywhere = levels_with_rows(spec, source, workers, [(name,)])
    check_outcomes(name, Levels(name, spec.levels[name].values.filter(pa.array(masks[name,]))), None)
    return int(everywhere)


def planned_design(spec: DesignSpec, source: Source, workers: Executor) -> DesignSpec:
    """The design of the rows that count for a plan, which makes no pass: without levels of coded factors that have no
    such row, and without such levels of the grouping factors in small data. States stay: no size depends on them."""
    check_response(spec, source, workers)
    factors: list[tuple[str, ...]] = [(name,) for name in spec.coded_columns]
    if sum(partition.rows for partition in source.partitions) <= PLANNED_ROWS:
        factors += spec.plan.groupings
    masks, _ = levels_with_rows(spec, source, workers, list(dict.fromkeys(factors)))
    # Where no level of a factor has a row, the fit itself tells that no row is complete.
    if all(mask.all() for mask in masks.values()) or not all(mask.any() for mask in masks.values()):
        return spec
    return checked(spec.with_levels(masks, spec.states))


def _states_saw(spec: DesignSpec, dropped: set[str]) -> bool:
    """Whether a transform may have learned from a row that was dropped: from any but those that lack its argument."""
    for text, node in stateful_nodes(spec.parsed.nodes).items():
        # A row that lacks the argument gave NaN to the summary and was left out there already.
        if spec.states.get(text) and not dropped <= {*columns_of(node), unparse(node)}:
            return True
    return False


def _same_order(spec: DesignSpec, masks: Masks) -> bool:
    """Whether the order of the random terms, and so of theta, is that of the levels with rows."""
    bars = [bar.variables for bar in spec.parsed.bars]
    # A grouping that the pass did not count keeps all its levels.
    if not all(variables in masks for variables in bars):
        return True
    sizes = [int(np.count_nonzero(masks[variables])) for variables in bars]
    return lme4_order(sizes) == lme4_order([spec.level_count(variables) for variables in bars])
