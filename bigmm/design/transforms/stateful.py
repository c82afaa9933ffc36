"""Stateful transforms: what each has to learn from all the rows, and how it is replayed on any of them.

A state is a JSON-able dict. `pending` names the summary a transform still needs, `absorb` turns it into state; a
transform inside another (poly(scale(x), 2)) is learned first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.arguments import nearest
from bigmm.design.formula.expression import STATEFUL, Node, evaluate, unparse
from bigmm.design.transforms.splines import b_spline, natural_spline, regression_spline
from bigmm.design.transforms.summaries import ChebyshevProducts, ColumnMoments, Quantiles, Values
from bigmm.errors import DataError, FormulaError

State = dict[str, Any]
# Spellings of formulaic and of R's splines package.
_ALIASES = {"include_intercept": "intercept", "Boundary.knots": "bounds", "rescale": "scale"}
_SIGNATURES: dict[str, dict[str, Any]] = {
    "poly": {"degree": 1, "raw": False},
    "bs": {"df": None, "knots": None, "degree": 3, "intercept": False, "bounds": None},
    "ns": {"df": None, "knots": None, "intercept": False, "bounds": None},
    "cr": {"df": None, "knots": None, "bounds": None},
    "center": {},
    "scale": {"center": True, "scale": True},
}
_BOUNDS = ("lower_bound", "upper_bound")
MOST = {"degree": 100, "df": 1000, "knots": 1000}
"""Largest settings: each column of a basis is a column of the model matrix."""


def settings(node: Node, formula: str = "") -> dict[str, Any]:
    """Arguments after the first by name, defaults filled in; raises FormulaError with a caret."""
    name, signature = node.function, _SIGNATURES[node.function]
    if not node.arguments:
        raise FormulaError(f"{node.value}() needs a column", formula, node.position)
    if len(node.arguments) - 1 > len(signature):
        raise FormulaError(f"{node.value}() takes at most {len(signature) + 1} arguments", formula, node.position)
    arguments = dict(zip(signature, node.arguments[1:], strict=False))
    splines = name in ("bs", "ns", "cr")
    for key, value in node.keywords:
        key = _ALIASES.get(key, key)
        if key not in signature and not (splines and key in _BOUNDS):
            names = [*signature, *(_BOUNDS if splines else ())]
            close = nearest(key, names, 0.4)
            hint = f"; did you mean {close}=?" if close else ""
            raise FormulaError(f"{node.value}() has no argument {key!r}{hint}", formula, value.position)
        arguments[key] = value
    # Arguments are constants. The same text therefore has the same state on every partition.
    options = {**signature, **{key: _literal(value, formula) for key, value in arguments.items()}}
    _check_settings(name, options, arguments, formula, node)
    return options


def _literal(node: Node, formula: str) -> Any:
    if node.kind == "list":
        return [_literal(child, formula) for child in node.arguments]
    if node.kind == "number":
        return node.value
    if any(child.kind in ("name", "string", "call") for child in node.walk()):
        raise FormulaError(f"{unparse(node)} must be a number here", formula, node.position)
    return float(evaluate(node, {}))


def _check_settings(
    name: str, options: dict[str, Any], arguments: Mapping[str, Node], formula: str, node: Node
) -> None:
    for key in ("degree", "df"):
        value = options.get(key)
        if value is not None and not _is_count(value, int(name != "bs")):
            raise FormulaError(
                f"{key} of {node.value}() must be a whole number above 0, not {unparse(arguments[key])}",
                formula,
                arguments[key].position,
            )
        if value is not None:
            options[key] = int(value)
    for key, most in MOST.items():
        value = options.get(key)
        if value is not None and (len(value) if isinstance(value, list) else key != "knots" and value) > most:
            raise FormulaError(f"{key} of {node.value}() must be at most {most}", formula, arguments[key].position)
    if name not in ("bs", "ns", "cr"):
        return
    if options["df"] is None and options["knots"] is None and name != "bs":
        raise FormulaError(f"{node.value}() needs df= or knots=", formula, node.position)
    if options["knots"] is not None and not isinstance(options["knots"], list):
        options["knots"] = [options["knots"]]
    if options["df"] is not None and options["knots"] is None and _inner_count(name, options) < 0:
        least = options["df"] - _inner_count(name, options)
        raise FormulaError(f"df of {node.value}() must be at least {least}", formula, arguments["df"].position)


def _is_count(value: Any, least: int) -> bool:
    return not isinstance(value, list) and bool(np.isfinite(value)) and value == int(value) and value >= least


def _inner_count(name: str, options: Mapping[str, Any]) -> int:
    """Knots inside the boundaries for the asked df."""
    if options["df"] is None:
        return 0
    polynomial = {"bs": options.get("degree", 3), "ns": 1, "cr": 2}[name]
    return options["df"] - polynomial - bool(options.get("intercept", False))


def stateful_nodes(nodes: tuple[Node, ...]) -> dict[str, Node]:
    """Every stateful call among the trees by its canonical text, inner ones first."""
    out: dict[str, Node] = {}
    for node in nodes:
        # `walk` yields a node before its children, so the reverse has inner calls first.
        for child in reversed(list(node.walk())):
            if child.kind == "call" and child.function in STATEFUL:
                out.setdefault(unparse(child), child)
    return out


def pending(node: Node, state: State | None, columns: tuple[str, ...], values: Values) -> Any:
    """The summary that has to be taken next, or None when the state is complete."""
    options, state = settings(node), state or {}
    name = node.function
    if name == "poly":
        if options["raw"] or "coefficients" in state:
            return None
        if "low" not in state:
            return ColumnMoments(columns, values)
        # poly takes two passes: the range first, then products of polynomials that are near orthogonal on it.
        return ChebyshevProducts(columns, values, state["low"], state["high"], options["degree"])
    if name in ("center", "scale"):
        return None if "center" in state else ColumnMoments(columns, values)
    if "knots" in state:
        return None
    return (Quantiles if _inner_count(name, options) and options["knots"] is None else ColumnMoments)(columns, values)


def absorb(node: Node, state: State | None, summary: Any) -> State:
    """The state after a summary; DataError when the data cannot carry the transform."""
    options, text = settings(node), unparse(node)
    if isinstance(summary, ChebyshevProducts):
        return {**(state or {}), "coefficients": _orthonormal(summary.products, text)}
    if not summary.low <= summary.high:
        raise DataError(f"{text}: the column has no values (all null)")
    if node.function in ("center", "scale"):
        return _standard(node, options, summary, text)
    if node.function == "poly":
        if summary.low == summary.high:
            raise DataError(f"{text} needs more than {options['degree']} distinct values; the column is constant")
        return {"low": summary.low, "high": summary.high}
    return _knots(node.function, options, summary, text)


def _standard(node: Node, options: dict[str, Any], summary: ColumnMoments, text: str) -> State:
    scaled = node.function == "scale" and options["scale"]
    center = summary.mean if node.function == "center" or options["center"] is True else float(options["center"] or 0.0)
    # Sum of squares about `center`: those about the mean plus n times the squared distance (Steiner).
    squares = summary.squares + summary.n * ((summary.mean - center) + summary.remainder) ** 2
    spread = 1.0 if not scaled else float(np.sqrt(squares / max(summary.n - 1, 1)))
    if scaled and options["scale"] is not True:
        spread = float(options["scale"])
    if spread == 0.0:
        raise DataError(f"{text}: the column is constant, it cannot be scaled")
    return {"center": center, "scale": spread}


def _orthonormal(products: np.ndarray | None, text: str) -> list[list[float]]:
    """Map from Chebyshev polynomials to polynomials orthonormal over the data, signs as R's poly (rising)."""
    try:
        # Products of powers of x would be close to singular; those of Chebyshev polynomials are well conditioned.
        factor = np.linalg.cholesky(np.asarray(products))
    except np.linalg.LinAlgError:
        factor = np.zeros((1, 1))
    diagonal = np.diag(factor)
    # The diagonal falls to rounding error where the degree reaches the number of distinct values.
    if diagonal.min() <= 1e-7 * diagonal.max():
        degree = 0 if products is None else len(products) - 1
        raise DataError(f"{text} needs more than {degree} distinct values in the column")
    return np.linalg.inv(factor).T.tolist()


