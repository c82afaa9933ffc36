"""Expressions inside a formula, log(x), I(x^2 / 3), y / 2: parsed to small trees and interpreted over arrays.

User text is never handed to Python: the parser knows numbers, column names, arithmetic, comparisons and calls of the
functions in the tables, and `evaluate` walks the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

import numpy as np

from bigmm.design.tokens import Token, closing, split_top
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
_LEVELS = (("<", ">", "<=", ">=", "==", "!="), ("+", "-"), ("*", "/"))
_STRENGTH = {op: rank for rank, ops in enumerate(_LEVELS) for op in ops} | {"neg": 3, "**": 4}


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
        return _SPELLINGS.get(str(self.value), str(self.value)) if self.kind == "call" else ""

    def walk(self) -> Iterator[Node]:
        yield self
        for child in (*self.arguments, *(node for _, node in self.keywords)):
            yield from child.walk()


def contrast_name(node: Node) -> str:
    """The contrast a bare name or a call spells: Treatment for contr.treatment, "sum" or Sum()."""
    text = _SPELLINGS.get(str(node.value), str(node.value))
    return next((name for name in CONTRASTS if name.lower() == text.lower()), text)


_NAMES = {"TRUE": True, "True": True, "FALSE": False, "False": False, "NULL": None, "None": None}


class Parser:
    """Precedence climbing over tokens: comparison, sum, product, sign, power, atom."""

    def __init__(self, formula: str, tokens: Sequence[Token]):
        self.formula, self.tokens, self.at = formula, tokens, 0
        self.end = tokens[-1].start + max(1, len(tokens[-1].text)) if tokens else len(formula)

    def fail(self, message: str, position: int) -> NoReturn:
        raise FormulaError(message, self.formula, position)

    def whole(self) -> Node:
        node = self.level(0)
        token = self.peek()
        if token is not None:
            self.fail(f"expected an operator before {token.text!r}", token.start)
        return node

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def operator(self, texts: Sequence[str]) -> Token | None:
        token = self.peek()
        if token is None or token.kind != "operator" or token.text not in texts:
            return None
        self.at += 1
        return token

    def level(self, rank: int) -> Node:
        if rank == len(_LEVELS):
            return self.sign()
        left = self.level(rank + 1)
        while token := self.operator(_LEVELS[rank]):
            left = Node("binary", token.text, token.start, (left, self.level(rank + 1)))
        return left

    def sign(self) -> Node:
        if token := self.operator("-"):
            return Node("neg", "-", token.start, (self.sign(),))
        if self.operator("+"):
            return self.sign()
        base = self.atom()
        if token := self.operator(("**", "^")):
            return Node("binary", "**", token.start, (base, self.sign()))
        return base

    def atom(self) -> Node:
        token = self.peek()
        if token is None:
            self.fail("something is missing here", self.end)
        self.at += 1
        following = self.peek()
        called = following is not None and following.text == "(" and following.kind == "open"
        if token.kind == "string" and called:
            self.fail(f"a string cannot be called; allowed functions: {ALLOWED}", token.start)
        if token.kind == "name" and called:
            return self.call(token)
        if token.kind == "open":
            return self.bracket(token)
        if token.kind == "number":
            return Node("number", float(token.text), token.start)
        if token.kind == "string":
            return Node("string", token.text, token.start)
        if token.kind == "name" and token.text in _NAMES:
            return Node("number", _NAMES[token.text], token.start)
        if token.kind == "name":
            return Node("name", token.text, token.start)
        self.fail(f"expected a column, a number or a function, not {token.text!r}", token.start)

    def bracket(self, token: Token) -> Node:
        end = closing(self.tokens, self.at - 1)
        inner = self.tokens[self.at : end]
        self.at = end + 1
        if token.text == "[":
            return Node("list", None, token.start, tuple(self.items(inner, token)[0]))
        if not inner:
            self.fail("nothing between the brackets", token.start)
        return Parser(self.formula, inner).whole()

    def call(self, token: Token) -> Node:
        end = closing(self.tokens, self.at)
        inner, self.at = self.tokens[self.at + 1 : end], end + 1
        arguments, keywords = self.items(inner, token)
        if token.text == "c":
            return Node("list", None, token.start, arguments)
        return Node("call", token.text, token.start, arguments, keywords)

    def items(self, inner: Sequence[Token], opener: Token) -> tuple[tuple[Node, ...], tuple[tuple[str, Node], ...]]:
        arguments, keywords = [], []
        for comma, piece in split_top(inner, (",",)) if inner else ():
            if not piece:
                self.fail("an argument is missing here", comma.start if comma else opener.start)
            if len(piece) > 1 and piece[0].kind == "name" and piece[1].text == "=" and piece[1].kind == "operator":
                if len(piece) == 2:
                    self.fail(f"a value is missing after {piece[0].text}=", piece[1].start)
                keywords.append((piece[0].text, Parser(self.formula, piece[2:]).whole()))
            else:
                arguments.append(Parser(self.formula, piece).whole())
        return tuple(arguments), tuple(keywords)


def parse_expression(formula: str, tokens: Sequence[Token]) -> Node:
    """The tree of one expression; raises FormulaError with a caret for anything but the allowed language."""
    node = Parser(formula, tokens).whole()
    for child in node.walk():
        if child.kind == "call":
            _check_call(formula, child)
    return node


def _check_call(formula: str, node: Node) -> None:
    name = node.function
    if name in ELEMENTWISE:
        if len(node.arguments) != 1 or node.keywords:
            raise FormulaError(f"{node.value}() takes one argument", formula, node.position)
    elif name not in (*STATEFUL, *CATEGORICAL, *CONTRASTS, "cbind", "offset"):
        close = get_close_matches(name, [*ELEMENTWISE, *STATEFUL, *CATEGORICAL, "factor"], 1)
        hint = f"; did you mean {close[0]}()?" if close else ""
        raise FormulaError(f"unknown function {name!r}{hint}; allowed functions: {ALLOWED}", formula, node.position)


def unparse(node: Node) -> str:
    """Canonical text of a tree, spaced as formulaic names its factors: ``I(x ** 2)``, ``bs(x, df=4)``."""
    return _unparse(node, -1)


def _unparse(node: Node, outer: int) -> str:
    if node.kind == "name":
        return str(node.value)
    if node.kind == "string":
        return repr(node.value)
    if node.kind == "number":
        return _number(node.value)
    inside = [_unparse(argument, -1) for argument in node.arguments]
    if node.kind == "list":
        return f"[{', '.join(inside)}]"
    if node.kind == "call":
        inside += [f"{key}={_unparse(value, -1)}" for key, value in node.keywords]
        return f"{node.value}({', '.join(inside)})"
    if node.kind == "neg":
        text, rank = f"-{_unparse(node.arguments[0], 3)}", 3
    else:
        rank = _STRENGTH[str(node.value)]
        power = node.value == "**"
        left, right = _unparse(node.arguments[0], rank + power), _unparse(node.arguments[1], rank + (not power))
        text = f"{left} {node.value} {right}"
    return f"({text})" if rank < outer else text


def _number(value: object) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def columns_of(node: Node) -> tuple[str, ...]:
    """Names of the columns a tree reads, in order of appearance (contrast names are not columns)."""
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
        left, right = (_evaluate(child, columns, apply) for child in node.arguments)
        value = BINARY[str(node.value)](left, right)
        if value.dtype != bool:
            return value
        # a comparison must not turn a missing value into False
        return np.where(np.isnan(left) | np.isnan(right), np.nan, value)
    if node.function in ELEMENTWISE:
        return ELEMENTWISE[node.function](_evaluate(node.arguments[0], columns, apply))
    if node.function in STATEFUL and apply is not None:
        return apply(node, np.asarray(_evaluate(node.arguments[0], columns, apply), dtype=np.float64))
    raise FormulaError(f"{unparse(node)} cannot be used as a number here")
