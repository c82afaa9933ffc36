"""Learn a design: check the formula against the columns, then take levels and states in as few passes as they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bigmm.design.checks import check_columns, check_levels, check_roles
from bigmm.design.contrasts import contrast_texts
from bigmm.design.encoding.cells import floats
from bigmm.design.encoding.completeness import Completeness
from bigmm.design.formula.expression import Node, columns_of, evaluate, unparse
from bigmm.design.formula.parser import ParsedFormula, parse, required_columns
from bigmm.design.levels.distinct import DistinctRows, unique_values
from bigmm.design.levels.equality import canonical_type, is_label
from bigmm.design.levels.numbering import Combinations, Levels, declared_values, distinct_codes, ordered
from bigmm.design.outcomes import check_outcomes, success_labels
from bigmm.design.settings import DesignOptions, has_levels, is_factor
from bigmm.design.spec import DesignSpec
from bigmm.design.transforms.passes import summarize
from bigmm.design.transforms.stateful import Replayer, State, absorb, pending, stateful_nodes
from bigmm.errors import DataError
from bigmm.execute import Executor
from bigmm.source.partition import Source
from bigmm.source.schema import float_widths


def learn(
    formula: str,
    source: Source,
    executor: Executor,
    *,
    weights: str | None = None,
    offset: str | None = None,
    contrasts: Mapping[str, str] | None = None,
    categories: Mapping[str, Sequence[Any]] | None = None,
    drop_missing: bool = True,
    progress: Any = None,
    binomial: bool = False,
    need_random: bool = True,
    success: Any = None,
) -> DesignSpec:
    """Learn levels, codings and states for a formula over all rows of a source.

    Rows that do not count are not told apart here, because that takes more columns. `design.completion` gives the
    design of the rows that count where a pass finds that some do not.

    Only the columns of factors and stateful transforms are read, and there is no pass where there are none.

    Parameters
    ----------
    weights, offset : str, optional
        Names of columns.
    contrasts : mapping of str to str, optional
        Contrasts such as "Sum" or "Treatment(base='b')", by column or factor expression.
    categories : mapping of str to sequence, optional
        Levels in order, by column.
    binomial : bool
        The response may be a factor or counts.
    success : level or list of levels, optional
        Levels of the response that count as 1.

    Raises
    ------
    FormulaError
        With a caret under the spot.
    DataError
        For columns that cannot serve.
    """
    parsed = parse(formula, need_random)
    check_columns(parsed, source.schema, weights, offset)
    used = set(required_columns(parsed))
    # Orders of categories come from footers and dictionaries, before any pass over the rows.
    orders = source.orders(sorted(used))
    # What the user says wins over the order that a file declares.
    declared = {**orders.levels, **(categories or {})}
    _refuse_lost_orders(parsed, orders.lost, declared)
    text = frozenset(name for name in used if is_label(source.schema.field(name).type))
    chosen = DesignOptions(
        parsed.text,
        weights,
        offset,
        contrast_texts(contrasts),
        tuple(sorted(name for name in declared if name in used and name not in text)),
        drop_missing,
        binomial,
        need_random,
        success_labels(success),
    )
    check_roles(parsed, source.schema, text, chosen)
    needs = _needs(parsed, source, text, chosen, declared)
    learned = _learn(parsed, source, executor, needs, progress)
    spec = DesignSpec(chosen, learned.levels, learned.combinations, learned.states, text, learned.passes)
    return checked(spec)


def checked(spec: DesignSpec) -> DesignSpec:
    """The design itself; raises DataError for factors with one level, FormulaError for a base that is no level."""
    check_levels(spec.parsed, spec.levels, spec.combinations, spec.settings, spec.text, spec.complete)
    if spec.response.ones is not None:
        name = str(spec.response.node.value)
        check_outcomes(name, spec.levels[name], spec.settings.success, spec.complete, spec.lost.get(name, ()))
    _ = spec.plan  # every remaining mistake is found here, not on a worker
    return spec


def learn_states(
    spec: DesignSpec, source: Source, executor: Executor, progress: Any = None
) -> tuple[dict[str, State], int]:
    """(the states of all transforms, learned from the rows that count; passes over these rows)."""
    return _states(stateful_nodes(spec.parsed.nodes), source, executor, progress, {}, spec.completeness.before_states())


def _refuse_lost_orders(parsed: ParsedFormula, lost: Mapping[str, str], declared: Mapping[str, Sequence[Any]]) -> None:
    """A categorical whose order is lost can number a grouping factor, but be no covariate and no response."""
    nodes = [parsed.response, *(node for part in parsed.parts for node in part.factors)]
    for name in dict.fromkeys(name for node in nodes for name in columns_of(node)):
        if name in lost and name not in declared:
            raise DataError(lost[name])


@dataclass(frozen=True, slots=True)
class _Needs:
    """Columns whose levels are needed, interactions whose combinations are, and declared orders (Arrow, canonical)."""

    columns: tuple[str, ...]
    interactions: tuple[tuple[str, ...], ...]
    declared: Mapping[str, pa.Array]


def _needs(
    parsed: ParsedFormula,
    source: Source,
    text: frozenset[str],
    chosen: DesignOptions,
    declared: Mapping[str, Sequence[Any]],
) -> _Needs:
    nodes = [node for part in parsed.parts for node in part.factors if is_factor(node, text, chosen)]
    columns = [name for node in nodes for name in columns_of(node)]
    columns += [bar.variables[0] for bar in parsed.bars if len(bar.variables) == 1]
    if parsed.response.kind == "name" and chosen.binomial and has_levels(parsed.response, text, chosen):
        columns.append(str(parsed.response.value))
    interactions = tuple(dict.fromkeys(bar.variables for bar in parsed.bars if len(bar.variables) > 1))
    orders = {}
    # `canonical_type` refuses lists and structs here, before the pass, so that the message names the column.
    for name in {*columns, *(name for variables in interactions for name in variables)}:
        kind = canonical_type(source.schema.field(name).type, name)
        if name in declared:
            orders[name] = declared_values(name, declared[name], kind)
    return _Needs(tuple(dict.fromkeys(columns)), interactions, orders)


@dataclass(frozen=True, slots=True)
class ArgumentValues:
    """Values (n,) of a stateful transform's first argument over a table; inner transforms are replayed."""

    node: Node
    replayer: Replayer

    def __call__(self, table: pa.Table) -> np.ndarray:
        columns = {name: floats(table.column(name)) for name in columns_of(self.node)}
        return np.broadcast_to(evaluate(self.node, columns, self.replayer), table.num_rows)


