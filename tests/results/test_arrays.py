"""Named arrays on disk and the Gram made of them: equal bits, every kind of damage is noticed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from bigmm.accumulate.assemble import assemble
from bigmm.blocks.compress import compress
from bigmm.errors import DataError
from bigmm.results.arrays import read_arrays, write_arrays
from bigmm.results.gramfile import gram_from, gram_parts
from tests.accumulate.twins import accumulate, make_chunk, make_layout, random_model

ARRAYS = {
    "a/zeros": np.zeros((3, 2)),
    "a/empty": np.empty((0, 4)),
    "flags": np.array([True, False]),
    "indices": np.arange(5, dtype=np.int32),
    "big": np.random.default_rng(0).normal(size=(70_000, 3, 3)),
}


def same(a, b) -> bool:
    """Equal to the bit, dataclass by dataclass."""
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b


def test_round_trip(tmp_path):
    entries = write_arrays(tmp_path / "z", ARRAYS)
    back = read_arrays(tmp_path / "z", entries)
    assert list(back) == list(ARRAYS) and all(same(back[name], ARRAYS[name]) for name in ARRAYS)
    assert len([p for p in (tmp_path / "z" / "big").rglob("*") if p.is_file()]) > 2  # several chunks


def test_a_missing_chunk_of_zeros_is_noticed(tmp_path):
    """The array is all zeros, so the values read are right; the chunk is written and required all the same."""
    entries = write_arrays(tmp_path, {"ones": np.ones(4)})
    chunk = next(p for p in (tmp_path / "ones").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.unlink()
    with pytest.raises(DataError, match=r"ones does not match its checksum, it is damaged; restore the directory"):
        read_arrays(tmp_path, entries)


def test_missing_array_and_other_shape(tmp_path):
    entries = write_arrays(tmp_path, {"x": np.ones(4)})
    with pytest.raises(DataError, match="nope is damaged or missing"):
        read_arrays(tmp_path, {"nope": entries["x"]})
    with pytest.raises(DataError, match="another shape or type than the manifest says"):
        read_arrays(tmp_path, {"x": entries["x"] | {"shape": [5]}})


@pytest.mark.parametrize("factor", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_gram_round_trip(tmp_path, factor, weighted):
    model = random_model(3, weighted=weighted, factor=factor)
    gram = assemble(accumulate(model.layout, [model.chunk]), model.layout).gram
    arrays, scalars = gram_parts(gram)
    back = gram_from(read_arrays(tmp_path, write_arrays(tmp_path, arrays)), scalars)
    assert same(back, gram)
    assert any(not term.penalized for term in gram.terms) == factor


def test_multiplicities_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    refs = rng.integers(0, 300, 900)
    layout = make_layout(("a",), [0, 1], [(0, (0,))], [300])
    chunk = make_chunk(rng.normal(size=(1, 900)), rng.normal(size=900), [refs])
    gram = compress(assemble(accumulate(layout, [chunk]), layout).gram)
    assert gram.terms[0].multiplicity is not None
    arrays, scalars = gram_parts(gram)
    assert same(gram_from(arrays, scalars), gram)
