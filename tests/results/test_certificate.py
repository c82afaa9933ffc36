"""`certify` on InstEval: the exact objective beside the iterative one, on threads, through a file, on a cluster."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import FrozenInstanceError, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import bigmm
from bigmm.blocks.exact.factor import NotPositiveDefiniteError
from bigmm.blocks.tiles import cholesky as tiles
from bigmm.cli.app import run
from bigmm.datasets import insteval
from bigmm.errors import DataError, MemoryLimitError, OutputError, UsageError
from bigmm.execute import executor, spill
from bigmm.execute.dask import graph as cluster_graph
from bigmm.execute.tasks import Capacity
from bigmm.execute.threads.executor import ThreadExecutor
from bigmm.results import certificate
from tests.execute.test_cluster import start_cluster

distributed = pytest.importorskip("distributed")

FORMULA = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"


@pytest.fixture(scope="module", params=[False, True], ids=["ML", "REML"])
def fits(request):
    frame = insteval()
    return bigmm.lmm(FORMULA, frame, reml=request.param), bigmm.lmm(
        FORMULA, frame, reml=request.param, solver="iterative"
    )


@pytest.fixture(scope="module")
def iterative():
    return bigmm.lmm(FORMULA, insteval(), solver="iterative")


@pytest.fixture(scope="module")
def saved(iterative, tmp_path_factory):
    return iterative.save(tmp_path_factory.mktemp("fit") / "model")


def test_the_certified_objective_is_the_exact_solvers(fits):
    exact, ours = fits
    found = ours.certify(n_workers=2)
    assert found.objective_exact == pytest.approx(exact.fitted.criterion.value(ours.theta), rel=1e-12)
    assert found.objective_fit == ours.objective
    assert found.difference == ours.objective - found.objective_exact
    assert found.monte_carlo_error == ours.monte_carlo_error["objective"] > 0
    assert found.z == found.difference / found.monte_carlo_error
    assert found.within and abs(found.z) < 4
    assert found.criterion == ("REML" if exact.reml else "maximum likelihood")
    # the exact optimum cannot lie above the exact objective anywhere
    assert exact.objective <= found.objective_exact + 1e-8 * exact.objective


def test_slopes_and_a_nested_chain():
    rng = np.random.default_rng(0)
    frame = insteval().head(5000)
    frame = frame.assign(x=rng.standard_normal(len(frame)), part=(frame["d"].astype(int) % 40).astype(str))
    formula = "y ~ x + (1 + x | d) + (1 | part) + (1 + x | s)"
    exact, ours = bigmm.lmm(formula, frame), bigmm.lmm(formula, frame, solver="iterative")
    assert [kind for _, kind in exact.fitted.criterion.structure.kinds()].count("dense") == 1
    found = ours.certify(tile=101)
    assert found.objective_exact == pytest.approx(exact.fitted.criterion.value(ours.theta), rel=1e-11)
    assert found.n_tiles == 10


def test_the_same_bits_on_any_threads_and_through_a_file(iterative, monkeypatch):
    written = []
    write_at = spill.SpillFile.write_at
    monkeypatch.setattr(spill.SpillFile, "write_at", lambda self, *a: written.append(a[1].nbytes) or write_at(self, *a))
    one = iterative.certify(n_workers=1, tile=64)
    assert not written
    assert iterative.certify(n_workers=3, tile=64).objective_exact == one.objective_exact
    least = one.bytes - 8 * 64**2 * 70
    through = iterative.certify(n_workers=2, tile=64, memory_limit=least)
    assert sum(written) > 0
    assert through.objective_exact == one.objective_exact
    assert through.n_tiles == one.n_tiles == 171


def test_what_does_not_fit_is_refused_before_it_starts(iterative, monkeypatch):
    monkeypatch.setattr(ThreadExecutor, "run_graph", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(MemoryLimitError, match=r"GiB even with its tiles.*raise memory_limit.*tile=.*client="):
        iterative.certify(memory_limit="1MB")
    monkeypatch.setattr(certificate, "check_disk", lambda nbytes, what: spill.check_disk(nbytes + 10**18, what))
    bytes_needed = predicted(iterative, 64).bytes
    with pytest.raises(OutputError, match="the tiles do not fit.*TMPDIR"):
        iterative.certify(tile=64, n_workers=1, memory_limit=bytes_needed - 1)


def predicted(model, tile):
    reduced = certificate._reduced(model.fitted)
    return certificate.predicted_cost(reduced, tiles.Tiling(reduced.size, tile), executor(n_workers=1))


def test_a_cluster_that_is_too_small_is_refused(iterative):
    cost, workers = predicted(iterative, 64), Small()
    with pytest.raises(MemoryLimitError, match=r"a small cluster offers 0.00 GiB.*add workers.*n_workers="):
        certificate._room(cost, None, workers, tile_given=False)
    assert certificate._room(replace(cost, bytes=1000), None, workers, tile_given=False) is None
    with pytest.raises(MemoryLimitError, match="needs about"):
        certificate._room(replace(cost, bytes=1000), 999, workers, tile_given=False)


class Small:
    """An executor of two processes with 4000 bytes."""

    n_workers, shares_memory = 2, False

    def __repr__(self):
        return "a small cluster"

    def capacity(self):
        return Capacity(2, 4000)


@pytest.mark.parametrize("tile", [0, -5, 1.5, True, 3])
def test_tiles_that_cannot_be(iterative, tile):
    with pytest.raises(UsageError, match="tile"):
        iterative.certify(tile=tile)


def test_an_estimate_that_is_off_is_not_within(iterative):
    fitted = iterative.fitted
    beyond = 1.0 + certificate.allowed_errors(fitted.monte_carlo_error["probes"])
    objective = fitted.estimates.objective + beyond * fitted.monte_carlo_error["objective"]
    off = certificate.certify(replace(fitted, estimates=replace(fitted.estimates, objective=objective)))
    right = iterative.certify()
    assert not off.within and off.z == pytest.approx(right.z + beyond)
    assert "NOT WITHIN" in str(off) and "NOT" not in str(right)
    unsaid = replace(fitted, monte_carlo_error=fitted.monte_carlo_error | {"objective": 0.0})
    none = certificate.certify(unsaid)
    assert not none.within and np.isinf(none.z) and none.as_record()["z"] is None


@pytest.mark.parametrize(("probes", "expected"), [(2, 10050.4), (8, 8.47), (16, 5.5), (64, 4.3), (10**6, 4.0)])
def test_few_probes_allow_more_of_their_own_errors(probes, expected):
    """t with n - 1 degrees of freedom: what estimates divided by their estimated errors follow."""
    allowed = certificate.allowed_errors(probes)
    assert allowed == pytest.approx(expected, rel=0.01)
    assert stats.t.cdf(-allowed, probes - 1) == pytest.approx(stats.norm.cdf(-4), rel=1e-6)


def test_the_verdict_knows_the_number_of_probes(iterative):
    """Six stated errors off: a chance of one in 2,000 with 8 probes and of nothing with 64."""
    fitted = iterative.fitted
    exact = iterative.certify().objective_exact
    stated = fitted.monte_carlo_error["objective"]
    estimates = replace(fitted.estimates, objective=exact + 6.0 * stated)

    def verdict(probes):
        error = fitted.monte_carlo_error | {"probes": probes}
        return certificate.certify(replace(fitted, estimates=estimates, monte_carlo_error=error))

    few, many = verdict(8), verdict(64)
    assert few.within and not many.within
    assert (few.probes, few.as_record()["allowed"]) == (8, few.allowed) and few.allowed > 6 > many.allowed


def test_what_a_certificate_says(iterative):
    events = []
    found = iterative.certify(n_workers=2, progress=events.append)
    text = str(found)
    for word in (FORMULA, "REML", f"{found.objective_exact:.6f}", "WITHIN", "1,145 columns", "2 threads", "flops"):
        assert word in text
    record = json.loads(json.dumps(found.as_record(), allow_nan=False))
    assert record["objective_exact"] == found.objective_exact and record["within"] is True
    assert found.flops > 1145**3 / 3 and found.bytes > 8 * 512**2 and found.seconds > 0
    with pytest.raises(FrozenInstanceError):
        found.within = False
    assert events[-1].label == "certify" and events[-1].lanes_done == events[-1].lanes_total > 0


def test_an_exact_fit_says_so():
    exact = bigmm.lmm("y ~ service + (1 | s) + (1 | d)", insteval().head(5000))
    found = exact.certify()
    assert (found.solver, found.difference, found.z, found.within) == ("exact", 0.0, 0.0, True)
    assert found.objective_exact == exact.objective
    assert "exact solver's" in str(found)


def test_a_matrix_without_a_factor(iterative, monkeypatch):
    def fail(tile):
        raise NotPositiveDefiniteError("pivot 3")

    monkeypatch.setattr(tiles, "factor", fail)
    with pytest.raises(DataError, match=r"not positive definite \(pivot 3\).*scale the covariates"):
        iterative.certify()


def test_a_saved_fit(iterative, saved):
    found = bigmm.load(saved).certify()
    assert found.objective_exact == pytest.approx(iterative.certify().objective_exact, rel=1e-14)
    assert found.within


# ------------------------------------------------------------------------------------------------ command line


def test_command_line(saved, tmp_path, capfd):
    record = tmp_path / "certificate.json"
    assert run(["certify", str(saved), "--workers", "2", "--memory-limit", "1GiB", "--json", str(record)]) == 0
    out = capfd.readouterr().out
    assert "WITHIN " in out and "normal ones: Student's t, " in out and out.endswith(f"{record}\n")
    assert json.loads(record.read_text())["within"] is True
    assert run(["certify", str(saved), "--json", "-", "--tile", "300"]) == 0
    assert json.loads(capfd.readouterr().out)["tile"] == 300


def test_command_line_of_a_fit_that_is_off(saved, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(certificate, "NORMAL_ERRORS", 1e-9)
    record = tmp_path / "certificate.json"
    assert run(["certify", str(saved), "--quiet", "--json", str(record)]) == 3
    assert json.loads(record.read_text())["within"] is False
    assert capfd.readouterr().out == f"{record}\n"


def test_command_line_errors(saved, tmp_path, capfd):
    record = tmp_path / "certificate.json"
    assert run(["certify", str(saved), "--memory-limit", "1MB", "--json", str(record)]) == 2
    assert run(["certify", str(saved), "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert run(["certify", str(tmp_path / "nothing")]) == 2
    frame = insteval().head(3000)
    frame = frame.assign(good=(frame["y"] > 3).astype(float))
    model = bigmm.glmm("good ~ 1 + (1 | d)", frame, family="bernoulli", nagq=0)
    assert run(["certify", str(model.save(tmp_path / "glmm"))]) == 2
    assert "linear ones only" in capfd.readouterr().err
    assert not record.exists()


# ------------------------------------------------------------------------------------------------ cluster


@pytest.fixture(scope="module")
def cluster():
    with start_cluster(2) as running:
        yield running


@pytest.mark.cluster
def test_a_cluster_gives_the_same_bits(iterative, cluster):
    expected = iterative.certify(n_workers=1, tile=200)
    with distributed.Client(cluster) as client:
        given = iterative.certify(client, tile=200)
        current = iterative.certify(tile=200, memory_limit="8GiB")
    for found in (given, current):
        assert "Dask cluster" in found.where
        assert found.objective_exact == expected.objective_exact
        assert found.bytes > expected.bytes, "the workers' copies are counted"


def kill_once(mark, *tiles_):
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return tiles.update(*tiles_)


@pytest.mark.cluster
def test_a_killed_worker_changes_no_bit(iterative, cluster, tmp_path):
    reduced = certificate._reduced(iterative.fitted)
    tiling = tiles.Tiling(reduced.size, 200)
    graph = certificate.cholesky_tasks(reduced, tiling)
    names = [("pivots", j) for j in range(tiling.n)]
    expected = executor(n_workers=1).run_graph(graph, label="certify", ahead=9)
    deadly = partial(kill_once, str(tmp_path / "killed"))
    graph = [replace(task, work=deadly) if task.name == ("update", 5, 4, 3) else task for task in graph]
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=180)
        before = set(client.nthreads())
        found = executor(client).run_graph(graph, label="certify", ahead=30)
        assert set(client.nthreads()) != before
    assert all(found[name].tobytes() == expected[name].tobytes() for name in names)


@pytest.mark.cluster
def test_tiles_stay_on_the_workers(iterative, cluster, monkeypatch):
    taken = []
    fetch = cluster_graph._Attempt._taken

    def counted(self, future):
        value = fetch(self, future)
        taken.append(value.nbytes)
        return value

    monkeypatch.setattr(cluster_graph._Attempt, "_taken", counted)
    with distributed.Client(cluster) as client:
        found = iterative.certify(client, tile=200)
    assert sum(taken) == 8 * found.columns


@pytest.mark.cluster
def test_command_line_on_a_cluster(saved, cluster, tmp_path, capfd):
    record = tmp_path / "certificate.json"
    address = cluster.scheduler_address
    assert run(["certify", str(saved), "--scheduler", address, "--tile", "400", "--json", str(record), "--quiet"]) == 0
    found = json.loads(record.read_text())
    assert "Dask cluster" in found["where"] and found["tile"] == 400 and found["within"]
    assert capfd.readouterr().out == f"{record}\n"
