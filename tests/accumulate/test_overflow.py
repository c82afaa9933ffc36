"""Values whose squares are no numbers are named; none of them may end as an error of linear algebra."""

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.errors import DataError


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


@pytest.mark.parametrize("weight", [1e12, 1e14, 1e16, 1e20, 1e30])
def test_one_weight_that_outweighs_all_others(weight):
    """Sums about that row's value look ordinary, and the fit would be another one at every weight."""
    data = rows()
    data.loc[3, "w"] = weight
    with pytest.raises(DataError, match="nearly all of the weight is on so few of the 200 rows"):
        bigmm.lmm("y ~ x + (1 | g)", data, weights="w")


def test_weights_that_are_large_or_next_to_nothing():
    """The limit of a large weight is reached, and half of the rows with hardly any weight are no reason to refuse."""
    data = rows()
    weighted = [data.assign(w=np.where(data.index == 3, weight, 1.0)) for weight in (1e8, 1e10)]
    large, larger = (bigmm.lmm("y ~ x + (1 | g)", each, weights="w") for each in weighted)
    assert larger.params.to_numpy() == pytest.approx(large.params.to_numpy(), abs=1e-4 * large.bse.min())
    light = data.assign(w=np.where(data.index < 100, 1.0, 1e-20))
    some, all_rows = (
        bigmm.lmm("y ~ x + (1 | g)", light[:100], weights="w"),
        bigmm.lmm("y ~ x + (1 | g)", light, weights="w"),
    )
    assert all_rows.nobs == 200
    assert np.isfinite(all_rows.objective)
    assert all_rows.theta.shape == some.theta.shape


def test_units_of_a_million_millions_are_ordinary():
    data = rows()
    one = bigmm.lmm("y ~ x + (1 | g)", data)
    other = bigmm.lmm("y ~ x + (1 | g)", data.assign(y=data.y * 1e12, x=data.x * 1e-12))
    assert other.params["x"] == pytest.approx(one.params["x"] * 1e24, rel=1e-6)
