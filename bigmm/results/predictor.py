"""x'beta, z'b and their variance for rows that were encoded with the model's own design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
import pyarrow as pa

from bigmm.design.encoding.encoder import Cells, response_values
from bigmm.design.encoding.newdata import NEW_LEVELS
from bigmm.design.formula.expression import columns_of
from bigmm.design.layout import DesignChunk, FixedFactor, JointTerm, Layout
from bigmm.design.spec import NEW_DATA, DesignSpec
from bigmm.errors import DataError, UsageError
from bigmm.objective.conditional import RowVariance, row_variance
from bigmm.objective.factorization import Variances
from bigmm.results.fitted import FittedModel

# Blocks bound the memory: X of a whole partition may be wide.
BLOCK_BYTES = 32 * 2**20


Slots = tuple[tuple[int, ...], ...]
"""Per joint term the places of the covariates whose random effects count, () for none."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The random effects that count (`slots`) and the names of their groupings (`groups`); None means all."""

    slots: Slots | None = None
    groups: frozenset[str] | None = None

    def of(self, number: int, joint: JointTerm) -> tuple[int, ...]:
        """Places of the covariates of one joint term whose random effects count."""
        if self.slots is None:
            return tuple(range(len(joint.covariates)))
        return self.slots[number] if self.slots else ()

    def __bool__(self) -> bool:
        """Whether any random effect counts."""
        return self.slots is None or any(self.slots)


ALL, NONE = Selection(), Selection((), frozenset())


@dataclass(frozen=True, slots=True)
class Parts:
    """The linear predictor of n rows in its parts: eta = fixed + random + offset, each (n,).

    Attributes
    ----------
    y : array (n,)
        Response, NaN where it is absent.
    w : array (n,)
        Weights (times trials); ones where there are none.
    has_weights : bool
        Whether w is all that the rows of the fit had.
    unseen : array (n,)
        True where a level is one that the fit has not met.
    """

    fixed: np.ndarray
    random: np.ndarray
    offset: np.ndarray
    y: np.ndarray
    w: np.ndarray
    has_weights: bool
    unseen: np.ndarray

    @property
    def eta(self) -> np.ndarray:
        """The linear predictor (n,)."""
        return self.fixed + self.random + self.offset


@dataclass(frozen=True, slots=True)
class Predictor:
    """What prediction needs of a fit, small enough to travel to workers.

    Attributes
    ----------
    beta : array (p,)
        Coefficients, zero for dropped columns.
    modes : tuple of array (n_levels + 1, k) or None
        By joint term; None for a fixed factor. The last row, which is that of level -1, and the rows of levels without
        data are zero.
    chosen : Selection
        The random effects that count.
    empty : mapping of int to array (n_levels,)
        True for levels without rows, for groupings that have such levels.
    of_fit : bool
        The rows are those of the fit. Rows that the fit could not use have NaN then.
    """

    spec: DesignSpec
    joints: tuple[JointTerm, ...]
    beta: np.ndarray
    modes: tuple[np.ndarray | None, ...]
    chosen: Selection = ALL
    empty: Mapping[int, np.ndarray] = field(default_factory=dict)
    of_fit: bool = False


def predictor(fitted: FittedModel, chosen: Selection = ALL, of_fit: bool = False) -> Predictor:
    """The predictor at the estimates, with the chosen random effects; of_fit: for the rows of the fit."""
    beta = np.nan_to_num(fitted.estimates.beta)
    modes = tuple(
        spread_levels(fitted, number, fitted.estimates.b[number]) if joint.fixed_factor is None else None
        for number, joint in enumerate(fitted.joints)
    )
    return Predictor(fitted.spec, fitted.joints, beta, modes, chosen, empty_levels(fitted), of_fit)


def empty_levels(fitted: FittedModel) -> dict[int, np.ndarray]:
    """Grouping -> (n_levels,) bool, the levels without a row that counts, of the groupings that have such levels."""
    empty = {}
    for number, joint in enumerate(fitted.joints):
        n_levels, filled = joint.n_levels, fitted.kept_levels(number)
        if len(filled) < n_levels:
            empty[joint.grouping] = np.ones(n_levels, dtype=bool)
            empty[joint.grouping][filled] = False
    return empty


