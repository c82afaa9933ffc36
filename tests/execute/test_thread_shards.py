"""Shards held by threads of this process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest

from bigmm.errors import DataError
from bigmm.execute import executor
from bigmm.execute.threads.shards import ThreadShards


@dataclass(frozen=True)
class Box:
    number: int
    values: np.ndarray


def split(item):
    return (np.full(3, 10 * item + shard) for shard in range(4))


def join(number, pieces):
    return Box(number, np.concatenate(pieces).astype(float))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_pieces_are_joined_in_the_order_of_items(n_workers):
    held = executor(n_workers=n_workers).shuffle(split, range(5), join, 4)
    for number, box in enumerate(held.shards):
        assert box.number == number
        assert box.values.tolist() == np.repeat([10.0 * i + number for i in range(5)], 3).tolist()


@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("in_files", [False, True])
def test_answers_are_in_the_order_of_shards(n_workers, in_files):
    def make(number):
        time.sleep(0.01 * (3 - number))
        return Box(number, np.arange(1000.0) + number)

    held = executor(n_workers=n_workers).shard_sorted(make, range(4), in_files=in_files)
    assert held.map(lambda box: box.number) == [0, 1, 2, 3]
    assert held.map(lambda box, own, more: own + more, 1, per_shard=[5, 6, 7, 8]) == [6, 7, 8, 9]
    assert held.fold(lambda a, b: f"{a}{b}", lambda box: str(box.number)) == "0123"
    doubled = held.replaced(lambda box: Box(-box.number, 2.0 * box.values))
    assert doubled.map(lambda box: box.values[0]) == [0.0, 2.0, 4.0, 6.0]
    assert held.map(lambda box: box.values[0]) == [0.0, 1.0, 2.0, 3.0]


def test_few_results_wait_to_be_folded():
    alive, most, lock = [0], [0], threading.Lock()

    class Result:
        def __init__(self):
            with lock:
                alive[0] += 1
                most[0] = max(most[0], alive[0])

        def __del__(self):
            with lock:
                alive[0] -= 1

    ThreadShards(list(range(50)), 2).fold(lambda a, b: b, lambda shard: Result())
    assert most[0] <= 8


BLAS_THREADS = """
import numpy, scipy.linalg, threadpoolctl
from bigmm.execute.threads.shards import ThreadShards
for n_workers in (1, 2):
    held = ThreadShards([0, 1, 2], n_workers)
    found = held.map(lambda shard: {pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
    assert all(threads <= {1} for threads in found), found
"""


def test_every_question_has_one_blas_thread():
    subprocess.run([sys.executable, "-c", BLAS_THREADS], check=True)  # alone: the limit belongs to the process


def test_the_first_bad_item_is_the_error():
    def bad(item):
        if item in (3, 1):
            raise DataError(f"item {item}")
        return split(item)

    with pytest.raises(DataError, match="^item 1$"):
        executor(n_workers=2).shuffle(bad, range(5), join, 4)
