"""Model terms, the fixed part and each left-hand side: checked, then handed to formulaic by placeholder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import formulaic
from formulaic.errors import FormulaicError
from formulaic.parser import DefaultFormulaParser
from formulaic.parser.types import OrderedSet, Term

from bigmm.design.formula.expansion import MOST_POWER, MOST_TERMS, term_bound
from bigmm.design.formula.expression import Node, unparse
from bigmm.design.formula.grammar import parse_expression
from bigmm.design.formula.tokens import Token, closing, split_top
from bigmm.errors import FormulaError

_OPERATORS = ("+", "-", "*", "/", ":", "^", "**", "%in%")
Piece = tuple[str, tuple[Token, ...]]
Factors = dict[str, tuple[str, Node]]
"""Canonical text of a factor -> its placeholder and its tree."""


@dataclass(frozen=True, slots=True)
class LinearPart:
    """A right-hand side of model terms: formulaic's text over placeholders, and the tree of each placeholder v<i>."""

    text: str
    factors: tuple[Node, ...]


def fail(formula: str, message: str, position: int) -> NoReturn:
    """Raise a FormulaError with a caret at a place of the formula."""
    raise FormulaError(message, formula, position)


def additive(formula: str, tokens: Sequence[Token]) -> list[tuple[Token | None, tuple[Token, ...]]]:
    """Terms between + and - outside brackets, each with the sign before it (None for the first, unless it has one)."""
    terms = split_top(tokens, ("+", "-"))
    for sign, piece in terms[1:]:
        if not piece and sign is not None:
            fail(formula, f"a term is missing after {sign.text!r}", sign.start)
    return [term for term in terms if term[1]]


def linear_part(formula: str, pieces: Sequence[Piece]) -> LinearPart:
    """Check the grammar of model terms and replace factors by placeholders."""
    # Equal factors share a placeholder, so x + I(x) + x has two. Formulaic then drops equal terms itself.
    factors: Factors = {}
    texts: list[str] = []
    for sign, piece in pieces:
        texts += [sign, *_placeholders(formula, piece, factors)]
    if texts and texts[0] == "+":
        texts = texts[1:]
    if term_bound(texts) > MOST_TERMS:
        message = f"the products of this formula stand for more than {MOST_TERMS} terms; write out those that are meant"
        fail(formula, message, pieces[0][1][0].start)
    # Where only random terms and offsets are written, as in y ~ (1 | g), the fixed part is an intercept.
    part = LinearPart(" ".join(texts) or "1", tuple(node for _, node in factors.values()))
    try:
        model_terms(part)
    except (FormulaicError, TypeError) as error:
        # formulaic's TypeError is an operator beside a bracket in which nothing is left, as in (0 - x) / z
        message = str(error).splitlines()[0] if isinstance(error, FormulaicError) else "a bracket holds no term"
        fail(formula, f"these terms cannot be combined: {message}", pieces[0][1][0].start if pieces else 0)
    return part


