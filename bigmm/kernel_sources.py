"""What a cached kernel was compiled from: its own file, and every file of the package whose functions it may call.

numba stamps a cached kernel with the contents of the kernel's own file. The code of the functions that the kernel calls
is part of it, so after an upgrade or a pull it would hold the old code of other files. Kernels of this package are
stamped with those files too. numba drops what has another stamp and writes the new code in its place.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = Path(__file__).parent
_CACHING = "numba.core.caching"
_IMPORTS = r"^(?:from|import) +(bigmm[\w.]*)(?: +import +(\([^)]*\)|[^\n]*))?"
"""Imports at the top of a module: what is imported in a function is no global name, which a kernel could call."""


def stamp_kernels() -> None:
    """Have numba stamp the package's kernels with all their sources, now or as soon as it is imported."""
    caching = sys.modules.get(_CACHING)
    if caching is None:  # `import bigmm` does without numba
        sys.meta_path.insert(0, _Finder())
    else:
        _extend(caching)


def digest(file: str) -> str:
    """Of the contents of a file of the package and of all that it imports from the package, directly or not."""
    import hashlib

    paths: set[Path] = set()
    queue = [Path(file)]
    while queue:
        path = queue.pop()
        if path not in paths:
            paths.add(path)
            queue.extend(_source(path)[1])
    total = hashlib.sha256()
    for path in sorted(paths):
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


def _extend(caching: ModuleType) -> None:
    locator: Any = caching._SourceFileBackedLocatorMixin
    own_stamp = locator.get_source_stamp
    if own_stamp.__module__ == __name__:
        return

    def get_source_stamp(self: Any) -> Any:
        stamp, file = own_stamp(self), Path(self._py_file)
        # in a frozen program there are no files, and numba's stamp is that of the program
        return (stamp, digest(str(file))) if _PACKAGE in file.parents and file.is_file() else stamp

    locator.get_source_stamp = get_source_stamp


class _Finder(MetaPathFinder, Loader):
    """Imports numba's module of caches as usual, and extends it then."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of caches with this loader; None for all others."""
        if fullname != _CACHING:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Left to the loader of the file."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the loader of the file does it, and the extension."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        _extend(module)
