"""Fits that earlier versions saved are loaded by this one and give the numbers that they gave then."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bigmm
from bigmm.errors import UsageError
from tests.saved_fits import FITS, SAVED, answers, unpack

ARCHIVES = sorted(SAVED.glob("*/*.zip"))
TOLERANCE = 1e-6
"""Relative; the numbers come from another processor. Estimates are stored; errors and modes are computed again."""


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_saved_fit_answers_as_it_did(archive, tmp_path):
    model = bigmm.load(unpack(archive, tmp_path / archive.stem))
    expected = json.loads((archive.parent / "numbers.json").read_text())[archive.stem]
    answered = answers(model, archive.stem)
    assert list(answered) == list(expected)
    for question, answer in expected.items():
        _compare(answered[question], answer, question)


def _compare(answered, expected, question):
    if isinstance(expected, dict):
        assert list(answered) == list(expected), question
        for key, value in expected.items():
            _compare(answered[key], value, f"{question} of {key}")
    elif isinstance(expected, str):
        assert answered == expected, question
    else:
        size = np.abs(np.asarray(expected, float)).max(initial=0.0)
        np.testing.assert_allclose(answered, expected, rtol=TOLERANCE, atol=TOLERANCE * size, err_msg=question)


def test_every_kind_of_fit_is_kept_and_small():
    assert {path.stem for path in ARCHIVES} >= set(FITS)
    assert sum(path.stat().st_size for path in SAVED.rglob("*") if path.is_file()) < 1_000_000


def test_a_fit_of_arrays_is_not_saved(tmp_path):
    """Should it be one day, then it belongs to the fits that are kept."""
    rows = np.arange(12.0)
    z = np.kron(np.eye(4), np.ones((3, 1)))
    model = bigmm.lmm_from_arrays(np.sin(rows), np.ones((12, 1)), z, lambda theta: theta[0] * np.eye(4), theta0=[1.0])
    with pytest.raises(UsageError, match="cannot be saved"):
        model.save(tmp_path / "fit")
