"""Which names of files and folders hold data, and which of them a glob matches.

Spark, Hive and Hadoop hide names that begin with "." or "_", but a partition folder such as ``_x=1`` holds data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

#: Files that stand beside data and are no data: checksums, signatures, half-written and backed-up files, folder markers
#: of object stores, and what file managers leave behind.
_SIDE_FILE = re.compile(
    r"\.(crc|md5|sha1|sha224|sha256|sha384|sha512|asc|sig|tmp|temp|partial|crdownload|inprogress|lock|bak|swp)$"
    r"|~$|\._COPYING_$|_\$folder\$$"
    r"|^(md5|sha1|sha256|sha512)sums?(\.txt)?$|^(thumbs\.db|desktop\.ini)$"
    r"|^(readme|license|licence)(\.(md|txt|rst))?$",
    re.IGNORECASE,
)


def is_hidden(name: str) -> bool:
    """Whether a name begins with "." or "_" and is no partition folder such as ``_x=1``."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def is_side_file(name: str) -> bool:
    """Whether a file's name says that the file stands beside the data and is no data."""
    return _SIDE_FILE.search(name) is not None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob below a folder, by segments: ``**`` is any number of folders, ``*`` and ``?`` stay within a name.

    A pattern without segments is the folder itself. A matched folder stands for everything in it. Wildcards match no
    hidden name; a segment that itself begins with "." or "_" does.
    """

    segments: tuple[str, ...] = ()

    def takes(self, parts: Sequence[str]) -> bool:
        """Whether the file with these path parts below the folder is data that the pattern means."""
        return _matches(tuple(parts), self.segments, True) and not self._is_side_file(parts[-1])

    def leaves_out(self, parts: Sequence[str]) -> bool:
        """Whether the pattern matches the path, but the path's names say that it is no data."""
        return _matches(tuple(parts), self.segments, False) and not self.takes(parts)

    def enters(self, parts: Sequence[str]) -> bool:
        """Whether something in the folder with these path parts can be taken."""
        return _reaches(tuple(parts), self.segments, True)

    def passes_by(self, parts: Sequence[str]) -> bool:
        """Whether something in the folder could be taken if the folder were not hidden."""
        return not self.enters(parts) and self.enters(parts[:-1]) and _reaches(tuple(parts), self.segments, False)

    def _is_side_file(self, name: str) -> bool:
        # A user who writes *.bak means such files.
        named = bool(self.segments) and is_side_file(self.segments[-1])
        return is_side_file(name) and not named


def _fits(name: str, segment: str, strict: bool) -> bool:
    if strict and is_hidden(name) and segment[:1] not in (".", "_"):
        return False
    return fnmatchcase(name, segment)


def _matches(parts: tuple[str, ...], segments: tuple[str, ...], strict: bool) -> bool:
    if not segments:
        return not (strict and any(map(is_hidden, parts)))
    if segments[0] != "**":
        return bool(parts) and _fits(parts[0], segments[0], strict) and _matches(parts[1:], segments[1:], strict)
    if _matches(parts, segments[1:], strict):
        return True
    return bool(parts) and not (strict and is_hidden(parts[0])) and _matches(parts[1:], segments, strict)


def _reaches(parts: tuple[str, ...], segments: tuple[str, ...], strict: bool) -> bool:
    if not parts:
        return True
    if not segments:
        return not (strict and any(map(is_hidden, parts)))
    if segments[0] != "**":
        return _fits(parts[0], segments[0], strict) and _reaches(parts[1:], segments[1:], strict)
    if _reaches(parts, segments[1:], strict):
        return True
    return not (strict and is_hidden(parts[0])) and _reaches(parts[1:], segments, strict)
