"""Learn a design: check the formula against the columns, then take levels and states in as few passes as they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from bigmm.design.cells import floats, is_numeric, type_name
from bigmm.design.contrasts import check_factor_call, parse_contrasts
from bigmm.design.expression import CONTRASTS, STATEFUL, Node, columns_of, evaluate, unparse
from bigmm.design.formula import ParsedFormula, parse, required_columns
from bigmm.design.levels import Combinations, Levels, canonical_type, declared_values, distinct_codes, ordered
from bigmm.design.settings import Settings, is_factor
from bigmm.design.spec import DesignSpec
from bigmm.design.summaries import DistinctRows, summarize
from bigmm.design.transforms import MATRICES, Replayer, State, absorb, pending, settings, stateful_nodes
from bigmm.errors import DataError, FormulaError, UsageError
from bigmm.execute import Executor
from bigmm.source.partition import Source


def learn(
    formula: str,
    source: Source,
    executor: Executor,
    *,
    weights: str | None = None,
    offset: str | None = None,
    contrasts: Mapping[str, str] | None = None,
    categories: Mapping[str, Sequence] | None = None,
    drop_missing: bool = True,
    progress: Any = None,
    binomial: bool = False,
    need_random: bool = True,
) -> DesignSpec:
    """Learn levels, codings and states for a formula over all rows of a source.

    contrasts: column or factor expression -> contrast ("Sum", "Treatment(base='b')"); categories: column -> levels in
    order; weights, offset: column names; `binomial` lets the response be a factor (first level 0) or counts.
    Reads only the columns of factors and stateful transforms; no pass when there are none. Raises FormulaError with a
    caret, DataError for columns that cannot serve.
    """
    parsed = parse(formula, need_random)
    check_columns(parsed, source.schema, weights, offset)
    declared = {**source.declared_levels, **(categories or {})}
    used = set(required_columns(parsed))
    text = frozenset(name for name in used if _is_text(source.schema.field(name).type))
    chosen = Settings(
        parsed.text,
        weights,
        offset,
        {key: str(value) for key, value in (contrasts or {}).items()},
        tuple(sorted(name for name in declared if name in used and name not in text)),
        drop_missing,
        binomial,
        need_random,
    )
    _check_roles(parsed, source.schema, text, chosen)
    needs = _needs(parsed, source, text, chosen, declared)
    levels, combinations, states = _learn(parsed, source, executor, needs, progress)
    _check_levels(parsed, levels, combinations, chosen, text)
    spec = DesignSpec(chosen, levels, combinations, states, text)
    _ = spec.plan  # every remaining mistake (a base that is no level, say) is found here, not on a worker
    return spec


def _is_text(kind: pa.DataType) -> bool:
    return pt.is_dictionary(kind) or pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)


def check_columns(parsed: ParsedFormula, schema: pa.Schema, weights: str | None, offset: str | None) -> None:
    """Every name is a column; FormulaError with a caret and the nearest name otherwise."""
    for node in parsed.nodes:
        for child in node.walk():
            if child.kind == "call" and child.function == "C":
                check_factor_call(parsed.text, child)
            if child.kind == "call" and child.function in STATEFUL:
                settings(child, parsed.text)
        for name in columns_of(node):
            position = next(child.position for child in node.walk() if child.kind == "name" and child.value == name)
            _check_column(name, schema, parsed.text, position)
    for bar in parsed.bars:
        for name in bar.variables:
            _check_column(name, schema, parsed.text, parsed.text.find(name, bar.position))
    for role, column in (("weights", weights), ("offset", offset)):
        if column is not None and (not isinstance(column, str) or column not in schema.names):
            raise UsageError(f"{role}={column!r} is no column; columns are {_shown(schema.names)}")


def _check_column(name: str, schema: pa.Schema, formula: str, position: int) -> None:
    if name in schema.names:
        return
    if "." in name and name.split(".")[0] in schema.names:
        raise FormulaError(f"{name}: attributes of a column cannot be used in a formula", formula, position)
    close = get_close_matches(name, schema.names, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"columns are {_shown(schema.names)}"
    raise FormulaError(f"unknown column {name!r}; {hint}", formula, position)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def _check_roles(parsed: ParsedFormula, schema: pa.Schema, text: frozenset[str], chosen: Settings) -> None:
    """Numbers where numbers are needed, factors where factors are."""
    _check_response(parsed, schema, text, chosen)
    for node in (*(node for part in parsed.parts for node in part.factors), *parsed.offsets):
        if not is_factor(node, text, chosen) or node in parsed.offsets:
            _check_numeric(parsed.text, node, schema)
            _check_matrices(parsed.text, node, node in parsed.offsets)
    for role, column in (("weights", chosen.weights), ("offset", chosen.offset)):
        if column and not is_numeric(schema.field(column).type):
            kind = type_name(schema.field(column).type)
            raise DataError(f"{role} column {column!r} holds {kind}, numbers are needed")
    factors = {
        name
        for part in parsed.parts
        for node in part.factors
        if is_factor(node, text, chosen)
        for name in (unparse(node), *columns_of(node))
    }
    for key in parse_contrasts(chosen.contrasts):
        if key not in factors:
            raise UsageError(f"contrasts names {key!r}, which is no factor of the formula")


def _check_response(parsed: ParsedFormula, schema: pa.Schema, text: frozenset[str], chosen: Settings) -> None:
    node = parsed.response
    if parsed.kind == "cbind" and not chosen.binomial:
        raise FormulaError("cbind() is a binomial response; a linear mixed model needs one number", parsed.text, 0)
    if node.kind == "name" and (node.value in text or node.value in chosen.factors) and chosen.binomial:
        return
    if node.kind == "name" and node.value in text:
        kind = type_name(schema.field(str(node.value)).type)
        raise DataError(f"the response {node.value!r} holds {kind}; a linear mixed model needs a number")
    nodes = node.arguments if parsed.kind == "cbind" else (node,)
    for child in nodes:
        _check_numeric(parsed.text, child, schema)
        for call in child.walk():
            if call.kind == "call" and call.function in (*STATEFUL, "C", *CONTRASTS, "cbind", "offset"):
                raise FormulaError(f"{call.value}() cannot be used in the response", parsed.text, call.position)


def _check_numeric(formula: str, node: Node, schema: pa.Schema) -> None:
    for child in node.walk():
        if child.kind == "string":
            raise FormulaError(f"the text {child.value!r} cannot be computed with", formula, child.position)
        if child.kind == "call" and child.function in ("C", *CONTRASTS, "offset", "cbind"):
            raise FormulaError(f"{child.value}() cannot stand inside an expression", formula, child.position)
    for name in columns_of(node):
        kind = schema.field(name).type
        if pt.is_null(kind):
            raise DataError(f"column {name!r} has no values (all null)")
        if not is_numeric(kind):
            position = next(child.position for child in node.walk() if child.value == name)
            advice = f"write C({name}) to use it as a factor" if node.kind == "name" else "numbers are needed here"
            raise FormulaError(f"column {name!r} holds {type_name(kind)}; {advice}", formula, position)


def _check_matrices(formula: str, node: Node, whole: bool) -> None:
    """poly() and splines give several columns and can only be terms themselves."""
    for child in node.walk():
        if child.kind == "call" and child.function in MATRICES and (child is not node or whole):
            raise FormulaError(f"{child.value}() must be a term of its own", formula, child.position)


@dataclass(frozen=True, slots=True)
class _Needs:
    """Columns whose levels are needed, interactions whose combinations are, and declared orders (Arrow, canonical)."""

    columns: tuple[str, ...]
    interactions: tuple[tuple[str, ...], ...]
    declared: Mapping[str, pa.Array]


def _needs(
    parsed: ParsedFormula, source: Source, text: frozenset[str], chosen: Settings, declared: Mapping[str, Sequence]
) -> _Needs:
    nodes = [node for part in parsed.parts for node in part.factors if is_factor(node, text, chosen)]
    columns = [name for node in nodes for name in columns_of(node)]
    columns += [bar.variables[0] for bar in parsed.bars if len(bar.variables) == 1]
    if parsed.response.kind == "name" and is_factor(parsed.response, text, chosen) and chosen.binomial:
        columns.append(str(parsed.response.value))
    interactions = tuple(dict.fromkeys(bar.variables for bar in parsed.bars if len(bar.variables) > 1))
    orders = {}
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


Learned = tuple[dict[str, Levels], dict[tuple[str, ...], Combinations], dict[str, State]]


def _learn(parsed: ParsedFormula, source: Source, executor: Executor, needs: _Needs, progress: Any) -> Learned:
    """Passes until every state is complete; levels are learned in the first."""
    requests: dict[Any, Any] = {}
    for variables in (*((name,) for name in needs.columns), *needs.interactions):
        allowed = {name: needs.declared[name] for name in variables if name in needs.declared}
        requests[variables] = DistinctRows(variables, allowed)
    states: dict[str, State] = {}
    calls = stateful_nodes(parsed.nodes)
    rows: dict[Any, Any] = {}
    while True:
        requests |= _pending_states(calls, states)
        if not requests:
            break
        for key, summary in summarize(source, executor, requests, progress).items():
            if isinstance(key, str):
                states[key] = absorb(calls[key], states.get(key), summary)
            else:
                rows[key] = summary
        requests = {}
    levels, combinations = _number_levels(source, needs, rows)
    return levels, combinations, states


def _pending_states(calls: Mapping[str, Node], states: dict[str, State]) -> dict[str, Any]:
    requests: dict[str, Any] = {}
    incomplete: set[str] = set()
    for text, node in calls.items():
        inner = {unparse(child) for child in list(node.walk())[1:] if child.kind == "call"}
        if inner & incomplete:
            incomplete.add(text)
            continue
        argument = ArgumentValues(node.arguments[0], Replayer(dict(states)))
        request = pending(node, states.get(text), columns_of(node), argument)
        if request is not None:
            requests[text] = request
            incomplete.add(text)
        else:
            states.setdefault(text, {})
    return requests


def _number_levels(
    source: Source, needs: _Needs, rows: Mapping[tuple[str, ...], DistinctRows]
) -> tuple[dict[str, Levels], dict[tuple[str, ...], Combinations]]:
    tables = {variables: _rows_found(source, variables, summary) for variables, summary in rows.items()}
    levels: dict[str, Levels] = {}
    for variables, table in sorted(tables.items(), key=lambda item: len(item[0])):
        for name in variables:
            if name not in levels:
                values = pc.unique(table.column(name))
                levels[name] = ordered(name, values, needs.declared.get(name))
    combinations = {}
    for variables in needs.interactions:
        members = [levels[name] for name in variables]
        codes = [levels[name].numbers(tables[variables].column(name)) for name in variables]
        combinations[variables] = Combinations(members, distinct_codes(codes, [len(levels) for levels in members]))
    return levels, combinations


def _rows_found(source: Source, variables: tuple[str, ...], summary: DistinctRows) -> pa.Table:
    table = summary.table()
    if table is None or not table.num_rows:
        if not summary.rows:
            raise DataError(f"{source.description}: there are no rows")
        names = " and ".join(map(repr, variables))
        raise DataError(f"{source.description}: column {names} has no values (all null)")
    return table


def _check_levels(
    parsed: ParsedFormula,
    levels: Mapping[str, Levels],
    combinations: Mapping[tuple[str, ...], Combinations],
    chosen: Settings,
    text: frozenset[str],
) -> None:
    for bar in parsed.bars:
        found = levels[bar.variables[0]] if len(bar.variables) == 1 else combinations[bar.variables]
        if len(found) < 2:
            raise DataError(
                f"grouping factor {bar.name!r} has one level ({found.labels[0]}); a random effect needs at least two"
            )
    for node in (node for part in parsed.parts for node in part.factors if is_factor(node, text, chosen)):
        for name in columns_of(node):
            if len(levels[name]) < 2:
                raise DataError(
                    f"factor {name!r} has one level ({levels[name].labels[0]}); leave it out of the formula"
                )
