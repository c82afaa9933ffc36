"""The fixed binary tree in which the lanes' accumulators are merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class MergeTree(Generic[T]):
    """Merges values 0..count-1 as a binary tree over their numbers, whatever the order in which they arrive.

    At every level node 2j is merged with node 2j+1, left argument first; a last node without a sibling moves up as it
    is. A pair is merged as soon as both are there, in the thread that brought the second, so few values are alive.
    """

    def __init__(self, count: int, merge: Callable[[T, T], T]):
        self.widths = [count]
        while self.widths[-1] > 1:
            self.widths.append((self.widths[-1] + 1) // 2)
        self.merge, self.waiting, self.lock = merge, dict[tuple[int, int], T](), Lock()

    def add(self, number: int, value: T) -> None:
        """Put in the value of one lane and merge upwards as far as siblings are there."""
        for level, width in enumerate(self.widths[:-1]):
            sibling = number ^ 1
            if sibling < width:
                with self.lock:
                    if (level, sibling) not in self.waiting:
                        self.waiting[level, number] = value
                        return
                    other = self.waiting.pop((level, sibling))
                # Outside of the lock, so that other pairs merge meanwhile. The order of the arguments is a part of the
                # bits.
                value = self.merge(other, value) if sibling < number else self.merge(value, other)
            number //= 2
        self.waiting[len(self.widths) - 1, 0] = value

    def result(self) -> T:
        """The merge of all values; only after every one was added."""
        return self.waiting[len(self.widths) - 1, 0]


def merged(values: Sequence[T], merge: Callable[[T, T], T]) -> T:
    """All values, merged as a `MergeTree` does."""
    tree = MergeTree(len(values), merge)
    for number, value in enumerate(values):
        tree.add(number, value)
    return tree.result()
