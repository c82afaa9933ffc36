"""Values whose squares are no numbers are named; none of them may end as an error of linear algebra."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numba import config

import bigmm
from bigmm.errors import DataError

compiled = pytest.mark.skipif(config.DISABLE_JIT, reason="the interpreter warns of overflow where kernels do not")


def rows() -> pd.DataFrame:
    rng, n = np.random.default_rng(1), 200
    y, x, w = rng.normal(size=n), rng.normal(size=n), np.ones(n)
    return pd.DataFrame({"y": y, "x": x, "w": w, "g": np.arange(n) % 10, "h": np.arange(n) % 7, "c": rng.poisson(3, n)})


@pytest.mark.parametrize("value", [1e308, 1e200, 1e160])
@pytest.mark.parametrize(
    "column, message",
    [
        ("w", "the weights add up to .* too large to compute with: check their largest values"),
        ("y", "the squares of the response 'y' add up to .* too large to compute with: check its largest values"),
        ("x", "the squares of column 'x' add up to .* too large to compute with: check its largest values"),
    ],
)
def test_one_value_that_is_too_large(column, message, value):
    data = rows()
    data.loc[3, column] = value
    for formula in ("y ~ x + (1 | g)", "y ~ x + (1 + x | g) + (1 | h)"):
        with pytest.raises(DataError, match=message):
            bigmm.lmm(formula, data, weights="w")
    if column != "y":
        with pytest.raises(DataError, match=message):
            bigmm.glmm("c ~ x + (1 | g)", data, family="poisson", weights="w")


@compiled
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("value", [3.4e154, -1e155, 1e300, -1.7e308])
@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x * z + (1 + x | g)", "y ~ z + x + (z + x || g)"])
def test_one_value_whose_square_is_too_large(formula, value):
    """The choice of what is taken off columns before they are summed meets it first: it neither warns nor stops."""
    data = rows().assign(z=np.random.default_rng(3).normal(size=200))
    for column in ("x", "y"):
        for row in (3, 199):
            changed = data.copy()
            changed.loc[row, column] = value
            with pytest.raises(DataError, match="too large to compute with"):
                bigmm.lmm(formula, changed)


@compiled
@pytest.mark.parametrize("family", ["poisson", "gamma", "inverse_gaussian"])
def test_a_response_of_a_generalized_model(family):
    data = rows().assign(p=np.random.default_rng(2).gamma(2.0, 1.0, 200))
    name = "c" if family == "poisson" else "p"
    data[name] = data[name].astype(float)
    data.loc[3, name] = 1e308
    with pytest.raises(DataError, match=f"the squares of the response '{name}' add up to"):
        bigmm.glmm(f"{name} ~ x + (1 | g)", data, family=family, link="log")


def test_a_whole_column_whose_variance_has_no_square():
    data = rows()
    data["y"] *= 1e150
    with pytest.raises(DataError, match=r"the squares of the response 'y' add up to .*e\+302"):
        bigmm.lmm("y ~ x + (1 | g)", data)


def test_one_weight_that_outweighs_all_others():
    """As it grows the estimates have a limit, which is nearly reached at 1e6; at 1e14 rounding has spoilt them."""
    data = rows()
    fits = []
    for weight in (1e8, 1e11):
        data.loc[3, "w"] = weight
        fits.append(bigmm.lmm("y ~ x + (1 | g)", data, weights="w"))
    assert np.all(np.abs(fits[0].params - fits[1].params) < 1e-4 * fits[0].bse)
    for weight in (1e14, 1e20, 1e30):
        data.loc[3, "w"] = weight
        with pytest.raises(DataError, match="nearly all of the weight is on so few of the 200 rows"):
            bigmm.lmm("y ~ x + (1 | g)", data, weights="w")


def test_units_of_a_million_millions_are_ordinary():
    data = rows()
    one = bigmm.lmm("y ~ x + (1 | g)", data)
    other = bigmm.lmm("y ~ x + (1 | g)", data.assign(y=data.y * 1e12, x=data.x * 1e-12))
    assert other.params["x"] == pytest.approx(one.params["x"] * 1e24, rel=1e-6)


@pytest.mark.parametrize("value", [1e300, 1e200, 1e160])
def test_matrices(value):
    data = rows()
    far = np.where(np.arange(200) == 3, value, data.x)
    z = sp.csr_array((np.ones(200), (np.arange(200), data.g)))
    x, one = data[["x"]].to_numpy(), np.ones(200)
    with pytest.raises(DataError, match=r"the squares of column 1 of X \(counted from 0\) add up to"):
        bigmm.lmm_from_arrays(data.y.to_numpy(), np.column_stack([one, far]), z)
    with pytest.raises(DataError, match="the squares of y, less any offset, add up to"):
        bigmm.lmm_from_arrays(far, np.column_stack([one, x]), z)


@compiled
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("place", [3, 180])
def test_a_value_that_is_too_large_says_nothing_else(place):
    """In the first rows, by which columns are shifted, as after them; no warning of NumPy's beside the error."""
    data = rows()
    data.loc[place, "x"] = 1e200
    with pytest.raises(DataError, match="the squares of column 'x' add up to"):
        bigmm.lmm("y ~ x + (1 + x | g)", data, partition_bytes=1000)
