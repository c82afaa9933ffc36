"""Random terms: (covariates | grouping), with / in the grouping and || written out as lme4 does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bigmm.covariance import STRUCTURES
from bigmm.design.formula.expression import quoted
from bigmm.design.formula.linear import LinearPart, additive, fail, linear_part, model_terms, uncorrelated
from bigmm.design.formula.tokens import Token, closing, split_top


@dataclass(frozen=True, slots=True)
class Bar:
    """One random term (lhs | group).

    Attributes
    ----------
    lhs : the covariates.
    name : lme4's name of the group.
    variables : the columns behind the group, in the name's order.
    position : position of the bar in the formula.
    structure : name of the covariance structure of the covariates' effects.
    """

    lhs: LinearPart
    name: str
    variables: tuple[str, ...]
    position: int
    structure: str = "us"


def expand_bar(formula: str, tokens: Sequence[Token]) -> list[Bar]:
    """The random terms of one bracket, or of a structure and its bracket: ``/`` in the grouping and ``||`` written out,
    as lme4 does."""
    structure = tokens[0].text if tokens[0].kind == "name" else "us"
    inner = tokens[2:-1] if tokens[0].kind == "name" else tokens[1:-1]
    pieces = split_top(inner, ("|", "||"))
    if len(pieces) > 2:
        fail(formula, "a random term has one bar", pieces[2][0].start)  # type: ignore[union-attr]
    bar = pieces[1][0]
    assert bar is not None
    if bar.text == "||" and tokens[0].kind == "name":
        fail(formula, f"'||' makes independent terms, so it cannot be inside {structure}(); write '|'", bar.start)
    effects, grouping = pieces[0][1], pieces[1][1]
    if not effects:
        fail(formula, "the left of the bar is empty; write (1 | g) for an intercept per level", bar.start)
    if not grouping:
        fail(formula, "the grouping factor after the bar is missing", bar.start)
    # The text of the effects is checked before the grouping, so that carets come from left to right.
    part = linear_part(formula, [(sign.text if sign else "+", piece) for sign, piece in additive(formula, effects)])
    groups = _groups(formula, grouping)
    _check_lhs(formula, part, groups[0][1])
    parts = uncorrelated(part) if bar.text == "||" else [part]
    # (0 | g) is right grammar, but nothing is there whose variance could be estimated.
    if not model_terms(part):
        fail(formula, "no random effect is left of the bar", bar.start)
    return [Bar(lhs, name, variables, bar.start, structure) for name, variables in groups for lhs in parts]


def is_structured(tokens: Sequence[Token]) -> bool:
    """Whether tokens are one call with a bar that is in no further brackets: cs(0 + f | g)."""
    if len(tokens) < 3 or tokens[0].kind != "name" or tokens[1].text != "(" or closing(tokens, 1) != len(tokens) - 1:
        return False
    return len(split_top(tokens[2:-1], ("|", "||"))) > 1


def check_structure(formula: str, name: Token) -> None:
    """Raise FormulaError for a structure that does not exist."""
    if name.text not in STRUCTURES:
        choices = ", ".join(f"{structure_name}()" for structure_name in STRUCTURES)
        message = f"there is no covariance structure {name.text!r}; the structures of a random term are {choices}"
        fail(formula, message, name.start)


def distinct_names(bars: Sequence[Bar]) -> tuple[Bar, ...]:
    """The bars, with backticks in the name of a grouping where another one is called the same: `a:b` beside a:b."""
    variables: dict[str, set[tuple[str, ...]]] = {}
    for bar in bars:
        variables.setdefault(bar.name, set()).add(bar.variables)
    return tuple(
        bar if len(variables[bar.name]) == 1 else replace(bar, name=":".join(map(quoted, bar.variables)))
        for bar in bars
    )


def _check_lhs(formula: str, part: LinearPart, variables: tuple[str, ...]) -> None:
    for node in part.factors:
        if node.kind == "name" and node.value in variables:
            fail(formula, f"the grouping factor {node.value!r} cannot be left of its own bar", node.position)


Group = tuple[str, tuple[str, ...]]


def _groups(formula: str, tokens: Sequence[Token]) -> list[Group]:
    """Groupings a/b/c -> c:(b:a), b:a, a with lme4's names; a:b stays one."""
    pieces = split_top(tokens, ("/",))
    groups: list[Group] = []
    for slash, piece in pieces:
        if not piece:
            position = slash.start if slash else tokens[0].start
            fail(formula, "a grouping factor is missing beside '/'", position)
        name, variables = _interaction(formula, piece)
        if groups:
            outer_name, outer = groups[0]
            # lme4 writes c:(b:a) for the third level of nesting. VarCorr and ranef are indexed by these names.
            nested = f"({outer_name})" if ":" in outer_name else outer_name
            name, variables = f"{name}:{nested}", (*variables, *outer)
        groups.insert(0, (name, variables))
    return groups


def _interaction(formula: str, tokens: Sequence[Token]) -> Group:
    names: list[str] = []
    variables: list[str] = []
    for colon, piece in split_top(tokens, (":",)):
        if not piece:
            fail(formula, "a grouping factor is missing beside ':'", colon.start if colon else tokens[0].start)
        name, behind = _grouping_atom(formula, piece)
        names.append(name)
        variables += behind
    return ":".join(names), tuple(variables)


def _grouping_atom(formula: str, tokens: Sequence[Token]) -> Group:
    first = tokens[0]
    if first.text == "(" and first.kind == "open" and closing(tokens, 0) == len(tokens) - 1:
        groups = _groups(formula, tokens[1:-1])
        if len(groups) > 1:
            fail(formula, "'/' cannot be inside brackets here; write the terms out", first.start)
        return groups[0]
    if len(tokens) == 1 and first.kind == "name":
        # The name is kept without backticks, as lme4 shows it; `distinct_names` restores them where names collide.
        return first.text, (first.text,)
    if first.kind == "number":
        fail(formula, f"the grouping factor must be a column, not the number {first.text}", first.start)
    if first.text in ("factor", "as.factor", "C") and len(tokens) == 4 and tokens[2].kind == "name":
        return f"{first.text}({tokens[2].text})", (tokens[2].text,)
    odd = next((token for token in tokens if token.kind == "operator"), first)
    fail(formula, "a grouping factor is a column, a:b or a/b; write two groupings as two terms", odd.start)