def spread_levels(fitted: FittedModel, number: int, values: np.ndarray) -> np.ndarray:
    """(q, k) values of the kept levels as (n_levels + 1, k) over all labels, zero elsewhere."""
    # The extra row answers for level -1, which indexes from the end. No mask is needed then.
    out = np.zeros((fitted.joints[number].n_levels + 1, values.shape[1]))
    out[fitted.kept_levels(number)] = values
    return out


def kept_positions(fitted: FittedModel, number: int) -> np.ndarray:
    """(n_levels + 1,) position of every label among the kept levels, -1 when it has no rows (and for level -1)."""
    numbers = fitted.kept_levels(number)
    out = np.full(fitted.joints[number].n_levels + 1, -1, dtype=np.int64)
    # The last place stays -1, again for level -1.
    out[numbers] = np.arange(len(numbers))
    return out


def check_new_levels(new_levels: str) -> str:
    """The option itself; UsageError unless it is one of NEW_LEVELS."""
    if new_levels not in NEW_LEVELS:
        raise UsageError(f"new_levels={new_levels!r}: choose one of {', '.join(NEW_LEVELS)}")
    return new_levels


def encode(model: Predictor, table: pa.Table, new_levels: str) -> DesignChunk:
    """Encode rows to predict for; columns of random effects that do not count may be absent.

    A level without rows in the fit is a new level. Of the rows of the fit, those with a missing value in any used
    column have NaN everywhere (R's na.exclude); rows of weight zero are predicted, as in R.
    """
    if model.of_fit:
        usable = usable_rows(model.spec, table)
        # The usual case, no missing value, takes neither the filter nor the copies.
        if not usable.all():
            chunk = _encode_new(model, table.filter(pa.array(usable)), new_levels)
            if chunk.w is None and not is_weighted(model.spec):
                # Weights of one are written out, so that `spread_rows` has NaN for them too.
                chunk = replace(chunk, w=np.ones(chunk.rows))
            return spread_rows(chunk, usable)
    return _encode_new(model, table, new_levels)


def _encode_new(model: Predictor, table: pa.Table, new_levels: str) -> DesignChunk:
    spec, strict = model.spec, bool(model.chosen) and new_levels == "raise"
    need = ("fixed", "random") if model.chosen else ("fixed",)
    chunk = spec.encode_new(table, "raise" if strict else "population", need, model.chosen.groups)
    if model.empty:
        refs = list(chunk.refs)
        for number, empty in model.empty.items():
            # The appended False keeps level -1 as it is. np.int32 keeps the type of the level numbers.
            refs[number] = np.where(np.append(empty, False)[refs[number]], np.int32(-1), refs[number])
            if strict and (refs[number] != chunk.refs[number]).any():
                refuse_empty(spec, number, chunk.refs[number], empty)
        chunk = replace(chunk, refs=tuple(refs))
    trials = trials_of(spec, table)
    if trials is None:
        return chunk
    return replace(chunk, w=trials if chunk.w is None else chunk.w * trials)


def refuse_empty(spec: DesignSpec, number: int, refs: np.ndarray, empty: np.ndarray) -> NoReturn:
    """DataError for the first row whose level has no rows in the fit."""
    row = int(np.argmax(np.append(empty, False)[refs]))
    grouping = spec.layout.groupings[number]
    raise DataError(
        f"{NEW_DATA}: {grouping.name!r} is {str(grouping.labels[refs[row]])!r} in row {row + 1}, a level without "
        "complete rows in the fit; new_levels='population' predicts without its random effect"
    )


def usable_rows(spec: DesignSpec, table: pa.Table) -> np.ndarray:
    """(n,) bool: rows of the fit that have a value in every used column and expression, and known levels of factors.

    A row of weight zero has them too, unless it is the only one of a level.
    """
    # Weights of zero do not count in the fit, but such a row has a prediction (R's predict does the same).
    rows, cells = replace(spec.completeness, weights=None, drop_missing=True).rows(table, NEW_DATA)
    places = np.arange(table.num_rows) if rows.places is None else rows.places
    usable = np.zeros(table.num_rows, dtype=bool)
    present = np.ones(len(places), dtype=bool)
    for name in spec.coded_columns:
        present &= spec.level_numbers((name,), cells.table) >= 0
    usable[places[present]] = True
    return usable


