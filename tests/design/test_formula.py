"""lme4's formula language: what each formula means."""

from __future__ import annotations

import pytest

from bigmm.design.formula.expression import unparse
from bigmm.design.formula.linear import model_terms
from bigmm.design.formula.parser import parse, required_columns
from tests.design.frames import frame, learned


def bars(formula: str) -> list[tuple[str, list[str]]]:
    """(group, terms of its left-hand side written out) per random term."""
    found = []
    for bar in parse(formula).bars:
        names = {f"v{i}": unparse(node) for i, node in enumerate(bar.lhs.factors)}
        written = [":".join(names.get(part, part) for part in term.split(":")) for term in model_terms(bar.lhs)]
        found.append((bar.name, written))
    return found


@pytest.mark.parametrize(
    ("random", "expected"),
    [
        ("(1 | g)", [("g", ["1"])]),
        ("(x | g)", [("g", ["1", "x"])]),
        ("(1 + x | g)", [("g", ["1", "x"])]),
        ("(0 + x | g)", [("g", ["x"])]),
        ("(x - 1 | g)", [("g", ["x"])]),
        ("(-1 + x | g)", [("g", ["x"])]),
        ("(x || g)", [("g", ["1"]), ("g", ["x"])]),
        ("(0 + x || g)", [("g", ["x"])]),
        ("(x * z || g)", [("g", ["1"]), ("g", ["x"]), ("g", ["z"]), ("g", ["x:z"])]),
        ("(x + f || g)", [("g", ["1"]), ("g", ["x"]), ("g", ["f"])]),
        ("(1 | a:b)", [("a:b", ["1"])]),
        ("(1 | (a:b))", [("a:b", ["1"])]),
        ("(1 | a/b)", [("b:a", ["1"]), ("a", ["1"])]),
        ("(x || a/b)", [("b:a", ["1"]), ("b:a", ["x"]), ("a", ["1"]), ("a", ["x"])]),
        ("(1 | a/b/c)", [("c:(b:a)", ["1"]), ("b:a", ["1"]), ("a", ["1"])]),
        ("(1 | g) + (0 + x | g)", [("g", ["1"]), ("g", ["x"])]),
        ("(1 | g) + (1 | h) + z", [("g", ["1"]), ("h", ["1"])]),
        ("((1 | g) + (1 | h))", [("g", ["1"]), ("h", ["1"])]),
        ("(1 | factor(g))", [("factor(g)", ["1"])]),
        ("(1 | `my group`)", [("my group", ["1"])]),
        ("(log(x) + poly(z, 2) | g)", [("g", ["1", "log(x)", "poly(z, 2)"])]),
    ],
)
def test_random_terms(random, expected):
    assert bars(f"y ~ {random}") == expected


def test_interactions_keep_the_order_of_their_names():
    assert parse("y ~ (1 | a/b/c)").bars[0].variables == ("c", "b", "a")
    assert parse("y ~ (1 | a:b)").bars[0].variables == ("a", "b")


def test_offsets_are_gathered_and_summed():
    data = frame()
    spec = learned("y ~ x + offset(log(w)) + offset(z) + (1 | g)", data, offset="count")
    chunk = spec.encode(__import__("pyarrow").Table.from_pandas(data), "here")
    import numpy as np

    np.testing.assert_allclose(chunk.offset, np.log(data["w"]) + data["z"] + data["count"])
    assert spec.layout.fixed_names == ("Intercept", "x")


def test_responses():
    assert parse("log(y) ~ (1 | g)").kind == "numeric"
    assert parse("cbind(a, n - a) ~ (1 | g)").kind == "cbind"
    assert parse("a / n ~ (1 | g)").kind == "ratio"
    assert unparse(parse("I(y/2) ~ (1 | g)").response) == "I(y / 2)"
    assert parse("log(a / n) ~ (1 | g)").kind == "numeric"


def test_columns_in_order_of_use():
    parsed = parse("log(y) ~ x * C(f, Sum) + offset(o) + (z | a/b) + (1 | g)")
    assert required_columns(parsed) == ("y", "x", "f", "o", "z", "b", "a", "g")


def test_terms_of_the_fixed_part_may_stand_anywhere():
    data = frame()
    scattered = learned("y ~ (1 | g) + f:x + x + (z + (1 | h)) + f", data)
    assert scattered.layout.fixed_names == (
        "Intercept", "x", "z", "f[T.lo]", "f[T.mid]", "f[T.lo]:x", "f[T.mid]:x",
    )  # fmt: skip
    assert scattered.layout.fixed_names[1:3] == ("x", "z")


def test_a_one_inside_a_product_is_the_intercept():
    data = frame()
    for written, plain in (
        ("(1 + x) * f", "x * f"),
        ("(1 + x)^2", "x"),
        ("(1 + x):z", "z + x:z"),
        ("(x + z - x)^2", "z"),
    ):
        names = learned(f"y ~ {written} + (1 | g)", data).layout.fixed_names
        assert sorted(names) == sorted(learned(f"y ~ {plain} + (1 | g)", data).layout.fixed_names)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("I(x^2)", "I(x ** 2)"),
        ("I( -x**2 )", "I(-x ** 2)"),
        ("I((x+z)*2)", "I((x + z) * 2)"),
        ("I(x-(z-1))", "I(x - (z - 1))"),
        ("I((-x)^2)", "I((-x) ** 2)"),
        ("I(2^x^z)", "I(2 ** x ** z)"),
        ("bs(x,df = 4)", "bs(x, df=4)"),
        ("bs(x, knots=c(1,2.5))", "bs(x, knots=[1, 2.5])"),
        ('C(f, Treatment(base="b"))', "C(f, Treatment(base='b'))"),
        ("poly(x, 2, raw=TRUE)", "poly(x, 2, raw=True)"),
        ("I(x>=2)", "I(x >= 2)"),
    ],
)
def test_canonical_text(written, canonical):
    node = parse(f"y ~ {written} + (1 | g)").fixed.factors[0]
    assert unparse(node) == canonical
    assert unparse(parse(f"y ~ {canonical} + (1 | g)").fixed.factors[0]) == canonical
