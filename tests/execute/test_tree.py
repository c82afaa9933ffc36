"""The merge tree has one shape, whatever arrives when."""

from __future__ import annotations

import random

import pytest

from bigmm.execute.tree import MergeTree

SHAPES = {
    1: "0",
    2: "(0 1)",
    3: "((0 1) 2)",
    5: "(((0 1) (2 3)) 4)",
    6: "(((0 1) (2 3)) (4 5))",
    7: "(((0 1) (2 3)) ((4 5) 6))",
    8: "(((0 1) (2 3)) ((4 5) (6 7)))",
}


@pytest.mark.parametrize("count", SHAPES)
def test_shape_does_not_depend_on_the_order_of_arrival(count):
    rng = random.Random(count)
    for _ in range(50):
        order = list(range(count))
        rng.shuffle(order)
        tree = MergeTree(count, lambda a, b: f"({a} {b})")
        for number in order:
            tree.add(number, str(number))
        assert tree.result() == SHAPES[count]


def test_merged_as_soon_as_both_siblings_are_there():
    tree = MergeTree(1000, lambda a, b: a + b)
    most = 0
    for number in range(1000):
        tree.add(number, 1)
        most = max(most, len(tree.waiting))
    assert tree.result() == 1000
    assert most <= 10, "log2 of the number of lanes, when they arrive in order"
