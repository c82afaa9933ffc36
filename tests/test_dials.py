"""The figures of `.ci/dials` stay within the limits of `.ci/dials.json`, and they count what they say."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import SourceFileLoader

import pytest

SAMPLE = '''"""A module
of two lines."""

LIMIT = 3  # why
"""A constant."""

# why, on a line of its own


class Thing:
    def method(self, a, b, c, d, e, f, g, h, i, j):
        found = a
        return found


def nine(a, b, c, d, e, f, g, h, i):
    """Has one parameter less."""
    for kept in a:
        print(kept)
'''


@pytest.fixture(scope="module")
def script(project):
    loader = SourceFileLoader("dials", str(project / ".ci" / "dials"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("dials", loader))
    sys.modules["dials"] = module
    # the script has no suffix: compiled code would lie beside it
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    yield module
    del sys.modules["dials"]


def test_no_figure_is_above_its_limit(script, project):
    dials = script.package()
    complaints = script.worse(dials.figures(), json.loads((project / ".ci" / "dials.json").read_text()))
    assert complaints == [], "`.ci/dials --list DIAL` says where"


def test_a_sample_is_counted(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PROJECT", tmp_path)
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)
    dials = script.measure([sample])
    assert dials.findings["many_parameters"] == ["sample.py:11 method"]
    assert dials.findings["undocumented"] == ["sample.py:11 method"]
    assert {finding.split()[1] for finding in dials.findings["vague_names"]} == {"found", "kept"}
    assert (dials.lines, dials.docstrings, dials.comments, dials.whole_line_comments) == (13, 4, 2, 1)


def test_two_classes_of_one_name_are_found(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PROJECT", tmp_path)
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("class Thing:\n    pass\n")
    assert script.measure(sorted(tmp_path.glob("*.py"))).findings["shared_class_names"] == ["Thing: one.py:1, two.py:1"]


@pytest.mark.parametrize(
    ("line", "citation"),
    [
        ("see DESIGN section 4", "DESIGN section 4"),
        ("(ALGORITHMS section 7a)", "ALGORITHMS section 7"),
        ("docs/nowhere.md says", "docs/nowhere.md"),
        ("ALGORITHMS = {", None),
        ("docs/here.md says", None),
    ],
)
def test_dangling_citations_are_found(script, tmp_path, monkeypatch, line, citation):
    monkeypatch.setattr(script, "PROJECT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "here.md").write_text("")
    (tmp_path / "README.md").write_text(line + "\n")
    assert script.citations() == ([f"README.md:1 {citation}"] if citation else [])
