"""Packages that must have the same version in this process and on the workers."""

from __future__ import annotations

from bigmm.errors import VersionError
from bigmm.execute.dask.watchdog import Watchdog, answer, calls_of

# Pickled arrays, tables and classes of these packages travel between the processes.
_MUST_AGREE = ("bigmm", "numpy", "pyarrow")


def check_versions(watchdog: Watchdog) -> None:
    """Wait for workers; raises VersionError when a worker has another version of a package than this process."""
    watchdog.wait_for_workers()
    ours, theirs = packages_here(), packages_of_workers(watchdog)
    for address, versions in theirs.items():
        for name in _MUST_AGREE:
            if versions.get(name) != ours.get(name):
                raise VersionError(
                    f"worker {address} has {name} {versions.get(name) or 'not installed'}, this process has "
                    f"{ours.get(name)}. Use the same versions everywhere."
                )


def packages_here() -> dict[str, str]:
    """Versions of the packages that must agree, in this process."""
    from distributed.versions import get_versions

    return dict(get_versions(packages=list(_MUST_AGREE))["packages"])


def packages_of_workers(watchdog: Watchdog) -> dict[str, dict[str, str]]:
    """Versions of the packages that must agree, by address of the worker.

    A worker that has stopped sending heartbeats is left out: it would keep the others waiting.
    """
    client, message, workers = watchdog.client, {"op": "versions", "packages": list(_MUST_AGREE)}, None
    while True:
        try:
            answers = answer(client, calls_of(client).broadcast, msg=message, workers=workers, on_error="ignore")
            return {address: worker["packages"] for address, worker in answers.items()}
        except TimeoutError:
            watchdog.check()
            workers = watchdog.responding()
