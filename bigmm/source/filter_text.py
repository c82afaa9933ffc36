"""The language of filter= texts: tokens and a small tree. Nothing is ever evaluated as Python.

The grammar is Python's for names, constants, comparisons, ``in``, ``is``, ``and``, ``or``, ``not``, ``&``, ``|``, and
+ - * /, with columns of any name in backticks. Its sizes are bounded, so that a hostile text is refused quickly.
docs/filters.md says what a filter means.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from bigmm.errors import FormulaError

MOST_LEVELS = 50
"""Brackets, signs and `not` inside each other, and operators of one sum or product."""
MOST_COMPARISONS = 1000
"""Comparisons in one filter. A list after `in` may be as long as memory allows."""
_DIGITS = 20  # of 2^64


@dataclass(frozen=True, slots=True)
class FilterColumn:
    """A column by its name."""

    name: str
    position: int = 0


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, text, True, False or None; beside them dates and the like in a filter of tuples."""

    value: Any
    position: int = 0


@dataclass(frozen=True, slots=True)
class Constants:
    """The list after `in`."""

    items: tuple[Tree, ...]
    position: int = 0


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """One of + - * / of two operands, or "negative" of one. `depth` counts arithmetic inside each other."""

    operator: str
    operands: tuple[Tree, ...]
    position: int
    depth: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison by < <= > >= == != in, not in, is, is not."""

    operator: str
    lhs: Tree
    rhs: Tree
    position: int = 0


@dataclass(frozen=True, slots=True)
class Negation:
    """The condition `not part`."""

    part: Tree
    position: int = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """Conditions joined by `operator`, "and" or "or". `symbol` is the operator as written, which may be & or |."""

    operator: str
    parts: tuple[Tree, ...]
    position: int = 0
    symbol: str = ""


Tree = FilterColumn | Constant | Constants | Arithmetic | Comparison | Negation | Joined

_PATTERN = re.compile(
    r"""(?P<space>\s+)
  | (?P<number>0[xX][0-9a-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)
  | (?P<quoted>`[^`]+`)
  | (?P<name>(?:[^\W\d]|\.(?=[^\W\d]))[\w.]*)
  | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<operator><=|>=|==|!=|<>|\*\*|//|&&|\|\||[<>=+\-*/%&|~^@!])
  | (?P<mark>[()\[\]{},:;?$])""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = ("and", "or", "not", "in", "is")
_NAMED: dict[str, bool | None] = {
    "True": True,
    "TRUE": True,
    "true": True,
    "False": False,
    "FALSE": False,
    "false": False,
}
_NAMED |= {"None": None, "NULL": None, "null": None}
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_WRITE = {"=": "==", "<>": "!=", "&&": "and", "||": "or", "!": "not"}
_FOREIGN = {"**": "Pow", "//": "FloorDiv", "%": "Mod", "^": "BitXor", "@": "MatMult"}
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=", "in", "not in", "is", "is not")
#: How strongly operators bind, as in Python.
# & and | bind more tightly than comparisons, as in Python. Beside values they are refused with a hint.
_POWER = {"or": 1, "and": 2, **dict.fromkeys(_COMPARISONS, 4), "|": 5, "&": 6, "+": 7, "-": 7, "*": 8, "/": 8}
_NOT, _SIGN = 3, 9
_JOINS = {"and": "and", "or": "or", "&": "and", "|": "or"}


@dataclass(frozen=True, slots=True)
class FilterToken:
    """A token at ``start``, of kind number, quoted, name, word, string, operator, mark or end."""

    kind: str
    text: str
    start: int


def slip(message: str, text: str, position: int) -> FormulaError:
    """The error of a filter, with a caret under the spot."""
    return FormulaError(f"cannot read the filter: {message}", text.replace("\n", " "), position)


def tokens_of(text: str) -> list[FilterToken]:
    """The tokens of a text, an end after the last; FormulaError at a character that means nothing."""
    tokens, place = [], 0
    while place < len(text):
        match = _PATTERN.match(text, place)
        if match is None:
            what = "this text never ends" if text[place] in "'\"`" else f"unexpected character {text[place]!r}"
            raise slip(what, text, place)
        kind, content = str(match.lastgroup), match[0]
        if kind == "name" and content in _WORDS:
            kind = "word"
        if kind != "space":
            tokens.append(FilterToken(kind, content, place))
        place = match.end()
    return [*tokens, FilterToken("end", "", len(text))]


def parse_text(text: str, names: Sequence[str]) -> Tree:
    """The tree of a filter; a name among the columns' ``names`` is a column even if it is True or null.

    Raises `FormulaError` with a caret under the spot.
    """
    return _Parser(text, frozenset(names)).whole()


class _Parser:
    """Operators by binding power (Pratt 1973), so that brackets cost few frames of the stack."""

    def __init__(self, text: str, names: frozenset[str]):
        self.text, self.names = text, names
        self.tokens, self.index, self.depth, self.comparisons = tokens_of(text), 0, 0, 0

    def fail(self, message: str, position: int) -> NoReturn:
        """Raise UsageError with a caret under the position."""
        raise slip(message, self.text, position)

    def whole(self) -> Tree:
        """Parse the text to its end."""
        tree = self.expression(0)
        token = self.tokens[self.index]
        if token.kind != "end":
            self.misplaced(token)
        return tree

    def misplaced(self, token: FilterToken) -> NoReturn:
        """Raise UsageError for a token that cannot stand where it does, with what to write instead."""
        if token.text in _WRITE:
            self.fail(f"write {_WRITE[token.text]} instead of {token.text}", token.start)
        if token.text in _FOREIGN:
            self.fail(f"operator {_FOREIGN[token.text]} is not allowed", self.tokens[max(self.index - 1, 0)].start)
        self.fail(f"invalid syntax{f' at {token.text!r}' if token.text else ', something is missing'}", token.start)

    def operator(self) -> str:
        """The operator that comes next, of one word or two; empty when none does."""
        token = self.tokens[self.index]
        following = self.tokens[min(self.index + 1, len(self.tokens) - 1)]
        if token.kind == "word" and (token.text, following.text) in (("not", "in"), ("is", "not")):
            return f"{token.text} {following.text}"
        return token.text if token.kind in ("word", "operator") else ""

    def expression(self, power: int) -> Tree:
        """Parse operators that bind at least as strongly as `power`."""
        # The limit bounds Python's stack: each level of brackets costs a few frames.
        self.depth += 1
        if self.depth > MOST_LEVELS:
            self.fail(f"more than {MOST_LEVELS} levels inside each other", self.tokens[self.index].start)
        lhs = self.operand()
        # Equal power continues the loop, so operators of one strength associate to the left.
        while (operator := self.operator()) in _POWER and _POWER[operator] >= max(power, 1):
            lhs = self.combined(lhs, operator)
        self.depth -= 1
        return lhs

    def combined(self, lhs: Tree, operator: str) -> Tree:
        """Parse what follows an operand: the rest of a joined condition, a comparison or arithmetic."""
        if operator in _JOINS:
            return self.joined(lhs, operator)
        if operator in _COMPARISONS:
            return self.compared(lhs)
        token = self.step()
        rhs = self.expression(_POWER[operator] + 1)
        return self.arithmetic(operator, (lhs, rhs), token.start)

    def step(self, operator: str = "") -> FilterToken:
        """Take the next token; an operator of two words is two tokens."""
        token = self.tokens[self.index]
        self.index += 1 + (" " in operator)
        return token

    def joined(self, lhs: Tree, operator: str) -> Tree:
        """Parse the parts of one `and` or `or` into one node, so that a long filter is no deep tree."""
        parts, first = [lhs], self.tokens[self.index].start
        while self.operator() == operator:
            self.step()
            parts.append(self.expression(_POWER[operator] + 1))
        return Joined(_JOINS[operator], tuple(parts), first, operator)

    def compared(self, lhs: Tree) -> Tree:
        """a < b <= c is a < b and b <= c."""
        parts: list[Tree] = []
        while (operator := self.operator()) in _COMPARISONS:
            start = self.tokens[self.index].start
            self.comparisons += 1
            if self.comparisons > MOST_COMPARISONS:
                self.fail(f"more than {MOST_COMPARISONS} comparisons; a list after 'in' may be longer", start)
            self.step(operator)
            rhs = self.expression(_POWER[operator] + 1)
            parts.append(Comparison(operator, lhs, rhs, lhs.position))
            lhs = rhs
        return parts[0] if len(parts) == 1 else Joined("and", tuple(parts), parts[0].position)

    def arithmetic(self, operator: str, operands: tuple[Tree, ...], position: int) -> Tree:
        """Make a node of arithmetic. Raises UsageError where too many are inside each other."""
        depth = 1 + max(operand.depth if isinstance(operand, Arithmetic) else 0 for operand in operands)
        if depth > MOST_LEVELS:
            self.fail(f"more than {MOST_LEVELS} operators in one sum or product", position)
        return Arithmetic(operator, operands, operands[0].position if len(operands) > 1 else position, depth)

    def operand(self) -> Tree:
        """Parse a sign, a negation, a bracket, a name or a constant."""
        token = self.step()
        if token.text == "not" and token.kind == "word":
            return Negation(self.expression(_NOT), token.start)
        if token.kind == "operator" and token.text in ("-", "+", "~"):
            return self.signed(token)
        if token.text in _CLOSERS and token.kind == "mark":
            return self.bracketed(token)
        if token.kind in ("name", "quoted"):
            return self.named(token)
        if token.kind == "number":
            return Constant(self.number(token), token.start)
        if token.kind == "string":
            return Constant(self.string(token), token.start)
        self.index -= 1
        self.misplaced(token)

    def signed(self, token: FilterToken) -> Tree:
        """Parse what follows -, + or ~. The minus of a number belongs to the constant."""
        part = self.expression(_SIGN)
        if token.text == "~":
            return Negation(part, token.start)
        if token.text == "+":
            return part
        # The sign joins the constant, so that -9223372036854775808 is within 64 bits.
        if isinstance(part, Constant) and type(part.value) in (int, float):
            return Constant(-part.value, token.start)
        return self.arithmetic("negative", (part,), token.start)

    def named(self, token: FilterToken) -> Tree:
        """Parse a name: True, False, None, or a column. A column of the data wins over a constant of the same name."""
        following = self.tokens[self.index]
        if following.kind == "mark" and following.text in "([":
            what = "call" if following.text == "(" else "subscript"
            self.fail(f"{what} is not allowed; use names, constants, comparisons, and, or, not", token.start)
        name = token.text[1:-1] if token.kind == "quoted" else token.text
        if token.kind == "name" and name in _NAMED and name not in self.names:
            return Constant(_NAMED[name], token.start)
        if token.kind == "name" and name not in self.names and name.split(".")[0] in self.names:
            self.fail("attribute is not allowed; use names, constants, comparisons, and, or, not", token.start)
        return FilterColumn(name, token.start)

    def number(self, token: FilterToken) -> int | float:
        """Read a number. An integer of more than 64 bits is refused before Python makes it."""
        digits = token.text.replace("_", "")
        if digits[:2] in ("0x", "0X"):
            # int() of a very long text takes quadratic time, so length decides first.
            value = int(digits, 16) if len(digits) < _DIGITS else 1 << 64
        elif digits.isdigit():
            value = int(digits) if len(digits) <= _DIGITS else 1 << 64
        else:
            return float(digits)
        if value >= 1 << 64:
            self.fail("this integer has more than 64 bits; write it with a decimal point or an exponent", token.start)
        return value

    def string(self, token: FilterToken) -> str:
        """Read a text in quotes."""
        try:
            # The token is one quoted text by its pattern, so only escapes are read here and no code.
            return ast.literal_eval(token.text.replace("\n", "\\n"))
        except (ValueError, SyntaxError) as error:
            self.fail(f"this text cannot be read: {error}", token.start)

    def bracketed(self, opener: FilterToken) -> Tree:
        """Parse a bracket: one expression, or the constants of a list."""
        closer, items, commas = _CLOSERS[opener.text], [], 0
        while not self.closes(closer):
            items.append(self.expression(0))
            if self.closes(closer):
                break
            if self.tokens[self.index].text != ",":
                self.unclosed(opener)
            commas += 1
            self.step()
        self.step()
        if opener.text == "(" and len(items) == 1 and not commas:
            return items[0]
        return Constants(tuple(items), opener.start)

    def closes(self, closer: str) -> bool:
        """Tell whether the next token closes the bracket."""
        token = self.tokens[self.index]
        return token.kind == "mark" and token.text == closer

    def unclosed(self, opener: FilterToken) -> NoReturn:
        """Raise UsageError for a bracket that has no end."""
        token = self.tokens[self.index]
        if token.kind == "end":
            self.fail(f"invalid syntax: {opener.text!r} is never closed", opener.start)
        self.misplaced(token)
