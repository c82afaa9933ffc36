"""A pattern analysed once and filled again and again gives what analysing afresh gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bigmm.blocks.analysis import analyse
from bigmm.blocks.exact.factor import factorize
from bigmm.blocks.numeric_update import NumericUpdate
from tests.blocks.models import GENERAL, theta_of
from tests.oracle import Rows


@pytest.mark.parametrize("shape", GENERAL.values(), ids=GENERAL)
def test_refilled_structure_is_the_analysed_one(shape):
    rows = Rows.draw(shape, 1)
    other = replace(rows, w=np.random.default_rng(9).uniform(0.1, 3.0, len(rows.y)), y=rows.y**2)
    refill = NumericUpdate(rows.gram)
    for model in (rows, other, rows):
        gram = model.gram
        found, expected = refill(gram), analyse(gram)
        assert found.gram is gram
        assert np.array_equal(found.base, expected.base)
        for one, two in zip(found.stages, expected.stages, strict=True):
            assert np.array_equal(one.data, two.data)
            assert np.array_equal(one.diagonal, two.diagonal) and np.array_equal(one.dense, two.dense)
            assert np.array_equal(one.columns, two.columns) and np.array_equal(one.indptr, two.indptr)
        assert found.transposed.keys() == expected.transposed.keys()
        for pair, block in found.transposed.items():
            assert np.array_equal(block.data, expected.transposed[pair].data)


@pytest.mark.parametrize("shape", GENERAL.values(), ids=GENERAL)
def test_factors_agree(shape):
    rows = Rows.draw(shape, 2)
    changed = replace(rows, w=np.random.default_rng(3).uniform(0.1, 3.0, len(rows.y)))
    lams = rows.covariances.joint(theta_of(rows))
    found = factorize(NumericUpdate(rows.gram)(changed.gram), lams)
    expected = factorize(analyse(changed.gram), lams)
    assert found.logdet_z == expected.logdet_z
    assert np.array_equal(np.tril(found.tail), np.tril(expected.tail))


def test_an_entry_that_is_zero_now_keeps_its_place():
    """Weights may underflow to 0 and come back: the pattern must not lose an entry for that."""
    rows = Rows.draw(GENERAL["crossed"], 3)
    with np.errstate(divide="ignore"):
        refill = NumericUpdate(replace(rows, w=np.where(np.arange(60) < 20, 0.0, 1.0)).gram)
    lams = rows.covariances.joint(theta_of(rows))
    found, expected = factorize(refill(rows.gram), lams), factorize(analyse(rows.gram), lams)
    assert found.logdet_z == pytest.approx(expected.logdet_z, rel=1e-13)
