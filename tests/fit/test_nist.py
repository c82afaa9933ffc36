"""NIST StRD one-way analysis of variance (https://www.itl.nist.gov/div898/strd/anova/anova.html) as a mixed model.

In a balanced one-way layout of I groups of J, REML gives sigma^2 = MSE and sigma_a^2 = (MSB - MSE) / J, and ML the same
with MSB (I - 1) / I. The certified sums of squares therefore certify a mixed model. The Simon-Lesage sets are
generated: a treatment mean (1.4, or 1.3 and 1.5 in turn) plus 0, then -0.1 and +0.1 in turn; their sums of squares are
asserted.
"""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

import bigmm
from tests.fit.conftest import write

SMALL_LARGE = {
    "SmLs01": (0, 21), "SmLs02": (0, 201), "SmLs03": (0, 2001),
    "SmLs04": (10**6, 21), "SmLs05": (10**6, 201), "SmLs06": (10**6, 2001),
    "SmLs07": (10**12, 21), "SmLs08": (10**12, 201), "SmLs09": (10**12, 2001),
}  # fmt: skip
#: digits that must agree, where the input, rounded to float64, has them
DIGITS = {**dict.fromkeys(["SmLs01", "SmLs02", "SmLs03", "SiRstv"], 13.0), "AtmWtAg": 9.5}
DIGITS |= dict.fromkeys(["SmLs04", "SmLs05", "SmLs06"], 9.5) | dict.fromkeys(["SmLs07", "SmLs08", "SmLs09"], 4.0)

SILICON = """196.3052 196.1240 196.1890 196.2569 196.3403
196.3042 196.3825 196.1669 196.3257 196.0422
196.1303 196.2005 196.2889 196.0343 196.1811
196.2795 196.1748 196.1494 196.1485 195.9885
196.2119 196.1051 196.1850 196.0052 196.2090"""
SILVER = """107.8681568 107.8681465 107.8681572 107.8681785 107.8681446 107.8681903 107.8681526 107.8681494 107.8681616
107.8681587 107.8681519 107.8681486 107.8681419 107.8681569 107.8681508 107.8681672 107.8681385 107.8681518 107.8681662
107.8681424 107.8681360 107.8681333 107.8681610 107.8681477 107.8681079 107.8681344 107.8681513 107.8681197 107.8681604
107.8681385 107.8681642 107.8681365 107.8681151 107.8681082 107.8681517 107.8681448 107.8681198 107.8681482 107.8681334
107.8681609 107.8681101 107.8681512 107.8681469 107.8681360 107.8681254 107.8681261 107.8681450 107.8681368"""


def simon_lesage(base: int, replicates: int) -> list[list[Fraction]]:
    means = [Fraction(14, 10)] + [Fraction(13, 10), Fraction(15, 10)] * 4
    pattern = [Fraction(0)] + [Fraction(-1, 10), Fraction(1, 10)] * ((replicates - 1) // 2)
    return [[base + mean + step for step in pattern] for mean in means]


def measured(text: str, groups: int) -> list[list[Fraction]]:
    values = [Fraction(number) for number in text.split()]
    size = len(values) // groups
    return [values[i * size : (i + 1) * size] for i in range(groups)]


DATA = {name: simon_lesage(*what) for name, what in SMALL_LARGE.items()}
DATA |= {"SiRstv": measured(SILICON, 5), "AtmWtAg": measured(SILVER, 2)}
CERTIFIED = {
    "SmLs01": ("1.68", "1.80"), "SmLs02": ("16.08", "18"), "SmLs03": ("160.08", "180"),
    "SiRstv": ("0.0511462616", "0.21663656"), "AtmWtAg": ("3.638341875e-9", None),
}  # fmt: skip
CERTIFIED |= {f"SmLs0{i}": CERTIFIED[f"SmLs0{(i - 1) % 3 + 1}"] for i in range(4, 10)}


def sums_of_squares(groups: list[list[Fraction]]) -> tuple[Fraction, Fraction]:
    """(between, within), exactly."""
    means = [sum(group) / len(group) for group in groups]
    grand = sum(means) / len(means)
    between = sum(len(group) * (mean - grand) ** 2 for group, mean in zip(groups, means, strict=True))
    within = sum((value - mean) ** 2 for group, mean in zip(groups, means, strict=True) for value in group)
    return Fraction(between), Fraction(within)


def components(groups: list[list[Fraction]], reml: bool) -> tuple[Fraction, Fraction]:
    """Certified (sigma_a^2, sigma^2); at the boundary sigma^2 is the total mean square."""
    between, within = sums_of_squares(groups)
    i, j = len(groups), len(groups[0])
    mse, msb = within / (i * (j - 1)), between / (i - 1)
    between_groups = (msb if reml else msb * (i - 1) / i) - mse
    if between_groups <= 0:
        return Fraction(0), (between + within) / (i * j - (1 if reml else 0))
    return between_groups / j, mse


def digits(found: float, certified: Fraction) -> float:
    """Log relative error, computed exactly; 17 for equal."""
    error = abs(Fraction(found) / certified - 1)
    return 17.0 if error == 0 else float(-np.log10(float(error)))


@pytest.mark.parametrize("name", DATA)
def test_generated_data_have_the_certified_sums_of_squares(name):
    between, within = sums_of_squares(DATA[name])
    assert between == Fraction(CERTIFIED[name][0])
    if CERTIFIED[name][1]:
        assert within == Fraction(CERTIFIED[name][1])
    else:
        assert float(within) == pytest.approx(1.04951729166667e-08, rel=1e-14)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", DATA)
def test_variance_components(name, reml, tmp_path):
    groups = DATA[name]
    rows = pd.DataFrame(
        {
            "y": [float(value) for group in groups for value in group],
            "g": [f"t{i}" for i, group in enumerate(groups) for _ in group],
        }
    )
    model = bigmm.lmm("y ~ 1 + (1 | g)", write(rows, tmp_path / f"{name}.parquet", 1000), reml=reml)
    certified = components(groups, reml)
    stored = components([[Fraction(float(value)) for value in group] for group in groups], reml)
    found = (model.theta[0] ** 2 * model.sigma**2, model.sigma**2)
    assert model.converged
    assert model.is_singular == (certified[0] == 0)
    for value, truth, attainable in zip(found, certified, stored, strict=True):
        if truth == 0:
            assert value == 0.0
        else:
            assert digits(value, truth) >= min(DIGITS[name], digits(float(attainable), truth) - 0.05)
