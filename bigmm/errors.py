"""Errors that users meet, each with the exit code of the command line (docs/cli.md; that of sysexits where one fits).

A message says what is wrong, where (file, row group, column, value) and what to do about it.
"""

from __future__ import annotations

_SHOWN = 120  # characters of a long formula that a message shows on either side of the spot


class BigmmError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 70


class UsageError(BigmmError, ValueError):
    """A call that cannot be meant: unknown option, wrong type, contradictory arguments."""

    exit_code = 2


class ArgumentError(UsageError, TypeError):
    """A call that does not fit the signature: an unknown argument, one too many or one too few."""


class FormulaError(UsageError):
    """A formula that cannot be read; the message shows the formula, or the part around the spot, with a caret there."""

    def __init__(self, message: str, formula: str = "", position: int | None = None):
        self.formula, self.position = formula, position
        if formula and position is not None:
            first = max(0, position - _SHOWN) if len(formula) > 2 * _SHOWN else 0
            shown = formula[first : first + 2 * _SHOWN]
            message = f"{message}\n    {shown}\n    {' ' * (position - first)}^"
        super().__init__(message)


class DataError(BigmmError, ValueError):
    """Bad data, permanent until the data are mended: names file, row group, column and value."""

    exit_code = 65


class OutputError(BigmmError, OSError):
    """The output cannot be written (permission, disk full); nothing is half-written."""

    exit_code = 73


class ReadError(BigmmError, OSError):
    """Input could not be read although it was tried again (network, file system)."""

    exit_code = 74


class TemporaryError(BigmmError, RuntimeError):
    """Nothing is wrong with data or formula: no workers, scheduler lost, store locked. Try again."""

    exit_code = 75


class VersionError(BigmmError, RuntimeError):
    """A saved fit, store or worker of another version or configuration."""

    exit_code = 78


class MemoryLimitError(UsageError, MemoryError):
    """The plan does not fit the memory limit; the message names the options."""


class BigmmWarning(UserWarning):
    """Something a user should know, that does not stop the fit."""


class ConvergenceWarning(BigmmWarning):
    """The search ended without a certified optimum: the estimates are those of its last step."""


class SingularFitWarning(BigmmWarning):
    """A variance is estimated as zero, or a correlation as +1 or -1."""
