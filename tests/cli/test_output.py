"""What the command line writes and where: nothing of the user's is replaced, and files come before what is printed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest

import bigmm as package
from bigmm.atomic import writing
from bigmm.cli import output
from bigmm.cli.app import run
from bigmm.datasets import sleepstudy, write_lake
from tests.cli.cases import SLEEP


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory, sleep_lake):
    out = tmp_path_factory.mktemp("saved") / "results"
    assert run(["fit", SLEEP, str(sleep_lake), "--quiet", "--out", str(out)]) == 0
    return out


@pytest.fixture
def lake(sleep_lake, tmp_path):
    shutil.copytree(sleep_lake, tmp_path / "lake")
    return tmp_path / "lake"


@pytest.fixture
def unfitted(monkeypatch):
    """A fit would be a bug: refused before the work, not after."""
    monkeypatch.setattr(package, "lmm", None)


@pytest.mark.parametrize("out", ["", " ", "s3://bucket/out", "gs://bucket/out", "file://out", "s3:/bucket"])
@pytest.mark.parametrize("option", ["--out", "--json"])
def test_2_what_cannot_be_a_place(bigmm, lake, tmp_path, monkeypatch, unfitted, out, option):
    monkeypatch.chdir(tmp_path)
    ended = bigmm("fit", SLEEP, lake, option, out, "--overwrite")
    assert (ended.code, ended.out) == (2, "")
    assert "cannot write to" in ended.err
    assert listing(tmp_path) == ["lake"]


@pytest.mark.parametrize("written", ["URL", "lake", "link", "lake/results", "."])
def test_2_an_output_over_the_data(bigmm, lake, tmp_path, monkeypatch, unfitted, written):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("lake")
    before = listing(lake)
    out = lake.as_uri() if written == "URL" else written
    for data in (lake, lake.as_uri(), "link", "lake/*.parquet"):
        if data == "lake/*.parquet" and written == "lake/results":
            continue
        ended = bigmm("fit", SLEEP, data, "--out", out, "--overwrite")
        assert ended.code == 2, (data, ended.err)
    assert listing(lake) == before


@pytest.mark.parametrize("name", ["part-00000.parquet", "new.json"])
def test_2_json_in_the_data(bigmm, lake, unfitted, name):
    before = (lake / "part-00000.parquet").read_bytes()
    for command in ("fit", "plan"):
        assert bigmm(command, SLEEP, lake, "--json", lake / name).code == 2
        assert bigmm(command, SLEEP, lake / "part-00000.parquet", "--json", lake / "part-00000.parquet").code == 2
    assert (lake / "part-00000.parquet").read_bytes() == before


def test_73_json_over_something_else(bigmm, lake, saved, tmp_path):
    for name, content in (("a.parquet", b"PAR1"), ("a.json", b'{"name": "mine"}'), ("a.txt", b"mine")):
        (tmp_path / name).write_bytes(content)
        for command in (("fit", SLEEP, lake), ("plan", SLEEP, lake), ("summary", saved)):
            ended = bigmm(*command, "--json", tmp_path / name)
            assert ended.code == 73, ended.err
            assert "is not what bigmm writes there: it is not replaced" in ended.err
        assert (tmp_path / name).read_bytes() == content


def test_json_replaces_what_bigmm_wrote(bigmm, lake, saved, tmp_path):
    for command in (("plan", SLEEP, lake), ("summary", saved), ("fit", SLEEP, lake), ("plan", SLEEP, lake)):
        ended = bigmm(*command, "--quiet", "--json", tmp_path / "a.json")
        assert (ended.code, ended.last) == (0, str(tmp_path / "a.json"))
        assert json.loads((tmp_path / "a.json").read_text())["bigmm_version"] == package.__version__


def test_json_within_the_results(bigmm, lake, tmp_path, unfitted, monkeypatch):
    for name in ("model", "summary.txt", "ranef/x.json"):
        assert bigmm("fit", SLEEP, lake, "--out", tmp_path / "out", "--json", tmp_path / "out" / name).code == 2
    assert bigmm("fit", SLEEP, lake, "--out", tmp_path / "out", "--json", tmp_path / "out").code == 2
    monkeypatch.undo()
    for _ in range(2):
        outputs = ("--out", tmp_path / "out", "--json", tmp_path / "out" / "more.json", "--overwrite")
        ended = bigmm("fit", SLEEP, lake, *outputs, "--quiet")
        assert (ended.code, ended.last) == (0, str(tmp_path / "out" / "more.json"))
        assert (tmp_path / "out" / "more.json").read_text() == (tmp_path / "out" / "fit.json").read_text()


def test_73_a_foreign_directory(bigmm, lake, saved, tmp_path, monkeypatch, unfitted):
    (tmp_path / "home" / ".git").mkdir(parents=True)
    (tmp_path / "home" / "thesis.tex").write_text("x")
    monkeypatch.chdir(tmp_path / "home")
    for out in (".", tmp_path / "home", (tmp_path / "home").as_uri()):
        for command in (("fit", SLEEP, lake), ("predict", saved, lake)):
            ended = bigmm(*command, "--out", out, "--overwrite")
            assert ended.code == 73
            assert "it holds thesis.tex, which bigmm did not write" in ended.err
    (tmp_path / "demo" / "lake").mkdir(parents=True)
    (tmp_path / "demo" / "lake" / "mine").write_text("x")
    assert bigmm("demo", "--out", tmp_path / "demo", "--overwrite").code == 73
    assert (tmp_path / "home" / "thesis.tex").exists()
    assert listing(tmp_path / "demo" / "lake") == ["mine"]


def test_2_predictions_over_what_predict_reads(bigmm, lake, saved, tmp_path):
    before = sorted(path.as_posix() for path in saved.rglob("*"))
    for out in (saved, saved / "model", saved / "predictions", saved.parent, lake, lake / "p", saved.as_uri()):
        for model in (saved, saved / "model"):
            ended = bigmm("predict", model, lake, "--out", out, "--overwrite")
            if (out, model) == (saved / "predictions", saved / "model"):
                continue
            assert ended.code == 2, (out, model, ended.err)
    assert bigmm("ranef", saved, "--out", saved / "fit.json").code == 2
    shutil.rmtree(saved / "predictions", ignore_errors=True)
    assert sorted(path.as_posix() for path in saved.rglob("*")) == before


def test_ranef_replaces_only_its_own(bigmm, lake, saved, tmp_path):
    shutil.copy(lake / "part-00000.parquet", tmp_path / "data.parquet")
    assert bigmm("ranef", saved, "--out", tmp_path / "data.parquet").code == 73
    assert pq.read_table(tmp_path / "data.parquet").num_rows == 50
    for _ in range(2):
        assert bigmm("ranef", saved, "--out", tmp_path / "modes.parquet").code == 0


def test_python_has_the_same_policy(lake, saved, tmp_path):
    model = package.load(saved / "model")
    fitted = package.lmm(SLEEP, str(lake))
    for out in (lake, lake.as_uri(), lake / "p", tmp_path):
        for call in (
            lambda out: model.predict(lake, out=out, overwrite=True),
            lambda out: model.augment(str(lake), out, overwrite=True),
            lambda out: model.simulate([lake], out=out, overwrite=True),
            lambda out: fitted.predict(out=out, overwrite=True),
            lambda out: fitted.save(out, overwrite=True),
        ):
            with pytest.raises(package.UsageError):
                call(out)
    for out in (saved, saved / "model", saved / "model" / "p"):
        with pytest.raises(package.UsageError):
            model.predict(sleepstudy(), out=out, overwrite=True)
    for out in ("", "s3://bucket/p"):
        with pytest.raises(package.UsageError):
            model.save(out)
        with pytest.raises(package.UsageError):
            write_lake(sleepstudy(), out)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(package.OutputError):
        write_lake(sleepstudy(), tmp_path, overwrite=True)
    model.save(model.save(tmp_path / "again"), overwrite=True)
    assert package.load((tmp_path / "again").as_uri()).objective == model.objective


def test_75_a_second_writer(bigmm, lake, saved, tmp_path):
    from bigmm.atomic import reserved

    with reserved(tmp_path / "out"):
        for command in (("fit", SLEEP, lake), ("predict", saved, lake)):
            ended = bigmm(*command, "--out", tmp_path / "out", "--overwrite")
            assert ended.code == 75
            assert "another run is writing" in ended.err
        with pytest.raises(package.TemporaryError):
            package.load(saved / "model").save(tmp_path / "out")
    assert listing(tmp_path) == ["lake"]


def test_75_a_second_writer_of_the_record(bigmm, lake, tmp_path, unfitted):
    """It is told before the fit, as for --out."""
    from bigmm.atomic import reserved_file

    with reserved_file(tmp_path / "fit.json"):
        ended = bigmm("fit", SLEEP, lake, "--json", tmp_path / "fit.json", "--out", tmp_path / "out")
    assert ended.code == 75
    assert "another run is writing" in ended.err
    assert listing(tmp_path) == ["lake"]


def test_names_of_any_length(bigmm, tmp_path, unfitted, monkeypatch):
    frame = sleepstudy().rename(columns={"Subject": "g" * 300})
    write_lake(frame, tmp_path / "lake")
    formula = f"Reaction ~ Days + (1 | {'g' * 300})"
    assert bigmm("fit", formula, tmp_path / "lake", "--out", tmp_path / ("n" * 300)).code == 73
    monkeypatch.undo()
    assert bigmm("fit", formula, tmp_path / "lake", "--out", tmp_path / "out", "--quiet").code == 0
    (file,) = listing(tmp_path / "out" / "ranef")
    assert file.startswith("ggg") and len(file) < 255
    assert len(pd.read_parquet(tmp_path / "out" / "ranef" / file)) == 18
    assert list(package.load(tmp_path / "out" / "model").ranef()) == ["g" * 300]


def test_65_a_manifest_nested_too_deep(bigmm, tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 200_000)
    ended = bigmm("summary", tmp_path)
    assert ended.code == 65
    assert "manifest.json is damaged" in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["fit", "predict"])
def test_a_signal_in_the_switch_does_not_change_the_code(bigmm, lake, saved, tmp_path, monkeypatch, command, number):
    """It comes in just before or just after the exchange, and the exit code says what is at --out."""
    arguments = {"fit": ("fit", SLEEP, lake, "--json", tmp_path / "fit.json"), "predict": ("predict", saved, lake)}
    switch = writing.switch

    def late(draft, target, foreign):
        if target.parent != tmp_path:  # the saved model within the results
            return switch(draft, target, foreign)
        os.kill(os.getpid(), number)
        old = switch(draft, target, foreign)
        os.kill(os.getpid(), number)
        return old

    def early(*arguments):
        tables(*arguments)
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patches:
        owner, name = (output, "write_tables") if command == "fit" else (writing, "write_mark")
        tables = getattr(owner, name)
        patches.setattr(owner, name, early)
        ended = bigmm(*arguments[command], "--out", tmp_path / "out")
        assert ended.code == 128 + number
        assert "nothing is half-written" in ended.err
        assert listing(tmp_path) == ["lake"]
    monkeypatch.setattr(writing, "switch", late)
    ended = bigmm(*arguments[command], "--out", tmp_path / "out", "--log", "json")
    assert ended.code == 0
    assert "when the results were in place" in ended.events[-1]["message"]
    assert listing(tmp_path) == (["fit.json"] if command == "fit" else []) + ["lake", "out"]


def test_a_signal_that_comes_out_as_another_error(bigmm, lake, monkeypatch):
    """numba's compiler catches what a signal raises within it, and raises an error of its own."""

    def lmm(*arguments, **settings):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise RuntimeError("failed in nopython mode") from error

    monkeypatch.setattr(package, "lmm", lmm)
    ended = bigmm("fit", SLEEP, lake)
    assert ended.code == 143
    assert "nothing is half-written" in ended.err


