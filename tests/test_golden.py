"""The numbers of a fit change only on purpose: golden masters on the machine that recorded them, digits on others."""

from __future__ import annotations

import copy
import json

import pytest

from tests import golden

EVERY = 9
"""One reference fit in so many is compared on every run of the tests; `make check-slow` compares all."""


@pytest.fixture(scope="module")
def recorded():
    return json.loads(golden.RECORD.read_text())


def sample(recorded):
    fits = dict(golden.reference_fits())
    return [name for name in recorded["fits"] if name in fits][::EVERY], fits


def test_every_reference_fit_is_recorded(recorded):
    assert {name for name, _ in golden.reference_fits()} <= set(recorded["fits"])


def test_a_sample_of_the_fits_is_as_recorded(recorded):
    names, fits = sample(recorded)
    assert len(names) > 8
    actual = {"machine": golden.machine(), "fits": {name: golden.numbers(fits[name]()) for name in names}}
    expected = recorded | {"fits": {name: recorded["fits"][name] for name in names}}
    assert golden.differences(expected, actual) == []


@pytest.mark.slow
@pytest.mark.cluster
def test_every_fit_is_as_recorded(recorded):
    actual = golden.record()
    assert golden.differences(recorded, actual) == []
    for name, numbers in actual["fits"].items():
        if name.startswith("threads/"):
            assert numbers == actual["fits"][name.replace("threads/", "cluster/")]


def test_one_bit_is_a_difference_on_the_same_machine_only(recorded):
    name = next(iter(recorded["fits"]))
    changed = copy.deepcopy(recorded)
    value = float.fromhex(changed["fits"][name]["objective"][0])
    changed["fits"][name]["objective"] = [(value * (1.0 + 2.0**-52)).hex()]
    assert len(golden.differences(recorded, changed)) == 1
    changed["machine"] = {"processor": "another"}
    assert golden.differences(recorded, changed) == []
    changed["fits"][name]["objective"] = [(value + 1.0).hex()]
    assert len(golden.differences(recorded, changed)) == 1


def test_a_fit_that_is_missing_is_a_difference(recorded):
    fewer = copy.deepcopy(recorded)
    name = next(iter(fewer["fits"]))
    del fewer["fits"][name]
    assert golden.differences(recorded, fewer) == [f"{name}: only in one of the records"]
