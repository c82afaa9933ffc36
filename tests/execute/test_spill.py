"""Arrays in a temporary file without a name."""

from __future__ import annotations

import gc
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from bigmm.errors import OutputError
from bigmm.execute.spill import Placed, SpillFile, looked_up, moved


@dataclass(frozen=True)
class Box:
    name: str
    large: np.ndarray
    small: np.ndarray


def test_what_is_written_from_many_threads_is_read_and_mapped():
    file, rng = SpillFile(), np.random.default_rng(1)
    arrays = [rng.normal(size=(3, n)) for n in rng.integers(0, 9000, 40)] + [np.arange(7, dtype=np.int32)]
    with ThreadPoolExecutor(4) as pool:
        placed = list(pool.map(file.write, arrays))
    out = np.empty_like(arrays[3])
    file.read_into(placed[3].start, out)
    assert np.array_equal(out, arrays[3])
    mapped = [file.mapped(place) for place in placed]
    for a, b in zip(arrays, mapped, strict=True):
        assert np.array_equal(a, b) and (a.shape, a.dtype) == (b.shape, b.dtype)
        assert b.flags.aligned and b.flags.c_contiguous
        assert b.flags.writeable, "kernels are compiled once per kind of array"


def test_mapped_arrays_outlive_the_file():
    file = SpillFile()
    array = file.mapped(file.write(np.arange(10_000.0)))
    del file
    gc.collect()
    assert array.sum() == 49_995_000.0


def test_nothing_has_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = SpillFile()
    file.write(np.zeros(100_000))
    assert os.listdir(tmp_path) == []


def test_large_arrays_of_a_dataclass_move_and_known_ones_stay():
    large, small, file = np.arange(5000.0), np.arange(5.0), SpillFile()
    box = moved(Box("a", large, small), file)
    assert isinstance(box.large, Placed) and box.small is small
    found = looked_up(box, file)
    assert np.array_equal(found.large, large) and found.name == "a"
    same = moved(Box("b", large, small), SpillFile(), [large])
    assert same.large is large


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    message = (
        r"cannot write temporary files in .*missing \(No such file or directory\): set the environment variable TMPDIR"
    )
    with pytest.raises(OutputError, match=message) as error:
        SpillFile()
    assert error.value.exit_code == 73
