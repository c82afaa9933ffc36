"""Families and links by name: the table of what exists, and the frozen value that the rest of the package holds.

Kernels know them by small integers, because numba branches on numbers faster than it compiles one kernel per pair.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bigmm.arguments import did_you_mean
from bigmm.errors import UsageError

BERNOULLI, BINOMIAL, POISSON, NEGATIVE_BINOMIAL, GAUSSIAN, GAMMA, INVERSE_GAUSSIAN = range(7)
LOGIT, PROBIT, CLOGLOG, CAUCHIT, LOG, IDENTITY, INVERSE, SQRT = range(8)

LINKS = {
    "logit": LOGIT,
    "probit": PROBIT,
    "cloglog": CLOGLOG,
    "cauchit": CAUCHIT,
    "log": LOG,
    "identity": IDENTITY,
    "inverse": INVERSE,
    "sqrt": SQRT,
}
UNIT_LINKS = ("logit", "probit", "cloglog", "cauchit", "log", "identity")
"""For means between 0 and 1."""
POWER_LINKS = ("log", "identity", "inverse", "sqrt")
"""For positive means, and for the gaussian's."""

DISPERSION_MEANING = {
    NEGATIVE_BINOMIAL: "shape: variance = mu + mu^2 / shape",
    GAUSSIAN: "variance = phi / weight",
    GAMMA: "variance = phi mu^2 / weight",
    INVERSE_GAUSSIAN: "variance = phi mu^3 / weight",
}


@dataclass(frozen=True, slots=True)
class FamilyKind:
    """One row of the table of families; the first of ``links`` is the default; ``canonical`` may be no link at all."""

    family_id: int
    links: tuple[str, ...]
    canonical: str | None


FAMILIES = {
    "bernoulli": FamilyKind(BERNOULLI, UNIT_LINKS, "logit"),
    "binomial": FamilyKind(BINOMIAL, UNIT_LINKS, "logit"),
    "poisson": FamilyKind(POISSON, POWER_LINKS, "log"),
    "negative_binomial": FamilyKind(NEGATIVE_BINOMIAL, POWER_LINKS, None),
    "gaussian": FamilyKind(GAUSSIAN, ("identity", "log", "inverse", "sqrt"), "identity"),
    "gamma": FamilyKind(GAMMA, ("inverse", "log", "identity", "sqrt"), "inverse"),
    "inverse_gaussian": FamilyKind(INVERSE_GAUSSIAN, POWER_LINKS, None),
}

FAMILY_SPELLINGS = {
    "binary": "bernoulli",
    "normal": "gaussian",
    "nb": "negative_binomial",
    "nb2": "negative_binomial",
    "negbin": "negative_binomial",
    "negbinomial": "negative_binomial",
    "nbinom": "negative_binomial",
    "nbinom2": "negative_binomial",
    "negativebinomial": "negative_binomial",
    "inversegaussian": "inverse_gaussian",
    "invgauss": "inverse_gaussian",
    "ig": "inverse_gaussian",
}
LINK_SPELLINGS = {
    "logistic": "logit",
    "cauchy": "cauchit",
    "reciprocal": "inverse",
    "1/mu": "inverse",
    "inversepower": "inverse",
}


@dataclass(frozen=True, slots=True)
class Family:
    """A response distribution and its link.

    family_id, link_id: the numbers that the kernels branch on;
    has_dispersion: a parameter phi is estimated beside the mean (see `DISPERSION_MEANING`);
    canonical: expected and observed weights agree for every eta, so both Laplace criteria do.
    """

    name: str
    link: str
    family_id: int
    link_id: int
    has_dispersion: bool
    canonical: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.link} link)"


def family(name: str | Family, link: str | None = None) -> Family:
    """The family of that name; ``link`` None takes its default (logit, log; inverse for gamma as in R).

    Spellings of other packages are understood ("Gamma", "inverse.gaussian", "nb"); raises UsageError for unknown names
    and for pairs whose mean cannot be of that family.
    """
    if isinstance(name, Family):
        return name if link is None else family(name.name, link)
    known = _family_name(name)
    kind = FAMILIES[known]
    link = kind.links[0] if link is None else _link_name(link)
    if link not in kind.links:
        raise UsageError(f"link '{link}' does not go with family '{known}': use one of {', '.join(kind.links)}")
    has_dispersion = kind.family_id in DISPERSION_MEANING
    return Family(known, link, kind.family_id, LINKS[link], has_dispersion, link == kind.canonical)


CALL = re.compile(r"([A-Za-z][\w.]*)\s*\(\s*(?:link\s*=\s*)?['\"]?([\w./^]+)['\"]?\s*\)")
"""binomial(link = "logit") and the like, as R writes a family."""

_NOT_HERE = "it is not available"
_BY_LINK = "it is a link: write family='bernoulli', link={0!r}"
FAMILIES_ELSEWHERE = {
    "logistic": "write family='bernoulli', whose link is the logit",
    **{link: _BY_LINK.format(link) for link in ("logit", "probit", "cloglog", "cauchit")},
    **dict.fromkeys(("quasi", "quasipoisson", "quasibinomial", "quasibinom"), f"{_NOT_HERE}, for it has no likelihood"),
    **dict.fromkeys(("beta", "betafamily", "betabinomial", "tweedie", "nbinom1", "nb1", "student", "t"), _NOT_HERE),
    **dict.fromkeys(("zip", "zinb", "zipoisson", "truncatedpoisson", "hurdle"), _NOT_HERE),
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


def _named(what: str, thing: object) -> str:
    """What to write for another package's object or class of a family or link; "" where that is not clear."""
    kind = thing if isinstance(thing, type) else type(thing)
    known, link = re.sub(r"[\s._-]", "", kind.__name__).lower(), getattr(thing, "link", None)
    names = {name.replace("_", ""): name for name in (FAMILIES if what == "family" else LINKS)}
    names |= LINK_SPELLINGS if what == "link" else FAMILY_SPELLINGS
    if known not in names:
        return ""
    more = _named("link", link).removeprefix(": write ") if what == "family" and link is not None else ""
    return f": write {what}={names[known]!r}" + (f", {more}" if more else "")


def _family_name(name: str) -> str:
    folded = _fold(name, "family")
    for known in FAMILIES:
        if folded == known.replace("_", ""):
            return known
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


def _fold(text: str, what: str) -> str:
    call = CALL.fullmatch(text.strip()) if isinstance(text, str) else None
    if call is not None:
        raise UsageError(f"{what} {text!r} is a call of R: write {what}={call[1].lower()!r}, link={call[2]!r}")
    if not isinstance(text, str):
        raise UsageError(
            f"{what} must be a name such as {'poisson' if what == 'family' else 'log'!r}, not {text!r}"
            f"{_named(what, text)}"
        )
    return re.sub(r"[\s._-]", "", text).lower()