@dataclass(frozen=True, slots=True)
class _Learned:
    levels: dict[str, Levels]
    combinations: dict[tuple[str, ...], Combinations]
    states: dict[str, State]
    passes: int


def _learn(parsed: ParsedFormula, source: Source, executor: Executor, needs: _Needs, progress: Any) -> _Learned:
    """Passes until every state is complete; levels are learned in the first."""
    requests: dict[Any, Any] = {}
    for variables in (*((name,) for name in needs.columns), *needs.interactions):
        allowed = {name: needs.declared[name] for name in variables if name in needs.declared}
        requests[variables] = DistinctRows(variables, allowed)
    states, passes = _states(stateful_nodes(parsed.nodes), source, executor, progress, requests)
    levels, combinations = _number_levels(source, needs, requests)
    return _Learned(levels, combinations, states, passes)


def _states(
    calls: Mapping[str, Node],
    source: Source,
    executor: Executor,
    progress: Any,
    rows: dict[Any, Any],
    complete: Completeness | None = None,
) -> tuple[dict[str, State], int]:
    """Passes until every state is known: (states, passes). The summaries in `rows` are taken in the first, in place."""
    states: dict[str, State] = {}
    requests, passes = {**rows, **_pending_states(calls, states)}, 0
    while requests:
        passes += 1
        for key, summary in summarize(source, executor, requests, progress, complete).items():
            if isinstance(key, str):
                states[key] = absorb(calls[key], states.get(key), summary)
            else:
                rows[key] = summary
        requests = _pending_states(calls, states)
    return states, passes


def _pending_states(calls: Mapping[str, Node], states: dict[str, State]) -> dict[str, Any]:
    requests: dict[str, Any] = {}
    incomplete: set[str] = set()
    for text, node in calls.items():
        # poly(scale(x), 2) waits until scale(x) has its state. Stateless calls such as log(x) hold nothing up.
        inner = {unparse(child) for child in list(node.walk())[1:] if child.kind == "call"}
        if inner & incomplete:
            incomplete.add(text)
            continue
        # A copy: the summary travels to workers, while `states` grows in the driver.
        argument = ArgumentValues(node.arguments[0], Replayer(dict(states)))
        request = pending(node, states.get(text), columns_of(node), argument)
        if request is not None:
            requests[text] = request
            incomplete.add(text)
        else:
            # An empty state marks a transform that needs none, as poly(raw=True).
            states.setdefault(text, {})
    return requests


def _number_levels(
    source: Source, needs: _Needs, rows: Mapping[tuple[str, ...], DistinctRows]
) -> tuple[dict[str, Levels], dict[tuple[str, ...], Combinations]]:
    tables = {variables: _rows_found(source, variables, summary) for variables, summary in rows.items()}
    levels: dict[str, Levels] = {}
    # Single columns come first: a column that is a factor of its own has levels also in rows where a partner of an
    # interaction is missing.
    for variables, table in sorted(tables.items(), key=lambda item: len(item[0])):
        for name in variables:
            if name not in levels:
                values = unique_values(table.column(name))
                _refuse_two_widths(name, values, float_widths(source.schema.field(name)))
                levels[name] = ordered(name, values, needs.declared.get(name))
    combinations = {}
    for variables in needs.interactions:
        members = [levels[name] for name in variables]
        codes = [levels[name].numbers(tables[variables].column(name)) for name in variables]
        combinations[variables] = Combinations(members, distinct_codes(codes, [len(levels) for levels in members]))
    return levels, combinations


def _refuse_two_widths(name: str, values: pa.Array, files: str) -> None:
    """Raise DataError where one number, held in single precision by one file and in double by another, is two levels.

    `values` are distinct and of the wider type. `files` says which file holds which width; it is empty for one width.
    """
    if not files:
        return
    numbers = values.to_numpy(zero_copy_only=False)
    # A double beyond the range of single precision becomes inf, which equals no level.
    with np.errstate(over="ignore"):
        narrow = numbers.astype(np.float32).astype(np.float64)
    twice = np.flatnonzero((narrow != numbers) & np.isin(narrow, numbers))
    if twice.size:
        number, other = numbers[twice[0]], narrow[twice[0]]
        raise DataError(
            f"column {name!r} holds {float(number)!r} and, where it is in single precision, {float(other)!r}, which "
            f"would be two levels: it is {files}. Write the files with one type, or make the levels text or whole "
            "numbers."
        )


def _rows_found(source: Source, variables: tuple[str, ...], summary: DistinctRows) -> pa.Table:
    table = summary.table()
    if table is None or not table.num_rows:
        if not summary.rows:
            chosen = getattr(source, "predicate", None)
            reason = "there are no rows" if chosen is None else f"no row passes the filter {chosen.text}"
            raise DataError(f"{source.description}: {reason}")
        names = " and ".join(map(repr, variables))
        raise DataError(f"{source.description}: column {names} has no values (all null)")
    return table
