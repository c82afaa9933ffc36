"""lme4 in an R process of its own; its time is that of lmer() alone, the data lie in memory before."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.peers.task import Missing, PeerFit, Task

_SCRIPT = Path(__file__).with_name("lme4.R")


def fit(task: Task, repeats: int = 1) -> PeerFit:
    """Raises `Missing` without Rscript or lme4."""
    if shutil.which("Rscript") is None:
        raise Missing("lme4: Rscript is not installed")
    with tempfile.TemporaryDirectory(prefix="bigmm-bench-") as folder:
        data = Path(folder) / "data.csv"
        pyarrow.csv.write_csv(pq.read_table(task.path), data)
        command = ["Rscript", str(_SCRIPT), str(data), task.formula, ",".join(task.factors), str(repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if "missing" in found:
        raise Missing("lme4: the R package is not installed")
    if done.returncode:
        raise Missing(f"lme4: failed on {task.name}: {done.stderr.strip()[-300:]}")
    sds = dict(zip(found["names"].split(","), map(float, found["sds"].split(",")), strict=True))
    fixed = tuple(map(float, found["fixed"].split(",")))
    seconds = float(found["seconds"])
    # Crossed factors end in a dense factorization, so the BLAS that R has decides lme4's time: the reader must know.
    tuned = any(name in found["blas"] for name in ("openblas", "mkl", "blis", "atlas"))
    note = f"BLAS {Path(found['blas']).name} ({'tuned' if tuned else 'reference, slow'})"
    program = f"lme4 {found['version']}"
    return PeerFit(program, seconds, "lmer() only", float(found["llf"]), fixed, _labelled(sds), note)


def _labelled(sds: dict[str, float]) -> dict[str, float]:
    return {name.replace("(Intercept)", "1"): value for name, value in sds.items()}
