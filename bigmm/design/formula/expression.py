"""Expressions inside a formula, log(x), I(x^2 / 3), y / 2: small trees, interpreted over arrays.

User text is never handed to Python: `grammar` knows numbers, column names, arithmetic, comparisons and calls of the
functions in the tables below, and `evaluate` walks the tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bigmm.errors import FormulaError

BINARY: dict[str, Callable[..., np.ndarray]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "**": np.power,
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
ELEMENTWISE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log": np.log,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "abs": np.abs,
    "log2": np.log2,
    "log10": np.log10,
    "sin": np.sin,
    "cos": np.cos,
    "I": np.asarray,
}
STATEFUL = ("poly", "bs", "ns", "cr", "center", "scale")
CATEGORICAL = ("C",)
CONTRASTS = ("Treatment", "Sum", "Helmert", "Poly", "Diff", "SAS")
_SPELLINGS = {
    "factor": "C",
    "as.factor": "C",
    "standardize": "scale",
    "cs": "cr",
    "contr.treatment": "Treatment",
    "contr.sum": "Sum",
    "contr.helmert": "Helmert",
    "contr.poly": "Poly",
    "contr.diff": "Diff",
    "contr.SAS": "SAS",
    "contr.sas": "SAS",
    **{f"{module}.{name}": name for module in ("np", "numpy") for name in ELEMENTWISE if name != "I"},
}
ALLOWED = ", ".join([*ELEMENTWISE, *STATEFUL, *CATEGORICAL, "factor", "offset"])
LEVELS = (("<", ">", "<=", ">=", "==", "!="), ("+", "-"), ("*", "/"))
# As in R and Python, -x ** 2 is -(x ** 2): the sign binds less than a power.
_STRENGTH = {op: rank for rank, ops in enumerate(LEVELS) for op in ops} | {"neg": 3, "**": 4}


@dataclass(frozen=True, slots=True)
class Node:
    """A tree: kind is name, number, string, list, call, binary or neg; value the name, number or operator.

    ``function`` is the table's name of a call whatever its spelling; ``position`` the place in the formula.
    """

    kind: str
    value: str | float | bool | None
    position: int
    arguments: tuple[Node, ...] = ()
    keywords: tuple[tuple[str, Node], ...] = ()

    @property
    def function(self) -> str:
        """The name of the function that a call means, without its aliases."""
        return _SPELLINGS.get(str(self.value), str(self.value)) if self.kind == "call" else ""

    def walk(self) -> Iterator[Node]:
        """Yield the node and all nodes below it."""
        yield self
        for child in (*self.arguments, *(node for _, node in self.keywords)):
            yield from child.walk()


def contrast_name(node: Node) -> str:
    """The contrast a bare name or a call spells: Treatment for contr.treatment, "sum" or Sum()."""
    text = _SPELLINGS.get(str(node.value), str(node.value))
    return next((name for name in CONTRASTS if name.lower() == text.lower()), text)


NAMES = {"TRUE": True, "True": True, "FALSE": False, "False": False, "NULL": None, "None": None}
"""Names that are values, unless they are quoted."""
# A dot may begin a name only before a letter, because .5 is a number.
_PLAIN = re.compile(r"(?:[^\W\d]|\.(?=[^\W\d]))[\w. ]*")


def quoted(name: str) -> str:
    """A column's name, in backticks where it could be read as something else: `log(z)`, `a:b`, `1`."""
    return name if _PLAIN.fullmatch(name) and name not in NAMES else f"`{name}`"


def unparse(node: Node) -> str:
    """Canonical text of a tree, spaced as formulaic names its factors: ``I(x ** 2)``, ``bs(x, df=4)``.

    Different trees have different texts: the column `log(z)` keeps its backticks, the call log(z) has none.
    """
    return _unparse(node, -1, quoted)


def label(node: Node) -> str:
    """The text of a tree without backticks, for names of coefficients; a column and a call may have the same."""
    return _unparse(node, -1, str)


def _unparse(node: Node, outer: int, name: Callable[[str], str]) -> str:
    if node.kind == "name":
        return name(str(node.value))
    if node.kind == "string":
        return repr(node.value)
    if node.kind == "number":
        return _number(node.value)
    if node.kind in ("list", "call"):
        inside = [_unparse(argument, -1, name) for argument in node.arguments]
        inside += [f"{key}={_unparse(value, -1, name)}" for key, value in node.keywords]
        return f"[{', '.join(inside)}]" if node.kind == "list" else f"{node.value}({', '.join(inside)})"
    if node.kind == "neg":
        text, rank = f"-{_unparse(node.arguments[0], 3, name)}", 3
    else:
        rank = _STRENGTH[str(node.value)]
        power = node.value == "**"
        lhs = _unparse(node.arguments[0], rank + power, name)
        # Powers associate to the right and the others to the left; the addition puts brackets on the other side only.
        rhs = _unparse(node.arguments[1], rank + (not power), name)
        text = f"{lhs} {node.value} {rhs}"
    return f"({text})" if rank < outer else text


def _number(value: object) -> str:
    # Up to 1e15 all integers are exact doubles, so the text of 2 and 2.0 is one key.
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def columns_of(node: Node) -> tuple[str, ...]:
    """Names of the columns a tree reads, in order of appearance (contrast names are not columns)."""
    # The second argument of C() is a contrast: Sum in C(f, Sum) is no column.
    if node.kind == "call" and node.function in CATEGORICAL:
        return columns_of(node.arguments[0]) if node.arguments else ()
    if node.kind == "name":
        return (str(node.value),)
    children = (*node.arguments, *(child for _, child in node.keywords))
    return tuple(dict.fromkeys(name for child in children for name in columns_of(child)))


Apply = Callable[[Node, np.ndarray], np.ndarray]


def evaluate(node: Node, columns: Mapping[str, np.ndarray], apply: Apply | None = None) -> np.ndarray:
    """Values of a tree: (n,) float64, or (n, k) for poly and splines; `apply` supplies the stateful functions.

    Invalid operations give NaN or infinities as in NumPy, silently; the encoder judges them.
    """
    with np.errstate(all="ignore"):
        return np.asarray(_evaluate(node, columns, apply), dtype=np.float64)


def _evaluate(node: Node, columns: Mapping[str, np.ndarray], apply: Apply | None) -> np.ndarray:
    if node.kind == "name":
        return columns[str(node.value)]
    if node.kind == "number":
        return np.float64(node.value)  # type: ignore[arg-type, return-value]
    if node.kind == "neg":
        return np.negative(_evaluate(node.arguments[0], columns, apply))
    if node.kind == "binary":
        lhs, rhs = (_evaluate(child, columns, apply) for child in node.arguments)
        value = BINARY[str(node.value)](lhs, rhs)
        # Only comparisons give booleans; arithmetic already carries NaN through.
        if value.dtype != bool:
            return value
        # a comparison must not turn a missing value into False
        return np.where(np.isnan(lhs) | np.isnan(rhs), np.nan, value)
    if node.function in ELEMENTWISE:
        return ELEMENTWISE[node.function](_evaluate(node.arguments[0], columns, apply))
    if node.function in STATEFUL and apply is not None:
        return apply(node, np.asarray(_evaluate(node.arguments[0], columns, apply), dtype=np.float64))
    raise FormulaError(f"{unparse(node)} cannot be used as a number here")