def _placeholders(formula: str, tokens: Sequence[Token], factors: Factors) -> list[str]:
    texts: list[str] = []
    position, operand_next, after_power = 0, True, False
    while position < len(tokens):
        token, width = tokens[position], 1
        is_operand = token.kind in ("number", "name", "string", "open")
        # A sign may stand before any operand, as in y ~ -1 + x.
        if token.kind == "operator" and operand_next and token.text in ("+", "-"):
            texts.append(token.text)
            position += 1
            continue
        if is_operand != operand_next:
            what = "an operator" if is_operand else "a column or a function"
            fail(formula, f"expected {what} before {token.text!r}", token.start)
        if token.kind == "operator":
            if token.text not in _OPERATORS:
                fail(formula, f"{token.text!r} has no meaning between model terms; put it inside I()", token.start)
            texts.append(token.text)
        elif after_power and not (token.kind == "number" and token.text.isdigit() and token.text.strip("0")):
            fail(formula, "a power between model terms is a whole number; put arithmetic inside I()", token.start)
        elif after_power and (len(token.text) > 2 or int(token.text) > MOST_POWER):
            # Length first: int() of a text with very many digits is slow, and Python limits it.
            fail(formula, f"a power between model terms is at most {MOST_POWER}", token.start)
        elif token.text == "(" and token.kind == "open":
            width = closing(tokens, position) - position + 1
            inner = tokens[position + 1 : position + width - 1]
            if not inner:
                fail(formula, "nothing between the brackets", token.start)
            texts += ["(", *_placeholders(formula, inner, factors), ")"]
        elif token.kind == "number":
            beside = [
                other.text for other in (*tokens[max(position - 1, 0) : position], *tokens[position + 1 : position + 2])
            ]
            if not after_power and any(text not in ("+", "-") for text in beside):
                fail(formula, f"the number {token.text} can only be added or subtracted", token.start)
            if not after_power and token.text not in ("0", "1"):
                fail(formula, f"the number {token.text} is no model term; only 0 and 1 are", token.start)
            texts.append(token.text)
        else:
            called = (
                position + 1 < len(tokens) and tokens[position + 1].kind == "open" and tokens[position + 1].text == "("
            )
            if token.kind != "name":
                what = "a string cannot be called" if called else f"{token.text!r} is no model term"
                fail(formula, what, token.start)
            width = closing(tokens, position + 1) - position + 1 if called else 1
            texts.append(_placeholder(formula, tokens[position : position + width], factors))
        after_power = token.kind == "operator" and token.text in ("^", "**")
        operand_next = not is_operand
        position += width
    if operand_next:
        last = tokens[-1]
        fail(formula, f"a term is missing after {last.text!r}", last.start)
    return texts


def _placeholder(formula: str, tokens: Sequence[Token], factors: Factors) -> str:
    node = parse_expression(formula, tokens)
    if node.kind not in ("name", "call"):  # TRUE, c(1, 2)
        fail(formula, f"{tokens[0].text!r} is no model term", node.position)
    if node.kind == "call" and node.value in ("offset", "cbind"):
        fail(formula, f"{node.value}() cannot be combined with other terms", node.position)
    text = unparse(node)
    return factors.setdefault(text, (f"v{len(factors)}", node))[0]


class _TermParser(DefaultFormulaParser):
    """Formulaic's parser, where the 1 of (1 + x) * f is R's: a product with it is the other factor."""

    def get_terms_from_ast(self, ast: Any, *, context: Any) -> Any:
        # DefaultFormulaParser's own method refuses the 1 in products; the one above it only evaluates operators.
        terms = super(DefaultFormulaParser, self).get_terms_from_ast(ast, context=context)
        return terms._map(lambda found: OrderedSet(_without_ones(term) for term in found))


def _without_ones(term: Term) -> Term:
    factors = [factor for factor in term.factors if factor.expr != "1"]
    # 1:1 is the intercept itself, so one factor stays.
    return Term(factors or term.factors[:1])


def formulaic_formula(part: LinearPart) -> formulaic.SimpleFormula:
    """Formulaic's terms of a part, by degree."""
    return formulaic.Formula(part.text, _parser=_TermParser())  # type: ignore[return-value]


def model_terms(part: LinearPart) -> list[str]:
    """The terms of a part as texts over placeholders, by degree: ["1", "v0", "v0:v1"]."""
    return [":".join(factor.expr for factor in term.factors) for term in formulaic_formula(part)]


def uncorrelated(part: LinearPart) -> list[LinearPart]:
    """lme4's expandDoubleVerts: the intercept, then each further term with no intercept of its own."""
    terms = model_terms(part)
    parts = [LinearPart("1", ())] if "1" in terms else []
    parts += [LinearPart("0 + " + term, part.factors) for term in terms if term != "1"]
    return [_trimmed(single) for single in parts]


def _trimmed(part: LinearPart) -> LinearPart:
    """Keep only the factors a part uses, renumbered."""
    # Placeholders count from v0 in every part, since `scoped_terms` finds factors by number.
    used = [int(number) for number in dict.fromkeys(re.findall(r"v(\d+)", part.text))]
    text = re.sub(r"v(\d+)", lambda match: f"v{used.index(int(match[1]))}", part.text)
    return LinearPart(text, tuple(part.factors[number] for number in used))
