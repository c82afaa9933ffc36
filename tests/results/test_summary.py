"""The printed summary: lme4's layout, and every note that a user needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bigmm.results import LmmResults
from bigmm.results.summary import numbers, p_text


def changed(model: LmmResults, **changes) -> str:
    """The summary with some of the fit's facts replaced."""
    return str(LmmResults(replace(model.fitted, **changes)).summary())


def test_layout(sleep):
    text = str(sleep.summary())
    lines = text.splitlines()
    assert lines[0].startswith("Linear mixed model fit by REML (bigmm ")
    assert lines[1] == "Formula: Reaction ~ Days + (Days | Subject)"
    assert "1743.6" in text and "REML crit." in text
    for expected in [
        " Groups   Name      Variance Std.Dev. Corr",
        " Residual             654.94   25.592",
        "Number of obs: 180, groups: Subject, 18",
        "           Estimate Std. Error   df t value Pr(>|t|)",
        " t tests with degrees of freedom by Satterthwaite's method",
        "Correlation of fixed effects:",
        " Days -0.138",
    ]:
        assert expected in lines, expected
    days = next(line for line in lines if line.startswith(" Days  "))
    assert days.split() == ["Days", "10.467", "1.546", "17.0", "6.771", "3.26e-06"]
    slope = next(line for line in lines if line.lstrip().startswith("Days") and line.endswith("0.07"))
    assert slope.split() == ["Days", "35.07", "5.922", "0.07"]


def test_html(sleep):
    page = sleep.summary()._repr_html_()
    assert page.count("<table>") == 4 and "<td>Subject</td>" in page
    assert "Pr(&gt;|t|)" in page
    assert sleep._repr_html_() == page and str(sleep) == str(sleep.summary())
    assert repr(sleep).startswith("<LmmResults 'Reaction ~ Days + (Days | Subject)': 180 rows, REML criterion 1743.62")


def test_weights_and_offset_are_named(crossed):
    text = str(crossed.summary())
    assert "Weights: w" in text and "Offset: off" in text


def test_notes(sleep):
    text = changed(sleep, rows_read=190, dropped=(("Days", 7), ("Subject", 3), ("Reaction", 0)), is_singular=True)
    assert "10 of 190 rows dropped for missing values or zero weights: 7 (Days), 3 (Subject)" in text
    assert "boundary (singular) fit" in text
    outcome = replace(sleep.fitted.outcome, status="stopped", advice="try another optimizer")
    text = changed(sleep, outcome=outcome)
    assert "NOT certified as converged" in text and "try another optimizer" in text
    assert "NOT certified" not in str(sleep.summary()) and "singular" not in str(sleep.summary())


def test_dropped_columns_are_named(sleep):
    estimates = replace(sleep.fitted.estimates, beta=np.array([1.0, np.nan]), vcov=np.diag([1.0, np.nan]))
    text = changed(sleep, estimates=estimates)
    assert "columns dropped because they depend on earlier ones: Days" in text
    assert any(line.split() == ["Days", "NA", "NA", "NA", "NA", "NA"] for line in text.splitlines())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([251.4051, 10.46729], ["251.41", "10.47"]),
        ([0.00012345, 0.5], ["0.0001234", "0.5000000"]),
        ([0.0, 0.0], ["0", "0"]),
        ([np.nan, 2.0], ["NA", "2.000"]),
        ([1e12, 1.0], ["1e+12", "1"]),
    ],
)
def test_numbers(values, expected):
    assert numbers(np.array(values)) == expected


def test_p_values():
    assert [p_text(p) for p in (0.5, 1e-5, 1e-20, np.nan)] == ["0.5000", "1.00e-05", "<2e-16", "NA"]
