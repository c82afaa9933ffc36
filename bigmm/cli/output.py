"""What a fit leaves behind: one JSON file, and a directory that appears whole or not at all."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bigmm.atomic import check_destination, output_error, whole_directory, write_text
from bigmm.errors import OutputError, UsageError

if TYPE_CHECKING:
    import pandas as pd

#: --json - writes to stdout.
STDOUT = "-"

GLOB = frozenset("*?[")


def check_outputs(out: str | None, json_file: str | None, overwrite: bool, data: tuple[str, ...] = ()) -> None:
    """Refuse before the work what could not be written after it, or would be written over or into the data."""
    if out is not None:
        for path in data:
            check_apart(out, path)
        check_destination(out, overwrite=overwrite)
    if json_file not in (None, STDOUT):
        target = Path(json_file)
        if target.is_dir():
            raise OutputError(f"cannot write {json_file}: it is a directory: name a file")
        check_destination(target, overwrite=True)


def check_apart(out: str, data: str) -> None:
    """Results replace a directory as a whole, and a lake is read as a whole: neither may hold the other."""
    if "://" in data:
        return
    fixed = Path(*itertools.takewhile(lambda part: not GLOB & set(part), Path(data).parts)).resolve()
    target = Path(out).resolve()
    if target == fixed or target in fixed.parents:
        raise UsageError(f"--out {out} holds the data {data}: results would replace them; choose another place")
    if fixed in target.parents and str(fixed) == str(Path(data).resolve()):
        raise UsageError(f"--out {out} is inside the data {data}: the next run would read it; choose another place")


def as_json(record: dict[str, Any]) -> str:
    """The record as text; NaN has no place in JSON, `as_record` has made it null."""
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def write_json(record: dict[str, Any], json_file: str) -> None:
    """Write the record to a file, whole or not at all."""
    write_text(json_file, as_json(record))


def write_results(model: Any, record: dict[str, Any], out: str, *, overwrite: bool = False) -> Path:
    """Write summary.txt, fit.json, model/ and coefficients, varcorr and ranef/* as Parquet; returns fit.json's path."""
    with whole_directory(out, overwrite=overwrite) as draft:
        (draft / "summary.txt").write_text(f"{model.summary()}\n", encoding="utf-8")
        (draft / "fit.json").write_text(as_json(record), encoding="utf-8")
        write_frame(model.tidy(), draft / "coefficients.parquet")
        write_frame(model.varcorr, draft / "varcorr.parquet")
        (draft / "ranef").mkdir()
        for group, frame in model.ranef().items():
            write_frame(with_level(frame), draft / "ranef" / f"{file_name(group)}.parquet")
        model.save(draft / "model")
    return Path(out) / "fit.json"


def with_level(frame: pd.DataFrame) -> pd.DataFrame:
    """The conditional modes with their level as a first column of text."""
    columns = {str(column): frame[column].to_numpy() for column in frame.columns}
    return frame.__class__({"level": frame.index.astype(str), **columns})


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """A data frame as Parquet with page checksums."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    try:
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    except OSError as error:
        raise output_error(path, error) from error


def file_name(group: str) -> str:
    """A group's label as a file name on every system: "batch:cask" becomes "batch%3Acask"."""
    return quote(group, safe=" .+-_")


def model_directory(path: str) -> Path:
    """The saved model in what `fit --out` wrote, or the saved model itself."""
    inner = Path(path) / "model"
    if inner.is_dir():
        return inner
    if not Path(path).exists():
        raise UsageError(f"{path} does not exist: name a directory written by `bigmm fit --out` or by save()")
    return Path(path)
