"""The accumulate pass against mere decoding: python -m benchmarks.bench_accumulate [--rows 20000000] [--sorted]

Writes lakes (5 covariates and a response with full mantissas, 200,000 levels as int32, files of 10^6 rows, row groups
of 500,000) and times in turn, with the same threads on the same partitions: pyarrow decoding the columns, and the whole
pass that makes the cross-products of y ~ 1 + x1 + ... + x5 + (1 + x1 | g). Claim: the pass takes at most twice as long.
The codec decides what decoding costs, so both usual ones are shown: snappy (pyarrow's default) hardly touches such
numbers and costs about as much as copying memory, zstd (the default of polars and others) has to be decompressed.
CPU seconds are printed too: they say about the same when the machine is busy with something else.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import announce, at_most, cores, timed
from bigmm.accumulate import fold_lane, merge, shift_vector
from bigmm.design import learn
from bigmm.execute import cut_lanes, executor
from bigmm.planning.memory import accumulator_bytes
from bigmm.source import open_source

CLAIM, AIM = 2.0, 1.5
BUSY = 1.25
"""Seconds compare when both had nearly all their cores; other programs may take one away from either."""
FORMULA = "y ~ 1 + x1 + x2 + x3 + x4 + x5 + (1 + x1 | g)"
NAMES = ["x1", "x2", "x3", "x4", "x5", "g", "y"]
FILE_ROWS = 1_000_000


def write_lake(folder: Path, rows: int, levels: int, in_order: bool, codec: str) -> None:
    """Files of 10^6 rows; levels at random, or in order as a lake sorted by its grouping factor has them."""
    folder.mkdir(parents=True)
    for part, start in enumerate(range(0, rows, FILE_ROWS)):
        n = min(FILE_ROWS, rows - start)
        rng = np.random.default_rng(part)
        x = rng.normal(size=(5, n))
        g = (np.arange(start, start + n) * levels // rows) if in_order else rng.integers(0, levels, n)
        y = 1.0 + x.T @ np.linspace(-1, 1, 5) + rng.normal(size=n)
        columns = {name: x[i] for i, name in enumerate(NAMES[:5])} | {"g": g.astype(np.int32), "y": y}
        pq.write_table(
            pa.table(columns), folder / f"part-{part:03d}.parquet", row_group_size=500_000, compression=codec
        )


def decode(partitions, threads: int) -> int:
    """Rows decoded: every partition by one task, thrown away at once."""

    def one(partition) -> int:
        mark = partition.fingerprint
        with pq.ParquetFile("/" + mark.path.lstrip("/")) as file:
            return file.read_row_groups(list(mark.row_groups), columns=NAMES, use_threads=False).num_rows

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, partitions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=int(os.environ.get("BIGMM_BENCH_ROWS", 20_000_000)))
    parser.add_argument("--levels", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codecs", nargs="+", default=["snappy", "zstd"])
    parser.add_argument("--sorted", action="store_true", help="rows in the order of the grouping factor")
    options = parser.parse_args()
    announce("the accumulate pass against mere decoding, same threads, same partitions")
    order = "sorted by level" if options.sorted else "in random order"
    print(
        f"{options.rows:,} rows {order}, {options.levels:,} levels; {options.threads} threads, {options.repeats} times"
    )
    print(f"{'codec':8} {'decode s':>10} {'pass s':>8} {'ratio':>6} {'decode CPU':>13} {'pass CPU':>9} {'ratio':>6}")
    for codec in options.codecs:
        with tempfile.TemporaryDirectory(prefix="bigmm-bench-") as folder:
            write_lake(Path(folder) / "lake", options.rows, options.levels, options.sorted, codec)
            report(codec, options.threads, *measure(Path(folder) / "lake", options))


def measure(lake: Path, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """(2,) seconds and CPU seconds of the fastest run of decoding, and of the pass."""
    source, workers = open_source(str(lake)), executor(n_workers=options.threads)
    spec = learn(FORMULA, source, workers)
    head = spec.encode(source.head(spec.used_columns, 10_000), "the first rows")
    shift = shift_vector(spec.layout, head)
    lanes = cut_lanes(source.partitions, accumulator_bytes=accumulator_bytes(spec.layout))
    fold = partial(fold_lane, source, spec, shift)
    decode_pass = partial(decode, source.partitions, options.threads)
    whole_pass = partial(workers.map_reduce, fold, lanes, merge, label="accumulate")
    decode_pass(), whole_pass()  # compiles kernels, warms the page cache
    decoded, accumulated = [], []
    for _ in range(options.repeats):
        decoded.append(timed(decode_pass)[:2])
        *seconds, cross = timed(whole_pass)
        accumulated.append(seconds)
        assert cross.n == options.rows
    return np.array(min(decoded)), np.array(min(accumulated))


def report(codec: str, threads: int, decoding: np.ndarray, accumulating: np.ndarray) -> None:
    ratio = accumulating / decoding
    wall = f"{decoding[0]:10.3f} {accumulating[0]:8.3f} {ratio[0]:6.2f}"
    print(f"{codec:8} {wall} {decoding[1]:13.3f} {accumulating[1]:9.3f} {ratio[1]:6.2f}")
    used = decoding[1] / decoding[0], accumulating[1] / accumulating[0]
    if max(used) > BUSY * min(used) or threads > BUSY * max(used):
        print(
            f"UNDECIDED: the machine is busy, decoding had {used[0]:.1f} cores and the pass {used[1]:.1f}; only CPU "
            f"seconds can be compared ({ratio[1]:.2f}, claimed at most {CLAIM:g})"
        )
        return
    at_most(f"pass over decoding, {codec}", ratio[0], CLAIM, AIM)


if __name__ == "__main__":
    main()
