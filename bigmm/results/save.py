"""Saved fits: a versioned directory without pickle, atomic to write, checked to the bit when loaded.

Two things are in it: ``manifest.json``, written last, holds format, version, the design, everything small, and shape,
type and SHA-256 of every array; ``arrays/`` (zarr v3) holds the Gram's blocks, the levels and the level numbers, and
for a generalized model the working blocks at the mode, the estimates and the modes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigmm.accumulate.assemble import Assembled
from bigmm.atomic import check_apart, local_files, local_inputs, local_path, settled_path, whole_directory
from bigmm.design.spec import DesignSpec
from bigmm.errors import DataError, VersionError
from bigmm.families import family
from bigmm.laplace.working import working_model
from bigmm.objective.covariances import ModelCovariance, TermCovariance
from bigmm.objective.criterion import Criterion, Estimates
from bigmm.objective.solvers import recorded_solver
from bigmm.optimize.outcome import Outcome
from bigmm.results.arrays import REMEDY, read_arrays, write_arrays
from bigmm.results.fitted import FittedLmm, FittedModel
from bigmm.results.fitted_glmm import FittedGlmm
from bigmm.results.gramfile import gram_from, gram_parts
from bigmm.source.partition import Fingerprint, Inventory
from bigmm.urls import shown_url

FORMAT, VERSION = "bigmm-fit", 1
SPEC = "spec/"
SAME_OBJECTIVE = 1e-9
SAME_LAPLACE = 1e-8
"""The penalized deviance is that of the modes once more settled after the search ended."""
PLAIN = (
    "formula",
    "reml",
    "is_singular",
    "nobs",
    "rows_read",
    "passes",
    "peak_rss_bytes",
    "solver",
    "solver_reason",
    "data_description",
    "weights",
    "offset",
    "bigmm_version",
)


GENERALIZED = ("phi", "nagq", "laplace", "working_weights", "se_method", "penalized", "compressed_rows")
"""Plain fields that `FittedGlmm` adds; its family is kept by name and link."""


def save_fit(fitted: FittedModel, path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Write the fit; the directory appears whole or not at all (OutputError), never over the data (UsageError)."""
    # Fingerprints too: a loaded or pickled fit has no source, but its files may still lie there.
    read = [*local_inputs(fitted.source), *local_files(mark.path for mark in fitted.fingerprints)]
    check_apart(path, dict.fromkeys(read))
    with whole_directory(path, overwrite=overwrite) as folder:
        # The whole Gram, even where workers hold parts of it: a saved fit has no cluster.
        arrays, scalars = gram_parts(fitted.criterion.whole_gram)
        arrays |= {
            f"kept/{number}": np.asarray(numbers) for number, numbers in enumerate(fitted.assembled.level_numbers)
        }
        meta, learned = fitted.spec.to_dict()
        arrays |= {f"{SPEC}{name}": values for name, values in learned.items()}
        more, small = KINDS[fitted.kind].parts(fitted)
        entries = write_arrays(folder / "arrays", arrays | more)
        sealed = {"arrays": entries, "gram": listed(scalars), "spec": meta, "kind": fitted.kind}
        # Last: a directory without a manifest is no saved fit, whatever interrupted the writing.
        write_manifest(folder / "manifest.json", _body(fitted) | small | sealed)
    return local_path(path)


def _body(fitted: FittedModel) -> dict[str, Any]:
    small = {name: getattr(fitted, name) for name in PLAIN}
    return small | {
        "format": FORMAT,
        "version": VERSION,
        "theta": fitted.theta.tolist(),
        "objective": float(fitted.estimates.objective),
        "outcome": listed(asdict(fitted.outcome)),
        "dropped": [list(pair) for pair in fitted.dropped],
        "dropped_columns": list(fitted.assembled.dropped_columns),
        "term_order": list(fitted.assembled.term_order),
        "seconds": dict(fitted.seconds),
        # URLs may hold keys in their options, and a saved fit may be given to others.
        "fingerprints": [asdict(f) | {"path": shown_url(f.path)} for f in fitted.fingerprints],
        "inventory": None if fitted.inventory is None else fitted.inventory.as_record(),
        "monte_carlo_error": listed(fitted.monte_carlo_error),
        "templates": listed(covariance_record(fitted.criterion.covariances)),
    }