def spread_rows(chunk: DesignChunk, usable: np.ndarray) -> DesignChunk:
    """The chunk with NaN, and no level, in the rows between that are not usable (n,) bool."""

    def spread(values: np.ndarray, filling: float) -> np.ndarray:
        out = np.full((*values.shape[:-1], len(usable)), filling, dtype=values.dtype)
        out[..., usable] = values
        return out

    offset = np.zeros(chunk.rows) if chunk.offset is None else chunk.offset
    return replace(
        chunk,
        columns=spread(chunk.columns, np.nan),
        y=spread(chunk.y, np.nan),
        refs=tuple(spread(refs, -1) for refs in chunk.refs),
        w=None if chunk.w is None else spread(chunk.w, np.nan),
        offset=spread(offset, np.nan),  # NaN in the linear predictor, whatever the columns
        rows_read=len(usable),
    )


def is_weighted(spec: DesignSpec) -> bool:
    """Whether the fit had weights, or numbers of trials."""
    return spec.settings.weights is not None or spec.response.kind in ("cbind", "ratio")


def trials_of(spec: DesignSpec, table: pa.Table) -> np.ndarray | None:
    """(n,) numbers of trials that a response cbind(successes, failures) or successes / trials gives, when it is
    there."""
    response = spec.response
    if response.kind not in ("cbind", "ratio") or not set(columns_of(response.node)) <= set(table.column_names):
        return None
    cells = Cells(table, NEW_DATA, spec.levels, spec.replayer, strict=False)
    return response_values(response, cells, spec.settings.binomial)[1]


def covariate(chunk: DesignChunk, column: int) -> np.ndarray:
    """(n,) values of a layout column; column 0 is the constant."""
    return np.ones(chunk.rows) if column == 0 else chunk.columns[column - 1]


def factor_values(chunk: DesignChunk, factor: FixedFactor, weights: np.ndarray) -> np.ndarray:
    """covariate * weights[level], NaN for a level that was never seen: its effect cannot be known."""
    refs = chunk.refs[factor.grouping]
    # Index -1 reads the last weight, which the mask then replaces.
    values = np.where(refs >= 0, weights[refs], np.nan)
    return covariate(chunk, factor.covariate) * values


def fixed_part(layout: Layout, beta: np.ndarray, chunk: DesignChunk) -> np.ndarray:
    """(n,) x'beta without forming X for factors with many levels."""
    eta = np.zeros(chunk.rows)
    for column, weight in zip(layout.fixed_columns, beta, strict=True):
        if column == 0:
            eta += weight
        elif column > 0:
            # Column by column: X is never formed, and the order of the sum is that of the coefficients.
            eta += weight * chunk.columns[column - 1]
    for factor in layout.fixed_factors:
        eta += factor_values(chunk, factor, factor.contrast @ beta[list(factor.positions)])
    return eta


def random_part(model: Predictor, chunk: DesignChunk) -> np.ndarray:
    """(n,) sum over the chosen random effects of z'b at each row's level, nothing for levels that were never seen."""
    eta = np.zeros(chunk.rows)
    for number, (joint, values) in enumerate(zip(model.joints, model.modes, strict=True)):
        if values is None:
            continue
        refs = chunk.refs[joint.grouping]
        for slot in model.chosen.of(number, joint):
            eta += values[refs, slot] * covariate(chunk, joint.covariates[slot])
    return eta


def unseen_rows(model: Predictor, chunk: DesignChunk) -> np.ndarray:
    """(n,) True where the level of a chosen random effect was never seen."""
    unseen = np.zeros(chunk.rows, dtype=bool)
    for number, joint in enumerate(model.joints):
        if joint.fixed_factor is None and model.chosen.of(number, joint):
            unseen |= chunk.refs[joint.grouping] < 0
    return unseen


def parts_of_table(model: Predictor, table: pa.Table) -> tuple[DesignChunk, Parts]:
    """Rows as the fit would have met them, random effects included; levels it has not seen count as average ones."""
    # Encoded with all random effects, since leverages need every level whatever was chosen.
    chunk = encode(replace(model, chosen=ALL), table, "population")
    return chunk, parts_of_chunk(model, chunk, "population")


def parts_of_chunk(model: Predictor, chunk: DesignChunk, new_levels: str) -> Parts:
    """The linear predictor's parts for encoded rows; NaN where `new_levels="missing"` says so."""
    n = chunk.rows
    fixed = fixed_part(model.spec.layout, model.beta, chunk)
    values, unseen = random_part(model, chunk), unseen_rows(model, chunk)
    if new_levels == "missing":
        values[unseen] = np.nan
    offset = np.zeros(n) if chunk.offset is None else chunk.offset
    weights = np.ones(n) if chunk.w is None else chunk.w
    return Parts(fixed, values, offset, chunk.y, weights, chunk.w is not None or not is_weighted(model.spec), unseen)


