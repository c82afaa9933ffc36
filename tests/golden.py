"""Golden masters: the numbers of many fits as hexadecimal floats, so that a move of code can be shown to keep bits.

The same source gives other last bits on another processor or with another BLAS. A record therefore carries the machine
that made it. `differences` compares bits where the machine is the same, and digits where it is another one.

    python -m tests.golden --write          record the fits of this tree in tests/reference/golden.json, on purpose
    python -m tests.golden --write FILE     record them elsewhere: before a move of code
    python -m tests.golden FILE             compare the fits of this tree with a record: after the move
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy
from threadpoolctl import threadpool_info

import bigmm
from bigmm.datasets import insteval
from bigmm.planning import placement, sharding

RECORD = Path(__file__).parent / "reference" / "golden.json"
DIGITS = 1e-6
"""Relative difference that another processor may make: the search stops where steps no longer change the criterion."""
LEVELS = 3
"""Conditional modes of so many levels are written out; the digest is of all."""

Fit = Callable[[], Any]


def machine() -> dict[str, Any]:
    """What the last bits depend on besides the source."""
    kernels = sorted({str(pool.get("architecture")) for pool in threadpool_info() if pool["user_api"] == "blas"})
    versions = {module.__name__: module.__version__ for module in (np, scipy, numba, pd, pa)}
    return {"processor": llvm.get_host_cpu_name(), "blas": kernels, "versions": versions}


def reference_fits() -> Iterator[tuple[str, Fit]]:
    """The fits that the tests compare with lme4."""
    from tests import test_reference, test_reference_glmm

    for name, case in test_reference.CASES.items():
        yield f"linear/{name}", lambda case=case: test_reference.fit_case(case)
    for name, case in test_reference_glmm.CASES.items():
        yield f"generalized/{name}", lambda case=case: test_reference_glmm.Fit(case).model


def iterative_fits() -> Iterator[tuple[str, Fit]]:
    """Crossed factors by conjugate gradients and probes."""
    formula = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"
    for reml in (False, True):
        yield (
            f"iterative/InstEval {'REML' if reml else 'ML'}",
            lambda reml=reml: bigmm.lmm(formula, insteval(), reml=reml, solver="iterative", mc_tol=(0.01, 0.05)),
        )
    high = insteval().head(8000).assign(high=lambda d: d.y >= 4)
    yield (
        "iterative/InstEval bernoulli",
        lambda: bigmm.glmm("high ~ service + (1 | s) + (1 | d)", high, family="bernoulli", solver="iterative", se="rx"),
    )


def pupils(seed: int = 4, count: int = 1500, rows: int = 9000) -> pa.Table:
    """Pupils in classes in schools, in no order."""
    rng = np.random.default_rng(seed)
    pupil, x = rng.integers(0, count, rows), rng.normal(size=rows)
    y = 1.0 + 0.5 * x + rng.normal(size=rows)
    for size, deviation in ((1, 0.7), (10, 0.5), (50, 0.4)):
        y += deviation * rng.normal(size=count)[pupil // size]
    answer = (y > 1.0).astype(float)
    return pa.table({"y": y, "x": x, "answer": answer, "pupil": pupil, "class": pupil // 10, "school": pupil // 50})


class Workers:
    """Fits whose levels or rows are kept in shards, on threads and on a cluster of two processes."""

    FORMULAS = ("y ~ x + (1 | pupil)", "y ~ x + (1 + x | pupil)", "y ~ x + (1 | school) + (1 | class) + (1 | pupil)")

    def __init__(self, folder: Path):
        table = pupils()
        for number, part in enumerate(np.array_split(np.arange(table.num_rows), 12)):
            pq.write_table(table.take(pa.array(part)), folder / f"{number:02}.parquet")
        self.folder = str(folder)

    def fits(self, where: str, **options: Any) -> Iterator[tuple[str, Fit]]:
        """The fits on one kind of worker; options: `client=` or `n_workers=`."""
        for formula in self.FORMULAS:
            yield f"{where}/levels: {formula}", lambda formula=formula: bigmm.lmm(formula, self.folder, **options)
        yield (
            f"{where}/rows: nested bernoulli",
            lambda: bigmm.glmm("answer ~ x + (1 | school/class)", self.folder, family="bernoulli", **options),
        )


def numbers(model: Any) -> dict[str, Any]:
    """The numbers of one fit as hexadecimal floats: objective, theta, gradient, coefficients, errors, sigma, modes."""
    modes = [np.ascontiguousarray(frame.to_numpy(float)) for frame in model.ranef().values()]
    digest = hashlib.sha256(b"".join(frame.tobytes() for frame in modes)).hexdigest()
    return {
        "objective": _hex(model.objective),
        "theta": _hex(model.theta),
        "gradient": _hex(model.optimizer_result.gradient),
        "coefficients": _hex(model.params),
        "errors": _hex(model.bse),
        "sigma": _hex(model.sigma),
        "modes": [_hex(frame[:LEVELS]) for frame in modes],
        "digest of all modes": digest,
    }


def _hex(values: Any) -> list[str]:
    return [float(value).hex() for value in np.ravel(np.asarray(values, float))]


def record(shown: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """The machine, and the numbers of every fit of this tree."""
    import distributed

    fits: dict[str, Any] = {}

    def take(pairs: Iterator[tuple[str, Fit]]) -> None:
        for name, fit in pairs:
            shown(name)
            fits[name] = numbers(fit())

    take(reference_fits())
    take(iterative_fits())
    share, small = placement.SHARE, sharding.SMALL_ROWS
    placement.SHARE, sharding.SMALL_ROWS = 10**9, 100  # levels and rows are cut into shards, however few they are
    try:
        with tempfile.TemporaryDirectory() as folder:
            workers = Workers(Path(folder))
            take(workers.fits("threads", n_workers=2))
            settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
            with distributed.LocalCluster(**settings, silence_logs=50) as cluster, cluster.get_client() as client:
                take(workers.fits("cluster", client=client))
    finally:
        placement.SHARE, sharding.SMALL_ROWS = share, small
    return {"machine": machine(), "fits": fits}


def differences(expected: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    """One line for each number that is not what the record says: every bit on the same machine, else `DIGITS`.

    Gradients at the optimum are rounding, and modes follow from the rest: on another machine neither is compared.
    """
    same = expected["machine"] == actual["machine"]
    lines = [f"{name}: only in one of the records" for name in sorted(set(expected["fits"]) ^ set(actual["fits"]))]
    for name in sorted(set(expected["fits"]) & set(actual["fits"])):
        before, after = expected["fits"][name], actual["fits"][name]
        if same:
            lines += [f"{name}: {key} {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]
            continue
        for key in ("objective", "coefficients", "sigma"):
            one, two = (np.array([float.fromhex(x) for x in side[key]]) for side in (before, after))
            if one.shape != two.shape or not np.allclose(one, two, rtol=DIGITS, atol=DIGITS, equal_nan=True):
                lines.append(f"{name}: {key} {one} -> {two}")
    return lines


def main() -> int:
    """Write or compare a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=RECORD)
    parser.add_argument("--write", action="store_true", help="record the fits of this tree in FILE")
    arguments = parser.parse_args()
    found = record(lambda name: print(name, flush=True))
    if arguments.write:
        arguments.file.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    lines = differences(json.loads(arguments.file.read_text()), found)
    print("\n".join(lines) or f"{len(found['fits'])} fits: as recorded")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