def listed(value: Any) -> Any:
    """Arrays as lists, numpy scalars as Python's; NaN stays (Python's json reads it back)."""
    if isinstance(value, Mapping):
        return {key: listed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [listed(item) for item in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def write_manifest(place: Path, body: dict[str, Any]) -> None:
    """The body as text under its own checksum."""
    # The body is a string inside the JSON, so the checksum is of the very bytes and not of a reformatted text.
    text = json.dumps(body, indent=1)
    place.write_text(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "body": text}))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest's body; DataError when it is absent or damaged, VersionError when another format or version."""
    place = path / "manifest.json"
    if not place.is_file():
        raise DataError(f"no saved fit at {path}: {place.name} is missing; pass a directory written by save()")
    try:
        sealed = json.loads(place.read_text())
        body = json.loads(sealed["body"])
        intact = hashlib.sha256(sealed["body"].encode()).hexdigest() == sealed["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{place} is damaged ({error}); {REMEDY}") from error
    if not intact:
        raise DataError(f"{place} does not match its checksum, it is damaged; {REMEDY}")
    if body.get("format") != FORMAT or body.get("version") != VERSION:
        version = f"{body.get('format')} version {body.get('version')}"
        raise VersionError(
            f"{path} is a {version}; this bigmm reads {FORMAT} version {VERSION}: "
            f"fit again or use the bigmm it was saved with"
        )
    return body


def load_fit(path: str | os.PathLike[str]) -> FittedModel:
    """Read a saved fit, verify every array, and evaluate its objective again (VersionError when it is another)."""
    folder = settled_path(path)
    body = read_manifest(folder)
    arrays = read_arrays(folder / "arrays", body["arrays"])
    learned = {name.removeprefix(SPEC): values for name, values in arrays.items() if name.startswith(SPEC)}
    spec = DesignSpec.from_dict(body["spec"], learned)
    gram = gram_from(arrays, body["gram"])
    level_numbers = tuple(arrays[f"kept/{n}"] for n in range(sum(name.startswith("kept/") for name in arrays)))
    theta = np.array(body["theta"], dtype=float)
    kind = KINDS[body["kind"]]
    shared = {
        "spec": spec,
        "assembled": Assembled(gram, tuple(body["term_order"]), level_numbers, tuple(body["dropped_columns"])),
        "theta": theta,
        "outcome": _outcome(body["outcome"]),
        "dropped": tuple((column, count) for column, count in body["dropped"]),
        "seconds": body["seconds"],
        "fingerprints": tuple(_fingerprint(entry) for entry in body["fingerprints"]),
        "inventory": _inventory(body.get("inventory")),
        "monte_carlo_error": body["monte_carlo_error"],
        "saved_at": str(folder),
        **{name: body[name] for name in PLAIN},
    }
    return kind.fitted(folder, body, arrays, shared)


@dataclass(frozen=True, slots=True)
class Kind:
    """What is particular to one kind of fit on disk.

    `parts` gives the arrays and small values that a fit adds to the shared ones. `fitted` makes the fit from directory,
    manifest, arrays and shared fields, and checks its objective.
    """

    parts: Callable[[Any], tuple[dict[str, np.ndarray], dict[str, Any]]]
    fitted: Callable[[Path, dict[str, Any], dict[str, np.ndarray], dict[str, Any]], FittedModel]


def _linear_parts(fitted: FittedModel) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Nothing: all estimates follow from the Gram and theta."""
    return {}, {}


def _linear(folder: Path, body: dict[str, Any], arrays: dict[str, np.ndarray], shared: dict[str, Any]) -> FittedModel:
    gram, error = shared["assembled"].gram, body["monte_carlo_error"]
    tolerance = SAME_OBJECTIVE
    if error:
        # the same probes, but a deflation basis made at this theta: the objective agrees within its error bar
        tolerance += 8.0 * error["objective"] / max(abs(body["objective"]), 1.0)
    criterion = Criterion(
        gram,
        _covariances(body["templates"]),
        body["reml"],
        recorded_solver(gram, error if body["solver"] == "iterative" else None),
    )
    # Estimates of a linear model follow from Gram and theta, so they are not stored.
    estimates = criterion.estimates(shared["theta"])
    now = float(estimates.objective)
    check_objective(folder, body["objective"], now, tolerance=tolerance)
    if error:  # what was reported stays, and goes with the error's value for each probe
        moved = body["objective"] - now
        estimates = replace(estimates, objective=body["objective"], logdet_z=estimates.logdet_z + moved)
    return FittedLmm(criterion=criterion, estimates=estimates, **shared)


def _generalized_parts(fitted: FittedGlmm) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The estimates themselves, which the working blocks at the mode do not determine to the last digit."""
    estimates = fitted.estimates
    arrays = {"estimates/beta": estimates.beta, "estimates/vcov": estimates.vcov}
    for number, (u, b) in enumerate(zip(estimates.u, estimates.b, strict=True)):
        arrays |= {f"estimates/u/{number}": u, f"estimates/b/{number}": b}
    small = {name: getattr(fitted, name) for name in GENERALIZED}
    numbers = {name: float(getattr(estimates, name)) for name in ("pwrss", "logdet_z", "logdet_x")}
    return arrays, small | {"numbers": numbers, "family": fitted.family.name, "link": fitted.family.link}


