"""From what users write (path, glob, directory, URL, list of them) to files on one filesystem."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

from pyarrow import fs

from bigmm.atomic import is_url, local_path
from bigmm.atomic.ownership import MARK
from bigmm.errors import DataError, UsageError
from bigmm.source.faults import absolute_path, not_utf8
from bigmm.source.formats import Markers, markers_of, refuse_tables_above, refuse_tables_below
from bigmm.source.listing import Entry, entries_below, look_up
from bigmm.source.names import Pattern
from bigmm.source.remote import open_url
from bigmm.urls import shown_url

_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_LOCAL_WILD = re.compile(r"[*?\[]")
_URL_WILD = re.compile(r"[*\[]")  # in a URL "?" begins the options


@dataclass(frozen=True, slots=True)
class Location:
    """Files sorted by path, on one filesystem; ``remote`` asks for retries; ``prefix`` is for messages.

    ``left_out``: hidden files, side files and hidden folders in the folders that were looked at, as messages name them.
    """

    filesystem: fs.FileSystem
    remote: bool
    files: tuple[Entry, ...]
    description: str
    prefix: str = ""
    left_out: tuple[str, ...] = ()

    def shown(self, path: str) -> str:
        """How messages name a file: with the URL's scheme, or relative to the working directory if below it."""
        return shown_path(path, self.prefix)


def shown_path(path: str, prefix: str) -> str:
    """See `Location.shown`."""
    if prefix:
        return shown_url(path if "://" in path else prefix + path)
    try:
        relative = os.path.relpath(path)
    except FileNotFoundError:  # the working directory was deleted
        return path
    return path if relative.startswith("..") else relative


def shown_place(place: str | PurePath) -> str:
    """What a user wrote without the secrets and options of a URL, for messages."""
    return shown_url(str(place))


def locate(places: Sequence[str | PurePath]) -> Location:
    """Find the data files behind paths, globs, directories and URLs (mixed freely, on one filesystem).

    Whether a file is Parquet is told by its bytes when its footer is read, never by its suffix. Names that begin with
    "." or "_" and side files such as checksums are left out (`names`), unless the user names such a file itself.

    Raises `DataError` for a missing file, an empty directory, a link to nothing, a folder that cannot be listed, and a
    table of Delta Lake, Iceberg or Hudi; `UsageError` for what cannot be meant.
    """
    if not places:
        raise UsageError("no data: the list of paths is empty")
    first = shown_place(places[0])
    files: dict[str, Entry] = {}
    left_out: dict[str, None] = {}
    filesystem, prefix = None, ""
    for place in places:
        _check_spelling(str(place))
        system, prefix, base, glob = _split(str(place))
        if filesystem is not None and not system.equals(filesystem):
            raise UsageError(
                f"all paths must lie on one filesystem; {shown_place(place)!r} does not lie with {first!r}"
            )
        if filesystem is None:
            filesystem, markers = system, markers_of(system)
        entries, passed = _data_files(filesystem, markers, prefix, base, glob, shown_place(place))
        for entry in entries:
            # Globs may overlap by mistake, and rows that count twice would make standard errors too small.
            if entry.path in files:
                raise UsageError(f"file given twice: {shown_path(entry.path, prefix)} (its rows would count twice)")
            files[entry.path] = entry
        left_out |= dict.fromkeys(passed)
    assert filesystem is not None
    _refuse_links_into_tables(filesystem, markers, list(files), partial(shown_path, prefix=prefix))
    description = first if len(places) == 1 else f"{len(places)} paths, {first!r} first"
    # The order of files decides the order of sums, so it must not depend on how the list was written.
    chosen = tuple(files[path] for path in sorted(files))
    return Location(filesystem, is_remote(filesystem), chosen, description, prefix, tuple(left_out))


def refuse_tables_at(places: Sequence[str]) -> None:
    """Raise `DataError` when local paths or globs, which another library reads, mean files of a table of another
    format."""
    filesystem = fs.LocalFileSystem()
    markers, show = markers_of(filesystem), partial(shown_path, prefix="")
    for place in places:
        base = _cut_pattern(absolute_path(place), _LOCAL_WILD)[0]
        folder = base if os.path.isdir(base) else os.path.dirname(base)
        refuse_tables_above(filesystem, folder, markers, show)
        paths = [entry.path for entry in entries_below(filesystem, folder, Pattern(), folder)] if folder == base else []
        refuse_tables_below(filesystem, folder, paths, paths, show)


def _check_spelling(place: str) -> None:
    if not place:
        raise UsageError("no data: a path is empty")
    try:
        place.encode()
    except UnicodeEncodeError as error:
        raise not_utf8(place) from error


