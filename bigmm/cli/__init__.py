"""The command line `bigmm`: commands in `app`, one module a job. Heavy imports wait until a command needs them."""

from bigmm.cli.app import main

__all__ = ["main"]
