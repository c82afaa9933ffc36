"""Every formula of the shipped lme4 reference is read, and gives lme4's columns, terms, levels and rows."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest

from bigmm.design import learn
from bigmm.execute import executor
from bigmm.source import open_source

HERE = Path(__file__).resolve().parents[1] / "reference"


@cache
def reference() -> dict:
    return json.loads((HERE / "reference.json").read_text())


def cases() -> list[dict]:
    """One case per formula and data set."""
    found = {(case["data"], case["formula"], case["weights"]): case for case in reference()["cases"]}
    return list(found.values())


def r_name(name: str) -> str:
    return "(Intercept)" if name == "Intercept" else re.sub(r"\[(?:T\.)?([^\]]*)\]", r"\1", name)


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case['data']}: {case['formula']}")
def test_lme4_columns_terms_and_rows(case):
    described = reference()["datasets"][case["data"]]
    source = open_source(HERE / "data" / f"{case['data']}.parquet")
    categories = {c["name"]: c["levels"] for c in described["columns"] if c["type"] == "category"}
    spec = learn(
        case["formula"],
        source,
        executor(n_workers=1),
        weights=case["weights"],
        offset=case["offset"],
        categories=categories,
    )
    expected = case["expected"]
    dropped = expected.get("dropped_columns") or []
    assert [r_name(name) for name in spec.layout.fixed_names if name not in dropped] == expected["fixef_names"]
    wanted = [
        (row["group"], row["var1"]) for row in expected["varcorr"] if row["group"] != "Residual" and not row["var2"]
    ]
    assert [(term.group, r_name(name)) for term in spec.layout.terms for name in term.names] == wanted
    rows = sum(spec.encode(source.read(p, spec.used_columns), p.where).rows for p in source.partitions)
    assert rows == expected["nobs"]
    levels = {grouping.name: grouping.n_levels for grouping in spec.layout.groupings}
    assert levels == {name: expected["ngroups"][name] for name in levels}