def _knots(name: str, options: dict[str, Any], summary: Any, text: str) -> State:
    low, high = options["bounds"] or (summary.low, summary.high)
    low, high = float(options.get("lower_bound", low)), float(options.get("upper_bound", high))
    inner = options["knots"] or []
    if options["knots"] is None and isinstance(summary, Quantiles):
        # Formulaic's cr takes quantiles of the distinct values, so every value weighs the same.
        if name == "cr":
            summary = Quantiles((), summary.values, summary.points, np.ones(len(summary.points)))
        inner = summary.quantiles(np.linspace(0, 1, _inner_count(name, options) + 2)[1:-1]).tolist()
    if not all(low < knot < high for knot in inner) or low >= high:
        raise DataError(f"{text}: knots {inner} must lie strictly inside the boundaries {low} and {high}")
    return {"low": low, "high": high, "knots": [float(knot) for knot in inner]}


Replay = Callable[[np.ndarray, dict[str, Any], State], np.ndarray]


def _poly(x: np.ndarray, options: dict[str, Any], state: State) -> np.ndarray:
    degree = options["degree"]
    if options["raw"]:
        return np.column_stack([x**power for power in range(1, degree + 1)])
    scaled = (2 * x - state["low"] - state["high"]) / (state["high"] - state["low"])
    return np.polynomial.chebyshev.chebvander(scaled, degree) @ np.asarray(state["coefficients"])[:, 1:]


