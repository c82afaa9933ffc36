"""Saved fits: the same model comes back, damage and other versions are refused, writing is all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bigmm
from bigmm.errors import DataError, OutputError, VersionError
from bigmm.results import LmmResults


@pytest.fixture
def saved(crossed, tmp_path):
    return crossed.save(tmp_path / "model")


def parts(folder, ending="") -> list:
    return sorted(p for p in (folder / "arrays").rglob(f"*{ending}") if p.is_file() and p.name != "zarr.json")


def test_everything_comes_back(crossed, rows, saved):
    loaded = bigmm.load(saved)
    assert str(loaded.summary()) == str(crossed.summary())
    assert loaded.as_record() == crossed.as_record()
    np.testing.assert_array_equal(loaded.theta, crossed.theta)
    for group, frame in crossed.ranef(condvar=True).items():
        pd.testing.assert_frame_equal(loaded.ranef(condvar=True)[group], frame)
    new = rows.assign(g=["NEW", *rows["g"].iloc[1:]])
    pd.testing.assert_frame_equal(loaded.predict(new, se=True), crossed.predict(new, se=True))
    assert loaded.fitted.fingerprints == crossed.fitted.fingerprints
    assert loaded.optimizer_result.evaluations == crossed.optimizer_result.evaluations
    smaller = bigmm.lmm("y ~ 1 + (1 + x | g) + (1 | h)", rows, weights="w", offset="off")
    pd.testing.assert_frame_equal(loaded.anova(smaller), crossed.anova(smaller))


def test_no_pickle(saved):
    for path in saved.rglob("*"):
        assert path.suffix not in (".pkl", ".pickle", ".npy"), path
        if path.is_file():
            assert not path.read_bytes().startswith(pickle.PROTO), path


def test_missing_chunk_is_noticed(saved):
    """zarr alone would read zeros."""
    parts(saved)[0].unlink()
    with pytest.raises(DataError, match=r"does not match its checksum|damaged or missing"):
        bigmm.load(saved)


def test_every_chunk_is_covered_against_flipped_bits(saved):
    for path in parts(saved):
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[len(flipped) // 2] ^= 4
        path.write_bytes(flipped)
        with pytest.raises(DataError, match=r"restore the directory from a copy or fit again"):
            bigmm.load(saved)
        path.write_bytes(content)
    assert len(parts(saved)) > 8
    bigmm.load(saved)


def test_truncated_chunk(saved):
    path = parts(saved)[0]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="damaged"):
        bigmm.load(saved)


def test_damaged_manifest(saved):
    path = saved / "manifest.json"
    path.write_text(path.read_text().replace("Intercept", "intercept"))
    with pytest.raises(DataError, match="does not match its checksum"):
        bigmm.load(saved)
    path.write_text("{")
    with pytest.raises(DataError, match=r"damaged"):
        bigmm.load(saved)


def test_unfinished_directory(saved, tmp_path):
    (saved / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"no saved fit at .*manifest\.json is missing"):
        bigmm.load(saved)
    with pytest.raises(DataError, match="no saved fit at"):
        bigmm.load(tmp_path / "nowhere")


def reseal(saved, **changes):
    """Rewrite the manifest with other values and a correct checksum."""
    path = saved / "manifest.json"
    body = json.loads(json.loads(path.read_text())["body"]) | changes
    text = json.dumps(body)
    path.write_text(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "body": text}))
    return body


def test_other_version(saved):
    reseal(saved, version=99)
    with pytest.raises(VersionError, match="bigmm-fit version 99; this bigmm reads bigmm-fit version 1") as caught:
        bigmm.load(saved)
    assert caught.value.exit_code == 78


def test_other_objective(crossed, saved):
    reseal(saved, objective=crossed.objective + 1e-3)
    with pytest.raises(VersionError, match=r"was saved with objective .*, but evaluates to"):
        bigmm.load(saved)


def test_existing_place(crossed, saved):
    with pytest.raises(OutputError, match="exists and is not empty"):
        crossed.save(saved)
    crossed.save(saved, overwrite=True)
    assert bigmm.load(saved).objective == pytest.approx(crossed.objective)


def test_failure_leaves_nothing(crossed, tmp_path, monkeypatch):
    """The disk fills up while the manifest is written."""
    import bigmm.results.save as module

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.Path, "write_text", full)
    with pytest.raises(OutputError, match="the disk is full"):
        crossed.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_other_shapes(sleep, tmp_path):
    """Empty cross-blocks, NaN and infinities in the outcome, Monte Carlo errors."""
    outcome = replace(sleep.fitted.outcome, max_abs_gradient=float("nan"))
    model = LmmResults(replace(sleep.fitted, outcome=outcome, monte_carlo_error={"objective": 0.5}))
    loaded = bigmm.load(model.save(tmp_path / "model"))
    assert np.isnan(loaded.optimizer_result.max_abs_gradient)
    assert loaded.monte_carlo_error == {"objective": 0.5}
