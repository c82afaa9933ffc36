"""The `bigmm` command: its sub-commands, and how every way to end becomes an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import NoReturn

import click

from bigmm.atomic import watched
from bigmm.cli.certify import certify
from bigmm.cli.console import Console, silence
from bigmm.cli.demo import demo
from bigmm.cli.fit import fit
from bigmm.cli.plan import plan
from bigmm.cli.saved import predict, ranef, summary
from bigmm.cli.signals import Interrupted, Terminated, termination
from bigmm.cli.warmup import warmup
from bigmm.errors import BigmmError, OutputError
from bigmm.urls import without_secrets
from bigmm.version import __version__

#: Exit codes that no error class carries; the others are `exit_code` of the classes in bigmm.errors.
BUG, INTERRUPTED = 70, 130
INTERRUPTION = ("interrupted", INTERRUPTED)

#: Nothing more can be written, wherever it was to go: a spilled array, the text of --help.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

BUG_ADVICE = "This is a bug in bigmm. Please report it with the traceback that --debug shows."

EXIT_CODES = """
Exit codes: 0 fitted and converged; 2 usage or formula; 3 fitted, but not converged or singular (results are written),
or not certified;
65 bad data; 70 a bug in bigmm; 73 cannot write the output; 74 reading gave up; 75 try again later;
78 version or configuration mismatch; 129, 130, 143 hung up, interrupted, terminated before the output was in place.
After 65 to 143 nothing is half-written.
"""


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="bigmm")
def bigmm() -> None:
    """Linear and generalized linear mixed models for Parquet lakes bigger than memory.

    FORMULA is lme4's: "y ~ x + (1 + x | g) + (1 | h)". DATA is a Parquet file, directory, glob or URL.
    """


for command in (fit, plan, summary, ranef, predict, certify, warmup, demo):
    bigmm.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script: runs one command and exits with its code."""
    for number in (0, 1, 2):  # a file that is opened later must not become a stream that was closed
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:  # remarks go nowhere; a closed stdout stays None, for a record that was asked for is missed
        sys.stderr = os.fdopen(2, "w")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command in this process; returns the exit code of the table in docs/cli.md and never raises."""
    console = Console(json_lines=asks_for_json_lines(arguments))
    arrived: list[BaseException] = []
    stdout = sys.stdout
    try:
        with termination(arrived), console.warnings_shown(), watched(console.settled_at):
            code = bigmm.main(list(arguments), prog_name="bigmm", standalone_mode=False, obj=console)
        flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        return refused(error, console)
    except BigmmError as error:
        return failed(error, error.exit_code, console)
    except (click.Abort, KeyboardInterrupt, Interrupted):
        return stopped(*INTERRUPTION, console)
    except Terminated as error:
        return stopped("terminated", error.exit_code, console)
    except SystemExit as ended:
        if sys.stdout is not stdout:  # click replaces it and leaves when the reader of the output has seen enough
            silence(sys.stdout)
            return 0
        return exit_code(ended.code, console)
    except Exception as error:
        if arrived:
            # A signal that came while numba compiled arrives as a compiler error, so the signal decides.
            last = arrived[-1]
            return stopped(*(("terminated", last.exit_code) if isinstance(last, Terminated) else INTERRUPTION), console)
        if isinstance(error, OSError) and error.errno in FULL:
            silence(sys.stdout)
            return failed(
                OutputError(f"cannot write: {error.strerror}; free some space"), OutputError.exit_code, console
            )
        return failed(error, BUG, console)


def exit_code(code: object, console: Console) -> int:
    """The exit code of a SystemExit: a number is one, None is 0, and any other object is a message and 1."""
    if code is None or isinstance(code, int):
        return int(code or 0)
    console.fail(str(code), code=1, kind="SystemExit")
    return 1


def asks_for_json_lines(arguments: Sequence[str]) -> bool:
    """Whether --log json is among the arguments; a command line that click cannot read has no other answer."""
    words = list(arguments)
    # Behind -- there are arguments, and one of them may be called --log.
    words = words[: words.index("--")] if "--" in words else words
    chosen = [word.partition("=")[2] for word in words if word.startswith("--log=")]
    chosen += [value for name, value in pairwise(words) if name == "--log"]
    return "json" in chosen


def flush() -> None:
    """Write out what stdout holds back; a reader that has seen enough is no error."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)


def stopped(word: str, code: int, console: Console) -> int:
    """A signal ended the run: with the code that it had earned when its outputs were in place, else with the signal's.

    So the exit code always says what is at the target.
    """
    if console.settled and console.earned is not None:
        console.warn(f"{word} when the results were in place: {', '.join(map(str, console.settled))}")
        return console.earned
    console.fail(f"{word}; nothing is half-written", code=code)
    return code


def refused(error: click.ClickException, console: Console) -> int:
    """A command line that click cannot read."""
    vars(error)["message"] = without_secrets(error.message)  # a copy of the command line may be in it
    if console.json_lines:
        console.fail(error.format_message(), code=error.exit_code, kind=type(error).__name__)
    else:
        with suppress(OSError):  # a closed stderr changes nothing about the run
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
