"""What a run says: results on stdout; progress, warnings and errors on stderr, as text or as JSON lines."""

from __future__ import annotations

import json
import os
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import click

from bigmm.cli.progress import Lines
from bigmm.compilation import tell
from bigmm.display import ProgressBar
from bigmm.errors import ConvergenceWarning, OutputError, SingularFitWarning
from bigmm.urls import shown_value, without_secrets


@dataclass
class Console:
    """How the user wants to be talked to. ``run_id`` marks every JSON line of one run.

    ``earned`` is the exit code of the run once its outputs are in place, ``settled`` lists those that are.
    """

    quiet: bool = False
    json_lines: bool = False
    debug: bool = False
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    earned: int | None = None
    settled: list[Path] = field(default_factory=list)

    def expect(self, code: int) -> None:
        """The outputs are about to be put in place; the run has then earned this exit code, whatever ends it."""
        self.earned, self.settled = code, []

    def settled_at(self, place: Path) -> None:
        """An output is in place."""
        self.settled.append(place)

    def result(self, text: str) -> None:
        """Something to read on stdout. A reader that has seen enough (`| head`) is no error, nor is a closed stdout."""
        try:
            # A file name that is not UTF-8 goes out as the bytes that it has, so that a shell can use it.
            click.echo(text if _is_printable(text) else text.encode(errors="surrogateescape"))
        except BrokenPipeError:
            silence(sys.stdout)
        except OSError as error:
            silence(sys.stdout)
            raise OutputError(f"cannot write to standard output: {os.strerror(error.errno or 0)}") from error

    def record(self, text: str) -> None:
        """What was asked for on stdout and is nowhere else: a closed stdout is an error."""
        if sys.stdout is None:
            raise OutputError("cannot write to standard output: it is closed")
        self.result(text)

    def say(self, text: str) -> None:
        """A remark on stderr; JSON lines have events instead."""
        text = without_secrets(text)
        if not self.json_lines:
            _echo_error(text)

    def event(self, event: str, level: str = "info", **details: Any) -> None:
        """One JSON line on stderr (ts, level, run_id, event, ...) when those were asked for."""
        details = shown_value(details)
        if self.json_lines:
            stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = {"ts": stamp, "level": level, "run_id": self.run_id, "event": event, **details}
            _echo_error(json.dumps(line, default=str))

    def warn(self, message: str, **details: Any) -> None:
        """Something to know that stops nothing; said even when quiet."""
        self.say(f"bigmm: warning: {message}")
        self.event("warning", "warning", message=message, **details)

    def fail(self, message: str, *, code: int, **details: Any) -> None:
        """Why the run ended."""
        self.say(f"bigmm: {message}")
        self.event("failed", "error", message=message, exit_code=code, **details)

    @contextmanager
    def progress(self) -> Iterator[Callable[[Any], None] | None]:
        """A callback for `progress=`: a bar when someone watches, JSON lines when asked for, else None."""
        if self.json_lines:
            # The first run compiles kernels, and meanwhile no pass reports progress.
            tell(lambda text: self.event("compiling", message=text))
            yield Lines(self.event)
        elif self.quiet or not sys.stderr.isatty():
            yield None
        else:
            with ProgressBar() as bar:
                yield bar

    @contextmanager
    def warnings_shown(self) -> Iterator[None]:
        """Python warnings become one line each, each once."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            for doubt in (ConvergenceWarning, SingularFitWarning):  # a fit's verdict is said at its end, with code 3
                warnings.simplefilter("ignore", doubt)
            warnings.showwarning = lambda message, category, *rest: self.warn(str(message), category=category.__name__)
            yield


def silence(stream: TextIO | None) -> None:
    """Send the rest of a stream that cannot be written nowhere; Python would complain when it flushes at exit."""
    if stream is not None:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _echo_error(text: str) -> None:
    """A line on stderr; that it cannot be written changes nothing about the run."""
    try:
        click.echo(text if _is_printable(text) else text.encode(errors="backslashreplace"), err=True)
    except (OSError, ValueError):
        silence(sys.stderr)


def _is_printable(text: str) -> bool:
    """False for a text with the name of a file that is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _setting(name: str, meaning: Any = True) -> Callable[[click.Context, click.Parameter, Any], None]:
    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        setattr(context.ensure_object(Console), name, value == meaning)

    return remember


def talking(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --quiet, --log and --debug to a command; they set the Console that the command gets by `click.pass_obj`."""
    options = (
        click.option(
            "--quiet", is_flag=True, expose_value=False, callback=_setting("quiet"), help="No progress, no summary."
        ),
        click.option(
            "--log",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            expose_value=False,
            callback=_setting("json_lines", "json"),
            help="What stderr carries: text, or JSON lines (ts, level, run_id, event, ...).",
        ),
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_setting("debug"),
            help="Show the traceback of an error.",
        ),
    )
    # Decorators apply from the inside out, so the reverse gives --help the order above.
    for option in reversed(options):
        command = option(command)
    return command
