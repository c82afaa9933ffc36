"""What can be wrong between a formula and the columns of the data, found before any row is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.types as pt

from bigmm.arguments import did_you_mean
from bigmm.design.contrasts import check_factor_call, parse_contrasts
from bigmm.design.encoding.cells import is_numeric, type_name
from bigmm.design.formula.expression import CONTRASTS, STATEFUL, Node, columns_of, label, unparse
from bigmm.design.formula.parser import ParsedFormula
from bigmm.design.levels.numbering import Combinations, Levels
from bigmm.design.settings import DesignOptions, has_levels, is_factor
from bigmm.design.transforms.stateful import MATRICES, settings
from bigmm.errors import DataError, FormulaError, UsageError


def check_columns(parsed: ParsedFormula, schema: pa.Schema, weights: str | None, offset: str | None) -> None:
    """Every name is a column; FormulaError with a caret and the nearest name otherwise."""
    for node in parsed.nodes:
        for child in node.walk():
            if child.kind == "call" and child.function == "C":
                check_factor_call(parsed.text, child)
            if child.kind == "call" and child.function in STATEFUL:
                settings(child, parsed.text)
        for name in columns_of(node):
            # The caret points at the name inside this tree: the formula may use the name elsewhere too.
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
    # pandas users write y.mean or x.dt.year. R's names with dots are columns and never come here.
    if "." in name and name.split(".")[0] in schema.names:
        raise FormulaError(f"{name}: attributes of a column cannot be used in a formula", formula, position)
    hint = did_you_mean(name, schema.names) or f"columns are {_shown(schema.names)}"
    raise FormulaError(f"unknown column {name!r}; {hint}", formula, position)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def check_roles(parsed: ParsedFormula, schema: pa.Schema, text: frozenset[str], chosen: DesignOptions) -> None:
    """Numbers where numbers are needed, factors where factors are."""
    _check_response(parsed, schema, text, chosen)
    for node in (*(node for part in parsed.parts for node in part.factors), *parsed.offsets):
        # A factor as an offset has no number, so an offset is checked whatever its type.
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
        for name in (unparse(node), label(node), *columns_of(node))
    }
    for key in parse_contrasts(chosen.contrasts):
        if key not in factors:
            hint = did_you_mean(key, factors)
            raise UsageError(f"contrasts names {key!r}, which is no factor of the formula{'; ' if hint else ''}{hint}")


def _check_response(parsed: ParsedFormula, schema: pa.Schema, text: frozenset[str], chosen: DesignOptions) -> None:
    node = parsed.response
    if parsed.kind == "cbind" and not chosen.binomial:
        raise FormulaError("cbind() is a binomial response; a linear mixed model needs one number", parsed.text, 0)
    if chosen.success is not None and node.kind != "name":
        raise UsageError(f"success= names levels of a response that is a column, but this one is {unparse(node)}")
    if node.kind == "name" and chosen.binomial and has_levels(node, text, chosen):
        return
    if node.kind == "name" and node.value in text:
        kind = type_name(schema.field(str(node.value)).type)
        raise DataError(
            f"the response {node.value!r} holds {kind}; a linear mixed model needs a number, and glmm() takes levels "
            "with family='bernoulli' only"
        )
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
        # `parse_expression` accepts these names anywhere. Their place is checked here, where the tree has its role.
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


def check_levels(
    parsed: ParsedFormula,
    levels: Mapping[str, Levels],
    combinations: Mapping[tuple[str, ...], Combinations],
    chosen: DesignOptions,
    text: frozenset[str],
    complete: bool = False,
) -> None:
    """Refuse factors that cannot serve as grouping factors or fixed ones; raises DataError naming the factor.

    complete: whether the levels are those of the rows that count."""
    rows = " with complete rows" if complete else ""
    for bar in parsed.bars:
        # The effect of a single level cannot be told from the intercept. lme4 stops too (check.nlev.gtr.1).
        factor = levels[bar.variables[0]] if len(bar.variables) == 1 else combinations[bar.variables]
        if len(factor) < 2:
            raise DataError(
                f"grouping factor {bar.name!r} has one level{rows} ({factor.labels[0]}); "
                "a random effect needs at least two"
            )
    for node in (node for part in parsed.parts for node in part.factors if is_factor(node, text, chosen)):
        for name in columns_of(node):
            if len(levels[name]) < 2:
                raise DataError(
                    f"factor {name!r} has one level{rows} ({levels[name].labels[0]}); leave it out of the formula"
                )
