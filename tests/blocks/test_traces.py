"""The parts of the iterative solver's inverse that need no probe, against dense matrices and a chain's own factor."""

import numpy as np
import pytest

from bigmm.blocks.analysis import analyse
from bigmm.blocks.exact.factor import factorize
from bigmm.blocks.exact.inverse import selected_inverse
from bigmm.blocks.iterative import traces
from bigmm.blocks.iterative.factor import factorize_iteratively
from bigmm.blocks.iterative.structure import analyse_iterative, gram_of_terms
from bigmm.objective.krylov import PRECISION
from tests.oracle import Rows, Shape

ONE_STAGE = {
    "crossed": Shape(((60, 1, False), (40, 1, False)), n=900),
    "three crossed, slopes": Shape(((60, 2, False), (40, 2, False), (20, 1, False)), n=900, shifted=True),
}
CHAINS = {
    "two": Shape(((80, 2, True), (40, 1, False), (25, 2, False)), n=900),
    "three": Shape(((80, 1, True), (40, 1, True), (12, 2, False), (9, 1, False)), n=900),
}


def factor_of(shape: Shape):
    rows = Rows.draw(shape, 5)
    lams = rows.covariances.working(rows.gram, np.where(rows.covariances.lower == 0, 0.6, 0.2))
    return rows.gram, factorize_iteratively(analyse_iterative(rows.gram), lams, PRECISION, with_y=True)


def dense_identity_part(factor) -> np.ndarray:
    """M_chain^-1 + T L^-T L^-1 T' over all terms' effects, in the order of the gram."""
    size = [t.n_levels * t.width for t in factor.structure.gram.terms]
    into = np.concatenate([e.reshape(-1, e.shape[2]) for e in traces.effects(factor, np.eye(factor.operator.size))])
    out = into @ into.T
    (stage,), (part,), at = factor.structure.stages, factor.stages, np.cumsum([0, *size])
    for level, own in enumerate(part.h.transpose(0, 2, 1) @ part.h):
        here = slice(at[stage.term] + level * stage.width, at[stage.term] + (level + 1) * stage.width)
        out[here, here] += own
    return out


@pytest.mark.parametrize("shape", ONE_STAGE.values(), ids=list(ONE_STAGE))
def test_the_identity_part_of_one_stage_is_exact_entry_by_entry(shape):
    gram, factor = factor_of(shape)
    whole = dense_identity_part(factor)
    at = np.cumsum([0, *(t.n_levels * t.width for t in gram.terms)])
    known, pairs = traces._identity_part(factor, with_pairs=True)
    alone, none = traces._identity_part(factor, with_pairs=False)
    assert none == {} and set(pairs) == {(0, k) for k in range(1, len(gram.terms))}
    for number, (term, blocks) in enumerate(zip(gram.terms, known, strict=True)):
        np.testing.assert_array_equal(alone[number], blocks)
        for level, block in enumerate(blocks):
            here = slice(at[number] + level * term.width, at[number] + (level + 1) * term.width)
            np.testing.assert_allclose(block, whole[here, here], rtol=1e-10, atol=1e-14)
    for (j, k), blocks in pairs.items():
        pattern, (a, b) = gram.cross[j, k], (gram.terms[j].width, gram.terms[k].width)
        row = np.repeat(np.arange(gram.terms[j].n_levels), np.diff(pattern.indptr))
        for level, m, block in zip(row, pattern.indices, blocks, strict=True):
            expected = whole[at[j] + level * a : at[j] + (level + 1) * a, at[k] + m * b : at[k] + (m + 1) * b]
            np.testing.assert_allclose(block, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("shape", CHAINS.values(), ids=list(CHAINS))
def test_the_chains_own_inverse_is_read_off_the_whole_factor(shape):
    gram, factor = factor_of(shape)
    chosen = [stage.term for stage in factor.structure.stages]
    own = factorize(analyse(gram_of_terms(gram, chosen)), tuple(factor.lams[j] for j in chosen))
    expected = selected_inverse(own, with_fixed=False, pattern=True)
    known, pairs = traces._chain_part(factor, with_pairs=True)
    for number, j in enumerate(chosen):
        np.testing.assert_allclose(known[j], expected.covariances[number], rtol=1e-12)
    assert set(pairs) == {(chosen[a], chosen[b]) for a, b in expected.pairs}
    for (a, b), blocks in expected.pairs.items():
        np.testing.assert_allclose(pairs[chosen[a], chosen[b]], blocks, rtol=1e-10, atol=1e-15)
    for place in factor.structure.tail:
        assert not known[place.term].any()
    assert traces._chain_part(factor, with_pairs=False)[1] == {}