# Streams


def test_files_are_written_before_anything_is_printed(start, saved, sleep_lake, tmp_path):
    """`--json FILE | head -1`: the reader is gone before the first line."""
    for number, command in enumerate((("fit", SLEEP, sleep_lake), ("summary", saved), ("plan", SLEEP, sleep_lake))):
        child = start(*command, "--json", tmp_path / f"{number}.json")
        child.stdout.close()
        assert child.wait(120) == 0
        assert child.stderr.read() == ""
        assert json.loads((tmp_path / f"{number}.json").read_text())
    for command in (("--help",), ("fit", "--help"), ("fit", SLEEP, sleep_lake, "--json", "-")):
        child = start(*command)
        child.stdout.close()
        assert child.wait(120) == 0
        assert child.stderr.read() == ""


def test_143_a_pipe_that_nobody_reads(start, sleep_lake, tmp_path):
    """The fit is done and waits for a reader; it can be told to stop, and nothing is in place then."""
    os.mkfifo(tmp_path / "pipe")
    child = start("fit", SLEEP, sleep_lake, "--json", tmp_path / "pipe", "--out", tmp_path / "out", "--log", "json")
    while '"fitted"' not in child.stderr.readline():
        assert child.poll() is None
    child.terminate()
    assert child.wait(60) == 143
    assert listing(tmp_path) == ["pipe"]


