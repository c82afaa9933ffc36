"""Other programs that fit the same models: a `Task` in, a `PeerFit` out, one module a program."""

from benchmarks.peers.task import Missing, PeerFit, Task

__all__ = ["Missing", "PeerFit", "Task"]
