"""All benchmarks, one after the other, each in a process of its own: python -m benchmarks [--full]

Without --full the large ones run at a size that takes minutes together; with it, at the size of their claims.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

#: Script, and the arguments that make it small.
SCRIPTS = {
    "bench_insteval": (),
    "bench_peers": ("--rows", "50000"),
    "bench_million_levels": (),
    "bench_many_levels": ("--rows", "5000000", "--memory-limit", "0.5GiB"),
    "bench_accumulate": (),
    "bench_memory": ("--rows", "20000000"),
    "bench_optimizers": (),
    "bench_solvers": (),
    "bench_error_bars": (),
    "bench_movielens": ("--rows", "2000000"),
    "bench_crossed_bernoulli": ("--rows", "500000"),
    "bench_scaling": ("--rows", "500000", "1000000", "2000000"),
    "bench_workers": (),
    "bench_certify": ("--rows", "500000"),
    "bench_glmm_verbagg": (),
    "bench_glmm_million": ("--rows", "100000"),
    "bench_glmm_nested": ("--rows", "200000", "--classes", "4000", "--schools", "100", "--timeout", "300"),
    "bench_glmm_bias": (),
    "bench_glmm_memory": ("--rows", "5000000"),
}

#: Arguments at full size, where these are not the script's defaults.
LARGE = {"bench_scaling": ("--rows", "1000000", "10000000", "25000095", "100000000")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    full = parser.parse_args().full
    failed = []
    for name, small in SCRIPTS.items():
        command = [sys.executable, "-m", f"benchmarks.{name}", *(LARGE.get(name, ()) if full else small)]
        print(f"\n$ python {' '.join(command[1:])}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"did not run to the end: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
