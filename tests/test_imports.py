"""The import graph of the package, imports inside functions included."""

from __future__ import annotations

import grimp


def test_no_files_import_each_other_in_a_circle():
    graph = grimp.build_graph("bigmm", cache_dir=None, exclude_type_checking_imports=True)
    imports = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    while leaves := {module for module, imported in imports.items() if not imported}:
        imports = {module: imported - leaves for module, imported in imports.items() if module not in leaves}
    assert imports == {}
