"""The JSON record: the contract's fields, no NaN."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bigmm.results import LmmResults

FIELDS = """formula family link reml nagq nobs n_groups objective llf aic bic theta sigma fixef se varcorr converged
is_singular optimizer passes seconds peak_rss_bytes dropped_rows solver monte_carlo_error""".split()


def test_fields(sleep):
    record = json.loads(json.dumps(sleep.as_record(), allow_nan=False))
    assert set(FIELDS) <= set(record)
    assert record["fixef"] == dict(sleep.params) and record["se"] == dict(sleep.bse)
    assert record["varcorr"][-1] == {
        "group": "Residual",
        "name1": None,
        "name2": None,
        "vcov": pytest.approx(sleep.scale),
        "sdcor": sleep.sigma,
    }
    assert record["theta"] == sleep.theta.tolist() and record["n_groups"] == {"Subject": 18}
    assert record["optimizer"]["evaluations"] > 0 and record["monte_carlo_error"] is None
    assert record["reml"] is True and record["family"] == "gaussian" and record["nagq"] is None


def test_nan_is_null(sleep):
    estimates = replace(sleep.fitted.estimates, beta=np.array([1.0, np.nan]))
    record = LmmResults(replace(sleep.fitted, estimates=estimates, dropped=(("x", 2), ("g", 1)))).as_record()
    assert record["fixef"]["Days"] is None and record["dropped_columns"] == ["Days"]
    assert record["dropped_rows"] == 3
