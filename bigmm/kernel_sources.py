"""What a cached kernel was compiled from: its own file, and every file of the package whose functions it may call.

numba stamps a cached kernel with the contents of the kernel's own file. The code of the functions that the kernel calls
is part of it, so after an upgrade or a pull it would hold the old code of other files. Kernels of this package are
stamped with those files too. numba drops what has another stamp and writes the new code in its place.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = Path(__file__).parent
_IMPORTS = r"^(?:from|import) +(bigmm[\w.]*)(?: +import +(\([^)]*\)|[^\n]*))?"
"""Imports at the top of a module: what is imported in a function is no global name, which a kernel could call."""


def digest(file: str) -> str:
    """Of the contents of a file of the package and of all that it imports from the package, directly or not."""
    import hashlib

    # The decorator is no code of a kernel.
    decorator = _PACKAGE / "kernel.py"
    paths: set[Path] = {decorator}
    queue = [Path(file)]
    while queue:
        path = queue.pop()
        if path not in paths:
            paths.add(path)
            queue.extend(_source(path)[1])
    total = hashlib.sha256()
    for path in sorted(paths - {decorator}):
        total.update(f"{path.relative_to(_PACKAGE)} {_source(path)[0]}\n".encode())
    return total.hexdigest()


@cache
def _source(path: Path) -> tuple[str, tuple[Path, ...]]:
    """The digest of a file's contents, and the files of the package that it imports."""
    import hashlib
    import re

    contents = path.read_bytes()
    text = contents.decode()
    modules = set()
    for module, names in re.findall(_IMPORTS, text, re.MULTILINE):
        modules |= {module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))}
    # A registry imports the modules of its folder by their names.
    siblings = tuple(path.parent.glob("*.py")) if "import_module(" in text else ()
    files = [file for module in sorted(modules) for file in _files(module)]
    return hashlib.sha256(contents).hexdigest(), (*files, *siblings)


def _files(module: str) -> list[Path]:
    """The file of a module; none for a name that is no module."""
    place = _PACKAGE.joinpath(*module.split(".")[1:])
    return [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]


def extend(caching: ModuleType) -> None:
    """Have numba stamp the kernels of the package with all their sources.

    numba has no public way to say what a stamp is. A version without this class keeps its own stamps.
    """
    locator: Any = getattr(caching, "_SourceFileBackedLocatorMixin", None)
    if locator is None:
        return
    own_stamp = locator.get_source_stamp

    def get_source_stamp(self: Any) -> Any:
        stamp, file = own_stamp(self), Path(self._py_file)
        # in a frozen program there are no files, and numba's stamp is that of the program
        return (stamp, digest(str(file))) if _PACKAGE in file.parents and file.is_file() else stamp

    locator.get_source_stamp = get_source_stamp
