"""lme4's formula language: response ~ fixed effects + (covariates | grouping) + offset(...).

Random terms are split off first; the fixed part and each left-hand side become a `LinearPart`, whose text holds
placeholders v0, v1, ... instead of the user's factors, so that formulaic parses operators and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bigmm.design.formula.bars import Bar, check_structure, distinct_names, expand_bar, is_structured
from bigmm.design.formula.expression import Node, columns_of, unparse
from bigmm.design.formula.grammar import parse_expression
from bigmm.design.formula.linear import LinearPart, Piece, additive, fail, linear_part
from bigmm.design.formula.tokens import Token, closing, split_top, tokenize
from bigmm.errors import FormulaError


@dataclass(frozen=True, slots=True)
class ParsedFormula:
    """``kind`` of the response: "numeric", "cbind" (successes, failures) or "ratio" (a top-level a / b)."""

    text: str
    response: Node
    kind: str
    fixed: LinearPart
    bars: tuple[Bar, ...]
    offsets: tuple[Node, ...]

    @property
    def parts(self) -> tuple[LinearPart, ...]:
        """The fixed part, then the covariates of each random term."""
        return (self.fixed, *(bar.lhs for bar in self.bars))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every tree of the formula, response first, for checks of names."""
        return (self.response, *(node for part in self.parts for node in part.factors), *self.offsets)


def parse(formula: str, need_random: bool = True) -> ParsedFormula:
    """Parse lme4's formula language; raises FormulaError with a caret under the spot.

    `need_random=False` lets a formula without random terms pass.
    """
    if not isinstance(formula, str) or not formula.strip():
        raise FormulaError("the formula is empty; write one like y ~ x + (1 | g)")
    # One line, with every character in its place: carets are printed under this text.
    formula = formula.replace("\n", " ").replace("\t", " ").rstrip()
    lhs, rhs = _sides(formula, tokenize(formula))
    response = parse_expression(formula, lhs)
    fixed_terms, bars, offsets = _split_terms(formula, rhs)
    if need_random and not bars:
        advice = "for a model without random effects use statsmodels' OLS"
        fail(formula, f"no random term such as (1 | g); {advice}", rhs[0].start)
    parsed = ParsedFormula(
        formula,
        response,
        _response_kind(formula, response),
        linear_part(formula, fixed_terms),
        distinct_names([term for bar in bars for term in expand_bar(formula, bar)]),
        tuple(offsets),
    )
    # R drops such a term with a warning; here it is an error, because the model is not what was meant.
    _check_response_absent(formula, parsed)
    return parsed


def _sides(formula: str, tokens: Sequence[Token]) -> tuple[Sequence[Token], Sequence[Token]]:
    tildes = [index for index, token in enumerate(tokens) if token.text == "~" and token.kind == "operator"]
    if not tildes:
        fail(formula, "the ~ between response and effects is missing", len(formula) - 1)
    if len(tildes) > 1:
        fail(formula, "a formula has one ~, this is a second", tokens[tildes[1]].start)
    lhs, rhs = tokens[: tildes[0]], tokens[tildes[0] + 1 :]
    if sum((token.kind == "open") - (token.kind == "close") for token in lhs):
        fail(formula, "~ cannot be inside brackets", tokens[tildes[0]].start)
    if not lhs:
        fail(formula, "the response is missing before ~", tokens[tildes[0]].start)
    if not rhs:
        fail(formula, "the right-hand side is empty", tokens[tildes[0]].start)
    return lhs, rhs


def _response_kind(formula: str, response: Node) -> str:
    if response.kind == "call" and response.value == "cbind":
        if len(response.arguments) != 2 or response.keywords:
            fail(formula, "cbind() takes two columns: successes, failures", response.position)
        return "cbind"
    return "ratio" if response.kind == "binary" and response.value == "/" else "numeric"


def _check_response_absent(formula: str, parsed: ParsedFormula) -> None:
    for node in (node for part in parsed.parts for node in part.factors):
        if node.kind == "name" and unparse(node) == unparse(parsed.response):
            fail(formula, f"the response {node.value!r} is on the right-hand side too", node.position)


def _split_terms(formula: str, tokens: Sequence[Token]) -> tuple[list[Piece], list[tuple[Token, ...]], list[Node]]:
    """Sort the additive terms into fixed pieces (sign, tokens), bars (tokens inside the brackets) and offsets."""
    fixed: list[Piece] = []
    bars: list[tuple[Token, ...]] = []
    offsets: list[Node] = []
    for sign, piece in additive(formula, tokens):
        bar = next((token for token in piece if token.kind == "operator" and token.text in ("|", "||")), None)
        if is_structured(piece):
            check_structure(formula, piece[0])
            _not_subtracted(formula, sign)
            bars.append(piece)
        elif bar is not None:
            _only_added(formula, sign, piece, bar)
            # Brackets around several terms, as in y ~ (x + (1 | g)), are opened; brackets of one bar are the bar.
            inner = piece[1:-1]
            if any(token.text in ("|", "||") for _, part in split_top(inner, ("+", "-")) for token in _shallow(part)):
                bars.append(piece)
            else:
                more = _split_terms(formula, inner)
                fixed, bars, offsets = fixed + more[0], bars + more[1], offsets + more[2]
        elif piece[0].text == "offset" and len(piece) > 1 and closing(piece, 1) == len(piece) - 1:
            offsets.append(_offset(formula, sign, piece))
        else:
            fixed.append((sign.text if sign else "+", piece))
    return fixed, bars, offsets


def _shallow(tokens: Sequence[Token]) -> list[Token]:
    """Tokens outside all brackets."""
    depth, shallow = 0, []
    for token in tokens:
        # The close comes before the test and the open after it, so that brackets count as inside.
        depth -= token.kind == "close"
        if depth == 0:
            shallow.append(token)
        depth += token.kind == "open"
    return shallow


def _only_added(formula: str, sign: Token | None, piece: Sequence[Token], bar: Token) -> None:
    if piece[0].text != "(" or closing(piece, 0) != len(piece) - 1:
        message = f"{bar.text!r} belongs inside brackets, as in (1 | g)"
        if any(token.text in ("|", "||") for token in _shallow(piece)):
            fail(formula, message, bar.start)
        fail(formula, "a random term can only be added: (1 | g) + ..., not combined by other operators", bar.start)
    _not_subtracted(formula, sign)


def _not_subtracted(formula: str, sign: Token | None) -> None:
    if sign is not None and sign.text == "-":
        fail(formula, "a random term cannot be subtracted", sign.start)


def _offset(formula: str, sign: Token | None, piece: Sequence[Token]) -> Node:
    if len(piece) == 3:
        fail(formula, "offset() is empty; name a column or an expression", piece[0].start)
    if sign is not None and sign.text == "-":
        fail(formula, "an offset cannot be subtracted; write offset(-x)", sign.start)
    return parse_expression(formula, piece[2:-1])


def required_columns(parsed: ParsedFormula) -> tuple[str, ...]:
    """Columns in order of use: response, fixed effects, offsets, covariates and groupings of the random terms."""
    ordered = [parsed.response, *parsed.fixed.factors, *parsed.offsets]
    ordered += [node for bar in parsed.bars for node in bar.lhs.factors]
    names = [name for node in ordered for name in columns_of(node)]
    return tuple(dict.fromkeys([*names, *(name for bar in parsed.bars for name in bar.variables)]))
