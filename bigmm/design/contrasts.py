"""Codings of factors: formulaic's contrast matrices and column names, chosen by the formula or by ``contrasts=``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from formulaic.transforms import contrasts as coding

from bigmm.arguments import did_you_mean
from bigmm.design.formula.expression import CONTRASTS, Node, contrast_name, unparse
from bigmm.design.formula.grammar import parse_expression
from bigmm.design.formula.tokens import tokenize
from bigmm.errors import FormulaError, UsageError

# Only these two have a base level. Further arguments of formulaic's contrasts (scores, backward) are not offered.
_BASED: dict[str, Callable[..., Any]] = {"Treatment": coding.TreatmentContrasts, "SAS": coding.SASContrasts}
_PLAIN: dict[str, Callable[..., Any]] = {
    "Sum": coding.SumContrasts,
    "Helmert": coding.HelmertContrasts,
    "Poly": coding.PolyContrasts,
    "Diff": coding.DiffContrasts,
}


def contrast_node(node: Node) -> Node | None:
    """The contrast argument of C(f, contrast) or C(f, contrasts=...), if any."""
    arguments = [*node.arguments[1:], *(value for key, value in node.keywords if key in ("contrast", "contrasts"))]
    return arguments[0] if arguments else None


def check_factor_call(formula: str, node: Node) -> None:
    """C() takes a column and at most one contrast."""
    if not node.arguments or node.arguments[0].kind != "name":
        raise FormulaError(f"{node.value}() takes a column", formula, node.position)
    if len(node.arguments) > 2:
        raise FormulaError(f"{node.value}() takes a column and a contrast", formula, node.arguments[2].position)
    for key, value in node.keywords:
        if key not in ("contrast", "contrasts"):
            advice = C_ELSEWHERE.get(key, "it has contrast=")
            raise FormulaError(f"{node.value}() has no argument {key!r}; {advice}", formula, value.position)
    contrast = contrast_node(node)
    if contrast is not None:
        _check_contrast(formula, contrast)


def _check_contrast(formula: str, node: Node) -> None:
    name = contrast_name(node)
    if node.kind not in ("name", "string", "call") or name not in CONTRASTS:
        text = unparse(node)
        hint = did_you_mean(text.removeprefix("contr."), CONTRASTS)
        hint = hint or (NO_VARIABLES if node.kind == "name" else OWN_CODING)
        raise FormulaError(f"unknown contrast {text}; there are {', '.join(CONTRASTS)}; {hint}", formula, node.position)


OWN_CODING = "for a coding of your own make its columns in the data, and name them in the formula."
NO_VARIABLES = f"a formula sees columns only, no variables of Python; {OWN_CODING}"
C_ELSEWHERE = {
    "levels": "the order of levels is categories={column: [...]}",
    "base": "write C(f, Treatment('level'))",
    "ref": "write C(f, Treatment('level'))",
    "reference": "write C(f, Treatment('level'))",
}
"""Arguments of C() in patsy and R, and what to write here."""


def contrast_texts(contrasts: Mapping[str, Any] | None) -> dict[str, str]:
    """``contrasts=`` as text by column; raises UsageError for a matrix or another object."""
    for column, value in (contrasts or {}).items():
        if not isinstance(value, str):
            raise UsageError(
                f"contrasts[{column!r}] must be the name of a coding ({', '.join(CONTRASTS)}), not "
                f"{type(value).__module__}.{type(value).__qualname__}; {OWN_CODING}"
            )
    return dict(contrasts or {})


def parse_contrasts(contrasts: Mapping[str, str] | None) -> dict[str, Node]:
    """``contrasts={"f": "Sum", "h": "Treatment(base='b')"}`` as trees; FormulaError for an unknown one."""
    parsed = {}
    for column, text in (contrasts or {}).items():
        parsed[column] = parse_expression(str(text), tokenize(str(text)))
        _check_contrast(str(text), parsed[column])
    return parsed


def make_contrast(formula: str, node: Node | None, levels: Sequence[str]) -> Any:
    """Formulaic's contrast object for levels given as text; a base that is no level is an error naming the levels."""
    if node is None:
        return coding.TreatmentContrasts()
    name = contrast_name(node)
    if name in _PLAIN:
        if node.arguments or node.keywords:
            raise FormulaError(f"{name}() takes no argument", formula, node.position)
        return _PLAIN[name]()
    base = _base(formula, node, name)
    if base is None:
        return _BASED[name]()
    # Levels are compared as labels, so Treatment(2) and Treatment('2') mean the same level.
    text = str(base.value) if base.kind in ("string", "name") else unparse(base)
    if text not in levels:
        shown = ", ".join(levels[:8]) + (", ..." if len(levels) > 8 else "")
        raise FormulaError(f"the base level {text!r} is not among the levels: {shown}", formula, base.position)
    return _BASED[name](base=text)


def _base(formula: str, node: Node, name: str) -> Node | None:
    arguments = list(node.arguments)
    for key, value in node.keywords:
        if key not in ("base", "reference", "ref"):
            raise FormulaError(f"{name}() has no argument {key!r}; it has base=", formula, value.position)
        arguments.append(value)
    if len(arguments) > 1:
        raise FormulaError(f"{name}() takes one base level", formula, arguments[1].position)
    return arguments[0] if arguments else None


def coding_matrix(contrast: Any, levels: Sequence[str], reduced: bool) -> tuple[np.ndarray, str, list[str]]:
    """(n_levels, m) coding, the format of its column names ("{name}[T.{field}]") and their fields."""
    # Formulaic returns a DataFrame with the levels as its index; the encoder takes rows by level number.
    matrix = np.asarray(contrast.get_coding_matrix(list(levels), reduced_rank=reduced), dtype=np.float64)
    fields = [str(field) for field in contrast.get_coding_column_names(list(levels), reduced_rank=reduced)]
    return matrix, contrast.get_factor_format(list(levels), reduced_rank=reduced), fields
