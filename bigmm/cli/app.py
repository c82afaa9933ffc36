"""The `bigmm` command: its sub-commands, and how every way to end becomes an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from bigmm.cli.certify import certify
from bigmm.cli.console import Console
from bigmm.cli.demo import demo
from bigmm.cli.fit import fit
from bigmm.cli.plan import plan
from bigmm.cli.saved import predict, ranef, summary
from bigmm.cli.signals import Terminated, termination
from bigmm.errors import BigmmError
from bigmm.urls import without_secrets
from bigmm.version import __version__

#: Exit codes that no error class carries; the others are `exit_code` of the classes in bigmm.errors.
BUG, INTERRUPTED, TERMINATED = 70, 130, 143

BUG_ADVICE = "This is a bug in bigmm. Please report it with the traceback that --debug shows."

EXIT_CODES = """
Exit codes: 0 fitted and converged; 2 usage or formula; 3 fitted, but not converged or singular (results are written),
or not certified;
65 bad data; 70 a bug in bigmm; 73 cannot write the output; 74 reading gave up; 75 try again later;
78 version or configuration mismatch; 130 interrupted. After 65 to 78 nothing is half-written.
"""


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="bigmm")
def bigmm() -> None:
    """Linear and generalized linear mixed models for Parquet lakes bigger than memory.

    FORMULA is lme4's: "y ~ x + (1 + x | g) + (1 | h)". DATA is a Parquet file, directory, glob or URL.
    """


for command in (fit, plan, summary, ranef, predict, certify, demo):
    bigmm.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script: runs one command and exits with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command in this process; returns the exit code of CONTRACT's table and never raises."""
    console = Console()
    try:
        with termination(), console.warnings_shown():
            code = bigmm.main(list(arguments), prog_name="bigmm", standalone_mode=False, obj=console)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        return refused(error, console)
    except BigmmError as error:
        return failed(error, error.exit_code, console)
    except (click.Abort, KeyboardInterrupt):
        console.fail("interrupted; nothing is half-written", code=INTERRUPTED)
        return INTERRUPTED
    except Terminated:
        console.fail("terminated; nothing is half-written", code=TERMINATED)
        return TERMINATED
    except BrokenPipeError:
        # The reader of our output has seen enough; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return failed(error, BUG, console)


def refused(error: click.ClickException, console: Console) -> int:
    """A command line that click cannot read."""
    vars(error)["message"] = without_secrets(error.message)  # a copy of the command line may be in it
    if console.json_lines:
        console.fail(error.format_message(), code=error.exit_code)
    else:
        error.show()
    return error.exit_code


def failed(error: Exception, code: int, console: Console) -> int:
    """Say what went wrong; the traceback only on request, for it helps nobody but us."""
    if console.debug:
        console.say("".join(traceback.format_exception(error)))
    message = str(error) or type(error).__name__
    if code == BUG and not isinstance(error, BigmmError):
        message = f"{type(error).__name__}: {message}\n{BUG_ADVICE}"
    console.fail(message, code=code, kind=type(error).__name__)
    return code
