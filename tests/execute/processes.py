"""A Dask scheduler and its workers as processes of their own, which tests can stop (SIGSTOP) and start again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from distributed import Client


class Processes:
    """One scheduler, and workers of one thread each. ``settings`` are environment variables of Dask's configuration,
    ``options`` more words of the scheduler's command line."""

    def __init__(self, folder: Path, workers: int, options: tuple[str, ...] = (), **settings: str):
        self.file, self.settings = folder / "scheduler.json", settings
        where = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file))
        self.scheduler = self._start("dask_scheduler", *where, *options)
        self.workers = [self._worker() for _ in range(workers)]
        while not self.file.exists() or not self.file.read_text().strip().endswith("}"):
            assert self.scheduler.poll() is None, "the scheduler ended"
            time.sleep(0.05)
        self.address = json.loads(self.file.read_text())["address"]

    def client(self) -> Client:
        """A client that sees all workers."""
        client = Client(self.address, timeout=60, set_as_default=False)
        if self.workers:
            client.wait_for_workers(len(self.workers), timeout=60)
        return client

    def add_worker(self, **settings: str) -> None:
        """Start one more worker, with settings of its own."""
        self.workers.append(self._worker(**settings))

    def _worker(self, **settings: str) -> subprocess.Popen:
        options = ("--nthreads", "1", "--host", "127.0.0.1", "--no-nanny", "--no-dashboard", "--memory-limit", "2GiB")
        return self._start("dask_worker", "--scheduler-file", str(self.file), *options, **settings)

    def _start(self, name: str, *options: str, **settings: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{name}", *options]
        environment = os.environ | self.settings | settings
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, env=environment, cwd=self.file.parent, **quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill every process, the stopped ones too."""
        for process in (*self.workers, self.scheduler):
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


PAUSED = {"DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "0.001"}
"""Settings of a worker that any process is too large for: Dask pauses it as soon as it looks at its memory."""
