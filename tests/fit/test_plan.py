"""`bigmm.plan` says what the fit then does: the same engine, the same solver, for the same reason."""

from __future__ import annotations

import importlib

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import bigmm
from bigmm.design.encoding.first_rows import first_rows
from bigmm.design.layout import Grouping, Layout, RandomTerm
from bigmm.errors import MemoryLimitError, UsageError
from bigmm.execute import executor
from bigmm.execute.clock import Clock
from bigmm.fit.inputs import InputOptions, open_inputs
from bigmm.fit.options import settings
from bigmm.laplace.crossed import CrossedLaplace
from bigmm.laplace.engines import ENGINES
from bigmm.planning import memory, placement, sharding, solver_choice
from bigmm.planning.block_bounds import block_bounds, bounds_of_order, entries
from bigmm.planning.forecast import LOOKS
from tests.fit.conftest import write

solution, generalized = (importlib.import_module(f"bigmm.fit.{name}") for name in ("lmm", "glmm"))
ROWS = 6000
NESTED_BY_ROWS = "(1 | pupil) + (1 | room) + (1 | school)"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """pupil in room in school, by number, not by name; item crossed with all; a level of few meets two of near."""
    rng = np.random.default_rng(1)
    pupil, item, month = rng.integers(0, 700, ROWS), rng.integers(0, 260, ROWS), rng.integers(0, 12, ROWS)
    x = rng.normal(size=ROWS)
    effects = [sd * rng.normal(size=q) for q, sd in ((700, 0.6), (140, 0.5), (20, 0.4), (260, 0.7), (12, 0.2))]
    groups = pupil, pupil // 5, pupil // 35, item, month
    eta = 0.2 + 0.4 * x + sum(b[g] for b, g in zip(effects, groups, strict=True))
    few = rng.integers(0, 700, ROWS)
    return pd.DataFrame(
        {
            "y": (rng.random(ROWS) < 1.0 / (1.0 + np.exp(-eta))).astype(float),
            "t": eta + rng.normal(size=ROWS),
            "x": x,
            **dict(zip(("pupil", "room", "school", "item", "month"), groups, strict=True)),
            "class": pupil % 35 // 5,
            "few": few,
            "near": (37 * few + rng.integers(0, 2, ROWS)) % 260,
            "many": [f"f{i:03d}" for i in np.r_[0:300, rng.integers(0, 300, ROWS - 300)]],
        }
    )


@pytest.fixture(scope="module")
def lake(frame, tmp_path_factory):
    return write(frame, tmp_path_factory.mktemp("plan") / "rows.parquet", row_group_size=1000)


@pytest.fixture
def made(monkeypatch):
    """The engines that are made."""
    engines: list = []
    for name, kind in ENGINES.items():
        plain = kind.__init__

        def spy(self, *args, plain=plain, name=name, **how):
            engines.append(name)
            plain(self, *args, **how)

        monkeypatch.setattr(kind, "__init__", spy)
    return engines


GENERALIZED = {
    "one factor": ("(1 | pupil)", {}, "single", "exact"),
    "one factor, slopes": ("(1 + x | pupil)", {}, "single", "exact"),
    "one factor, few levels": ("(1 | month)", {}, "nested", "exact"),
    "one factor, quadrature": ("(1 | month)", {"nagq": 5}, "single", "exact"),
    "one factor, fast": ("(1 | pupil)", {"nagq": 0}, "crossed", "exact"),
    "one factor, iterative": ("(1 | pupil)", {"solver": "iterative"}, "single", "exact"),
    "nested by name": ("(1 | school/class)", {}, "nested", "exact"),
    "nested by rows": (NESTED_BY_ROWS, {}, "nested", "exact"),
    "nested, fast": (NESTED_BY_ROWS, {"nagq": 0}, "crossed", "exact"),
    "nested, too few trees": ("(1 | pupil) + (1 | school)", {}, "crossed", "exact"),
    "crossed, small": ("(1 | pupil) + (1 | item)", {}, "crossed", "exact"),
    "crossed, exact": ("(1 | pupil) + (1 | item)", {"solver": "exact"}, "crossed", "exact"),
    "crossed, iterative": ("(1 | pupil) + (1 | item)", {"solver": "iterative"}, "crossed", "iterative"),
    "crossed, fast, iterative": (
        "(1 | pupil) + (1 | item)",
        {"solver": "iterative", "nagq": 0},
        "crossed",
        "iterative",
    ),
    "crossed, little memory": ("(1 | pupil) + (1 | item)", {"memory_limit": "2500kB"}, "crossed", "iterative"),
    "crossed and nested": ("(1 | pupil) + (1 | item) + (1 | room)", {}, "crossed", "exact"),
}


