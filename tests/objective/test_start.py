"""The start from moments is positive, near the truth on large balanced data, and never off by the scale of the data."""

import numpy as np
import pytest

from bigmm.objective import moment_start
from tests.oracle import SHAPES, Rows, Shape


def test_near_the_truth_on_many_rows():
    model = Rows.draw(Shape(((60, 1, False), (40, 1, False)), n=2000, weighted=False), 0)
    np.testing.assert_allclose(moment_start(model.gram, model.templates), 1.0, rtol=0.35)


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_diagonals_are_positive_and_the_rest_is_zero(kind):
    model = Rows.draw(SHAPES[kind], 2)
    start = moment_start(model.gram, model.templates)
    scales = model.templates.lower == 0
    assert np.all(np.isfinite(start))
    assert np.all(start[scales] > 0)
    assert not start[~scales].any()


def test_the_scale_of_the_response_does_not_matter():
    model = Rows.draw(SHAPES["crossed slope"], 2)
    fields = ("shape", "refs", "z", "x", "factor", "w", "active", "shift")
    values = {name: getattr(model, name) for name in fields}
    scaled = Rows(**values, y=1e3 * model.y)
    flat = Rows(**{**values, "shift": 0.0}, y=model.y), Rows(**{**values, "shift": 0.0}, y=1e3 * model.y)
    assert np.all(np.isfinite(moment_start(scaled.gram, scaled.templates)))
    np.testing.assert_allclose(*(moment_start(m.gram, m.templates) for m in flat), rtol=1e-8)
