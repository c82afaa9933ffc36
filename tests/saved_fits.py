"""Saved fits of released versions, kept as files: every later version loads them and answers the same questions.

A fit is one zip archive of the directory that `save` writes, in `tests/reference/saved/<version>/`. `numbers.json`
beside the archives has what each fit answered when it was saved. Fits of `lmm_from_arrays` are not here: they cannot be
saved.

    python -m tests.saved_fits --write      fit and save with this version, on purpose, once for each release
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bigmm

SAVED = Path(__file__).parent / "reference" / "saved"
DATA = Path(__file__).parent / "reference" / "data"
EPOCH = (2020, 1, 1, 0, 0, 0)
"""The time of every file in an archive, so that the same fit makes the same archive."""


def counts() -> pd.DataFrame:
    """Counts of 50 groups in ten blocks."""
    table = pd.read_parquet(DATA / "sim_counts.parquet").astype({"g": str})
    return table.assign(block=table.g.str[1:].astype(int) // 5, some=(table.y > 0).astype(int))


FITS: dict[str, Callable[[], Any]] = {
    "sleepstudy": lambda: bigmm.lmm("Reaction ~ Days + (Days | Subject)", bigmm.datasets.sleepstudy()),
    "sleepstudy_uncorrelated": lambda: bigmm.lmm("Reaction ~ Days + (Days || Subject)", bigmm.datasets.sleepstudy()),
    "crossed": lambda: bigmm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", bigmm.datasets.penicillin(), reml=False),
    "nested_factors": lambda: bigmm.lmm(
        "angle ~ recipe * poly(temp, 2) + (1 | recipe:replicate)", bigmm.datasets.cake()
    ),
    "iterative": lambda: bigmm.lmm(
        "y ~ service + (1 | s) + (1 | d)", bigmm.datasets.insteval().head(600), reml=False, solver="iterative", seed=1
    ),
    "weights_offset": lambda: bigmm.lmm(
        "y ~ x + (1 | g)", pd.read_parquet(DATA / "sim_weights_offset.parquet"), weights="w", offset="off"
    ),
    "bernoulli_slope": lambda: bigmm.glmm("some ~ x + (1 + x | g)", counts(), family="bernoulli"),
    "negative_binomial_nested": lambda: bigmm.glmm(
        "ynb ~ x + (1 | block/g)", counts(), family="negative_binomial", offset="log_exposure"
    ),
    "poisson_quadrature": lambda: bigmm.glmm("y ~ x + (1 | g)", counts(), family="poisson", nagq=5),
}
"""Small fits of every kind that a saved directory can hold."""
ROWS: dict[str, Callable[[], pd.DataFrame]] = {
    "sleepstudy": bigmm.datasets.sleepstudy,
    "sleepstudy_uncorrelated": bigmm.datasets.sleepstudy,
    "crossed": bigmm.datasets.penicillin,
    "nested_factors": bigmm.datasets.cake,
    "iterative": lambda: bigmm.datasets.insteval().head(600),
    "weights_offset": lambda: pd.read_parquet(DATA / "sim_weights_offset.parquet"),
}
"""Rows to predict for; those of `counts` for the others."""


def answers(model: Any, name: str) -> dict[str, Any]:
    """What a fit says: estimates, standard errors, variance components, modes, predictions."""
    rows = ROWS.get(name, counts)().iloc[::50].head(8)
    modes = {group: frame.head(5).to_numpy(float).tolist() for group, frame in model.ranef().items()}
    return {
        "formula": model.formula,
        "solver": model.solver,
        "nobs": int(model.nobs),
        "objective": float(model.objective),
        "theta": np.asarray(model.theta, float).tolist(),
        "sigma": float(model.sigma),
        "params": {key: float(value) for key, value in model.params.items()},
        "bse": {key: float(value) for key, value in model.bse.items()},
        "modes": modes,
        "predictions": np.asarray(model.predict(rows), float).tolist(),
        "population": np.asarray(model.predict(rows, random=False), float).tolist(),
    }


def write(folder: Path) -> None:
    """Fit, save and archive every model of `FITS`."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {}
    for name, fit in FITS.items():
        model = fit()
        numbers[name] = answers(model, name)
        with tempfile.TemporaryDirectory() as place:
            pack(Path(model.save(Path(place) / name) or Path(place) / name), folder / f"{name}.zip")
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")


def pack(directory: Path, archive: Path) -> None:
    """Put a directory into a zip archive that depends on its content alone."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(str(path.relative_to(directory)), EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                out.writestr(entry, path.read_bytes())


def unpack(archive: Path, directory: Path) -> Path:
    """Make the directory that `pack` was given; returns it."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(directory)
    return directory


def main(arguments: list[str]) -> int:
    """Write the fits of this version if the flag is there. Returns the exit code."""
    if arguments != ["--write"]:
        print(__doc__)
        return 2
    write(SAVED / bigmm.__version__)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
