"""What `help(bigmm)` shows: public functions and methods are described, with their parameters; examples are true."""

from __future__ import annotations

import doctest
import inspect
import re

import pytest

import bigmm
import bigmm.datasets
import bigmm.sklearn
from bigmm.fit import lmm_from_arrays
from bigmm.results.arrays_model import LmmArraysResults

CLASSES = (
    bigmm.LmmResults,
    bigmm.GlmmResults,
    LmmArraysResults,
    bigmm.sklearn.LMMRegressor,
    bigmm.sklearn.GLMMClassifier,
    bigmm.sklearn.GLMMRegressor,
)
FUNCTIONS = (bigmm.lmm, bigmm.glmm, lmm_from_arrays, bigmm.plan, bigmm.load, bigmm.lrt, bigmm.datasets.write_lake)
OURS = "bigmm."


def members(cls):
    """The public functions and properties that the package defines for a class."""
    for name, member in inspect.getmembers(cls, lambda m: inspect.isfunction(m) or isinstance(m, property)):
        function = member.fget if isinstance(member, property) else inspect.unwrap(member)
        if not name.startswith("_") and function.__module__.startswith(OURS):
            yield f"{cls.__name__}.{name}", member


DESCRIBED = {f.__name__: f for f in FUNCTIONS} | dict(pair for cls in CLASSES for pair in members(cls))


def sections(text):
    """{heading: lines} of a numpydoc text."""
    pieces = re.split(r"^(\w[\w ]*)\n-{3,}\n", text, flags=re.M)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


@pytest.mark.parametrize("name", DESCRIBED)
def test_it_is_described_in_a_sentence(name):
    text = inspect.getdoc(DESCRIBED[name])
    assert text, name
    assert re.search(r"[.:]( |$)|\.$", text.split("\n\n")[0]), text


@pytest.mark.parametrize("name", [name for name, member in DESCRIBED.items() if not isinstance(member, property)])
def test_each_parameter_is_described(name):
    function = DESCRIBED[name]
    text = inspect.getdoc(function)
    parameters = [
        p.name for p in inspect.signature(inspect.unwrap(function)).parameters.values() if p.name not in ("self", "cls")
    ]
    described = sections(text).get("Parameters")
    if described is None:
        assert len(parameters) <= 3, "a sentence can describe X, y and sample_weight, not more"
        return
    listed = re.findall(r"^(\*{0,2}\w[\w*, ]*?)(?: : .*)?$", described, flags=re.M)
    names = {word.strip().lstrip("*") for line in listed for word in line.split(",")}
    assert set(parameters) <= names


@pytest.mark.parametrize("name", DESCRIBED)
def test_examples_are_true(name):
    text = inspect.getdoc(DESCRIBED[name])
    if ">>>" in text:
        test = doctest.DocTestParser().get_doctest(text, {"bigmm": bigmm}, name, None, None)
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_classes_are_described(cls):
    assert inspect.getdoc(cls)
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(cls), {"bigmm": bigmm}, cls.__name__, None, None)
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0
