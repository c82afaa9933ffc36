"""The examples of the README and of the pages that have any run, and print what they say they print."""

from __future__ import annotations

import contextlib
import io
import re

import click
import pytest

from bigmm.cli.app import bigmm

BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", flags=re.S | re.M)


TIMES = re.compile(r", [\d.]+ s \([^)]*\)")


def without_times(text: str) -> str:
    """Seconds differ from run to run."""
    return TIMES.sub(", ... s (...)", text).rstrip()


@pytest.mark.parametrize("page", ["README.md", "docs/iterative.md", "docs/extending/statistic.md"])
def test_examples_print_what_the_page_says(project, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((project / page).read_text())
    assert len(blocks) >= 2
    namespace: dict = {}
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), namespace)  # noqa: S102 (our own pages)
        assert without_times(printed.getvalue()) == without_times(expected)


@pytest.mark.parametrize("name", sorted(bigmm.commands))
def test_the_manual_knows_every_option(project, name):
    manual = (project / "docs" / "cli.md").read_text()
    assert f"bigmm {name}" in manual
    for option in bigmm.commands[name].params:
        if isinstance(option, click.Option):
            for spelling in (*option.opts, *option.secondary_opts):
                assert f"`{spelling}" in manual, f"{name} {spelling} is not in docs/cli.md"
