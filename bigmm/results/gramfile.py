"""A Gram matrix as named arrays and scalars, and back: what a saved fit keeps instead of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from bigmm.blocks.gram import CrossBlock, Gram, TermBlock

BLOCKS = ("terms", "cross")


def _split(value: Any, prefix: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Fields of a dataclass as {prefix + name: array} and {name: scalar}; an absent (None) array is a scalar None."""
    arrays, scalars = {}, {}
    for field in fields(value):
        item = getattr(value, field.name)
        if field.name in BLOCKS:
            continue
        # Everything else is small and goes into the manifest's JSON.
        if isinstance(item, np.ndarray):
            arrays[prefix + field.name] = item
        else:
            scalars[field.name] = item
    return arrays, scalars


def _join(arrays: Mapping[str, np.ndarray], prefix: str, scalars: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `_split` took apart."""
    blocks = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
    # A name with a slash left belongs to a block inside.
    return {**scalars, **{name: a for name, a in blocks.items() if "/" not in name}}


def gram_parts(gram: Gram) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """({name: array}, JSON-able rest); `gram_from` puts them together again."""
    arrays, scalars = _split(gram, "gram/")
    terms, cross = [], []
    for number, term in enumerate(gram.terms):
        more, small = _split(term, f"terms/{number}/")
        arrays |= more
        terms.append(small)
    for (j, k), block in gram.cross.items():
        arrays |= _split(block, f"cross/{j}-{k}/")[0]
        cross.append([j, k])
    return arrays, scalars | {"terms": terms, "cross": cross}


def gram_from(arrays: Mapping[str, np.ndarray], scalars: Mapping[str, Any]) -> Gram:
    """The Gram that `gram_parts` took apart."""
    small = {name: value for name, value in scalars.items() if name not in BLOCKS}
    terms = tuple(TermBlock(**_join(arrays, f"terms/{n}/", entry)) for n, entry in enumerate(scalars["terms"]))
    cross = {(j, k): CrossBlock(**_join(arrays, f"cross/{j}-{k}/", {})) for j, k in scalars["cross"]}
    return Gram(terms=terms, cross=cross, **_join(arrays, "gram/", small))
