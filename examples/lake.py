"""Crossed factors from a lake of Parquet files: a plan before the fit, the fit, a table of predictions.

python examples/lake.py
"""

import tempfile
from pathlib import Path

import bigmm
from bigmm.datasets import insteval, write_lake

formula = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"

with tempfile.TemporaryDirectory() as folder:
    lake = Path(folder) / "lake"
    write_lake(insteval(), lake, partition_by="dept")  # 73,421 ratings of lecturers by students, a file a department

    # what a fit will need, before any row is read
    print(bigmm.plan(formula, lake))

    m = bigmm.lmm(formula, lake, reml=False, memory_limit="2GB")
    print(m.summary())

    # the lecturers with the best ratings, given who rated them
    lecturers = m.ranef()["d"]
    print(lecturers.sort_values("Intercept", ascending=False).head(5))

    # one row for each coefficient, as R's broom gives them
    print(m.tidy())
