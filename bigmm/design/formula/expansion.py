"""How many terms products and powers of a formula stand for, before anything is expanded.

26 factors joined by ``*`` are 2^26 terms: expanding them takes all memory, counting them takes a look at each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, inf

MOST_TERMS = 1 << 12
MOST_POWER = 12
_MOST_PRODUCTS = 1 << 17  # products that formulaic forms for a power before it drops the equal ones

_POWER = {"+": 1, "-": 1, "*": 2, "/": 2, "%in%": 2, ":": 3, "^": 4, "**": 4}


def term_bound(texts: Sequence[str]) -> float:
    """At least as many terms as the tokens of a linear part stand for, none counted as equal to another.

    texts: placeholders, 0 and 1, operators and brackets, of a right grammar.
    """
    values: list[float] = []
    operators: list[str] = []
    operand_next = True
    for text in texts:
        if text == "(":
            operators.append(text)
        elif text == ")":
            while operators[-1] != "(":
                _apply(operators.pop(), values)
            operators.pop()
            operand_next = False
        elif text in _POWER:
            if not operand_next:  # a sign before a term changes no number of terms
                while operators and _POWER.get(operators[-1], 0) >= _POWER[text]:
                    _apply(operators.pop(), values)
                operators.append(text)
            operand_next = True
        else:
            is_power = bool(operators) and operators[-1] in ("^", "**") and operand_next
            values.append(float(text) if is_power else 1.0)
            operand_next = False
    while operators:
        _apply(operators.pop(), values)
    return values[-1] if values else 0.0


def _apply(operator: str, values: list[float]) -> None:
    rhs, lhs = values.pop(), values.pop()
    if operator in ("^", "**"):
        # The first comparison keeps lhs ** rhs from overflowing a float.
        few = lhs <= _MOST_PRODUCTS and lhs**rhs <= _MOST_PRODUCTS
        values.append(sum(comb(int(lhs), size) for size in range(1, int(rhs) + 1)) if few else inf)
    elif operator == "*":
        values.append(lhs + rhs + lhs * rhs)
    elif operator in ("+", "-", "/", "%in%"):  # formulaic: a / b is a + a:b
        values.append(lhs + rhs)
    else:
        values.append(lhs * rhs)
