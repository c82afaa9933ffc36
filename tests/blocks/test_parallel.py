"""Ranges of levels on the driver's threads, or in the thread of a task that others stand beside."""

import threading

import pytest

from bigmm.blocks.parallel import in_order, one_thread, run


def who(lo, hi):
    return lo, hi, threading.get_ident()


def test_a_task_that_is_one_thread_does_all_itself_and_gets_the_same_ranges():
    here = threading.get_ident()
    usual = run(who, 1000, 1)
    assert here not in {ident for _, _, ident in usual}
    with one_thread():
        alone = run(who, 1000, 1)
        assert [ident for *_, ident in in_order(lambda number: who(number, number), 5)] == [here] * 5
    assert {ident for _, _, ident in alone} == {here}
    assert [piece[:2] for piece in alone] == [piece[:2] for piece in usual]


def test_the_threads_are_back_afterwards():
    with pytest.raises(ZeroDivisionError), one_thread():
        raise ZeroDivisionError
    assert threading.get_ident() not in {ident for _, _, ident in run(who, 1000, 1)}
    assert list(in_order(lambda number: number**2, 10)) == [number**2 for number in range(10)]
