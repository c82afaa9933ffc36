"""The choice of a `Shift` from the first rows, and again from the sums where the first rows are not like the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from bigmm.accumulate.crossproducts import CrossProducts
from bigmm.accumulate.fold import without_zero_weights
from bigmm.accumulate.nearness import MIX, NOTHING, ROUNDED, mixture_of
from bigmm.accumulate.overflow import LARGEST, check_weights, fits
from bigmm.accumulate.rank import pivots, squares_of
from bigmm.accumulate.shift import Shift, has_constant, is_binary, may_shift, plain_shift, shift_vector
from bigmm.design.layout import DesignChunk, JointTerm, Layout
from bigmm.execute.discipline import one_thread_each

FAR = 100.0
"""Standard deviations between the mean and zero at which squares lose four digits. X and Z then take the column about
numbers of their own, and its products are formed of shifted factors."""
RETAKE = 1e-3
"""Standard deviation over distance of the mean from the shift, and the root of a share as in `MIX`, below which the
sums of a pass have lost six digits: the pass is taken again."""
MORE_PASSES = 2
"""The most passes that are taken after the first one."""
ROWS = 8192
"""Number of the first rows from which near dependences among columns are found."""

QUIETLY: dict[str, Any] = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}
"""NumPy's warnings that are off here: `overflow` names such columns once all rows are summed."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Where the columns [1, columns..., y - offset] lie.

    means: (m,); deviations: (m,) standard deviations; binary: (m,) whether a column has zeros and ones only.
    """

    means: np.ndarray
    deviations: np.ndarray
    binary: np.ndarray

    @property
    def far(self) -> np.ndarray:
        """(m,) columns that are far from zero."""
        defined = np.isfinite(self.means) & np.isfinite(self.deviations) & (self.deviations > 0.0)
        return defined & (np.abs(self.means) > FAR * self.deviations)


@np.errstate(**QUIETLY)
def first_shift(layout: Layout, head: DesignChunk, moments: Moments | None = None) -> Shift:
    """The shift that the first rows suggest.

    Parameters
    ----------
    layout: of the design.
    head: the first rows, complete ones only; rows of weight zero do not count.
    moments: moments of all rows, where a pass has shown that they differ from those of the head.
    """
    head = without_zero_weights(head)
    if not fits(head):
        return plain_shift(layout, np.zeros(len(layout.columns) + 1))
    numbers = shift_vector(layout, head)
    if moments is not None:
        movable = may_shift(layout) & ~moments.binary & np.isfinite(moments.means)
        numbers = np.where(movable, moments.means, 0.0)
    elif head.rows < 2:
        return plain_shift(layout, numbers)
    else:
        moments = moments_of(head)
    with one_thread_each():  # the bits must not depend on how many threads BLAS has
        shift, dependent = _chosen(layout, head, numbers, moments, early=True)
        if dependent:  # then the order of columns decides which of them are dropped
            shift, _ = _chosen(layout, head, numbers, moments, early=False)
    return shift


@np.errstate(**QUIETLY)
def moments_of(chunk: DesignChunk) -> Moments:
    """The moments of the rows of a chunk."""
    y = chunk.y if chunk.offset is None else chunk.y - chunk.offset
    rows = [np.ones(1), *chunk.columns, y]
    statistics = [(row.mean(), row.std(), is_binary(row)) for row in rows]
    return Moments(*(np.array(values) for values in zip(*statistics, strict=True)))


@np.errstate(**QUIETLY)
def moments_from(cross: CrossProducts) -> Moments:
    """The moments of all rows, from their sums."""
    back, n = cross.shift.back, cross.gram[0, 0]
    mean = cross.gram[0] / n
    # The difference cancels where a column is far from its shift. To choose a better shift a few digits are enough.
    centred = cross.gram / n - np.outer(mean, mean)
    keep = np.append(np.arange(len(mean) - 1 - len(cross.shift.copies)), len(mean) - 1)
    deviations = np.sqrt(np.maximum(np.einsum("ij,ik,kj->j", back, centred, back), 0.0))
    # x^2 = x for zeros and ones alone, so both sums are equal, bit for bit.
    binary = (np.diagonal(cross.gram) == cross.gram[0]) & (cross.shift.numbers == 0.0)
    return Moments((mean @ back)[keep], deviations[keep], binary[keep])


@np.errstate(**QUIETLY)
def next_shift(layout: Layout, head: DesignChunk, cross: CrossProducts) -> Shift | None:
    """The shift of another pass, where a pass has lost digits because the first rows are not like the others.

    Parameters
    ----------
    layout: of the design.
    head: the first rows, which tell what columns have to do with each other.
    cross: the sums of the pass, which tell where the columns are.

    Returns None where the sums are good as they are, and where their squares are no numbers, which `overflow` says.
    """
    shift, gram = cross.shift, cross.gram
    if cross.n < 2 or not np.all(np.diagonal(gram) <= LARGEST):
        return None
    check_weights(cross, float(gram[-1, -1] - gram[0, -1] ** 2 / gram[0, 0]))
    mean = gram[0] / gram[0, 0]
    deviations = np.sqrt(np.maximum(np.diagonal(gram) / gram[0, 0] - mean**2, 0.0))
    base = np.append(np.arange(1, len(layout.columns)), len(mean) - 1)
    distant = (np.abs(mean) * RETAKE > deviations)[base]
    if distant.any():
        again = first_shift(layout, head, moments_from(cross))
        moved = np.abs(again.numbers[[*base[:-1], -1]] - shift.numbers[base])
        # A column that cannot be moved is as distant after another pass: a pass is taken only where the shift changes.
        if np.any(distant & (moved > 0.5 * np.abs(mean[base]))):
            return again
    return _mixed_more(layout, head, cross)


def sequence_of(layout: Layout, shift: Shift) -> np.ndarray:
    """(p,) positions of the coefficients in the order in which columns depend on earlier ones.

    The user's, but for a covariate that stands before the constant and is moved nevertheless: then the columns that
    make the constant come first.
    """
    natural = np.arange(len(layout.fixed_columns))
    if layout.one is None:
        return natural
    makes = np.asarray(layout.one) != 0.0
    columns = np.array(layout.fixed_columns, np.int64)
    moved = (columns > 0) & (shift.numbers[np.maximum(columns, 0)] != 0.0)
    if not moved[: int(np.flatnonzero(makes).max()) + 1].any():
        return natural
    return np.concatenate([natural[makes], natural[~makes]])


def _chosen(
    layout: Layout, head: DesignChunk, numbers: np.ndarray, moments: Moments, early: bool
) -> tuple[Shift, bool]:
    """(shift, whether columns of X that are moved before the constant depend on others).

    early says whether such columns may be moved.
    """
    numbers, far = numbers.copy(), moments.far
    last_one = -1 if layout.one is None else int(np.flatnonzero(layout.one).max())
    for position, column in enumerate(layout.fixed_columns):
        if column > 0 and far[column] and layout.one is not None and (early or position > last_one):
            numbers[column] = moments.means[column]
    shift = _with_products(layout, head, plain_shift(layout, numbers), far)
    shift, dependent = _with_mix(layout, head, shift)
    natural = np.array_equal(sequence_of(layout, shift), np.arange(len(layout.fixed_columns)))
    return _with_copies(layout, head, shift, moments.means, far), dependent and not natural


def _with_products(layout: Layout, head: DesignChunk, shift: Shift, far: np.ndarray) -> Shift:
    """Products of shifted factors instead of shifted products, where all margins that then come back are in X."""
    used = {column for column in layout.fixed_columns if column > 0}
    place = {name: column for column, name in enumerate(layout.columns)}
    parts = {column: tuple(place.get(name, -1) for name in layout.columns[column].split(":")) for column in used}
    by_parts = {
        frozenset(factors_of): column
        for column, factors_of in parts.items()
        if len(set(factors_of)) == len(factors_of) and min(factors_of) > 0
    }
    targets = [
        column
        for factors_of, column in by_parts.items()
        if len(factors_of) > 1
        and any(far[c] and shift.numbers[c] != 0.0 for c in factors_of)
        and _is_product(head, column, factors_of)
    ]
    expanded: dict[int, dict[int, float]] = {}
    for column in sorted(targets, key=lambda c: len(parts[c])):
        _expand(column, parts, by_parts, shift.numbers, head, layout, expanded)
    origin = shift.origin.copy()
    for column, margins in expanded.items():
        origin[:, column] = 0.0
        for margin, weight in margins.items():
            origin[margin, column] = weight
    # Margins come before what contains them, as `Shift.products` promises.
    products = tuple((column, parts[column]) for column in sorted(expanded, key=lambda c: len(parts[c])))
    return replace(shift, origin=origin, products=products)


def _expand(
    column: int, parts: Mapping[int, tuple[int, ...]], by_parts: Mapping[frozenset, int], numbers: np.ndarray,
    head: DesignChunk, layout: Layout, expanded: dict[int, dict[int, float]],
) -> bool:  # fmt: skip
    """Add to `expanded` the margins that come back with a product of shifted factors, {margin: weight}, 0 the constant.

    Returns whether all of them are in X.
    """
    if column in expanded:
        return True
    factors_of, margins = parts[column], {}
    for size in range(len(factors_of)):
        for some in combinations(factors_of, size):
            weight = float(np.prod([numbers[c] for c in factors_of if c not in some]))
            if weight == 0.0:
                continue
            margin = by_parts.get(frozenset(some), -1) if some else 0
            defined = margin >= 0 if some else layout.one is not None
            if not defined or (size > 1 and not _is_product(head, margin, some)):
                return False
            if size > 1 and not _expand(margin, parts, by_parts, numbers, head, layout, expanded):
                return False
            margins[margin] = weight
    expanded[column] = margins
    return True


def _is_product(head: DesignChunk, column: int, factors: Iterable[int]) -> bool:
    # A colon in a name proves nothing: the values of the head must be the product.
    value = np.prod([head.columns[c - 1] for c in factors], axis=0)
    return bool(np.all(np.abs(head.columns[column - 1] - value) <= 1e-15 * np.abs(value)))


def _with_mix(layout: Layout, head: DesignChunk, shift: Shift) -> tuple[Shift, bool]:
    """Columns of X and y less what earlier columns give, where that is nearly all; and whether some depend on them."""
    m = len(shift)
    sequence = [layout.fixed_columns[position] for position in sequence_of(layout, shift)]
    columns = [column for column in dict.fromkeys(sequence) if column >= 0]
    if head.rows <= len(columns) + 2 or not columns:  # too few to tell
        return shift, False
    # Rows from all of the head: those at its start may all be of one group.
    rows = np.unique(np.linspace(0, head.rows - 1, max(ROWS, 20 * len(columns))).astype(np.int64))
    values = _summed(shift, head, rows)[:, [*columns, m - 1]]
    original = values + shift.plain[[*columns, m - 1]]
    about = values - values.mean(axis=0) if layout.one is not None else values
    sizes = np.einsum("ij,ij->j", about, about)
    if not np.all(np.isfinite(sizes)):  # `overflow` says so once all rows are summed
        return shift, False
    binary = [is_binary(column) for column in values.T]
    scale = np.where(sizes > 0.0, np.sqrt(sizes), 1.0)
    residual = pivots((values / scale).T @ (values / scale))
    few = (residual < MIX) & (sizes > 0.0) & (~np.array(binary) | (residual > ROUNDED))
    if not few.any():
        return shift, bool(np.any(residual[:-1] <= 1e-10))
    mix, share, order, last = shift.mix.copy(), shift.share.copy(), [], len(columns)
    mixture = mixture_of(values, sizes, ~np.array(binary))
    for number, weights in mixture.weights.items():
        if number == last and mixture.residual[number] <= NOTHING:
            continue  # effects that reproduce the response are reported as such
        column = m - 1 if number == last else columns[number]
        for other, weight in weights.items():
            mix[columns[other], column] = weight
        share[column] = _within(original[:, number], sizes[number])
        order.append(column)
    return replace(shift, mix=mix, share=share, order=tuple(order)), bool(mixture.dependent[:-1].any())


def _within(values: np.ndarray, size: float) -> float:
    """Sum of squares about the mean where a column is not zero, as a share of size: a covariate times a factor varies
    by what the covariate does."""
    some = values[values != 0.0]
    factors_of = float(np.sum((some - some.mean()) ** 2)) if len(some) > 1 else 0.0
    return min(factors_of / size, 1.0) if factors_of > 0.0 and size > 0.0 else 1.0


def _summed(shift: Shift, head: DesignChunk, rows: np.ndarray) -> np.ndarray:
    """(rows, m) v of some rows."""
    some = replace(
        head,
        columns=head.columns[:, rows],
        y=head.y[rows],
        refs=(),
        w=None,
        offset=None if head.offset is None else head.offset[rows],
    )
    ready = shift.prepared(some)
    y = ready.y if ready.offset is None else ready.y - ready.offset
    return np.column_stack([np.ones(len(rows)), *ready.columns, y]) - shift.plain


def _with_copies(layout: Layout, head: DesignChunk, shift: Shift, means: np.ndarray, far: np.ndarray) -> Shift:
    """What Z needs about other numbers than X, or as it is, stands in v once more."""
    used = {column for column in layout.fixed_columns if column >= 0}
    special = {column for column, _ in shift.products} | set(shift.order)
    origin, covariates = shift.origin.copy(), []
    copies: list[tuple[int, float]] = []
    numbers = origin[0]
    places_of: dict[tuple[int, float], int] = {}
    mixed: list[tuple[int, list[int], list[float]]] = []
    for term in layout.joint:
        factors_of = []
        numbers_of = partial(_number, term, numbers=numbers, means=means, far=far)
        for column in term.covariates:
            number = numbers_of(column)
            if column and (column, number) not in places_of:
                if column not in used and not any(c == column for c, _ in places_of):
                    numbers[column], places_of[column, number] = number, column
                elif column in used and column not in special and number == numbers[column]:
                    places_of[column, number] = column
                else:
                    places_of[column, number] = len(layout.columns) + len(copies)
                    copies.append((column, number))
            factors_of.append(places_of[column, number] if column else 0)
        for place, weights in _related(head, term, [numbers_of(c) for c in term.covariates]).items():
            factors_of[place] = len(layout.columns) + len(copies)
            copies.append((term.covariates[place], numbers_of(term.covariates[place])))
            mixed.append((factors_of[place], [factors_of[other] for other in weights], list(weights.values())))
        covariates.append(np.array(factors_of, np.int64))
    if not copies:
        return replace(shift, origin=origin, covariates=tuple(covariates))
    m, more = len(shift), len(copies)
    places = np.append(np.arange(m - 1), m - 1 + more)
    wider, mix = np.zeros((m + more, m + more)), np.zeros((m + more, m + more))
    wider[np.ix_(places, places)], mix[np.ix_(places, places)] = origin, shift.mix
    # Copies stand behind the layout's columns; y stays the last.
    wider[0, m - 1 : -1] = [number for _, number in copies]
    order = tuple(m - 1 + more if column == m - 1 else column for column in shift.order)
    for column, others, weights_of in mixed:
        mix[others, column] = weights_of
    order = (*(column for column, _, _ in mixed), *order)
    share = np.ones(m + more)
    share[places] = shift.share
    return Shift(wider, shift.products, mix, share, order, tuple(c for c, _ in copies), tuple(covariates))


def _related(head: DesignChunk, term: JointTerm, numbers: list[float]) -> dict[int, dict[int, float]]:
    """What to take off the covariates of a term that those before it nearly give: {place: {place before: weight}}."""
    if len(term.covariates) < 2 or head.rows <= len(term.covariates) + 2:
        return {}
    rows = np.unique(np.linspace(0, head.rows - 1, ROWS).astype(np.int64))
    some = [head.columns[c - 1][rows] - s if c else np.ones(len(rows)) for c, s in zip(term.covariates, numbers)]
    values = np.column_stack(some)
    about = values - values.mean(axis=0) if has_constant(term) else values
    sizes = np.einsum("ij,ij->j", about, about)
    if not np.all(np.isfinite(sizes)):
        return {}
    may = np.array([place > 0 and not is_binary(column) for place, column in enumerate(values.T)])
    mixture = mixture_of(values, sizes, may)
    return {place: weights for place, weights in mixture.weights.items() if not mixture.dependent[place]}


def _number(term: JointTerm, column: int, *, numbers: np.ndarray, means: np.ndarray, far: np.ndarray) -> float:
    """What a covariate of a term is moved by."""
    if not far[column]:
        return float(numbers[column])
    return float(means[column]) if has_constant(term) else 0.0


def _mixed_more(layout: Layout, head: DesignChunk, cross: CrossProducts) -> Shift | None:
    """The shift with more taken off, where columns have more to do with each other in all rows than in the head."""
    shift, gram, m = cross.shift, cross.gram, len(cross.shift)
    sequence = [layout.fixed_columns[position] for position in sequence_of(layout, shift)]
    columns = [*dict.fromkeys(column for column in sequence if column >= 0), m - 1]
    factors_of = gram[np.ix_(columns, columns)]
    diagonal = np.diagonal(factors_of)
    if not np.all(diagonal <= LARGEST):  # `overflow` says so
        return None
    # Lengths of one: the limits below are shares of a column's own squares, whatever its unit.
    scale = np.where(diagonal > 0.0, np.sqrt(np.abs(diagonal)), 1.0)
    factors_of, original = factors_of / np.outer(scale, scale), squares_of(gram, np.eye(m) + shift.mix)[columns]
    residual = pivots(factors_of)
    about = 1.0 - (gram[0, columns] / scale) ** 2 / gram[0, 0] if layout.one is not None else np.ones(len(columns))
    zeros_and_ones = diagonal == gram[0, columns]
    close = (residual < RETAKE**2 * about) & ~zeros_and_ones & (diagonal > NOTHING * original) & (diagonal > 0.0)
    close[-1] &= residual[-1] > NOTHING
    if not close.any():
        return None
    more, order = np.zeros((m, m)), list(shift.order)
    base: list[int] = []
    for number, column in enumerate(columns):
        if close[number] and base:
            # Least squares and no solve, because the columns of the base may be close to each other.
            weights = np.linalg.lstsq(factors_of[np.ix_(base, base)], factors_of[base, number], rcond=1e-12)[0]
            more[np.array(columns)[base], column] = weights * scale[number] / scale[base]
            order += [column] if column not in order else []
        elif residual[number] > MIX * RETAKE:
            base.append(number)
    # With v = v_new (I + more) and u = v (I + C) the new C follows from u = v_new (I + more)(I + C).
    mix = (np.eye(m) + more) @ (np.eye(m) + shift.mix) - np.eye(m)
    place = {column: number for number, column in enumerate(columns)}
    changed = replace(shift, mix=mix, order=tuple(sorted(order, key=lambda column: place[column])))
    moments = moments_from(cross)
    return _with_copies(layout, head, _without_copies(changed), moments.means, moments.far)


def _without_copies(shift: Shift) -> Shift:
    """What X and y need."""
    m = len(shift)
    keep = np.append(np.arange(m - 1 - len(shift.copies)), m - 1)
    order = tuple(len(keep) - 1 if c == m - 1 else c for c in shift.order if c == m - 1 or c < len(keep) - 1)
    return replace(
        shift,
        origin=shift.origin[np.ix_(keep, keep)],
        mix=shift.mix[np.ix_(keep, keep)],
        share=shift.share[keep],
        order=order,
        copies=(),
    )
