"""Typical slips in formulas: the message says what is wrong and the caret stands at the spot."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmm.design import parse
from bigmm.errors import DataError, FormulaError, UsageError
from tests.design.frames import frame, learned

# formula (or response and the rest) | part of the message; the caret is marked by @ in front of the spot
SLIPS = [
    ("y @x", "the ~ between response and effects is missing"),
    ("y ~ x + @(1 | g", "'(' is never closed"),
    ("y ~ x@) + (1 | g)", "')' closes nothing"),
    ("y ~ (x@] + (1 | g)", "']' closes nothing"),
    ("y @~", "the right-hand side is empty"),
    ("@~ x + (1 | g)", "the response is missing"),
    ("y ~ x + (1 @| )", "the grouping factor after the bar is missing"),
    ("y ~ x + ( @| g)", "the left of the bar is empty; write (1 | g)"),
    ("y ~ x + 1 @| g", "'|' belongs inside brackets, as in (1 | g)"),
    ("y ~ x*(1 @| g)", "a random term can only be added"),
    ("y ~ x @- (1 | g)", "a random term cannot be subtracted"),
    ("y ~ @lg(x) + (1 | g)", "unknown function 'lg'; did you mean log()?"),
    ("y ~ @foo(x) + (1 | g)", "allowed functions: log, exp, sqrt"),
    ("y ~ @__import__('os') + (1 | g)", "unknown function '__import__'"),
    ("y ~ @os.system('ls') + (1 | g)", "unknown function 'os.system'"),
    ("y ~ I(@open('f')) + (1 | g)", "unknown function 'open'"),
    ("y ~ lambda @x: x + (1 | g)", "expected an operator before 'x'"),
    ("y ~ I((x)@.real) + (1 | g)", "expected an operator before '.real'"),
    ("y ~ @'log'(x) + (1 | g)", "a string cannot be called"),
    ("y ~ x@[0] + (1 | g)", "expected an operator before '['"),
    ("y ~ @[x] + (1 | g)", "'[' is no model term"),
    ("y ~ x @~ z", "a formula has one ~"),
    ("log(y @~ x)", "~ cannot be inside brackets"),
    ("y ~ (1 | g @+ h)", "a grouping factor is a column, a:b or a/b"),
    ("y ~ (1 || g @|| h)", "a random term has one bar"),
    ("y ~ (1|@1)", "must be a column, not the number 1"),
    ("y ~ (1 | a@/)", "a grouping factor is missing beside '/'"),
    ("y ~ @y + (1 | g)", "the response 'y' is on the right-hand side too"),
    ("y ~ x + (1 | g) @+", "a term is missing after '+'"),
    ("y ~ x + @* z + (1 | g)", "expected a column or a function before '*'"),
    ("y ~ x @* + (1 | g)", "a term is missing after '*'"),
    ("y ~ x @z + (1 | g)", "expected an operator before 'z'"),
    ("y ~ @3 + x + (1 | g)", "the number 3 is no model term"),
    ("y ~ @2*x + (1 | g)", "the number 2 can only be added or subtracted"),
    ("y ~ x:@1 + (1 | g)", "the number 1 can only be added or subtracted"),
    ("y ~ @(0 - x)/z + (1 | g)", "these terms cannot be combined: a bracket holds no term"),
    ("y ~ x^@z + (1 | g)", "a power between model terms is a whole number"),
    ("y ~ x @> 2 + (1 | g)", "'>' has no meaning between model terms; put it inside I()"),
    ("y ~ @offset() + (1 | g)", "offset() is empty"),
    ("y ~ x @- offset(z) + (1 | g)", "an offset cannot be subtracted"),
    ("y ~ x * @offset(z) + (1 | g)", "offset() cannot be combined"),
    ("y ~ (@g | g)", "the grouping factor 'g' cannot be left of its own bar"),
    ("y ~ (0 @| g)", "no random effect is left of the bar"),
    ("y ~ @x + z", "no random term such as (1 | g)"),
    ("y ~ I(x +@) + (1 | g)", "something is missing here"),
    ("y ~ @log(x, 2) + (1 | g)", "log() takes one argument"),
    ("y ~ @log() + (1 | g)", "log() takes one argument"),
    ("y ~ bs(x, df@=) + (1 | g)", "a value is missing after df="),
    ("y ~ poly(x@, , 2) + (1 | g)", "an argument is missing here"),
    ("y ~ x @# z + (1 | g)", "unexpected character '#'"),
    ("@cbind(y) ~ (1 | g)", "cbind() takes two columns"),
]


def check(error: FormulaError, formula: str, position: int, message: str) -> None:
    assert message in str(error)
    lines = str(error).splitlines()
    assert lines[-2] == "    " + formula
    assert lines[-1] == "    " + " " * position + "^"
    assert (error.formula, error.position) == (formula, position)
    assert error.exit_code == 2


@pytest.mark.parametrize(("marked", "message"), SLIPS)
def test_the_caret_stands_at_the_spot(marked, message):
    position, formula = marked.index("@"), marked.replace("@", "")
    with pytest.raises(FormulaError) as caught:
        parse(formula)
    check(caught.value, formula, position, message)


# these need to know the columns: y x z w count b (numbers), f h g (text), k (integers)
SLIPS_ON_DATA = [
    ("y ~ @xx + (1 | g)", "unknown column 'xx'; did you mean 'x'?"),
    ("y ~ log(@counts) + (1 | g)", "unknown column 'counts'; did you mean 'count'?"),
    ("y ~ @nothing_like_it + (1 | g)", "columns are y, x, z"),
    ("@yy ~ x + (1 | g)", "unknown column 'yy'"),
    ("y ~ x + (1 | @gg)", "unknown column 'gg'; did you mean 'g'?"),
    ("y ~ x + (1 | g/@gg)", "unknown column 'gg'"),
    ("y ~ @x.__class__ + (1 | g)", "attributes of a column cannot be used"),
    ("y ~ log(@f) + (1 | g)", "column 'f' holds"),
    ("y ~ I(x + @'a') + (1 | g)", "the text 'a' cannot be computed with"),
    ("y ~ C(f, @Tretment) + (1 | g)", "unknown contrast Tretment; there are Treatment, Sum"),
    ("y ~ C(f, Treatment(base=@'nope')) + (1 | g)", "the base level 'nope' is not among the levels: hi, lo, mid"),
    ("y ~ C(f, Treatment(first=@'lo')) + (1 | g)", "Treatment() has no argument 'first'"),
    ("y ~ @C(x + z) + (1 | g)", "C() takes a column"),
    ("y ~ log(@C(f)) + (1 | g)", "C() cannot stand inside an expression"),
    ("y ~ poly(x, @1.5) + (1 | g)", "degree of poly() must be a whole number above 0, not 1.5"),
    ("y ~ poly(x, @z) + (1 | g)", "z must be a number here"),
    ("y ~ poly(x, 0 @- 1) + (1 | g)", "degree of poly() must be a whole number above 0"),
    ("y ~ bs(x, fd=@4) + (1 | g)", "bs() has no argument 'fd'; did you mean df=?"),
    ("y ~ bs(x, df=@2) + (1 | g)", "df of bs() must be at least 3"),
    ("y ~ @ns(x) + (1 | g)", "ns() needs df= or knots="),
    ("y ~ log(@bs(x, df=4)) + (1 | g)", "bs() must be a term of its own"),
    ("@cbind(x, z) ~ (1 | g)", "cbind() is a binomial response"),
    ("@scale(y) ~ x + (1 | g)", "scale() cannot be used in the response"),
]


@pytest.mark.parametrize(("marked", "message"), SLIPS_ON_DATA)
def test_the_caret_stands_at_the_spot_once_columns_are_known(marked, message):
    position, formula = marked.index("@"), marked.replace("@", "")
    with pytest.raises(FormulaError) as caught:
        learned(formula, frame())
    check(caught.value, formula, position, message)


def test_an_empty_formula():
    for text in ("", "   ", None):
        with pytest.raises(FormulaError, match="the formula is empty; write one like y ~ x"):
            parse(text)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": "ww"}, UsageError, "weights='ww' is no column; columns are y, x"),
        ({"offset": "f"}, DataError, "offset column 'f' holds"),
        ({"contrasts": {"z": "Sum"}}, UsageError, "contrasts names 'z', which is no factor of the formula"),
        ({"contrasts": {"f": "Som"}}, FormulaError, "unknown contrast Som"),
        ({"categories": {"f": ["lo", "mid"]}}, DataError, "'f' holds 'hi', not one of its declared categories"),
        ({"categories": {"f": ["lo", "lo", "mid"]}}, DataError, "'f' repeat a level"),
        ({"categories": {"k": ["one", "two"]}}, DataError, "the categories of column 'k' ('one', 'two') do not match"),
    ],
)
def test_options_that_do_not_fit(options, error, message):
    with pytest.raises(error) as caught:
        learned("y ~ x + f + k + (1 | g)", frame(), **options)
    assert message in str(caught.value)


def test_no_user_text_is_run(tmp_path):
    canary = tmp_path / "canary"
    attempts = [
        f"open('{canary}', 'w')",
        f"I(__import__('os').system('touch {canary}'))",
        f"[c for c in ().__class__.__base__.__subclasses__()][0]('touch {canary}')",
        f"{{open('{canary}','w')}}",
        f"Q('x', open('{canary}','w'))",
        "`__import__('os')`",
    ]
    for attempt in attempts:
        with pytest.raises(FormulaError):
            learned(f"y ~ {attempt} + (1 | g)", frame())
    assert not canary.exists()


PIECES = (
    "y x z f g h 1 0 2.5 ~ + - * / : ^ ** | || ( ) [ ] , = < %in% 'a' ` . 1e400 nan @ \u00e9".split(" "),
    ["log(", "poly(", "C(", "I(", "offset(", "cbind("],
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    start=st.sampled_from(["", "y ~ ", "y ~ x + (1 | g) + "]),
    pieces=st.lists(st.sampled_from(PIECES[0] + PIECES[1]), max_size=12),
)
def test_whatever_is_typed_is_read_or_refused_with_a_formula_error(start, pieces):
    try:
        learned(start + " ".join(pieces), DATA)
    except (FormulaError, DataError) as error:
        assert str(error)


DATA = frame()
