"""`bigmm fit` on real Parquet: what it prints, what it writes, and that the numbers are lme4's."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

import bigmm as package
from bigmm.datasets import write_lake
from tests.cli.cases import SLEEP

FIELDS = (
    "formula family link reml nagq nobs n_groups objective llf aic bic theta sigma fixef se varcorr converged "
    "is_singular optimizer passes seconds peak_rss_bytes dropped_rows solver monte_carlo_error run_id"
).split()


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_results_on_disk(bigmm, sleep_lake, tmp_path):
    out = tmp_path / "new" / "results"
    ended = bigmm("fit", SLEEP, sleep_lake, "--out", out)
    assert ended.code == 0
    assert ended.last == str(out / "fit.json")
    assert ended.err == ""
    written = set(names(out))
    assert {"summary.txt", "fit.json", "coefficients.parquet", "varcorr.parquet", "ranef/Subject.parquet"} <= written
    assert (out / "summary.txt").read_text().strip() == "\n".join(ended.out.rstrip().splitlines()[:-1]).strip()
    record = json.loads((out / "fit.json").read_text())
    assert record["objective"] == pytest.approx(1743.628, abs=1e-3)
    coefficients = pd.read_parquet(out / "coefficients.parquet")
    assert dict(zip(coefficients["term"], coefficients["estimate"])) == record["fixef"]
    components = pd.read_parquet(out / "varcorr.parquet")
    assert list(components["group"]) == ["Subject", "Subject", "Subject", "Residual"]
    modes = pd.read_parquet(out / "ranef" / "Subject.parquet")
    assert list(modes.columns) == ["level", "Intercept", "Days"]
    assert modes["level"].iloc[0] == "308"
    assert modes["Intercept"].iloc[0] == pytest.approx(2.2585, abs=1e-3)
    assert package.load(out / "model").objective == record["objective"]
    assert names(tmp_path)[0].startswith("new/results/")


def test_the_json_record_has_every_field(bigmm, sleep_lake, tmp_path):
    ended = bigmm("fit", SLEEP, sleep_lake, "--ml", "--quiet", "--json", tmp_path / "fit.json")
    assert (ended.code, ended.out) == (0, f"{tmp_path / 'fit.json'}\n")
    record = json.loads((tmp_path / "fit.json").read_text())
    assert [field for field in FIELDS if field not in record] == []
    assert record["formula"] == SLEEP
    assert (record["family"], record["link"], record["reml"], record["nagq"]) == ("gaussian", "identity", False, None)
    assert (record["nobs"], record["n_groups"], record["dropped_rows"]) == (180, {"Subject": 18}, 0)
    assert record["objective"] == pytest.approx(1751.939344, abs=1e-5)
    assert record["fixef"]["Days"] == pytest.approx(10.467286, abs=1e-5)
    assert set(record["se"]) == {"Intercept", "Days"}
    assert [set(row) for row in record["varcorr"]] == [{"group", "name1", "name2", "vcov", "sdcor"}] * 4
    assert record["converged"] is True
    assert record["is_singular"] is False
    assert record["passes"] >= 1
    assert record["peak_rss_bytes"] > 1 << 20
    assert all(value >= 0 for value in record["seconds"].values())


def test_json_to_stdout_is_only_json(bigmm, sleep_lake):
    ended = bigmm("fit", SLEEP, sleep_lake, "--json", "-")
    assert ended.code == 0
    assert json.loads(ended.out)["nobs"] == 180


def test_several_files_weights_offset_and_filter(bigmm, tmp_path, project):
    data = project / "tests/reference/data/sim_weights_offset.parquet"
    frame = pd.read_parquet(data)
    write_lake(frame, tmp_path / "lake", rows_per_file=200)
    files = sorted((tmp_path / "lake").glob("*.parquet"))
    options = ("--weights", "w", "--offset", "off", "--filter", "x > 0", "--json", "-")
    ended = bigmm("fit", "y ~ x + (1 | g)", *files, *options)
    record = json.loads(ended.out)
    kept = frame[frame["x"] > 0]
    expected = package.lmm("y ~ x + (1 | g)", kept, weights="w", offset="off")
    assert 0 < len(kept) < len(frame)
    assert record["nobs"] == len(kept)
    assert record["objective"] == pytest.approx(expected.objective, abs=1e-6)


def test_a_singular_fit_is_written_and_said_so(bigmm, tmp_path, project):
    data = project / "tests/reference/data/dyestuff2.parquet"
    ended = bigmm("fit", "Yield ~ 1 + (1 | Batch)", data, "--out", tmp_path / "out")
    assert ended.code == 3
    assert "the fit is singular: a variance is estimated as zero" in ended.err
    record = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert record["is_singular"] is True
    assert record["theta"] == [0.0]


def test_json_lines_on_stderr(bigmm, sleep_lake, tmp_path):
    ended = bigmm("fit", SLEEP, sleep_lake, "--log", "json", "--json", tmp_path / "fit.json")
    assert ended.code == 0
    events = ended.events
    assert {"ts", "level", "run_id", "event"} <= set(events[0])
    assert len({event["run_id"] for event in events}) == 1
    assert events[0]["event"] == "start"
    assert events[-1] == events[-1] | {"event": "finished", "exit_code": 0, "json": str(tmp_path / "fit.json")}
    progress = [event for event in events if event["event"] == "progress"]
    assert max(event["rows_done"] for event in progress) == 180
    assert json.loads((tmp_path / "fit.json").read_text())["run_id"] == events[0]["run_id"]


def test_a_watched_run_shows_a_bar(start, sleep_lake):
    import os
    import pty

    keyboard, screen = pty.openpty()
    child = start("fit", SLEEP, sleep_lake, stderr=screen)
    os.close(screen)
    shown = b""
    try:
        while chunk := os.read(keyboard, 65536):
            shown += chunk
    except OSError:
        pass  # the terminal went away with the child
    finally:
        os.close(keyboard)
    assert child.wait(60) == 0
    assert b"rows/s" in shown


@pytest.mark.cluster
def test_a_cluster_and_any_number_of_threads_give_the_same_bits(bigmm, sleep_lake):
    from distributed import LocalCluster

    def bits(*options):
        ended = bigmm("fit", SLEEP, sleep_lake, "--json", "-", *options)
        assert ended.code == 0, ended.err
        record = json.loads(ended.out)
        return record["objective"], record["theta"], record["fixef"], record["varcorr"]

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        distributed = bits("--scheduler", cluster.scheduler_address)
    assert distributed == bits("--workers", 1) == bits("--workers", 3)


def test_group_names_become_safe_file_names(bigmm, tmp_path, project):
    data = project / "tests/reference/data/pastes.parquet"
    ended = bigmm("fit", "strength ~ 1 + (1 | batch/cask)", data, "--out", tmp_path / "out")
    assert ended.code == 0
    assert {"ranef/batch.parquet", "ranef/cask%3Abatch.parquet"} <= set(names(tmp_path / "out"))
    assert pq.read_table(tmp_path / "out/ranef/cask%3Abatch.parquet").num_rows == 30
