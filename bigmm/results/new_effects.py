"""Random effects of levels that the fit has not seen, for simulation: drawn from their distribution, by label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigmm.design.layout import DesignChunk
from bigmm.design.levels.equality import label_strings
from bigmm.results.draws import standard_normal
from bigmm.results.fitted import FittedModel
from bigmm.results.predictor import covariate


@dataclass(frozen=True, slots=True)
class NewTerm:
    """One random-effects term, as the draws for its new levels need it.

    Attributes
    ----------
    group, place
        Name of the term's group, and position among the terms. Both name the stream of draws.
    grouping : int
        Index in `Layout.groupings`.
    variables : tuple of str
        The columns behind the grouping.
    covariates : tuple of int (k,)
        Indices of layout columns.
    scale : array (k, k)
        sigma lambda.
    """

    group: str
    place: int
    grouping: int
    variables: tuple[str, ...]
    covariates: tuple[int, ...]
    scale: np.ndarray


@dataclass(frozen=True, slots=True)
class NewEffects:
    """What new levels add to the linear predictor: b = sigma lambda z, z a function of seed, term, label and replicate.

    So a level has the same effect in every row, whichever partition that is in. A row whose level is missing has none.
    """

    terms: tuple[NewTerm, ...]
    seed: int

    def __call__(self, chunk: DesignChunk, table: pa.Table, replicate: int) -> np.ndarray:
        """(n,) sum of z'b over the terms whose level was not seen, 0 elsewhere."""
        eta = np.zeros(chunk.rows)
        for term in self.terms:
            unseen = chunk.refs[term.grouping] < 0
            if not unseen.any():
                continue
            # One draw for each distinct label, whatever the number of its rows.
            labels = row_labels(table.filter(pa.array(unseen)), term.variables).dictionary_encode()
            number = labels.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            effects = np.zeros((len(labels.dictionary) + 1, len(term.covariates)))  # the last: no label
            for i, label in enumerate(labels.dictionary.to_pylist()):
                # The label and not the level number: numbers of new levels depend on the table at hand.
                stream = ("new mode", term.group, term.place, replicate, label)
                effects[i] = term.scale @ standard_normal(self.seed, stream, 0, len(term.covariates))
            for slot, column in enumerate(term.covariates):
                eta[unseen] += effects[number, slot] * covariate(chunk, column)[unseen]
        return eta


def row_labels(table: pa.Table, variables: tuple[str, ...]) -> pa.Array:
    """(n,) labels of the rows' levels, components joined by ":", null where one is missing."""
    texts = [label_strings(table.column(name).combine_chunks()) for name in variables]
    if len(texts) == 1:
        return texts[0]
    return pc.binary_join_element_wise(*texts, pa.scalar(":", pa.large_string()))


def new_effects(fitted: FittedModel, seed: int) -> NewEffects:
    """The draws of new levels for all random-effects terms of a fit."""
    terms = []
    for place, (term, lam) in enumerate(zip(fitted.terms, fitted.lambdas(), strict=True)):
        joint = fitted.joints[term.joint]
        covariates = tuple(joint.covariates[slot] for slot in term.slots)
        scale = fitted.estimates.sigma * lam
        terms.append(NewTerm(term.group, place, joint.grouping, joint.factor.variables, covariates, scale))
    return NewEffects(tuple(terms), seed)