def _generalized(
    folder: Path, body: dict[str, Any], arrays: dict[str, np.ndarray], shared: dict[str, Any]
) -> FittedGlmm:
    working = working_model(shared["assembled"].gram, _covariances(body["templates"]), body["monte_carlo_error"])
    log_determinant = working.log_determinant(shared["theta"])
    body.setdefault("working_weights", body["laplace"])  # older fits have none of other weights
    # the integral, and log|M| of other weights than the blocks', need the rows; the curvature at the mode does not
    if body["nagq"] > 1 or body["working_weights"] != body["laplace"]:
        check_objective(folder, body["numbers"]["logdet_z"], log_determinant, "log|M|")
    else:
        check_objective(folder, body["objective"], body["penalized"] + log_determinant, tolerance=SAME_LAPLACE)
    terms = range(len(shared["assembled"].gram.terms))
    estimates = Estimates(
        beta=arrays["estimates/beta"],
        vcov=arrays["estimates/vcov"],
        sigma=1.0,
        objective=body["objective"],
        u=tuple(arrays[f"estimates/u/{number}"] for number in terms),
        b=tuple(arrays[f"estimates/b/{number}"] for number in terms),
        **body["numbers"],
    )
    plain = {name: body[name] for name in GENERALIZED}
    response = family(body["family"], body["link"])
    return FittedGlmm(criterion=working, estimates=estimates, family=response, **plain, **shared)


KINDS = {"lmm": Kind(_linear_parts, _linear), "glmm": Kind(_generalized_parts, _generalized)}


def check_objective(
    path: Path, saved: float, now: float, what: str = "objective", tolerance: float = SAME_OBJECTIVE
) -> None:
    """Refuse a fit whose objective is not what it was when it was saved."""
    # Not equality: another BLAS sums in another order.
    if not math.isclose(saved, now, rel_tol=tolerance, abs_tol=tolerance):
        raise VersionError(
            f"the fit at {path} was saved with {what} {saved!r}, but evaluates to {now!r} here: "
            f"it comes from another version or was altered; fit again"
        )


def covariance_record(covariance: ModelCovariance) -> dict[str, Any]:
    """Plain values. A term without a structure of its own is written as by versions that had no structures."""
    record = asdict(covariance)
    for term in record["terms"]:
        if term["structure"] == "us":
            # Older versions would refuse a field that they do not know.
            del term["structure"]
    return record


def _covariances(entry: dict[str, Any]) -> ModelCovariance:
    terms: list[dict[str, Any]] = [
        {name: tuple(value) if isinstance(value, list) else value for name, value in term.items()}
        for term in entry["terms"]
    ]
    for term in terms:
        term.pop("square", None)  # a constant of older saves
    return ModelCovariance(tuple(TermCovariance(**term) for term in terms), tuple(entry["widths"]))


def _outcome(entry: dict[str, Any]) -> Outcome:
    kinds = {"theta": float, "gradient": float, "at_boundary": bool}
    arrays = {name: np.array(entry[name], dtype=kind) for name, kind in kinds.items() if entry[name] is not None}
    return Outcome(**(entry | arrays))


def _inventory(entry: dict[str, Any] | None) -> Inventory | None:
    return None if entry is None else Inventory.from_record(entry)


def _fingerprint(entry: dict[str, Any]) -> Fingerprint:
    return Fingerprint(**(entry | {"row_groups": tuple(entry["row_groups"])}))
