"""Shards on a real cluster of worker processes, some of which are killed."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from distributed import Client

from bigmm.errors import DataError, TemporaryError
from bigmm.execute import executor
from bigmm.execute.dask import shards as cluster_shards

pytestmark = pytest.mark.cluster

N_SHARDS = 5


def split(item):
    rng = np.random.default_rng(item)
    values = rng.normal(size=400) * 10.0 ** rng.integers(-6, 6, size=400)
    return [values[number::N_SHARDS] for number in range(N_SHARDS)]


def join(number, pieces):
    return np.concatenate(pieces) + number


def total(shard, own=0.0, more=0.0):
    return float(shard.sum()) + own + more


def pair(client):
    """The same shards on the cluster and on threads."""
    items = range(7)
    return tuple(chosen.shuffle(split, items, join, N_SHARDS) for chosen in (executor(client), executor(n_workers=2)))


def test_shards_on_workers_answer_as_shards_in_threads(client):
    far, near = pair(client)
    assert far.n_shards == near.n_shards == N_SHARDS
    assert far.map(total) == near.map(total)
    own = [1e-9 * i for i in range(N_SHARDS)]
    assert far.map(total, 3.0, per_shard=own) == near.map(total, 3.0, per_shard=own)
    assert far.fold(np.add, np.cumsum).tobytes() == near.fold(np.add, np.cumsum).tobytes()
    assert far.replaced(np.sqrt).map(np.nansum) == near.replaced(np.sqrt).map(np.nansum)


def test_partitions_are_split_in_groups_when_pieces_are_many(client, monkeypatch):
    monkeypatch.setattr(cluster_shards, "MAXIMUM_PIECES", 2 * N_SHARDS)
    far, near = pair(client)
    assert far.map(total) == near.map(total)


def kill_once(mark, shard):
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return total(shard)


def test_a_worker_killed_by_a_question_changes_no_bit(client, tmp_path):
    far, near = pair(client)
    mark = tmp_path / "killed"
    assert far.map(partial(kill_once, str(mark))) == near.map(total)
    assert mark.exists(), "nobody was killed"


def test_all_workers_killed_between_questions_change_no_bit(client):
    far, near = pair(client)
    derived, expected = far.replaced(np.sqrt), near.replaced(np.sqrt).map(np.nansum)
    assert derived.map(np.nansum) == expected
    pids = client.run(os.getpid)
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    assert derived.map(np.nansum) == expected
    assert far.map(total) == near.map(total)
    assert not set(client.run(os.getpid).values()) & set(pids.values())


def kill_in_split(mark, item):
    if item == 3 and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return split(item)


def test_a_worker_killed_in_the_shuffle_changes_no_bit(client, tmp_path):
    mark = tmp_path / "killed"
    far = executor(client).shuffle(partial(kill_in_split, str(mark)), range(7), join, N_SHARDS)
    assert mark.exists(), "nobody was killed"
    assert far.map(total) == pair(client)[1].map(total)


def kill_always(shard):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_question_that_always_kills_is_given_up(client):
    far, near = pair(client)
    with pytest.raises(TemporaryError, match=r"shard: lane \d lost its worker more often than the retries allow"):
        far.map(kill_always)
    # The scheduler is asked: a LocalCluster forgets workers that came and went while it was told of others.
    with Client(client.scheduler.address, set_as_default=False) as other:
        other.wait_for_workers(2, timeout=180)
    assert far.map(total) == near.map(total), "the shards are still there"


def bad_split(log, item):
    with open(log, "a") as stream:
        stream.write(f"{item}\n")
    if item in (3, 5):
        raise DataError(f"part {item}: response 7 is not 0 or 1")
    return split(item)


def test_bad_data_are_raised_once_unchanged_and_first_come_first(client, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(DataError, match=r"^part 3: response 7 is not 0 or 1$"):
        executor(client).shuffle(partial(bad_split, str(log)), range(7), join, N_SHARDS)
    ran = log.read_text().split()
    assert len(ran) == len(set(ran)), "bad data are not tried again"


def refuse(shard):
    raise DataError(f"shard of {len(shard)}")


def test_a_refusing_question_is_raised_unchanged(client):
    far, _ = pair(client)
    with pytest.raises(DataError, match=r"^shard of 560$"):
        far.map(refuse)


def test_progress_counts_partitions_and_shards(client):
    events = []
    executor(client).shuffle(split, range(7), join, N_SHARDS, label="hold", progress=events.append)
    assert (events[-1].label, events[-1].lanes_done, events[-1].lanes_total) == ("hold", 12, 12)
