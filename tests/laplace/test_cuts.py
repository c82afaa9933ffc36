"""How rows are cut into shards does not matter: the same cut gives the same bits, another one the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from bigmm.families import family
from tests.laplace.models import Rows

BERNOULLI, GAMMA = family("bernoulli"), family("gamma", "log")


def engines(model: Rows, kind: str, count: int):
    observed = model.family.has_dispersion
    if kind == "quadrature":
        return model.single(observed, 9, count)
    return model.single(observed, 1, count) if kind == "one" else model.crossed(observed, count=count)


@pytest.mark.parametrize("kind", [BERNOULLI, GAMMA], ids=str)
@pytest.mark.parametrize("how", ["one", "quadrature", "crossed"])
def test_shards(kind, how):
    model = Rows.draw(kind, "crossed" if how == "crossed" else "one")
    whole = engines(model, how, 1).evaluate(model.psi)
    for count in (2, 5, 8):
        one, again = (engines(model, how, count).evaluate(model.psi) for _ in range(2))
        assert one.value == again.value
        assert np.array_equal(one.gradient, again.gradient) and np.array_equal(one.hessian, again.hessian)
        assert one.value == pytest.approx(whole.value, rel=1e-10)
        assert one.gradient == pytest.approx(whole.gradient, rel=1e-10, abs=1e-9)
        assert one.hessian == pytest.approx(whole.hessian, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("how", ["one", "crossed"])
def test_a_remembered_mode_does_not_change_the_value(how):
    model = Rows.draw(BERNOULLI, "crossed" if how == "crossed" else "one")
    engine = engines(model, how, 2)
    first = engine.value(model.psi)
    engine.value(model.psi + 0.5)
    assert engine.value(model.psi) == pytest.approx(first, rel=1e-12)


def test_blocks_of_levels_do_not_matter():
    """More levels than `levelwise.BLOCK`, against every level alone."""
    rng = np.random.default_rng(4)
    n, q = 900, 300
    model = Rows.draw(BERNOULLI, "one", n=n)
    refs = np.concatenate([np.arange(q), rng.integers(0, q, n - q)])
    model = Rows(**{**model.__dict__, "refs": (refs,), "terms": ((q, (0,), False),)})
    one, other = (model.single(False, count=c).evaluate(model.psi) for c in (1, q))
    assert one.value == pytest.approx(other.value, rel=1e-12)
    assert one.gradient == pytest.approx(other.gradient, rel=1e-10, abs=1e-10)


def test_every_look_at_the_rows_is_counted():
    model = Rows.draw(BERNOULLI, "one")
    engine = model.single(False)
    engine.value(model.psi)
    engine.evaluate(model.psi)
    assert engine.passes == 2
    model = Rows.draw(BERNOULLI, "crossed")
    engine = model.crossed(False)
    tasks = []
    inner = engine.shards.fold
    engine.shards.fold = lambda merge, task, *args, **own: (tasks.append(task), inner(merge, task, *args, **own))[1]
    engine.evaluate(model.psi)
    assert engine.passes == len(tasks) > 3
    engine.value(model.psi)  # known already
    engine.value(1.01 * model.psi)
    assert engine.passes == len(tasks) > 6