def model_rows(layout: Layout, chunk: DesignChunk, rows: slice) -> np.ndarray:
    """(m, p) rows of X, all of the user's columns in order."""
    x = np.empty((len(range(*rows.indices(chunk.rows))), len(layout.fixed_names)))
    for position, column in enumerate(layout.fixed_columns):
        if column >= 0:
            x[:, position] = covariate(chunk, column)[rows]
    for factor in layout.fixed_factors:
        scale = covariate(chunk, factor.covariate)[rows, None]
        x[:, list(factor.positions)] = scale * factor.contrast[chunk.refs[factor.grouping][rows]]
    return x


@dataclass(frozen=True, slots=True)
class Variance:
    """Variance of the predictions of a fit. It holds the criterion, so it is as big as the Gram.

    Attributes
    ----------
    rows : RowVariance
        How the variance of a row is computed.
    joints : tuple of JointTerm
        Those with random effects.
    positions : tuple of array (n_levels + 1,)
        Position of each label among the levels with rows, -1 for the others.
    vcov : array (p, p)
        Zero for dropped columns.
    places : tuple
        Positions of the chosen random effects among the covariates of each joint term.

    Notes
    -----
    A row with missing values gets a number that means nothing.
    """

    rows: RowVariance
    layout: Layout
    joints: tuple[JointTerm, ...]
    vcov: np.ndarray
    positions: tuple[np.ndarray, ...]
    places: Slots

    def of(self, chunk: DesignChunk) -> Variances:
        """(n,) Var(x'beta_hat + z'b_hat - x'beta - z'b) for the chosen random effects b, Var(x'beta_hat) without any;
        rows go in blocks."""
        random = any(self.places)
        estimated = random and self.rows.estimator is not None
        value, error = np.empty(chunk.rows), np.empty(chunk.rows) if estimated else None
        # Blocks have no say in the values: every row's variance is computed by itself.
        size = max(1, BLOCK_BYTES // (8 * (len(self.layout.fixed_names) + 1)))
        for start in range(0, chunk.rows, size):
            rows = slice(start, min(start + size, chunk.rows))
            block = self._block(chunk, rows, random)
            value[rows] = block.value
            if error is not None and block.error is not None:
                error[rows] = block.error
        return Variances(value, error)

    def _block(self, chunk: DesignChunk, rows: slice, random: bool) -> Variances:
        # The solves take numbers only. The callers put NaN back by eta.
        x = np.nan_to_num(model_rows(self.layout, chunk, rows))
        if not random:
            return Variances(np.einsum("ij,jk,ik->i", x, self.vcov, x, optimize=True), None)
        refs = tuple(p[chunk.refs[j.grouping][rows]] for j, p in zip(self.joints, self.positions, strict=True))
        z = tuple(self._covariates(chunk, rows, number) for number in range(len(self.joints)))
        return self.rows.of(x, refs, z)

    def _covariates(self, chunk: DesignChunk, rows: slice, number: int) -> np.ndarray:
        """(m, k) values that multiply the modes: zero for those that are not chosen, so that these add nothing."""
        columns, places = self.joints[number].covariates, self.places[number]
        z = np.zeros((len(range(*rows.indices(chunk.rows))), len(columns)))
        for slot in places:
            z[:, slot] = covariate(chunk, columns[slot])[rows]
        return np.nan_to_num(z)


def variance(fitted: FittedModel, rows: int | None = None, chosen: Selection = ALL) -> Variance:
    """The variance of predictions with the chosen random effects, for so many rows (None: unknown)."""
    terms = [(number, joint) for number, joint in enumerate(fitted.joints) if joint.fixed_factor is None]
    joints = tuple(joint for _, joint in terms)
    positions = tuple(kept_positions(fitted, number) for number, _ in terms)
    vcov = np.nan_to_num(fitted.estimates.vcov)
    how = row_variance(fitted.criterion, fitted.theta, rows if chosen else 0)
    places = tuple(chosen.of(number, joint) for number, joint in terms)
    return Variance(how, fitted.layout, joints, vcov, positions, places)
