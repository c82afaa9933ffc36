"""Lanes depend on the data alone and cover every partition once, in order."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmm.execute import cut_lanes

GIB = 1 << 30


@dataclass(frozen=True)
class Part:
    nbytes: int


def parts(sizes):
    return [Part(size) for size in sizes]


@given(st.lists(st.integers(0, 10 * GIB), max_size=400), st.sampled_from([0, 10**6, 10 * GIB]))
def test_every_partition_once_in_order(sizes, accumulator):
    partitions = parts(sizes)
    lanes = cut_lanes(partitions, accumulator_bytes=accumulator)
    assert [part for lane in lanes for part in lane.partitions] == partitions
    assert [lane.index for lane in lanes] == list(range(len(lanes)))
    assert all(lane.partitions for lane in lanes)
    assert min(8, len(sizes)) <= len(lanes) <= 256 or not sizes


@pytest.mark.parametrize(
    ("count", "size", "accumulator", "lanes"),
    [
        (0, GIB, 0, 0),
        (1, GIB, 0, 1),
        (5, 100 * GIB, 0, 5),
        (100, 1, 0, 8),
        (100, GIB, 0, 100),
        (1000, GIB, 0, 256),
        (1000, GIB, GIB, 250),
        (1000, GIB, 10 * GIB, 25),
        (1000, GIB, 1000 * GIB, 8),
    ],
)
def test_how_many(count, size, accumulator, lanes):
    assert len(cut_lanes(parts([size] * count), accumulator_bytes=accumulator)) == lanes


@given(st.lists(st.integers(1, 100), min_size=50, max_size=300))
def test_lanes_are_balanced_by_bytes(sizes):
    lanes = cut_lanes(parts(sizes))
    loads = [sum(part.nbytes for part in lane.partitions) for lane in lanes]
    assert max(loads) <= sum(sizes) / len(lanes) + 2 * max(sizes)


def test_target_and_minimum_can_be_chosen():
    assert len(cut_lanes(parts([100] * 50), target_bytes=100)) == 50
    assert len(cut_lanes(parts([100] * 50), minimum=2)) == 2
