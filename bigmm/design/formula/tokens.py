"""Cut a formula into tokens that know their place, so that every message can point at the spot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bigmm.errors import FormulaError

# Order matters: || before |, ** before *, and a number before a name that begins with a dot.
# The L of R's integers (1L) is read and dropped.
_PATTERN = re.compile(
    r"""(?P<space>\s+)
  | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)L?
  | (?P<quoted>`[^`]+`)
  | (?P<name>(?:[^\W\d]|\.(?=[^\W\d]))[\w.]*)
  | (?P<string>"[^"]*"|'[^']*')
  | (?P<operator>\|\||\*\*|%in%|<=|>=|==|!=|[~+\-*/^:|<>=,])
  | (?P<open>[(\[])
  | (?P<close>[)\]])""",
    re.VERBOSE,
)
_CLOSER = {"(": ")", "[": "]"}
MOST_BRACKETS = 50
"""Most brackets inside each other: parsing takes frames of the stack for each."""
MOST_OPERATORS = 150
"""Most operators and brackets on the way to any spot of one expression, which is the depth of its tree."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a formula that knows its position.

    `kind` is number, name, string, operator, open or close. `text` is without quotes. `quoted` tells a name that stood
    in backticks.
    """

    kind: str
    text: str
    start: int
    quoted: bool = False


def tokenize(formula: str) -> tuple[Token, ...]:
    """Tokens of the formula; raises FormulaError at a character that means nothing or a bracket without partner."""
    tokens, position = [], 0
    while position < len(formula):
        match = _PATTERN.match(formula, position)
        if match is None:
            raise FormulaError(f"unexpected character {formula[position]!r}", formula, position)
        # `lastgroup` is the alternative that matched, because no group contains another one.
        kind, text = str(match.lastgroup), match[str(match.lastgroup)]
        if kind in ("quoted", "string"):
            text = text[1:-1]
        if kind != "space":
            tokens.append(Token("name" if kind == "quoted" else kind, text, position, kind == "quoted"))
        position = match.end()
    _check_brackets(formula, tokens)
    return tuple(tokens)


def _check_brackets(formula: str, tokens: Sequence[Token]) -> None:
    openings: list[Token] = []
    for token in tokens:
        if token.kind == "open":
            openings.append(token)
            if len(openings) > MOST_BRACKETS:
                raise FormulaError(f"more than {MOST_BRACKETS} brackets inside each other", formula, token.start)
        elif token.kind == "close":
            if not openings or _CLOSER[openings[-1].text] != token.text:
                raise FormulaError(f"unbalanced brackets: {token.text!r} closes nothing", formula, token.start)
            openings.pop()
    if openings:
        raise FormulaError(f"unbalanced brackets: {openings[-1].text!r} is never closed", formula, openings[-1].start)


def check_depth(formula: str, tokens: Sequence[Token]) -> None:
    """FormulaError at the spot where an expression has more operators and brackets around it than may be nested."""
    counts, total = [1], 1
    for token in tokens:
        if token.kind == "close":
            total -= counts.pop()
        elif token.kind == "open":
            counts.append(1)
            total += 1
        elif token.kind == "operator" and token.text == ",":
            # A comma ends an argument: the next one begins at the depth of its call.
            total -= counts[-1] - 1
            counts[-1] = 1
        elif token.kind == "operator":
            counts[-1] += 1
            total += 1
        if total > MOST_OPERATORS:
            message = f"this expression has more than {MOST_OPERATORS} operators; compute it as a column of the data"
            raise FormulaError(message, formula, token.start)


def closing(tokens: Sequence[Token], opening: int) -> int:
    """Index of the bracket that closes the one at index `opening`. The brackets are balanced."""
    depth = 0
    for index in range(opening, len(tokens)):
        depth += (tokens[index].kind == "open") - (tokens[index].kind == "close")
        if depth == 0:
            return index
    raise AssertionError("brackets were checked")


def split_top(tokens: Sequence[Token], operators: Sequence[str]) -> list[tuple[Token | None, tuple[Token, ...]]]:
    """Cut at operators outside all brackets: [(operator before the piece or None, piece), ...]."""
    pieces: list[tuple[Token | None, tuple[Token, ...]]] = []
    start, depth, before = 0, 0, None
    for index, token in enumerate(tokens):
        depth += (token.kind == "open") - (token.kind == "close")
        if depth == 0 and token.kind == "operator" and token.text in operators:
            pieces.append((before, tuple(tokens[start:index])))
            start, before = index + 1, token
    pieces.append((before, tuple(tokens[start:])))
    return pieces