@pytest.mark.parametrize("name", GENERALIZED)
def test_plan_and_fit_of_generalized_models_agree(name, lake, made, monkeypatch):
    terms, options, engine, solver = GENERALIZED[name]
    if "trees" in name:
        monkeypatch.setattr(sharding, "SMALL_ROWS", 100)
        monkeypatch.setattr(sharding, "MINIMUM_SHARDS", 30)
    looks = looks_of(monkeypatch)
    how = {"family": "bernoulli", "n_workers": 2, **options}
    planned = bigmm.plan(f"y ~ x + {terms}", lake, **how)
    assert (planned.engine, planned.solver) == (engine, solver)
    assert planned.engine not in made, "nothing is fitted"
    fitted = bigmm.glmm(f"y ~ x + {terms}", lake, **how)
    assert (planned.engine, planned.solver, planned.solver_reason) == (
        made[-1],
        fitted.solver,
        fitted.fitted.solver_reason,
    )
    least, most = planned.looks_per_evaluation
    assert LOOKS[made[-1]] == (least, most)
    if looks:
        assert least <= np.median(looks) <= most


def looks_of(monkeypatch) -> list[int]:
    """Looks at the shards of each evaluation by the engine for crossed factors."""
    plain, looks = CrossedLaplace._evaluate, []

    def spy(self, psi):
        before = self.passes
        found = plain(self, psi)
        looks.append(self.passes - before)
        return found

    monkeypatch.setattr(CrossedLaplace, "_evaluate", spy)
    return looks


LINEAR = {
    "one factor": ("(1 + x | pupil)", {}, "blocks", "exact"),
    "one factor, iterative": ("(1 | pupil)", {"solver": "iterative"}, "blocks", "exact"),
    "nested by rows": (NESTED_BY_ROWS, {}, "blocks", "exact"),
    "levels stay": (NESTED_BY_ROWS, {"LARGE_BYTES": 1 << 14}, "levels", "exact"),
    "crossed, small": ("(1 | pupil) + (1 | item)", {}, "blocks", "exact"),
    "crossed, iterative": ("(1 | pupil) + (1 | item)", {"solver": "iterative"}, "blocks", "iterative"),
    "crossed, large": ("(1 | pupil) + (1 | item)", {"EXACT_TAIL": 100}, "blocks", "iterative"),
    "crossed and nested": ("(1 | pupil) + (1 | item) + (1 | room)", {}, "blocks", "exact"),
    "crossed, little memory": ("(1 | pupil) + (1 | item) + (1 + x | month)", {}, "blocks", "iterative"),
    "fixed factor": ("many + (1 | pupil) + (1 | item)", {}, "blocks", "exact"),
}


@pytest.mark.parametrize("name", LINEAR)
def test_plan_and_fit_of_linear_models_agree(name, lake, monkeypatch):
    terms, options, engine, solver = LINEAR[name]
    options = dict(options)
    if "EXACT_TAIL" in options:
        monkeypatch.setattr(solver_choice, "EXACT_TAIL", options.pop("EXACT_TAIL"))
    if "LARGE_BYTES" in options:
        monkeypatch.setattr(placement, "LARGE_BYTES", options.pop("LARGE_BYTES"))
    if "little memory" in name:  # so little that the pass would be refused first
        plain = solver_choice.exact_bytes
        monkeypatch.setattr(solver_choice, "exact_bytes", lambda *sizes: plain(*sizes) << 20)
    planned = bigmm.plan(f"t ~ x + {terms}", lake, n_workers=2, **options)
    assert (planned.engine, planned.solver) == (engine, solver)
    fitted = bigmm.lmm(f"t ~ x + {terms}", lake, n_workers=2, **options).fitted
    assert planned.solver == fitted.solver and planned.looks_per_evaluation is None
    assert planned.passes == fitted.passes
    if "little memory" not in name:  # where it says how many bytes, at most
        assert planned.solver_reason == fitted.solver_reason
    if planned.engine == "blocks":
        bounds_hold(f"t ~ x + {terms}", lake, fitted)


