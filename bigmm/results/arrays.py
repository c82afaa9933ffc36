"""Named arrays in a zarr (v3) hierarchy whose every byte is accounted for.

zarr reads a missing chunk as zeros without a word, so empty chunks are written, every chunk carries a CRC-32C, and the
caller keeps shape, dtype and SHA-256 of each array in a manifest that is written last; reading checks all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bigmm.errors import DataError

# A chunk is the unit of compression and of checking: a few megabytes compress well and need little memory.
CHUNK_BYTES = 4 * 2**20


def digest(values: np.ndarray) -> str:
    """SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(values).data.cast("B") if values.size else b"").hexdigest()


def _chunks(values: np.ndarray) -> tuple[int, ...]:
    row_bytes = max(1, values[:1].nbytes)
    # Chunks of zero length are refused by zarr, so an empty array has chunks of one.
    rows = int(np.clip(CHUNK_BYTES // row_bytes, 1, max(1, values.shape[0])))
    return (rows, *(max(1, n) for n in values.shape[1:]))


def write_arrays(root: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Write every array under its name ("terms/0/diagonal"); returns the entries for the manifest."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    group = zarr.open_group(root, mode="w", zarr_format=3)
    entries = {}
    for name, values in arrays.items():
        values = np.ascontiguousarray(values)
        place = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=_chunks(values),
            # The checksum comes after compression, so that damage is found before the decompressor meets it.
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            # A chunk of zeros that zarr leaves out could not be told from one that was lost.
            config={"write_empty_chunks": True},
        )
        place[...] = values
        entries[name] = {"shape": list(values.shape), "dtype": values.dtype.str, "sha256": digest(values)}
    return entries


def read_arrays(root: Path, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Read every array of a manifest; DataError when one is missing, damaged or not what was written."""
    return {name: _read(root, name, entry) for name, entry in entries.items()}


def _read(root: Path, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    import zarr

    try:
        values = np.asarray(zarr.open_array(root / name, mode="r", zarr_format=3)[...])
    except Exception as error:  # zarr and its codecs raise whatever they like on damaged files
        raise DataError(f"{root / name} is damaged or missing ({type(error).__name__}: {error}); {REMEDY}") from error
    # The hash covers bytes alone: the same bytes in another shape or type are other numbers.
    if list(values.shape) != list(entry["shape"]) or values.dtype != np.dtype(entry["dtype"]):
        raise DataError(f"{root / name} has another shape or type than the manifest says; {REMEDY}")
    if digest(values) != entry["sha256"]:
        raise DataError(f"{root / name} does not match its checksum, it is damaged; {REMEDY}")
    return values


REMEDY = "restore the directory from a copy or fit again"
