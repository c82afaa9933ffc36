"""What a run says: results on stdout; progress, warnings and errors on stderr, as text or as JSON lines."""

from __future__ import annotations

import json
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click

from bigmm.cli.progress import Lines
from bigmm.display import Bar
from bigmm.urls import shown_value, without_secrets


@dataclass
class Console:
    """How the user wants to be talked to. ``run_id`` marks every JSON line of one run."""

    quiet: bool = False
    json_lines: bool = False
    debug: bool = False
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def result(self, text: str) -> None:
        """What was asked for, on stdout."""
        click.echo(text)

    def say(self, text: str) -> None:
        """A remark on stderr; JSON lines have events instead."""
        text = without_secrets(text)
        if not self.json_lines:
            click.echo(text, err=True)

    def event(self, event: str, level: str = "info", **details: Any) -> None:
        """One JSON line on stderr (ts, level, run_id, event, ...) when those were asked for."""
        details = shown_value(details)
        if self.json_lines:
            stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = {"ts": stamp, "level": level, "run_id": self.run_id, "event": event, **details}
            click.echo(json.dumps(line, default=str), err=True)

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
            yield Lines(self.event)
        elif self.quiet or not sys.stderr.isatty():
            yield None
        else:
            with Bar() as bar:
                yield bar

    @contextmanager
    def warnings_shown(self) -> Iterator[None]:
        """Python warnings become one line each, each once."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.showwarning = lambda message, category, *rest: self.warn(str(message), category=category.__name__)
            yield


def _setting(name: str, meaning: Any = True) -> Callable[[click.Context, click.Parameter, Any], None]:
    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        setattr(context.ensure_object(Console), name, value == meaning)

    return remember


def talking(command: Callable) -> Callable:
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
    for option in reversed(options):
        command = option(command)
    return command
