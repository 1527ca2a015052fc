"""The base class of commands that need the tables of this package."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError
from django.db import OperationalError, ProgrammingError

from durable_jobs.logs import one_line

#: The exit status of a command without database or tables.
UNUSABLE = 2
_MEANINGS = {
    "tables": "tables of durable_jobs are not there, or are of another version: run "
    "manage.py migrate",
    "database": "database cannot be used",
}


def problem_of(error: Exception) -> tuple[str, str]:
    """Return what is missing, ``tables`` or ``database``, and a sentence about it."""
    missing = isinstance(error, ProgrammingError) or "no such table" in str(error)
    what = "tables" if missing else "database"
    cause = one_line(type(error).__name__, error)
    return what, f"The {_MEANINGS[what]} ({cause})."


class DatabaseCommand(BaseCommand):
    """Ends with one line and the exit status 2 without database or tables."""

    def execute(self, *args: Any, **options: Any) -> Any:
        """Execute the command; raise ``CommandError`` if the database is unusable."""
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            if not isinstance(error, OperationalError | ProgrammingError):
                raise
            _, message = problem_of(error)
            raise CommandError(message, returncode=UNUSABLE) from error
