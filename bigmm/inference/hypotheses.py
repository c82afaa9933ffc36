"""Linear hypotheses L beta = r, as text, as a list or as a matrix, in statsmodels' conventions."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bigmm.arguments import did_you_mean
from bigmm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """r hypotheses about p coefficients.

    Parameters
    ----------
    names : (r,) what to call each hypothesis in a table.
    matrix : (r, p) L.
    values : (r,) what L beta is under the hypotheses.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    values: np.ndarray


Linear = tuple[np.ndarray, float]
"""Weights (p,) of the coefficients and a constant."""


def hypotheses(specification: Any, coefficient_names: Sequence[str]) -> Hypotheses:
    """Read what a user wrote.

    Parameters
    ----------
    specification : text such as ``"x1 - x2 = 0"`` or ``"x1 = x2, x3 = 1"`` (no ``=`` means ``= 0``), a list of such
        texts, a matrix (r, p) or a vector (p,), or a pair (matrix, values).
    coefficient_names : (p,) names of all coefficients.

    Raises
    ------
    UsageError
        A name is no coefficient, the expression is not linear, or a shape does not fit.
    """
    names = tuple(coefficient_names)
    if isinstance(specification, str):
        return _from_texts([specification], names)
    if isinstance(specification, (list, tuple)) and specification and all(isinstance(s, str) for s in specification):
        return _from_texts(list(specification), names)
    values: Any = 0.0
    if isinstance(specification, tuple) and len(specification) == 2 and np.ndim(specification[0]) > 0:
        specification, values = specification
    try:
        matrix = np.atleast_2d(np.asarray(specification, float))
        values = np.broadcast_to(np.asarray(values, float), (len(matrix),))
    except (TypeError, ValueError):
        raise UsageError(
            "hypotheses are text such as 'x1 - x2 = 0', a list of such texts or a matrix of numbers, not "
            f"{specification!r}"
        ) from None
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise UsageError(
            f"a hypothesis has one number for each of the {len(names)} coefficients ({', '.join(names)}); the matrix "
            f"has shape {matrix.shape}"
        )
    if not np.all(np.isfinite(matrix)) or not np.all(np.isfinite(values)):
        raise UsageError("the numbers of a hypothesis must be finite")
    labels = tuple(_label(row, value, names) for row, value in zip(matrix, values, strict=True))
    return Hypotheses(labels, matrix, np.array(values))


def _label(row: np.ndarray, value: float, names: Sequence[str]) -> str:
    """A hypothesis of numbers in words."""
    parts = []
    for weight, name in zip(row, names, strict=True):
        if weight:
            size = "" if abs(weight) == 1.0 else f"{abs(weight):.6g}*"
            parts.append(f"{'-' if weight < 0 else '+'} {size}{name}")
    text = " ".join(parts).removeprefix("+ ") or "0"
    return text if value == 0.0 else f"{text} = {value:.6g}"


def _from_texts(texts: Sequence[str], names: tuple[str, ...]) -> Hypotheses:
    labels, rows, values = [], [], []
    for text in texts:
        for single in _split(_with_placeholders(text, names), ","):
            sides = re.split(r"==?", single)
            forms = [_linear(side, text, names) for side in sides] or [(np.zeros(len(names)), 0.0)]
            if len(forms) == 1:
                forms.append((np.zeros(len(names)), 0.0))
            for first, second in pairwise(forms):
                rows.append(first[0] - second[0])
                values.append(second[1] - first[1])
                labels.append(
                    _restored(single.strip(), names) if len(forms) == 2 else _label(rows[-1], values[-1], names)
                )
                if not rows[-1].any():
                    raise UsageError(f"the hypothesis {labels[-1]!r} has no coefficient in it")
    if not np.all(np.isfinite(rows)) or not np.all(np.isfinite(values)):
        raise UsageError("the numbers of a hypothesis must be finite")
    return Hypotheses(tuple(labels), np.array(rows), np.array(values, float))


def _with_placeholders(text: str, names: Sequence[str]) -> str:
    """The text with every coefficient as _0_, _1_, ...: names hold brackets, colons and commas of their own."""
    # The longest first, because one name may be the beginning of another.
    for name in sorted(names, key=len, reverse=True):
        start = r"(?<![\w.\]):])" if re.match(r"\w", name) else ""
        stop = r"(?![\w.\[:(])" if re.search(r"[\w\]]$", name) else r"(?![:\[])"
        text = re.sub(start + re.escape(name) + stop, f"_{names.index(name)}_", text)
    return text


def _restored(text: str, names: Sequence[str]) -> str:
    return re.sub(r"_(\d+)_", lambda match: names[int(match[1])], text).strip()


def _split(text: str, mark: str) -> list[str]:
    depth, parts, start = 0, [], 0
    for position, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if character == mark and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def _linear(side: str, text: str, names: Sequence[str]) -> Linear:
    try:
        # Parsed and walked, never evaluated: the text may come from anybody.
        tree = ast.parse(side.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise UsageError(
            f"the hypothesis {text!r} cannot be read at {_restored(side, names)!r}{_names(names)}"
        ) from None
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        return _evaluated(tree, text, names)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"; the coefficients are {shown}"


def _number(number: float) -> float:
    """A finite number of a hypothesis; raises UsageError."""
    try:
        value = float(number)
    except OverflowError:  # an integer beyond floats
        value = np.inf
    if not np.isfinite(value):
        raise UsageError("the numbers of a hypothesis must be finite")
    return value


def _evaluated(tree: ast.expr, text: str, names: Sequence[str]) -> Linear:
    """The linear form of a tree; anything but numbers, coefficients, + - * / is refused."""
    nothing = np.zeros(len(names))
    match tree:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return nothing, _number(number)
        case ast.Name(id=name):
            position = re.fullmatch(r"_(\d+)_", name)
            if position is None:
                hint = did_you_mean(name, names)
                raise UsageError(
                    f"the hypothesis {text!r} names {name!r}, which is no coefficient{_names(names)}"
                    + (f"; {hint}" if hint else "")
                )
            weights = nothing.copy()
            weights[int(position[1])] = 1.0
            return weights, 0.0
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            weights, constant = _evaluated(operand, text, names)
            return (-weights, -constant) if isinstance(sign, ast.USub) else (weights, constant)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as sign, right=right):
            one, two = _evaluated(left, text, names), _evaluated(right, text, names)
            factor = 1.0 if isinstance(sign, ast.Add) else -1.0
            return one[0] + factor * two[0], one[1] + factor * two[1]
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            one, two = _evaluated(left, text, names), _evaluated(right, text, names)
            if one[0].any() and two[0].any():
                raise UsageError(f"the hypothesis {text!r} multiplies coefficients with each other: it must be linear")
            return one[0] * two[1] + two[0] * one[1], one[1] * two[1]
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            one, two = _evaluated(left, text, names), _evaluated(right, text, names)
            if two[0].any() or two[1] == 0.0:
                raise UsageError(f"the hypothesis {text!r} divides by a coefficient or by zero: it must be linear")
            return one[0] / two[1], one[1] / two[1]
    raise UsageError(f"the hypothesis {text!r} holds more than numbers, coefficients, + - * and /{_names(names)}")
