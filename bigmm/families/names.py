"""Families and links by the names that users write, those of other packages included."""

from __future__ import annotations

import re

from bigmm.arguments import did_you_mean
from bigmm.errors import UsageError
from bigmm.families.links import LINKS, SIGMOID_LINKS
from bigmm.families.registry import FAMILIES, Family

FAMILY_SPELLINGS = {spelling: name for name, record in FAMILIES.items() for spelling in record.spellings}
FAMILY_SPELLINGS |= {name.replace("_", ""): name for name in FAMILIES}
LINK_SPELLINGS = {
    "logistic": "logit",
    "cauchy": "cauchit",
    "reciprocal": "inverse",
    "1/mu": "inverse",
    "inversepower": "inverse",
}


def family(name: str | Family, link: str | None = None) -> Family:
    """The family of a name and a link.

    Parameters
    ----------
    name : a name of the registry, another package's spelling of it ("Gamma", "inverse.gaussian", "nb"), or a family.
    link : name of the link. None takes the family's default.

    Raises
    ------
    UsageError
        The name is unknown, or the link does not go with the family.
    """
    if isinstance(name, Family):
        return name if link is None else family(name.name, link)
    name = _family_name(name)
    record = FAMILIES[name]
    link = record.links[0] if link is None else _link_name(link)
    if link not in record.links:
        raise UsageError(f"link '{link}' does not go with family '{name}': use one of {', '.join(record.links)}")
    number = tuple(FAMILIES).index(name)
    return Family(name, link, number, LINKS[link], record.dispersion != "none", link == record.canonical)


CALL = re.compile(r"([A-Za-z][\w.]*)\s*\(\s*(?:link\s*=\s*)?['\"]?([\w./^]+)['\"]?\s*\)")
"""binomial(link = "logit") and the like, as R writes a family."""

# A hint is worth more than a list of names: users come with the names of their last package.
_NOT_HERE = "it is not available"
_BY_LINK = "it is a link: write family='bernoulli', link={0!r}"
FAMILIES_ELSEWHERE = {
    "logistic": "write family='bernoulli', whose link is the logit",
    **{link: _BY_LINK.format(link) for link in SIGMOID_LINKS},
    **dict.fromkeys(("quasi", "quasipoisson", "quasibinomial", "quasibinom"), f"{_NOT_HERE}, for it has no likelihood"),
    **dict.fromkeys(("betabinomial", "tweedie", "nbinom1", "nb1", "student", "t", "zip", "zinb"), _NOT_HERE),
    **dict.fromkeys(("zipoisson", "hurdle", "truncatednbinom1", "truncatednbinom2"), _NOT_HERE),
    **dict.fromkeys(("lognormal", "ordinal", "cumulative", "multinomial", "categorical"), _NOT_HERE),
}
"""Folded names of other packages' families, and what to say of them."""

LINKS_ELSEWHERE = {
    "ln": "write link='log'",
    "expit": "write link='logit'",
    "sigmoid": "write link='logit'",
    "loglog": _NOT_HERE,
}
"""Folded names of other packages' links, and what to say of them."""


def _hint(text: str) -> str:
    return f"; {text}" if text else ""


def _object_hint(argument: str, value: object) -> str:
    """What to write for another package's object or class of a family or link; "" where that is not clear."""
    kind = value if isinstance(value, type) else type(value)
    folded, link = re.sub(r"[\s._-]", "", kind.__name__).lower(), getattr(value, "link", None)
    names = {**FAMILY_SPELLINGS} if argument == "family" else {name: name for name in LINKS} | LINK_SPELLINGS
    if folded not in names:
        return ""
    more = _object_hint("link", link).removeprefix(": write ") if argument == "family" and link is not None else ""
    return f": write {argument}={names[folded]!r}" + (f", {more}" if more else "")


def _family_name(name: str) -> str:
    folded = _fold(name, "family")
    if folded not in FAMILY_SPELLINGS:
        hint = _hint(FAMILIES_ELSEWHERE.get(folded, "") or did_you_mean(name, FAMILIES))
        raise UsageError(f"unknown family {name!r}: use one of {', '.join(FAMILIES)}{hint}")
    return FAMILY_SPELLINGS[folded]


def _link_name(link: str) -> str:
    folded = _fold(link, "link")
    folded = LINK_SPELLINGS.get(folded, folded)
    if folded not in LINKS:
        hint = _hint(LINKS_ELSEWHERE.get(folded, "") or did_you_mean(link, LINKS))
        raise UsageError(f"unknown link {link!r}: use one of {', '.join(LINKS)}{hint}")
    return folded


def _fold(text: str, argument: str) -> str:
    # R's call is refused with what to write instead, so that its link is not lost silently.
    call = CALL.fullmatch(text.strip()) if isinstance(text, str) else None
    if call is not None:
        raise UsageError(f"{argument} {text!r} is a call of R: write {argument}={call[1].lower()!r}, link={call[2]!r}")
    if not isinstance(text, str):
        example = "poisson" if argument == "family" else "log"
        raise UsageError(f"{argument} must be a name such as {example!r}, not {text!r}{_object_hint(argument, text)}")
    return re.sub(r"[\s._-]", "", text).lower()