def bounds_hold(formula, lake, fitted):
    """The blocks lie between the smallest and the largest of the bounds; only pairs of levels are uncertain."""
    how = settings("auto", "auto", None, None)
    options = InputOptions(
        formula, lake, weights=None, offset=None, client=None, n_workers=1, filter=None,
        partition_bytes=1 << 20, contrasts=None, categories=None, drop_missing=True,
    )  # fmt: skip
    inputs = open_inputs(options, how, Clock())
    found = block_bounds(inputs.source, inputs.spec, executor(None, 1), ROWS, first_rows(inputs.source, inputs.spec))
    true = solver_choice.sizes_of(fitted.assembled.gram)
    for bound in (found.least, found.largest):
        assert (bound.tail, bound.crossed, bound.fixed, bound.dense, bound.levels) == (
            true.tail, true.crossed, true.fixed, true.dense, true.levels,
        )  # fmt: skip
    assert found.least.sparse <= true.sparse <= found.largest.sparse
    assert fitted.assembled.term_order == tuple(range(len(inputs.spec.layout.joint)))


def test_a_choice_that_hangs_on_the_pairs_says_so(lake):
    """1,400 pairs meet where 6,000 could: 134 kB and not 576 kB beside a dense block of 2.8 MB."""
    formula, dense = "y ~ x + (1 | few) + (1 | near)", 5 * 8 * 263**2
    limit = bigmm.plan(formula, lake, family="bernoulli", memory_limit="1GiB").solver_bytes - 276_000
    planned = bigmm.plan(formula, lake, family="bernoulli", memory_limit=limit)
    assert planned.solver == "iterative"
    assert planned.solver_reason.endswith("at most; exact should far fewer pairs of levels meet")
    assert bigmm.glmm(formula, lake, family="bernoulli", nagq=0, memory_limit=limit).solver == "exact"
    for limit, solver in ((dense, "iterative"), (2 * dense, "exact")):
        certain = bigmm.plan(formula, lake, family="bernoulli", memory_limit=limit)
        assert certain.solver == solver and "at most" not in certain.solver_reason


def test_pairs_within_a_chain_are_known():
    groupings = tuple(Grouping(name, (name,), range(q)) for name, q in (("a", 50), ("b", 10), ("c", 7)))
    terms = tuple(RandomTerm(g.name, number, (0,), ("Intercept",)) for number, g in enumerate(groupings))
    layout = Layout(("1", "x"), ("Intercept", "x"), (0, 1), (), terms, groupings, None, "y")
    found = bounds_of_order(layout, ((0, 1), (2,)), 100)
    assert found.most == {(0, 1): 50, (0, 2): 100, (1, 2): 70}
    assert entries(layout, found.most) == 220
    assert (found.largest.tail, found.largest.crossed, found.least.sparse) == (7, True, (50 + 50 + 10) * 24)


def test_the_iterative_solver_is_refused_with_the_figure_of_the_plan(lake, monkeypatch):
    """What is certain before the rows are read, then; what hangs on how many pairs meet, before anything is solved."""
    formula, ask = "t ~ x + (1 | few) + (1 | near)", {"solver": "iterative", "n_workers": 1}
    monkeypatch.setattr(memory, "VECTORS", 500)  # so that the pass needs less
    planned = bigmm.plan(formula, lake, **ask)
    exactly = planned.solver_bytes - 48 * (6000 - met(lake, "few", "near"))
    assert bigmm.lmm(formula, lake, memory_limit=exactly, **ask).solver == "iterative"
    monkeypatch.setattr(solution, "solve_model", None)
    with pytest.raises(MemoryLimitError, match=r"iterative solver needs about .* raise memory_limit, drop a grouping"):
        bigmm.lmm(formula, lake, memory_limit=exactly - 1, **ask)
    tight = bigmm.plan(formula, lake, memory_limit=exactly - 1, **ask)
    assert tight.refused and not tight.fits and "does NOT fit, and the fit is refused" in str(tight)
    monkeypatch.setattr(solution, "fold_lane", None)
    with pytest.raises(MemoryLimitError, match="iterative solver needs at least"):
        bigmm.lmm(formula, lake, memory_limit=planned.solver_bytes - 48 * 6000, **ask)


