"""Which levels of a categorical response count as 1 (success) and which as 0 (failure)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from bigmm.arguments import did_you_mean
from bigmm.design.levels.equality import is_number
from bigmm.design.levels.numbering import Levels, label_strings
from bigmm.errors import DataError, UsageError

MOST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Labels of what counts as 1 (`success`) and as 0 (`failure`), shown in quotation marks where `quoted` is True."""

    success: tuple[str, ...]
    failure: tuple[str, ...]
    quoted: bool = False

    def __str__(self) -> str:
        many = "s" if len(self.success) > 1 else ""
        one, zero = (shown([repr(t) if self.quoted else t for t in side]) for side in (self.success, self.failure))
        return f"modelled level{many} {one} against {zero}"


def shown(labels: Sequence[str]) -> str:
    """The first labels, separated by commas."""
    return ", ".join(labels[:MOST_SHOWN]) + (", ..." if len(labels) > MOST_SHOWN else "")


def success_labels(success: Any) -> tuple[str, ...] | None:
    """``success=`` (a level or a list of levels) as labels, None when it was not given; raises UsageError."""
    if success is None:
        return None
    plain = success.tolist() if hasattr(success, "tolist") else success  # arrays, Series and NumPy's scalars
    values = list(plain) if isinstance(plain, (list, tuple, set, frozenset)) else [plain]
    try:
        labels = label_strings(pa.array(values)).to_pylist() if values else []
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError):
        labels = [None]
    if not labels or None in labels:
        raise UsageError(
            f"success={success!r}: name the level of the response that counts as 1, or a list of levels of one type"
        )
    return tuple(dict.fromkeys(labels))


def successes(levels: Levels, success: Sequence[str] | None) -> np.ndarray:
    """(n_levels,) True for the levels that count as 1: those named, or all but the first (R's rule)."""
    if success is None:
        return np.arange(len(levels)) > 0
    ones = np.zeros(len(levels), dtype=bool)
    ones[[number for number in map(partial(level_number, levels), success) if number >= 0]] = True
    return ones


def level_number(levels: Levels, label: str) -> int:
    """Number of the level that a label stands for, -1 for none: by its own label, or as the same number or boolean."""
    # success= may say '1' or 'True' for a level 1, 1.0 or True, so the number that a text spells is a candidate too.
    candidates = [pa.array([label])]
    if is_number(levels.values.type) or pt.is_boolean(levels.values.type):
        word = {"True": "1", "False": "0"}.get(label, label)
        with suppress(InvalidOperation, pa.ArrowInvalid):
            candidates.append(pa.array([Decimal(word)]))
    return max(int(levels.numbers(pa.chunked_array([values]))[0]) for values in candidates)


def outcomes(levels: Levels, success: Sequence[str] | None) -> Outcomes:
    """The levels on both sides, in their order."""
    texts, ones = levels.texts.to_pylist(), successes(levels, success)
    one, zero = (tuple(texts[i] for i in np.flatnonzero(side)) for side in (ones, ~ones))
    return Outcomes(one, zero, is_text(levels))


def is_text(levels: Levels) -> bool:
    """Whether the levels are texts."""
    return pt.is_large_string(levels.values.type)


def displayed(levels: Levels) -> list[str]:
    """Labels as Python would write the levels."""
    texts = levels.texts.to_pylist()
    return [repr(text) for text in texts] if is_text(levels) else texts


def check_outcomes(
    name: str, levels: Levels, success: Sequence[str] | None, complete: bool = True, lost: Sequence[str] = ()
) -> None:
    """Raise UsageError unless it is said which levels count as 1, and DataError for a response with one level.

    complete: whether the levels are those of the rows that count. Else there may be fewer of them, and more than two
    are no error yet. lost: labels of levels without such rows, which `success` may name beside others.
    """
    labels = displayed(levels)
    rows = " with complete rows" if lost else ""
    if len(labels) < 2:
        raise DataError(f"the response {name!r} has one level{rows} ({shown(labels)}): there is nothing to model")
    if success is None:
        if len(labels) > 2 and complete:
            others = f"[{', '.join(labels[1:])}]" if len(labels) <= MOST_SHOWN else "[...]"
            raise UsageError(
                f"the response {name!r} has {len(labels)} levels ({shown(labels)}), and a binomial response has two: "
                f"say which count as 1, such as success={labels[-1]}; success={others} is R's rule, all but the first "
                f"level (on the command line --success, once for each level)"
            )
        return
    texts = levels.texts.to_pylist()
    ones = successes(levels, success)
    for label in success:
        # A name of a level that lost its rows is forgiven where another one still has rows, since the data decide that.
        if level_number(levels, label) < 0 and not (ones.any() and label in lost):
            hint = did_you_mean(label, texts)
            raise UsageError(
                f"success={label!r} is no level{rows} of the response {name!r}; {hint + ' ' if hint else ''}"
                f"its levels are {shown(labels)}"
            )
    if ones.all():
        raise UsageError(f"success= names all levels of the response {name!r} ({shown(labels)}): leave one to be 0")
