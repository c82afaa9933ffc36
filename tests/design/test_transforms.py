"""Stateful transforms learn from all rows, never from the first, and are replayed on others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bigmm.design.transforms.splines import b_spline, natural_spline
from bigmm.design.transforms.summaries import ColumnMoments, Quantiles
from bigmm.errors import DataError
from tests.design.frames import frame, learned, model_matrix


def sorted_frame() -> pd.DataFrame:
    """Sorted by x, so that the first partition knows nothing of the rest."""
    return frame(300).sort_values("x").reset_index(drop=True)


def column(term: str, data: pd.DataFrame) -> np.ndarray:
    return model_matrix(learned(f"y ~ {term} + (1 | g)", data), data)[:, 1:]


def test_center_and_scale():
    data = sorted_frame()
    x = data["x"].to_numpy()
    np.testing.assert_allclose(column("center(x)", data)[:, 0], x - x.mean(), atol=1e-14)
    np.testing.assert_allclose(column("scale(x)", data)[:, 0], (x - x.mean()) / x.std(ddof=1), rtol=1e-12, atol=1e-14)
    root = np.sqrt((x**2).sum() / (len(x) - 1))
    np.testing.assert_allclose(column("scale(x, center=False)", data)[:, 0], x / root, rtol=1e-12)
    np.testing.assert_allclose(column("scale(x, scale=FALSE)", data)[:, 0], x - x.mean(), atol=1e-14)
    np.testing.assert_allclose(column("scale(x, 1, 2)", data)[:, 0], (x - 1) / 2, atol=1e-14)


def test_moments_lose_nothing_to_a_large_mean():
    x = np.random.default_rng(0).normal(size=3000)
    moments = ColumnMoments(("x",), lambda table: table["x"].to_numpy())
    for part in np.array_split(x + 1e9, 7):
        moments = moments.update(pa.table({"x": part}), "here")
    exact = (x + 1e9) - 1e9  # what rounding left of x
    assert moments.squares == pytest.approx(((exact - exact.mean()) ** 2).sum(), rel=1e-13)
    assert (moments.n, moments.low, moments.high) == (3000, (x + 1e9).min(), (x + 1e9).max())


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("degree", [1, 2, 5, 8])
def test_poly_is_orthonormal_with_rising_columns_as_in_r(degree, shift):
    data = sorted_frame()
    data["x"] += shift
    basis = column(f"poly(x, {degree})", data)
    np.testing.assert_allclose(basis.T @ basis, np.eye(degree), atol=1e-10)
    np.testing.assert_allclose(basis.sum(axis=0), 0, atol=1e-10)
    assert (basis[-1] > 0).all()  # the leading coefficient is positive


def test_transforms_inside_transforms():
    data = sorted_frame()
    inner = np.log(data["w"].to_numpy())
    scaled = (inner - inner.mean()) / inner.std(ddof=1)
    np.testing.assert_allclose(column("scale(log(w))", data)[:, 0], scaled, rtol=1e-12, atol=1e-13)
    centered = scaled**2 - (scaled**2).mean()
    np.testing.assert_allclose(column("center(I(scale(log(w))^2))", data)[:, 0], centered, rtol=1e-10, atol=1e-12)
    poly = column("poly(scale(x), 2)", data)
    np.testing.assert_allclose(poly, column("poly(x, 2)", data), atol=1e-12)


def test_missing_values_are_no_part_of_the_state():
    data = frame()
    data.loc[3:9, "x"] = np.nan
    x = data["x"].dropna().to_numpy()
    np.testing.assert_allclose(column("scale(x)", data)[:, 0], (x - x.mean()) / x.std(ddof=1), rtol=1e-12, atol=1e-14)


def test_splines_are_replayed_and_extended():
    data = sorted_frame()
    for term, width in (("bs(x, df=5)", 5), ("bs(x, df=6, intercept=TRUE)", 6), ("ns(x, df=4)", 4), ("cr(x, df=4)", 4)):
        spec = learned(f"y ~ {term} + (1 | g)", data)
        assert len(spec.layout.fixed_names) == 1 + width
        far = pa.table({"x": [-50.0, 0.0, 50.0, None], "g": ["g1"] * 4})
        new = spec.encode_new(far).columns
        assert np.isfinite(new[:, :3]).all() and np.isnan(new[:, 3]).all()
        assert spec.layout.fixed_names[1] == f"{term.replace('TRUE', 'True')}[1]"


def test_b_splines_sum_to_one_and_knots_may_be_given():
    x = np.linspace(-1, 2, 50)
    basis = b_spline(x, -1.0, 2.0, np.array([0.0, 1.0]), 3, True)
    assert basis.shape == (50, 6)
    np.testing.assert_allclose(basis.sum(axis=1), 1, atol=1e-14)
    given = column("bs(x, knots=c(-0.5, 0.5), Boundary.knots=c(-9, 9))", frame())
    assert given.shape[1] == 5


def test_natural_splines_are_straight_outside_and_span_all_natural_cubics():
    inner = np.array([0.2, 0.5, 0.7])
    x = np.linspace(-1, 2, 301)
    basis = natural_spline(x, 0.0, 1.0, inner, False)
    assert basis.shape == (301, 4)
    second = np.diff(basis, 2, axis=0)
    outside = (x[1:-1] < -0.02) | (x[1:-1] > 1.02)
    np.testing.assert_allclose(second[outside], 0, atol=1e-12)
    # the truncated-power basis of natural cubic splines lies in the span of 1 and ours
    knots = np.array([0.0, *inner, 1.0])
    last = (np.clip(x - knots[-2], 0, None) ** 3 - np.clip(x - knots[-1], 0, None) ** 3) / (knots[-1] - knots[-2])
    for knot in knots[:-2]:
        power = (np.clip(x - knot, 0, None) ** 3 - np.clip(x - knots[-1], 0, None) ** 3) / (knots[-1] - knot) - last
        full = np.column_stack([np.ones_like(x), basis])
        fit = full @ np.linalg.lstsq(full, power, rcond=None)[0]
        np.testing.assert_allclose(fit, power, atol=1e-9)


def test_quantiles_are_exact_on_modest_data_and_close_on_large(monkeypatch):
    x = np.random.default_rng(1).gamma(2.0, size=20_000).round(3)
    at = np.array([0.1, 0.25, 0.5, 0.9, 0.99])

    def sketch(parts: int) -> Quantiles:
        result = Quantiles(("x",), lambda table: table["x"].to_numpy())
        for part in np.array_split(np.sort(x), parts):
            result = result.update(pa.table({"x": part}), "here")
        return result

    np.testing.assert_allclose(sketch(9).quantiles(at), np.quantile(x, at), rtol=1e-14)
    monkeypatch.setattr("bigmm.design.transforms.summaries._SKETCH", 1000)
    rough = sketch(9)
    assert len(rough.points) <= 1000
    assert rough.weights.sum() == len(x)
    ranks = np.searchsorted(np.sort(x), rough.quantiles(at)) / len(x)
    np.testing.assert_allclose(ranks, at, atol=5e-3)
    np.testing.assert_array_equal(rough.points, sketch(9).points)


@pytest.mark.parametrize(
    ("term", "values", "message"),
    [
        ("scale(x)", [2.0] * 8, r"scale\(x\): the column is constant, it cannot be scaled"),
        ("poly(x, 2)", [2.0] * 8, r"poly\(x, 2\) needs more than 2 distinct values; the column is constant"),
        ("poly(x, 3)", [1.0, 2.0, 3.0, 1.0] * 2, r"poly\(x, 3\) needs more than 3 distinct values in the column"),
        ("bs(x, df=4)", [2.0] * 8, "must lie strictly inside the boundaries"),
        ("bs(x, knots=[9])", [1.0, 2.0] * 4, r"knots \[9.0\] must lie strictly inside the boundaries 1.0 and 2.0"),
        ("center(x)", [None] * 8, r"center\(x\): the column has no values"),
    ],
)
def test_data_that_cannot_carry_a_transform(term, values, message):
    data = pa.table({"y": np.arange(8.0), "x": pa.array(values, pa.float64()), "g": list("ab") * 4})
    with pytest.raises(DataError, match=message):
        learned(f"y ~ {term} + (1 | g)", data)
