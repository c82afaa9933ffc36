"""The examples run, and say what they are there to say."""

from __future__ import annotations

import runpy

import pytest

SAID = {
    "sleepstudy": ["10.467      1.546 17.0   6.771", "the saved fit has the same criterion: True"],
    "lake": ["fits", "Number of obs: 73,421, groups: s, 2,972; d, 1,128; dept, 14"],
    "yes_or_no": ["Generalized linear mixed model", "9 quadrature points: log-likelihood"],
}


def test_every_example_is_tested(project):
    assert {path.stem for path in (project / "examples").glob("*.py")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_an_example_runs(project, name, capsys):
    runpy.run_path(str(project / "examples" / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for words in SAID[name]:
        assert words in printed