def is_remote(filesystem: fs.FileSystem) -> bool:
    """Whether reads go over a network."""
    # A subtree may be a view of a local folder or of a bucket.
    while isinstance(filesystem, fs.SubTreeFileSystem):
        filesystem = filesystem.base_fs
    return not isinstance(filesystem, fs.LocalFileSystem)


def _split(place: str) -> tuple[fs.FileSystem, str, str, str]:
    """Filesystem, prefix for messages, path before the first wildcard, pattern from there on ("" without wildcard)."""
    match = _URL.match(place)
    if match is None or not is_url(place):
        path = absolute_path(place) if match is None else str(local_path(place, "read"))
        # A file may have brackets or a star in its name, and the name as written wins.
        base, pattern = (path, "") if os.path.exists(path) else _cut_pattern(path, _LOCAL_WILD)
        return fs.LocalFileSystem(), "", base or "/", pattern
    address, mark, options = place.partition("?")
    base, pattern = _cut_pattern(address, _URL_WILD)
    filesystem, path = open_url(base + mark + options)
    return filesystem, f"{match[1]}://", path.rstrip("/"), pattern


def _cut_pattern(path: str, wild: re.Pattern[str]) -> tuple[str, str]:
    segments = path.split("/")
    first = next((i for i, segment in enumerate(segments) if wild.search(segment)), len(segments))
    return "/".join(segments[:first]), "/".join(segments[first:])


def _data_files(
    filesystem: fs.FileSystem, markers: Markers, prefix: str, base: str, glob: str, place: str
) -> tuple[list[Entry], list[str]]:
    """The data files that a place means, and the paths that its names leave out."""
    remote = is_remote(filesystem)
    top = look_up(filesystem, base, prefix + base, remote)
    if top is None:
        raise DataError(f"no such file or directory: {place}")
    if top.problem:
        raise DataError(f"cannot read {place}: {top.problem}")
    show = partial(shown_path, prefix=prefix)
    if not (glob or top.folder):
        refuse_tables_above(filesystem, base.rpartition("/")[0], markers, show)
        return [top], []
    if not top.folder:
        raise DataError(f"no file matches {place}: {show(base)} is a file")
    pattern = Pattern(tuple(glob.rstrip("/").split("/")) if glob else ())
    entries = list(entries_below(filesystem, base, pattern, prefix + base))
    chosen, left_out = _divided(entries, base, pattern, show)
    refuse_tables_above(filesystem, base, markers, show)
    refuse_tables_below(filesystem, base, [entry.path for entry in entries], [entry.path for entry in chosen], show)
    if not chosen:
        raise DataError(_nothing(place, glob, entries))
    return chosen, left_out


def _divided(
    entries: Sequence[Entry], base: str, pattern: Pattern, show: Callable[[str], str]
) -> tuple[list[Entry], list[str]]:
    """Data files, and what is left out; a folder that is left out counts once. A broken entry is a `DataError`."""
    chosen, left_out = [], []
    for entry in entries:
        parts = entry.path[len(base) :].strip("/").split("/")
        if parts[-1] == MARK:  # bigmm's own, in every data set that it wrote
            continue
        if entry.folder:
            if entry.problem:
                raise DataError(f"cannot read {show(entry.path)}: {entry.problem}. Mend it, or name the files to read.")
            if pattern.passes_by(parts):
                left_out.append(show(entry.path) + "/")
        elif pattern.takes(parts):
            if entry.problem:
                raise DataError(f"cannot read {show(entry.path)}: {entry.problem}. Mend it, or name the files to read.")
            chosen.append(entry)
        elif pattern.enters(parts[:-1]) and pattern.leaves_out(parts):
            left_out.append(show(entry.path))
    return chosen, left_out


def _refuse_links_into_tables(
    filesystem: fs.FileSystem, markers: Markers, paths: Sequence[str], show: Callable[[str], str]
) -> None:
    if isinstance(filesystem, fs.LocalFileSystem):
        # A link leads into a Delta table without its name in the path.
        folders = {(os.path.dirname(path), os.path.dirname(os.path.realpath(path))) for path in paths}
        for real in sorted({real for named, real in folders if real != named}):
            refuse_tables_above(filesystem, real, markers, show)


def _nothing(place: str, glob: str, entries: Sequence[Entry]) -> str:
    files = [entry.path.rpartition("/")[2] for entry in entries if not entry.folder]
    if glob:
        return f"no file matches {place}"
    others = f"; it holds {len(files)} other files, such as {files[0]!r}" if files else ""
    return f"no Parquet files in directory {place} (looked at any depth, not in hidden folders{others})"
