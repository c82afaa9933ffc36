"""Output that appears whole or not at all, one writer at a time, and never in the place of what bigmm did not write.

It is written beside its place, synced, then exchanged with it in one step (`switch`). A lock of the kernel keeps a
second writer out (`lock`). What is left after a kill is hidden, and the next writer of the same place settles it.
Every failure is an `OutputError` that names the path and the reason.
"""

import os as os  # callers may watch the system calls of an exchange through it

from bigmm.atomic.inputs import check_apart, local_files, local_inputs
from bigmm.atomic.ownership import TABLE_MARK, is_record, is_table, marked_table
from bigmm.atomic.places import is_url, local_path, shown_path
from bigmm.atomic.reasons import output_error
from bigmm.atomic.shield import shielded, watched
from bigmm.atomic.writing import (
    Reservation,
    check_destination,
    check_file,
    reserved,
    reserved_file,
    settled_path,
    whole_directory,
    whole_file,
    write_text,
)

__all__ = [
    "TABLE_MARK",
    "Reservation",
    "check_apart",
    "check_destination",
    "check_file",
    "is_record",
    "is_table",
    "is_url",
    "local_files",
    "local_inputs",
    "local_path",
    "marked_table",
    "output_error",
    "reserved",
    "reserved_file",
    "settled_path",
    "shielded",
    "shown_path",
    "watched",
    "whole_directory",
    "whole_file",
    "write_text",
]
