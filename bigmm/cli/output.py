"""What a fit leaves behind: one JSON file, and a directory that appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bigmm.atomic import (
    TABLE_MARK,
    Reservation,
    check_apart,
    check_destination,
    check_file,
    local_inputs,
    local_path,
    marked_table,
    output_error,
    reserved,
    reserved_file,
    settled_path,
    shielded,
    shown_path,
    whole_directory,
    whole_file,
    write_text,
)
from bigmm.errors import UsageError
from bigmm.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from bigmm.cli.console import Console

#: --json - writes to stdout.
STDOUT = "-"

#: Bytes of a file name; what is longer is cut and told apart by a digest.
NAME_BYTES = 200

#: What a directory of results holds; --json may add another name.
RESULT_NAMES = frozenset({"summary.txt", "coefficients.parquet", "varcorr.parquet", "ranef", "model"})


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where a fit's outputs go.

    directory: the reserved place of --out. json_file: the file of --json. record: that file's reserved place. inside:
    that file's path within the directory, when it lies there; it has no place of its own then.
    """

    directory: Reservation | None = None
    json_file: str | None = None
    record: Reservation | None = None
    inside: Path | None = None


def check_outputs(out: str | None, json_file: str | None, overwrite: bool, data: tuple[str, ...] = ()) -> Path | None:
    """Refuse before the work what could not be written after it, or would be written over or into the data.

    Returns the path of the JSON file within the directory, if it lies there.
    """
    inputs = local_inputs(data)
    for place in inputs:
        local_path(place, "read")
    if out is not None:
        check_apart(out, inputs, option="--out")
        check_destination(out, overwrite=overwrite)
    if json_file in (None, STDOUT):
        return None
    check_apart(json_file, inputs, option="--json")
    inside = None if out is None else _inside(out, json_file)
    if inside is None:
        check_file(json_file)
    return inside


def _inside(out: str, json_file: str) -> Path | None:
    folder, target = Path(os.path.realpath(local_path(out))), Path(os.path.realpath(local_path(json_file)))
    if folder == target:
        raise UsageError(f"--json {json_file} is the directory of --out: name a file")
    if target in folder.parents:
        raise UsageError(f"--out {out} lies below --json {json_file}, which is to be a file: choose another place")
    if folder not in target.parents:
        return None
    inside = target.relative_to(folder)
    # Hidden names are for marks and drafts.
    if inside.parts[0] in RESULT_NAMES or inside.parts[0].startswith("."):
        raise UsageError(f"--json {json_file} is a name that --out {out} takes itself: choose another")
    return inside


@contextmanager
def destinations(
    out: str | None, json_file: str | None, overwrite: bool, data: tuple[str, ...] = ()
) -> Iterator[Destinations]:
    """Check the outputs and keep other writers out of them while the block runs."""
    inside = check_outputs(out, json_file, overwrite, data)
    with ExitStack() as reservations:
        directory = record = None
        if out is not None:
            directory = reservations.enter_context(reserved(out, overwrite=overwrite))
        if json_file not in (None, STDOUT) and inside is None:
            record = reservations.enter_context(reserved_file(str(json_file)))
        yield Destinations(directory, json_file, record, inside)


def as_json(record: dict[str, Any]) -> str:
    """The record as text; NaN has no place in JSON, `as_record` has made it null."""
    # allow_nan=False turns a NaN that was overlooked into an error here, and not in somebody's parser.
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def write_json(record: dict[str, Any], json_file: str) -> None:
    """Write the record to a file, whole or not at all; its version marks it as one that may be replaced."""
    write_text(json_file, as_json(marked(record)))


def marked(record: dict[str, Any]) -> dict[str, Any]:
    """The record with bigmm's version, by which it is known."""
    return {"bigmm_version": __version__} | record


def deliver_record(console: Console, record: dict[str, Any], text: str, json_file: str | None, code: int = 0) -> int:
    """Print a record as text, or as JSON for `--json -`; its file is written before anything is printed."""
    if json_file == STDOUT:
        console.record(as_json(marked(record)).rstrip("\n"))
        return code
    if json_file is not None:
        console.expect(code)
        write_json(record, json_file)
    if not console.quiet:
        console.result(text)
    if json_file is not None:
        console.result(json_file)
    return code


def write_results(console: Console, model: Any, record: dict[str, Any], places: Destinations, code: int) -> str | None:
    """Write the directory of results and the JSON file, and put both in place in one step that no signal divides.

    code: the exit code that the run has then earned.

    Returns what the last line of stdout names: the JSON file, or the directory's fit.json.
    """
    written: str | None = None
    text = as_json(marked(record))
    with ExitStack() as outputs:
        if places.record is not None and not places.record.is_stream:
            outputs.enter_context(whole_file(places.record)).write_text(text, encoding="utf-8")
        if places.directory is not None:
            draft = outputs.enter_context(whole_directory(places.directory))
            write_tables(model, record, draft)
            if places.inside is not None:
                (draft / places.inside).parent.mkdir(parents=True, exist_ok=True)
                (draft / places.inside).write_text(text, encoding="utf-8")
            written = os.fspath(shown_path(places.directory.name) / "fit.json")
        if places.json_file not in (None, STDOUT):
            written = str(places.json_file)
        if places.record is not None and places.record.is_stream:  # its reader may keep us waiting: signals must arrive
            write_text(places.record, text)
        # Closing the stack renames both drafts. A signal between the two would leave one result without the other.
        with shielded():
            console.expect(code)
            outputs.close()
    return written


def write_tables(model: Any, record: dict[str, Any], folder: Path) -> None:
    """Write summary.txt, fit.json, model/ and coefficients, varcorr and ranef/* as Parquet."""
    (folder / "summary.txt").write_text(f"{model.summary()}\n", encoding="utf-8")
    (folder / "fit.json").write_text(as_json(marked(record)), encoding="utf-8")
    write_frame(model.tidy(), folder / "coefficients.parquet")
    write_frame(model.varcorr, folder / "varcorr.parquet")
    (folder / "ranef").mkdir()
    for group, frame in model.ranef().items():
        write_frame(with_level(frame), folder / "ranef" / f"{file_name(group)}.parquet")
    model.save(folder / "model")


def with_level(frame: pd.DataFrame) -> pd.DataFrame:
    """The conditional modes with their level as a first column of text."""
    columns = {str(column): frame[column].to_numpy() for column in frame.columns}
    # The frame's own class spares an import of pandas at the start of every command.
    return frame.__class__({"level": frame.index.astype(str), **columns})


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """A data frame as Parquet with page checksums."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = marked_table(pa.Table.from_pandas(frame, preserve_index=False), TABLE_MARK)
    try:
        with open(path, "wb") as stream:  # a path that is no UTF-8 is not for pyarrow
            pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
    except OSError as error:
        raise output_error(path, error) from error


def file_name(group: str) -> str:
    """A group's label as a file name on every system: "batch:cask" becomes "batch%3Acask".

    A label that is too long for a file name is cut, and ends in a digest of the whole.
    """
    # Windows and some network shares refuse a colon in names.
    name = quote(group, safe=" .+-_")
    if len(name) <= NAME_BYTES:
        return name
    return f"{name[: NAME_BYTES - 17]}-{hashlib.sha256(group.encode(errors='surrogatepass')).hexdigest()[:16]}"


def model_directory(path: str) -> Path:
    """The saved model in what `fit --out` wrote, or the saved model itself."""
    place = settled_path(path)
    inner = place / "model"
    if inner.is_dir():
        return inner
    if not place.exists():
        raise UsageError(f"{path} does not exist: name a directory written by `bigmm fit --out` or by save()")
    return place
