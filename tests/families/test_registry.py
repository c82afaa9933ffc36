"""The registry of families: every table is read off it, and a number without a family raises."""

import subprocess
import sys
from pathlib import Path

import numba
import pytest
from click.testing import CliRunner
from numba.core.dispatcher import Dispatcher

import bigmm.families
from bigmm.cli.fit import fit
from bigmm.families import FAMILIES, LINKS, NAMES, family, links, scores
from bigmm.families.names import FAMILY_SPELLINGS, LINK_SPELLINGS

ROW = (1.0, 1.0, 0.5, 1.0)
DISPATCHED = {
    "in_domain": (0, 0.5),
    "variance": (0.5, 1.0),
    "deviance_row": (1.0, 1.0, 0.5, 1.0),
    "mean": (0, 0.5),
    "mean_derivative": (0, 0.5),
    "eta_of": (0, 0.5),
    "score": (0, *ROW),
    "score_full": (0, *ROW),
    "dispersion_derivatives": (0, *ROW),
    "constant": (1.0, 1.0),
}


def test_every_file_with_a_distribution_is_registered_under_its_name():
    folder = Path(bigmm.families.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if "\nDISTRIBUTION = " in path.read_text()}
    assert files == set(NAMES) == set(FAMILIES)
    assert all(record.name == name for name, record in FAMILIES.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_record_is_complete(name):
    record = FAMILIES[name]
    assert set(record.links) <= set(LINKS) and record.canonical in (None, *record.links)
    assert (record.dispersion != "none") == bool(record.dispersion_meaning)
    assert not (record.countable and record.dispersion != "none")
    assert record.range_message or name == "gaussian"
    if record.dispersion == "shape":
        assert record.largest_dispersion is not None and record.flat_dispersion


def test_spellings_lead_to_one_family_each():
    spellings = [spelling for record in FAMILIES.values() for spelling in record.spellings]
    assert len(spellings) == len(set(spellings))
    assert all(spelling == spelling.lower() and "_" not in spelling for spelling in spellings)
    assert all(family(spelling).name == name for spelling, name in FAMILY_SPELLINGS.items())
    assert set(LINK_SPELLINGS.values()) <= set(LINKS)


@pytest.mark.parametrize("number", [-1, len(NAMES)])
@pytest.mark.parametrize("name", DISPATCHED)
def test_a_number_without_a_family_raises(name, number):
    with pytest.raises(ValueError, match="no family has this number"):
        getattr(scores, name)(number, *DISPATCHED[name])


def test_a_kernel_with_a_number_without_a_family_raises():
    @numba.njit
    def kernel(family_id):
        total = 0.0
        for _ in range(3):
            total += scores.score(family_id, 0, 1.0, 1.0, 0.5, 1.0)[0]
        return total

    with pytest.raises(ValueError, match="no family has this number"):
        kernel(len(NAMES))


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_kernels_take_elements_of_what_is_returned():
    """A branch without a family must not make the returned tuples optional for numba."""

    @numba.njit
    def kernel(family_id):
        score = scores.score(family_id, 0, 1.0, 1.0, 0.5, 1.0)
        slopes = scores.dispersion_derivatives(family_id, 0, 1.0, 1.0, 0.5, 1.0)
        return score[1] + slopes[2] + scores.variance(family_id, 0.5, 1.0)

    kernel(0)
    assert all(str(signature.return_type) == "float64" for signature in kernel.nopython_signatures)


@pytest.mark.parametrize("number", [-1, len(LINKS)])
@pytest.mark.parametrize("name", ["bounded", "unit_tails", "power_slopes", "mean_jet", "mean", "eta_of"])
def test_a_number_without_a_link_raises(name, number):
    with pytest.raises(ValueError, match="has this number"):
        getattr(links, name)(number, 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_that_a_family_does_not_take_raises_in_kernels(name):
    for link, number in LINKS.items():
        if link not in FAMILIES[name].links:
            with pytest.raises(ValueError, match="link"):
                scores.score(family(name).family_id, number, *ROW)


def test_the_command_line_lists_the_registry():
    shown = CliRunner().invoke(fit, ["--help"]).output
    assert "|".join(NAMES) in "".join(shown.split()).replace("│", "")


def test_the_names_are_listed_without_numba():
    code = "import sys, bigmm.families as f; assert f.NAMES; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_compiled_branches_have_names_of_their_own():
    """numba links compiled code by module and qualified name, so two closures of one name would be one."""
    functions, names = {}, []
    queue = [value for value in vars(scores).values() if isinstance(value, Dispatcher)]
    while queue:
        dispatcher = queue.pop()
        if id(dispatcher) in functions:
            continue
        functions[id(dispatcher)] = dispatcher
        names.append((dispatcher.py_func.__module__, dispatcher.py_func.__qualname__))
        inside = dispatcher.py_func.__closure__ or ()
        values = [cell.cell_contents for cell in inside] + [
            dispatcher.py_func.__globals__.get(name) for name in dispatcher.py_func.__code__.co_names
        ]
        queue += [value for value in values if isinstance(value, Dispatcher)]
    assert len(names) > 40
    assert len(set(names)) == len(names)
