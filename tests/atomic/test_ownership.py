"""Only what bigmm wrote is replaced, and nothing goes with it that somebody else put there."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmm.atomic import check_destination, is_record, is_table, whole_directory
from bigmm.atomic.ownership import MARK, foreign_file
from bigmm.datasets import write_lake
from bigmm.errors import OutputError


@pytest.fixture
def written(tmp_path):
    with whole_directory(tmp_path / "out") as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "a").touch()
    return tmp_path / "out"


@pytest.mark.parametrize("name", ["thesis.tex", "deep/b", "deep/.git/config", "part-00000.parquet"])
def test_a_file_put_beside_the_results_is_kept(written, name):
    (written / name).parent.mkdir(exist_ok=True)
    (written / name).write_text("x")
    with pytest.raises(OutputError, match=f"it holds {name}, which bigmm did not write"):
        check_destination(written, overwrite=True)
    with pytest.raises(OutputError, match=name), whole_directory(written, overwrite=True):
        pass
    assert (written / name).read_text() == "x"


def test_a_link_is_a_file(written, tmp_path):
    (tmp_path / "home").mkdir()
    (written / "deep" / "home").symlink_to(tmp_path / "home")
    assert foreign_file(written) == "deep/home"


def test_what_is_missing_or_litter_does_not_matter(written):
    (written / "deep" / "a").unlink()
    (written / ".DS_Store").touch()
    assert foreign_file(written) is None
    with whole_directory(written, overwrite=True):
        pass
    assert [path.name for path in written.iterdir()] == [MARK]


@pytest.mark.parametrize("files", [{"fit.json": "{}"}, {"manifest.json": "{}"}, {"fit.json": ""}, {MARK: "{}"}])
def test_a_directory_that_looks_alike_is_not_ours(tmp_path, files):
    (tmp_path / "out").mkdir()
    for name, text in files.items():
        (tmp_path / "out" / name).write_text(text)
    (tmp_path / "out" / "summary.txt").write_text("mine")
    with pytest.raises(OutputError, match="which bigmm did not write"):
        check_destination(tmp_path / "out", overwrite=True)


def test_results_of_earlier_versions_are_ours(tmp_path):
    """They have no mark: fit.json and the manifest tell."""
    results, model = tmp_path / "results", tmp_path / "model"
    for folder in (results / "ranef", results / "model" / "arrays" / "gram", model / "arrays"):
        folder.mkdir(parents=True)
    body = json.dumps({"format": "bigmm-fit", "version": 1}, indent=1)
    manifest = json.dumps({"sha256": "0", "body": body})
    for place in (results / "model", model):
        (place / "manifest.json").write_text(manifest)
        (place / "arrays" / "zarr.json").write_text("{}")
    (results / "summary.txt").write_text("x")
    (results / "fit.json").write_text(json.dumps({"formula": "y ~ 1", "bigmm_version": "0.3"}))
    (results / "ranef" / "g.parquet").touch()
    for folder in (results, model):
        check_destination(folder, overwrite=True)
        (folder / "notes").touch()
        with pytest.raises(OutputError, match="it holds notes"):
            check_destination(folder, overwrite=True)


def test_files_that_look_like_predictions_are_not_ours(tmp_path):
    """Versions before 0.4 wrote such directories without a mark; so does anybody with a model and pyarrow."""
    pq.write_table(pa.table({"id": [1], "prediction": [1.0]}), tmp_path / "part-00000.parquet")
    with pytest.raises(OutputError, match="part-00000.parquet, which bigmm did not write, .* or remove it"):
        check_destination(tmp_path, overwrite=True)


def test_a_copied_mark_makes_nothing_ours(written, tmp_path):
    """The mark of a directory lists digests, that of a data set is empty and its parts carry metadata."""
    mine = tmp_path / "mine"
    (mine / "deep").mkdir(parents=True)
    (mine / MARK).write_bytes((written / MARK).read_bytes())
    (mine / "deep" / "a").write_text("my own text")
    with pytest.raises(OutputError, match="it holds deep/a, which bigmm did not write"):
        check_destination(mine, overwrite=True)
    write_lake(pd.DataFrame({"x": [1.0, 2.0]}), tmp_path / "lake")
    pq.write_table(pa.table({"x": [3.0]}), tmp_path / "lake" / "part-00001.parquet")
    with pytest.raises(OutputError, match=r"it holds part-00001\.parquet, which bigmm did not write"):
        check_destination(tmp_path / "lake", overwrite=True)


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_a_file_that_was_written_over_is_not_ours(tmp_path, size):
    with whole_directory(tmp_path / "out") as draft:
        (draft / "notes.txt").write_bytes(b"x" * size)
    check_destination(tmp_path / "out", overwrite=True)
    (tmp_path / "out" / "notes.txt").write_bytes(b"x" * (size - 1) + b"y")
    with pytest.raises(OutputError, match=r"it holds notes\.txt, which bigmm did not write"):
        check_destination(tmp_path / "out", overwrite=True)


def test_a_directory_inside_is_judged_by_its_own_mark(tmp_path):
    """A model within the results that was saved anew is still bigmm's."""
    with whole_directory(tmp_path / "out") as draft, whole_directory(draft / "model") as inner:
        (inner / "a").touch()
    with whole_directory(tmp_path / "out" / "model", overwrite=True) as inner:
        (inner / "b").touch()
    check_destination(tmp_path / "out", overwrite=True)
    (tmp_path / "out" / "model" / "c").touch()
    with pytest.raises(OutputError, match="it holds model/c, which bigmm did not write"):
        check_destination(tmp_path / "out", overwrite=True)


def test_a_lake_is_ours_when_it_is_marked(tmp_path):
    frame = pd.DataFrame({"k": ["a", "b"], "x": [1.0, 2.0]})
    write_lake(frame, tmp_path / "lake", partition_by="k")
    assert (tmp_path / "lake" / MARK).stat().st_size == 0
    check_destination(tmp_path / "lake", overwrite=True)
    (tmp_path / "lake" / "k=a" / "mine.parquet").touch()
    with pytest.raises(OutputError, match=r"it holds k=a/mine\.parquet"):
        check_destination(tmp_path / "lake", overwrite=True)
    (tmp_path / "lake" / "k=a" / "mine.parquet").unlink()
    (tmp_path / "lake" / MARK).unlink()
    with pytest.raises(OutputError, match=r"part-00000\.parquet, which bigmm did not write"):
        check_destination(tmp_path / "lake", overwrite=True)


def test_readers_of_a_directory_do_not_see_the_mark(tmp_path):
    """polars reads a directory only if all files that are not empty are of one kind."""
    polars = pytest.importorskip("polars")
    write_lake(pd.DataFrame({"x": [1.0, 2.0]}), tmp_path / "lake")
    assert polars.read_parquet(tmp_path / "lake").height == 2
    assert len(pd.read_parquet(tmp_path / "lake")) == 2


def test_records_and_tables(tmp_path):
    place = tmp_path / "file"
    for text, ours in (('{"bigmm_version": "1"}', True), ('{"a": 1}', False), ("", True), ("[" * 200_000, False)):
        place.write_text(text)
        assert is_record(place) is ours
    pq.write_table(pa.table({"x": [1]}), place)
    assert not is_table(place)
    assert not is_record(place)
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata({"bigmm": "1"}), place)
    assert is_table(place)