def test_the_record_to_a_redirected_stdout(start, sleep_lake, tmp_path):
    """`--json /dev/stdout >> log`: the log keeps what it held, and the record stands before the summary."""
    (tmp_path / "log").write_text("mine\n")
    with open(tmp_path / "log", "a") as log:
        assert start("fit", SLEEP, sleep_lake, "--json", "/dev/stdout", stdout=log).wait(120) == 0
    text = (tmp_path / "log").read_text()
    assert text.startswith("mine\n{")
    assert json.JSONDecoder().raw_decode(text, 5)[0]["formula"] == SLEEP
    assert text.endswith("/dev/stdout\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_73_stdout_is_full(start, saved):
    for command in (("summary", saved, "--json", "-"), ("summary", saved), ("ranef", saved)):
        with open("/dev/full", "w") as full:
            child = start(*command, stdout=full)
        assert child.wait(120) == 73
        assert child.stderr.read() == "bigmm: cannot write to standard output: No space left on device\n"
    with open("/dev/full", "w") as full:
        assert start("--help", stdout=full).wait(120) == 73
    with open("/dev/full", "w") as full:
        child = start("summary", saved / "nosuch", stderr=full)
    assert child.wait(120) == 2


def test_closed_streams(saved, sleep_lake, tmp_path, project):
    def ended(redirection, *arguments):
        command = [sys.executable, "-m", "bigmm", *map(str, arguments)]
        text = '"$@" ' + redirection
        environment = os.environ | {"PYTHONPATH": str(project)}
        return subprocess.run(["bash", "-c", text, "bash", *command], capture_output=True, env=environment).returncode

    assert ended(">&-", "fit", SLEEP, sleep_lake, "--out", tmp_path / "out") == 0
    assert listing(tmp_path) == ["out"]
    assert ended("2>&-", "summary", saved / "nosuch") == 2
    assert ended("2>&-", "fit", SLEEP, sleep_lake) == 0
    assert ended(">&- 2>&- <&-", "summary", saved) == 0
    assert ended(">&-", "summary", saved, "--json", "-") == 73


def test_a_working_directory_that_was_deleted(start, saved, sleep_lake, tmp_path):
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'

    def ended(*arguments):
        child = subprocess.run(
            ["bash", "-c", script, "bash", sys.executable, "-m", "bigmm", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return child.returncode, child.stderr

    assert ended("fit", SLEEP, sleep_lake, "--quiet", "--out", tmp_path / "out") == (0, "")
    for arguments in (("fit", SLEEP, sleep_lake, "--out", "out"), ("fit", SLEEP, "lake"), ("summary", "out")):
        code, said = ended(*arguments)
        assert code == 2
        assert "the working directory was deleted; give an absolute path" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("--log", "json", "--nope"),
        ("--log=json", "--memory-limit", "1X"),
        ("--memory-limit", "1X", "--log", "json"),
        ("--family", "bernouli", "--log", "json"),
    ],
)
def test_usage_errors_are_json_lines_too(bigmm, sleep_lake, arguments):
    ended = bigmm("fit", SLEEP, sleep_lake, *arguments)
    assert ended.code == 2
    assert [event["exit_code"] for event in ended.events] == [2]


def test_a_path_that_is_no_utf8(saved, sleep_lake, tmp_path, start):
    place = os.fsencode(tmp_path) + b"/\xff\xfe"
    child = start("fit", SLEEP, sleep_lake, "--quiet", "--out", os.fsdecode(place), text=False)
    out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (0, b"")
    assert out == place + b"/fit.json\n"
    child = start("predict", os.fsdecode(place), sleep_lake, "--out", os.fsdecode(place + b"2"), text=False)
    assert child.communicate(timeout=120) == (place + b"2\n", b"")