def test_a_crossed_generalized_model_is_refused_with_the_figure_of_the_plan(lake, monkeypatch):
    formula, ask = "y ~ x + (1 | pupil) + (1 | item)", {"solver": "iterative", "family": "bernoulli", "n_workers": 1}
    needed = bigmm.plan(formula, lake, **ask).solver_bytes
    assert bigmm.glmm(formula, lake, nagq=0, memory_limit=needed + 1, **ask).solver == "iterative"
    monkeypatch.setattr(generalized, "glmm_data", None)
    with pytest.raises(MemoryLimitError, match="iterative solver needs at least .* drop a grouping factor"):
        bigmm.glmm(formula, lake, memory_limit=needed // 2, **ask)


def test_what_goes_through_files_is_tried(lake):
    ask = {"family": "bernoulli", "memory_limit": "200kB"}
    planned = bigmm.plan("y ~ x + (1 | pupil)", lake, **ask)
    assert not planned.fits and not planned.refused
    assert "does NOT fit, but the fit is tried" in str(planned)
    assert bigmm.glmm("y ~ x + (1 | pupil)", lake, **ask).converged


def met(lake, *columns):
    """Pairs of levels that meet."""
    return len(pq.read_table(lake, columns=list(columns)).to_pandas().drop_duplicates())


def test_what_does_not_fit_is_what_the_fit_refuses(lake):
    ask = {"family": "bernoulli", "solver": "exact"}
    planned = bigmm.plan("y ~ x + (1 | pupil) + (1 | item)", lake, memory_limit="2MiB", **ask)
    assert not planned.fits and "does NOT fit" in str(planned)
    with pytest.raises(MemoryLimitError, match="use solver='iterative'"):
        bigmm.glmm("y ~ x + (1 | pupil) + (1 | item)", lake, memory_limit="2MiB", **ask)
    assert bigmm.plan("y ~ x + (1 | pupil) + (1 | item)", lake, memory_limit="1GiB", **ask).fits


@pytest.mark.parametrize(
    ("formula", "options", "message"),
    [
        ("y ~ x + (1 | pupil) + (1 | item)", {"family": "bernoulli", "nagq": 4}, "nagq=4 needs exactly one"),
        ("y ~ x + (1 | pupil)", {"family": "bernoulli", "nagq": -1}, "nagq must be 0"),
        ("t ~ x + (1 | pupil)", {"family": "gamma", "laplace": "expected"}, "is no likelihood for gamma"),
        ("y ~ many + (1 | pupil)", {"family": "bernoulli"}, "fixed factor 'many' has 300 levels"),
        ("t ~ many + (1 | pupil) + (1 | item)", {"solver": "iterative"}, "does not take the fixed factor 'many'"),
        ("y ~ x + (1 | pupil)", {"nagq": 1}, "give family= too"),
    ],
)
def test_plan_refuses_what_the_fit_refuses(lake, formula, options, message):
    with pytest.raises(UsageError, match=message):
        bigmm.plan(formula, lake, **options)
    if "family" in options or "solver" in options:
        with pytest.raises(UsageError, match=message):
            (bigmm.glmm if "family" in options else bigmm.lmm)(formula, lake, **options)


def test_the_text_and_the_record_name_the_engine(lake):
    planned = bigmm.plan("y ~ x + (1 | pupil) + (1 | item)", lake, family="poisson", solver="iterative")
    text = str(planned)
    assert "Engine: PIRLS on blocks that are summed over shards" in text
    assert "Solver: iterative (as asked for)" in text and "no other yet" not in text
    assert "looks at the shards 2 to 8 times" in text
    assert [term.kind for term in planned.terms] == ["block-diagonal", "applied, never formed"]
    record = planned.as_record()
    assert (record["engine"], record["looks_per_evaluation"]) == ("crossed", (2, 8))
    single = bigmm.plan("y ~ x + (1 | pupil)", lake, family="poisson")
    assert "level by level: an evaluation is one task per shard" in str(single)
    assert "looks at the shards once" in str(single)
    nested = bigmm.plan(f"t ~ x + {NESTED_BY_ROWS}", lake)
    assert [term.kind for term in nested.terms] == ["block-diagonal", *["block-diagonal, nested"] * 2]
    assert nested.solver_bytes < 1 << 20, "no dense block"


def test_more_of_anything_costs_more(lake):
    def asked(terms, **how):
        return bigmm.plan(f"y ~ x + {terms}", lake, family="bernoulli", **how)

    one, two = asked("(1 | pupil)"), asked("(1 + x | pupil)")
    assert one.flops < two.flops and one.solver_bytes < two.solver_bytes
    exact, slopes = asked("(1 | pupil) + (1 | item)"), asked("(1 | pupil) + (1 + x | item)")
    assert exact.flops < slopes.flops and exact.solver_bytes < slopes.solver_bytes
    assert one.flops < asked("(1 | pupil)", nagq=9).flops


@pytest.mark.cluster
def test_rows_on_a_cluster_take_none_of_this_process(lake, client):
    formula, how = "y ~ x + (1 | pupil) + (1 | item)", {"family": "bernoulli"}
    here, there = bigmm.plan(formula, lake, n_workers=2, **how), bigmm.plan(formula, lake, client=client, **how)
    assert (here.engine, here.solver, here.solver_reason) == (there.engine, there.solver, there.solver_reason)
    assert there.workers == 2 and there.solver_bytes < here.solver_bytes and there.pass_bytes < here.pass_bytes
