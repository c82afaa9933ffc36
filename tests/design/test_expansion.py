"""Formulas that stand for more than any memory holds are refused quickly, with a caret; what is meant still passes."""

from __future__ import annotations

import string

import numpy as np
import pyarrow as pa
import pytest

from bigmm.design.checks import check_columns
from bigmm.design.formula.expansion import term_bound
from bigmm.design.formula.expression import unparse
from bigmm.design.formula.linear import model_terms
from bigmm.design.formula.parser import parse
from bigmm.errors import FormulaError

LETTERS = [letter for letter in string.ascii_letters if letter not in "yg"]
SCHEMA = pa.schema([(letter, pa.float64()) for letter in string.ascii_letters])
STAR = "*".join(LETTERS[:26])

BOMBS = {
    "26 factors": (f"y ~ {STAR} + (1 | g)", "more than 4096 terms"),
    "26 factors left of a bar": (f"y ~ 1 + ({STAR} | g)", "more than 4096 terms"),
    "26 sums in a product": (f"y ~ {':'.join(['(a + b)'] * 26)} + (1 | g)", "more than 4096 terms"),
    "power": (f"y ~ ({' + '.join(LETTERS[:26])})^6 + (1 | g)", "more than 4096 terms"),
    "exponent": ("y ~ (a + b)**1000000000 + (1 | g)", "a power between model terms is at most 12"),
    "digits of an exponent": (f"y ~ (a + b)^{'9' * 9000} + (1 | g)", "a power between model terms is at most 12"),
    "100,000 terms": (f"y ~ {'x + ' * 100_000}x + (1 | g)", "more than 4096 terms"),
    "100,000 brackets": (f"y ~ {'(' * 100_000}x{')' * 100_000} + (1 | g)", "more than 50 brackets inside each other"),
    "signs": (f"y ~ I({'- ' * 5000}x) + (1 | g)", "more than 150 operators"),
    "signs of the response": (f"{'-' * 5000}y ~ x + (1 | g)", "more than 150 operators"),
    "sums": (f"y ~ I({'x + ' * 5000}x) + (1 | g)", "more than 150 operators"),
    "powers of powers": (f"y ~ I({'x**' * 5000}x) + (1 | g)", "more than 150 operators"),
    "degree": ("y ~ poly(x, 1000000) + (1 | g)", "degree of poly() must be at most 100"),
    "infinite degree": ("y ~ poly(x, 10**10**10) + (1 | g)", "must be a whole number"),
    "degree of a spline": ("y ~ bs(x, degree=1e7) + (1 | g)", "degree of bs() must be at most 100"),
    "degrees of freedom": ("y ~ ns(x, df=1e7) + (1 | g)", "df of ns() must be at most 1000"),
    "knots": (
        f"y ~ ns(x, knots=c({', '.join(map(str, range(5000)))})) + (1 | g)",
        "knots of ns() must be at most 1000",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_with_a_caret(name):
    formula, message = BOMBS[name]
    with pytest.raises(FormulaError) as caught:
        check_columns(parse(formula), SCHEMA, None, None)
    assert message in str(caught.value)
    assert str(caught.value).splitlines()[-1].strip() == "^"
    assert len(str(caught.value)) < 1000


MEANT = [
    f"y ~ {'*'.join(LETTERS[:8])} + (1 | g)",
    f"y ~ ({' + '.join(LETTERS[:26])})^2 + (1 | g)",
    f"y ~ I({' + '.join(LETTERS)}) + (1 | g)",
    f"y ~ {'log(' * 40}x{')' * 40} + (1 | g)",
    f"y ~ {'(' * 49}x{')' * 49} + (1 | g)",
    f"y ~ bs(x, knots=c({', '.join(map(str, range(500)))})) + poly(x, 20) + (1 | g)",
]


@pytest.mark.parametrize("formula", MEANT, ids=range(len(MEANT)))
def test_large_formulas_that_are_meant_pass(formula):
    check_columns(parse(formula), SCHEMA, None, None)


def test_writing_a_long_sum_takes_one_step_for_each_operator():
    # each level was written twice, so that 30 terms took 2^30 steps
    formula = f"y ~ I({' + '.join(LETTERS)} - -x) + (1 | g)"
    assert unparse(parse(formula).fixed.factors[0]) == f"I({' + '.join(LETTERS)} - -x)"


@pytest.mark.parametrize(
    "terms",
    ["a", "a*b*c", "a:b", "(a + b):(c + d)", "a/b/c", "(a + b + c)^2", "(a + b)*(c + d)^3 - a", "a %in% b", "-1 + a"],
)
def test_the_bound_is_at_least_the_number_of_terms(terms):
    part = parse(f"y ~ {terms} + (1 | g)").fixed
    bound = term_bound(part.text.replace("(", "( ").replace(")", " )").split())
    assert np.isfinite(bound)
    assert len(set(model_terms(part)) - {"1"}) <= bound <= 60