def _scale(x: np.ndarray, options: dict[str, Any], state: State) -> np.ndarray:
    return (x - state["center"]) / state["scale"]


def _center(x: np.ndarray, options: dict[str, Any], state: State) -> np.ndarray:
    return x - state["center"]


def _bs(x: np.ndarray, options: dict[str, Any], state: State) -> np.ndarray:
    inner = np.array(state["knots"])
    return b_spline(x, state["low"], state["high"], inner, options["degree"], bool(options["intercept"]))


def _ns(x: np.ndarray, options: dict[str, Any], state: State) -> np.ndarray:
    return natural_spline(x, state["low"], state["high"], np.array(state["knots"]), bool(options["intercept"]))


def _cr(x: np.ndarray, options: dict[str, Any], state: State) -> np.ndarray:
    return regression_spline(x, state["low"], state["high"], np.array(state["knots"]))


_REPLAY: dict[str, Replay] = {"poly": _poly, "scale": _scale, "center": _center, "bs": _bs, "ns": _ns, "cr": _cr}
MATRICES = ("poly", "bs", "ns", "cr")


@dataclass(frozen=True, slots=True)
class Replayer:
    """Applies learned transforms: ``states`` by the canonical text of the call. Usable as `evaluate`'s apply."""

    states: Mapping[str, State]

    def __call__(self, node: Node, x: np.ndarray) -> np.ndarray:
        """(n,) or (n, k) values of a call at x (n,); NaN rows where x is not finite."""
        options, state = settings(node), self.states.get(unparse(node), {})
        replay, x = _REPLAY[node.function], np.atleast_1d(x)
        finite = np.isfinite(x)
        if finite.all():
            return replay(x, options, state)
        # The bases take finite x only. Rows of NaN stay NaN in every column.
        part = replay(x[finite], options, state)
        whole = np.full((len(x), *part.shape[1:]), np.nan)
        whole[finite] = part
        return whole

    def fields(self, node: Node) -> tuple[str, ...]:
        """Names of the columns a matrix-valued call gives, "1", "2", ...; empty for a plain expression."""
        if node.kind != "call" or node.function not in MATRICES:
            return ()
        options, state = settings(node), self.states.get(unparse(node), {})
        # The width follows from a single point, since a basis is a pure function of x and its state.
        middle = (state.get("low", 0.0) + state.get("high", 0.0)) / 2
        width = _REPLAY[node.function](np.array([middle]), options, state).shape[1]
        first = 0 if options.get("raw") else 1  # formulaic counts raw powers from 0
        return tuple(str(first + i) for i in range(width))
