"""The shift: every column is summed about a number near its mean, so that squares lose no digits.

Some columns need more than a number. A product f:x of a covariate far from zero is nearly a multiple of f, and is
summed as f (x - s). A column of X that the columns before it nearly reproduce is summed less a combination of them.
All lanes use the same shift, so that sums stay additive; `assemble` undoes it in the small algebra. `origin` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bigmm.design.layout import DesignChunk, JointTerm, Layout


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """How the summed columns v (m,) make the columns of a layout: [1, columns..., copies..., y - offset] = u (I + P)
    and u = v (I + C).

    Attributes
    ----------
    origin: (m, m) P. Its first row has the numbers that are taken off, other rows are the margins of products.
    products: ((column, the columns whose shifted product it is), ...), margins before what contains them.
    mix: (m, m) C.
    share: (m,) share of its sum of squares by which a column varies where it is not zero, 1 where all of it counts.
    order: the columns that have a combination of others taken off, in the order of computing.
    copies: layout columns that stand in v once more, behind the layout's, because X and Z need them about different
        numbers.
    covariates: per joint term (k,) columns of v that are its Z.
    """

    origin: np.ndarray
    products: tuple[tuple[int, tuple[int, ...]], ...]
    mix: np.ndarray
    share: np.ndarray
    order: tuple[int, ...]
    copies: tuple[int, ...]
    covariates: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.origin)

    @property
    def numbers(self) -> np.ndarray:
        """(m,) what each column is moved by."""
        return self.origin[0]

    @property
    def plain(self) -> np.ndarray:
        """(m,) what the kernels take off: nothing where `prepared` has done it."""
        out = self.origin[0].copy()
        out[list(self._done())] = 0.0
        return out

    @property
    def back(self) -> np.ndarray:
        """(m, m) K with layout columns = v K."""
        return (np.eye(len(self)) + self.mix) @ (np.eye(len(self)) + self.origin)

    @property
    def of_columns(self) -> Shift:
        """Without what columns give of y: y less a number at most."""
        last = len(self) - 1
        mix, share = self.mix.copy(), self.share.copy()
        mix[:, last], share[last] = 0.0, 1.0
        return replace(self, mix=mix, share=share, order=tuple(column for column in self.order if column != last))

    @property
    def of_moved(self) -> Shift:
        """What is left to take off rows that are `moved`: the number of y. Sums of such rows are sums about self."""
        origin = np.zeros_like(self.origin)
        origin[0, -1] = self.origin[0, -1]
        m = len(self)
        return Shift(origin, (), np.zeros((m, m)), np.ones(m), (), (), self.covariates)

    def moved(self, chunk: DesignChunk) -> DesignChunk:
        """The chunk with v for its columns; y and offset stay. Of a shift `of_columns`."""
        ready, numbers = self.prepared(chunk), self.plain[1:-1]
        return replace(ready, columns=ready.columns - numbers[:, None]) if numbers.any() else ready

    def same(self, other: Shift) -> bool:
        """Are sums of both of the same columns?"""
        return (
            np.array_equal(self.origin, other.origin)
            and np.array_equal(self.mix, other.mix)
            and np.array_equal(self.share, other.share)
            and self.copies == other.copies
            and all(map(np.array_equal, self.covariates, other.covariates))
        )

    def prepared(self, chunk: DesignChunk) -> DesignChunk:
        """The chunk with its copies, and with the columns that need more than a number taken off as u or v."""
        if not (self.copies or self.products or self.order):
            return chunk
        # New memory: columns of a chunk may be views of the table's, and what follows writes in place.
        columns = np.concatenate([chunk.columns, chunk.columns[[c - 1 for c in self.copies]]])
        y, offset, last = chunk.y, chunk.offset, len(self) - 1
        for column, factors in self.products:
            value = chunk.columns[factors[0] - 1] - self.numbers[factors[0]]
            for factor in factors[1:]:
                value *= chunk.columns[factor - 1] - self.numbers[factor]
            columns[column - 1] = value
        products_done = {column for column, _ in self.products}
        for column in self.order:
            if column == last:
                y, offset = (y if offset is None else y - offset) - self.numbers[last], None
                target = y
            else:
                target = columns[column - 1]
                if column not in products_done:
                    target -= self.numbers[column]
                    products_done.add(column)
            for other in np.flatnonzero(self.mix[:, column]):
                weight = self.mix[other, column]
                if other == 0:
                    target -= weight
                    continue
                # A column that `order` has before this one stands as v already; any other still has its number.
                value = columns[other - 1]
                target -= weight * (value if other in products_done else value - self.numbers[other])
        return replace(chunk, columns=columns, y=y, offset=offset)

    def _done(self) -> set[int]:
        """Columns that the kernels find as they are summed."""
        return {column for column, _ in self.products} | set(self.order)


def plain_shift(layout: Layout, numbers: np.ndarray) -> Shift:
    """Every column of the layout less a number; numbers (m,)."""
    m = len(numbers)
    origin = np.zeros((m, m))
    origin[0] = numbers
    covariates = tuple(np.array(term.covariates, np.int64) for term in layout.joint)
    return Shift(origin, (), np.zeros((m, m)), np.ones(m), (), (), covariates)


def as_shift(layout: Layout, shift: Shift | np.ndarray) -> Shift:
    """A shift, also of its numbers alone."""
    return shift if isinstance(shift, Shift) else plain_shift(layout, np.asarray(shift, float))


def shift_vector(layout: Layout, head: DesignChunk) -> np.ndarray:
    """(m,) the shift of [1, columns[1:]..., y - offset]: 0 or the mean over the rows of `head`.

    A shifted column is x - s; s comes back only through a constant. So a column moves when the columns of X before it
    make the constant (if X uses it), when every term that uses it has the constant, and when no `FixedFactor`
    multiplies with it; y moves when the constant is in the span of X. Columns of zeros and ones stay, so that their
    sums are exact counts.
    """
    shift, movable = np.zeros(len(layout.columns) + 1), may_shift(layout)
    if head.rows == 0:
        return shift
    for column in range(1, len(layout.columns)):
        values = head.columns[column - 1]
        if movable[column] and not is_binary(values):
            shift[column] = values.mean()
    if movable[-1]:
        shift[-1] = (head.y if head.offset is None else head.y - head.offset).mean()
    # A mean that overflows moves nothing; `overflow` names the column once all rows are summed.
    shift[~np.isfinite(shift)] = 0.0
    return shift


def may_shift(layout: Layout) -> np.ndarray:
    """(m,) whether the constant is at hand wherever a column, or y, is used."""
    columns = [_may_shift(layout, column) for column in range(1, len(layout.columns))]
    return np.array([False, *columns, layout.one is not None])


def is_binary(values: np.ndarray) -> bool:
    """Zeros and ones only?"""
    # NaN is neither, and -0.0 equals 0.0.
    return bool(np.all((values == 0.0) | (values == 1.0)))


def has_constant(term: JointTerm) -> bool:
    """Can a joint term's columns be moved?"""
    return term.fixed_factor is None and 0 in term.covariates


def _may_shift(layout: Layout, column: int) -> bool:
    """Whether the constant is at hand wherever the column is used."""
    if not all(has_constant(term) for term in layout.joint if column in term.covariates):
        return False
    uses = [position for position, used in enumerate(layout.fixed_columns) if used == column]
    if not uses:
        return True
    # Moved before the constant is there, a column would change what "depends on earlier columns" means in X.
    return layout.one is not None and bool(min(uses) > np.flatnonzero(layout.one).max())
