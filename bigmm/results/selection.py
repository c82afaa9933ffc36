"""What ``random=`` says: all random effects, none, or those of some groups and terms of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bigmm.arguments import did_you_mean
from bigmm.design.formula.bars import Bar
from bigmm.design.formula.expression import unparse
from bigmm.design.formula.parser import parse
from bigmm.errors import FormulaError, UsageError
from bigmm.results.effects import joint_names, random_joints
from bigmm.results.fitted import FittedModel
from bigmm.results.predictor import ALL, NONE, Selection


def selection(fitted: FittedModel, random: Any) -> Selection:
    """The random effects that ``random=`` names.

    Parameters
    ----------
    random: True (all), False (none), or a list of groups (``"g"``, ``"batch/cask"``) and terms (``"(1 | g)"``), each
        with the covariates of the fit's own term or some of them.

    Raises UsageError for anything else, and for groups and terms that the fit does not have.
    """
    if isinstance(random, (bool, np.bool_)):
        return ALL if random else NONE
    shown = _choices(fitted)
    if not isinstance(random, (list, tuple)):
        inner = f"; for one group write [{random!r}]" if isinstance(random, str) and _is_choice(random, shown) else ""
        raise UsageError(
            f"random={random!r}: it is True (all random effects), False (none, the population), or a list of groups or "
            f"terms such as {shown[:1]!r}{inner}"
        )
    chosen: dict[int, set[int]] = {}
    for name in random:
        for number, slots in _named(fitted, name).items():
            chosen.setdefault(number, set()).update(slots)
    # Columns of other groupings may then be absent from the new data.
    names = frozenset(_grouping_name(fitted, number) for number in chosen)
    return Selection(tuple(tuple(sorted(chosen.get(n, ()))) for n in range(len(fitted.joints))), names)


def _choices(fitted: FittedModel) -> list[str]:
    """Groups, then terms in the formula's language."""
    groups = [_grouping_name(fitted, number) for number, _ in random_joints(fitted)]
    terms = [f"({' + '.join(_covariate(name) for name in t.names)} | {t.group})" for t in fitted.terms]
    return [*groups, *dict.fromkeys(terms)]


def _covariate(name: str) -> str:
    return "1" if name == "Intercept" else name


def _is_choice(text: str, shown: Sequence[str]) -> bool:
    return text.replace(" ", "") in {name.replace(" ", "") for name in shown}


def _grouping_name(fitted: FittedModel, number: int) -> str:
    return fitted.joints[number].name


def _named(fitted: FittedModel, name: Any) -> dict[int, set[int]]:
    """{joint term: places of its covariates} of one group or term."""
    whole = {_grouping_name(fitted, n): (n, set(range(len(joint.covariates)))) for n, joint in random_joints(fitted)}
    if not isinstance(name, str):
        raise UsageError(f"random= lists groups or terms as text, such as {_choices(fitted)[:1]!r}, not {name!r}")
    if name in whole:
        return dict([whole[name]])
    term = next((term for term in fitted.terms if term.group == name), None)
    if term is not None:  # "g.1", as the summary names a second term of a group
        return {term.joint: set(term.slots)}
    is_term = "|" in name
    bars = _bars(fitted, name if is_term else f"(1 | {name})", name)
    # By sets of columns: cask:batch and batch:cask are one grouping.
    groups = {frozenset(fitted.joints[n].factor.variables): n for n, _ in whole.values()}
    places: dict[int, set[int]] = {}
    for bar in bars:
        number = groups.get(frozenset(bar.variables))
        if number is None:
            raise _unknown(fitted, name)
        slots = _slots(fitted, bar, number, name) if is_term else set(range(len(fitted.joints[number].covariates)))
        places.setdefault(number, set()).update(slots)
    return places


def _bars(fitted: FittedModel, text: str, name: str) -> tuple[Bar, ...]:
    """The random terms that a text holds, and nothing else."""
    wrapped = text if text.lstrip().startswith("(") else f"({text})"
    try:
        # The formula's own parser, so that "batch/cask" and "(x || g)" mean here what they mean there.
        parsed = parse(f"{unparse(fitted.spec.parsed.response)} ~ 1 + {wrapped}")
    except FormulaError:
        raise _unknown(fitted, name) from None
    if parsed.fixed.factors or parsed.offsets:
        raise UsageError(f"random= names {name!r}, which has more than random terms; write one such as '(1 | g)'")
    return parsed.bars


def _slots(fitted: FittedModel, bar: Bar, number: int, name: str) -> set[int]:
    """Places of a term's covariates among those of the fit's joint term."""
    spec = fitted.spec
    fit_factors = {unparse(node) for fit_bar in spec.parsed.bars for node in fit_bar.lhs.factors}
    if not {unparse(node) for node in bar.lhs.factors} <= fit_factors:
        raise _unknown(fitted, name)
    factor = fitted.joints[number].factor
    names = spec.covariate_names(replace(bar, name=factor.name, variables=factor.variables))
    places = {text: slot for slot, text in joint_names(fitted, number).items()}
    lost = [text for text in names if text not in places]
    if lost:
        raise UsageError(
            f"random= names {name!r}, but the fit has no random effect of {lost[0]!r} by "
            f"{_grouping_name(fitted, number)!r}; it has {', '.join(_choices(fitted))}"
        )
    return {places[text] for text in names}


def _unknown(fitted: FittedModel, name: str) -> UsageError:
    shown = _choices(fitted)
    hint = did_you_mean(name, shown)
    return UsageError(
        f"random= names {name!r}, which is no group or term of the fit; {hint + ' ' if hint else ''}"
        f"it has {', '.join(shown)}"
    )
