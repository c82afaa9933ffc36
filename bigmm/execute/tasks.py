"""Tasks that need each other's results: a directed graph, given in an order in which each task could be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Name = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """``work(*results of needs)``, or ``work(load(), *results of needs)``.

    Parameters
    ----------
    work
        Pure, and picklable for a cluster. An array among the results that arrives writeable is needed by no other
        task, so work may write over it and return it. All other arrays are read-only.
    load
        Makes data that this process has, when it is the task's turn.
    place
        Tasks of one place run on the same worker if possible.
    is_output
        The caller gets the result.
    """

    name: Name
    work: Callable[..., Any]
    needs: tuple[Name, ...] = ()
    load: Callable[[], Any] | None = None
    place: int | None = None
    is_output: bool = False


class Uses:
    """Which task needs which results.

    ``users[name]`` are the numbers of the tasks that take a result, ``waiting[i]`` is the number of results that task
    ``i`` waits for. Raises ValueError when a task comes before one that it needs, or two tasks have one name.
    """

    def __init__(self, tasks: Sequence[Task]):
        self.users: dict[Name, list[int]] = {}
        for number, task in enumerate(tasks):
            # A task that takes one result twice waits for it once.
            for name in set(task.needs):
                if name not in self.users:
                    raise ValueError(f"task {task.name} needs {name}, which does not come before it")
                self.users[name].append(number)
            if task.name in self.users:
                raise ValueError(f"two tasks are named {task.name}")
            self.users[task.name] = []
        self.waiting = [len(set(task.needs)) for task in tasks]


@dataclass(frozen=True, slots=True)
class Capacity:
    """Room for results: the number of processes, and the bytes they may hold together (None: no limit set)."""

    processes: int
    bytes: int | None
