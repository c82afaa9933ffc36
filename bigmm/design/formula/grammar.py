"""The grammar of expressions: tokens to trees, everything else refused with a caret under the spot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from bigmm.arguments import nearest
from bigmm.design.formula.expression import ALLOWED, CATEGORICAL, CONTRASTS, ELEMENTWISE, LEVELS, NAMES, STATEFUL, Node
from bigmm.design.formula.tokens import Token, check_depth, closing, split_top
from bigmm.errors import FormulaError


class Parser:
    """Precedence climbing over tokens: comparison, sum, product, sign, power, atom."""

    def __init__(self, formula: str, tokens: Sequence[Token]):
        self.formula, self.tokens, self.at = formula, tokens, 0
        self.end = tokens[-1].start + max(1, len(tokens[-1].text)) if tokens else len(formula)

    def fail(self, message: str, position: int) -> NoReturn:
        """Raise FormulaError with a caret under a position of the formula."""
        raise FormulaError(message, self.formula, position)

    def whole(self) -> Node:
        """Parse all tokens as one expression."""
        node = self.level(0)
        token = self.peek()
        if token is not None:
            self.fail(f"expected an operator before {token.text!r}", token.start)
        return node

    def peek(self) -> Token | None:
        """The next token, which stays; None at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def operator(self, texts: Sequence[str]) -> Token | None:
        """Take the next token if it is one of these operators, else None."""
        token = self.peek()
        if token is None or token.kind != "operator" or token.text not in texts:
            return None
        self.at += 1
        return token

    def level(self, rank: int) -> Node:
        """Parse operators of one rank of `LEVELS`, which associate to the left."""
        if rank == len(LEVELS):
            return self.sign()
        lhs = self.level(rank + 1)
        while token := self.operator(LEVELS[rank]):
            lhs = Node("binary", token.text, token.start, (lhs, self.level(rank + 1)))
        return lhs

    def sign(self) -> Node:
        """Parse signs, and a power, which binds more tightly and associates to the right."""
        # The sign recurses, and not `atom`, so that --x and -x ** 2 parse as in R.
        if token := self.operator("-"):
            return Node("neg", "-", token.start, (self.sign(),))
        if self.operator("+"):
            return self.sign()
        base = self.atom()
        if token := self.operator(("**", "^")):
            return Node("binary", "**", token.start, (base, self.sign()))
        return base

    def atom(self) -> Node:
        """Parse a number, a text, a name, a call or a bracket."""
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
        if token.kind == "name" and token.text in NAMES and not token.quoted:
            return Node("number", NAMES[token.text], token.start)
        if token.kind == "name":
            return Node("name", token.text, token.start)
        self.fail(f"expected a column, a number or a function, not {token.text!r}", token.start)

    def bracket(self, token: Token) -> Node:
        """Parse what is between round brackets, or a list between square ones."""
        end = closing(self.tokens, self.at - 1)
        inner = self.tokens[self.at : end]
        self.at = end + 1
        if token.text == "[":
            return Node("list", None, token.start, tuple(self.items(inner, token)[0]))
        if not inner:
            self.fail("nothing between the brackets", token.start)
        # Positions are those of the whole formula, so the caret of an inner error needs no shift.
        return Parser(self.formula, inner).whole()

    def call(self, token: Token) -> Node:
        """Parse the arguments of a call; c() is a list."""
        end = closing(self.tokens, self.at)
        inner, self.at = self.tokens[self.at + 1 : end], end + 1
        arguments, keywords = self.items(inner, token)
        # R's c(1, 2) gives knots; it is a list here, and never a function.
        if token.text == "c":
            return Node("list", None, token.start, arguments)
        return Node("call", token.text, token.start, arguments, keywords)

    def items(self, inner: Sequence[Token], opener: Token) -> tuple[tuple[Node, ...], tuple[tuple[str, Node], ...]]:
        """Positional and keyword arguments between commas."""
        arguments, keywords = [], []
        for comma, piece in split_top(inner, (",",)) if inner else ():
            if not piece:
                self.fail("an argument is missing here", comma.start if comma else opener.start)
            # == is one token, so a single = after a name can only be a keyword.
            if len(piece) > 1 and piece[0].kind == "name" and piece[1].text == "=" and piece[1].kind == "operator":
                if len(piece) == 2:
                    self.fail(f"a value is missing after {piece[0].text}=", piece[1].start)
                keywords.append((piece[0].text, Parser(self.formula, piece[2:]).whole()))
            else:
                arguments.append(Parser(self.formula, piece).whole())
        return tuple(arguments), tuple(keywords)


def parse_expression(formula: str, tokens: Sequence[Token]) -> Node:
    """The tree of one expression; raises FormulaError with a caret for anything but the allowed language."""
    check_depth(formula, tokens)
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
        close = nearest(name, [*ELEMENTWISE, *STATEFUL, *CATEGORICAL, "factor"])
        hint = f"; did you mean {close}()?" if close else ""
        raise FormulaError(f"unknown function {name!r}{hint}; allowed functions: {ALLOWED}", formula, node.position)
