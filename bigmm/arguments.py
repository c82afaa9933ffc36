"""Arguments of public functions: a call that does not fit is answered with what was meant.

Users bring the names of lme4, glmmTMB, statsmodels and pandas. `NAMES_ELSEWHERE` is the one table of these names, and
`strict` the one place that reads it.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from bigmm.errors import ArgumentError, UsageError
from bigmm.forks import at_work

Function = TypeVar("Function", bound=Callable[..., Any])

Kind = TypeVar("Kind")

PACKAGE = str(Path(__file__).parent) + os.sep

LONGEST_VALUE = 40
"""A value is repeated in a message when its text has at most so many characters."""

_LEVEL = "the confidence level is level=, such as level=0.95"
_INTERVALS = "confidence intervals are in conf_int(level=...) and tidy(level=...)"
_NO_INTERVALS = "intervals of predictions are not available; se=True gives their standard errors"
_CHOICE = "which random effects count is random=: True for all, False for none (re.form=NA), or a list of groups"
_GROUPS = "grouping factors belong to the formula: y ~ x + (1 | group)"
_EFFECTS = "random effects belong to the formula: (1 + x | group), and variance components (1 | group/item)"
_FIXED_FAMILY = "another family than the normal is fitted by glmm(formula, data, family=...)"
_TRIALS = "numbers of trials are weights=, or cbind(successes, failures) on the left of the formula"
_EXPOSURE = "an exposure is an offset on the scale of the linear predictor: offset(log(column)) in the formula"
_REPEATS = "weights= are prior weights, Var(e) = sigma^2 / weight; they do not repeat rows"
_SEARCH = "the search is chosen by optimizer=, started by theta0=; there is no control list"

NAMES_ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    # lme4
    "nagq": {"": "nagq= belongs to glmm(): a linear mixed model has nothing to integrate numerically"},
    "control": {"optimizer": _SEARCH},
    "start": {"theta0": "starting values of theta are theta0="},
    "startparams": {"theta0": "starting values of theta are theta0="},
    "subset": {"filter": "rows are chosen by filter=, such as filter=\"x > 3 and g == 'a'\""},
    "query": {"filter": "rows are chosen by filter=, such as filter=\"x > 3 and g == 'a'\""},
    "naaction": {"drop_missing": "rows with missing values are dropped unless drop_missing=False"},
    "missing": {"drop_missing": "rows with missing values are dropped unless drop_missing=False"},
    "verbose": {"progress": "progress=True shows a bar"},
    "reform": {"random": _CHOICE, "use_modes": "estimated random effects are kept by use_modes=True (use.u)"},
    "useu": {"use_modes": "estimated random effects are kept by use_modes=True"},
    "allownewlevels": {"new_levels": "levels that are new are treated as new_levels= says: 'population' or 'raise'"},
    "sefit": {"se": "standard errors are se=True"},
    "n": {"nsim": "the number of simulated responses is nsim="},
    "postvar": {"condvar": "conditional standard deviations are condvar=True"},
    "refit": {"": "lrt() refits REML fits by maximum likelihood by itself"},
    # glmmTMB
    "ziformula": {"family": "zero inflation is not available"},
    "dispformula": {"": "models of the dispersion or the residual variance are not available"},
    "zi": {"family": "zero inflation is not available"},
    # statsmodels
    "method": {
        "reml": "REML or maximum likelihood is reml=True or reml=False; the search is optimizer=",
        "family": "the search is chosen by optimizer=; generalized models are fitted by maximum likelihood",
    },
    "groups": {"formula": _GROUPS},
    "group": {"formula": _GROUPS},
    "reformula": {"formula": _EFFECTS, "random": _CHOICE},
    "vcformula": {"formula": _EFFECTS},
    "random": {"formula": _EFFECTS},
    "correlation": {"formula": "correlation structures of the residuals are not available"},
    "alpha": {"level": _LEVEL, "family": "the dispersion is estimated with the other parameters", "": _INTERVALS},
    "conflevel": {"level": _LEVEL, "": _INTERVALS},
    "confint": {"level": "confidence limits are always there, at level=0.95"},
    "width": {"level": _LEVEL},
    "exposure": {"offset": _EXPOSURE},
    "freqweights": {"weights": _REPEATS},
    "varweights": {"weights": _REPEATS},
    "sampleweight": {"weights": _REPEATS},
    "priorweights": {"weights": _REPEATS},
    "interval": {"se": _NO_INTERVALS},
    "exog": {"newdata": "new rows are newdata=", "X": "new rows are X="},
    "which": {"type": "the scale of predictions is type='response' or type='link'"},
    "linear": {"type": "the scale of predictions is type='response' or type='link'"},
    "transform": {"type": "the scale of predictions is type='response' or type='link'"},
    # what is for the other kind of model
    "family": {"reml": _FIXED_FAMILY},
    "link": {"reml": _FIXED_FAMILY},
    "success": {"reml": "success= belongs to glmm() with family='bernoulli' or 'binomial'"},
    "laplace": {"reml": "laplace= belongs to glmm()"},
    "reml": {"family": "REML is for linear mixed models; glmm() is fitted by maximum likelihood"},
    # many packages
    "trials": {"weights": _TRIALS},
    "ntrials": {"weights": _TRIALS},
    "size": {"weights": _TRIALS},
    "randomstate": {"seed": "the seed is seed=, a whole number"},
    "rng": {"seed": "the seed is seed=, a whole number"},
    "njobs": {"n_workers": "threads of this process are n_workers="},
    "threads": {"n_workers": "threads of this process are n_workers="},
    "chunksize": {"partition_bytes": "rows are cut by partition_bytes="},
    "df": {"data": "the table is data="},
    "frame": {"data": "the table is data="},
    "test": {"": "a likelihood-ratio table has always the chi-square test"},
    "level": {"se": _NO_INTERVALS, "": _INTERVALS},
}
"""Name elsewhere, folded -> {one of our arguments: advice where the function has it}; "" for every function."""


def folded(name: str) -> str:
    """The name without capitals, points and underscores."""
    return name.lower().replace("_", "").replace(".", "")


def strict(function: Function, name: str = "") -> Function:
    """The function, whose calls that do not fit the signature raise ArgumentError with what was meant, and which is
    refused in a process that was forked while another call ran.

    name: how messages call it, its own name by default.
    """
    signature, name = inspect.signature(function), name or function.__name__

    @wraps(function)
    def call(*positional: Any, **named: Any) -> Any:
        try:
            # Bound beforehand: a TypeError of the body is a fault of another kind and must pass as it is.
            signature.bind(*positional, **named)
        except TypeError as error:
            raise ArgumentError(_misfit(name, signature, positional, named, str(error))) from None
        with at_work():
            return function(*positional, **named)

    return cast(Function, call)


def strict_class(kind: type[Kind]) -> type[Kind]:
    """The class, whose constructor is `strict`."""
    kind.__init__ = strict(kind.__init__, kind.__name__)  # type: ignore[misc, method-assign]
    return kind


def _misfit(
    function: str, signature: inspect.Signature, positional: tuple[Any, ...], named: Mapping[str, Any], error: str
) -> str:
    """Why a call does not fit, in a whole sentence."""
    parameters = {name: p for name, p in signature.parameters.items() if name != "self"}
    names = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [name for name in named if name not in names]
    if unknown:
        advice = (_advice(function, name, named[name], names) for name in unknown)
        return "; ".join(f"{function}() has no argument {name!r}: {text}" for name, text in zip(unknown, advice))
    places = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    n_positional = len(positional) - ("self" in signature.parameters)
    if n_positional > len(places):
        return (
            f"{function}() takes {_listed(places) or 'nothing'} by position, but {n_positional} values were given: "
            f"write the names of the others, such as {next((n for n in names if n not in places), names[-1])}="
        )
    required = [n for i, (n, p) in enumerate(parameters.items()) if p.default is p.empty and i >= n_positional]
    absent = [n for n in required if n not in named and parameters[n].kind not in _OPEN]
    if absent:
        examples = [f"{name}={EXAMPLES[name]}" for name in absent if name in EXAMPLES]
        return f"{function}() needs {_listed(absent)}" + (f", such as {', '.join(examples)}" if examples else "")
    return f"{function}() was called wrongly: {error}"


_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

EXAMPLES = {"family": "'bernoulli'", "formula": "'y ~ x + (1 | g)'"}
"""Values of arguments that have to be given."""


def _advice(function: str, name: str, value: Any, names: list[str]) -> str:
    """What was probably meant by an unknown argument."""
    spellings = {folded(argument): argument for argument in names}
    if folded(name) in spellings:
        shown = repr(value) if isinstance(value, (bool, int, float, str)) else "..."
        return f"write {spellings[folded(name)]}={shown if len(shown) <= LONGEST_VALUE else '...'}"
    for argument, advice in NAMES_ELSEWHERE.get(folded(name), {}).items():
        if advice and (not argument or argument in names):
            return advice
    close = did_you_mean(name, names)
    return close or f"it takes {_listed(names) or 'none'}"


def did_you_mean(name: Any, candidates: Iterable[Any]) -> str:
    """ "did you mean 'x'?" for the nearest of the known names whatever their capitals, "" where none is near."""
    close = nearest(name, candidates)
    return "" if close is None else f"did you mean {close!r}?"


def nearest(name: Any, candidates: Iterable[Any], likeness: float = 0.6) -> Any:
    """The nearest of the known names whatever their capitals, None where none is as like as that."""
    texts = {str(candidate).lower(): candidate for candidate in candidates}
    close = get_close_matches(str(name).lower(), list(texts), 1, likeness)
    return texts[close[0]] if close else None


def _listed(names: Iterable[str]) -> str:
    *most, last = [*names] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def true_or_false(name: str, value: Any) -> bool:
    """An option that is a bool, checked: reml="ML" would be true; raises UsageError."""
    if not isinstance(value, (bool, np.bool_)):
        raise UsageError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def callers_level() -> int:
    """The stacklevel with which its caller warns at the line of the user: the first frame outside of the package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
