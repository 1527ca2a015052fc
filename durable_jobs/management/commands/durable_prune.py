"""``manage.py durable_prune``: delete everything past its retention."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from durable_jobs.conf import settings
from durable_jobs.maintenance import retention
from durable_jobs.management.database_command import DatabaseCommand


class Command(DatabaseCommand):
    """Deletes at once what the tick deletes in batches."""

    help = (
        "Delete runs, events and keys that are past their retention (setting "
        "RETENTION), batch by batch."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--batch",
            type=int,
            metavar="ROWS",
            help="rows of one kind per transaction (setting PRUNE_BATCH)",
        )

    def handle(self, **options: Any) -> None:
        """Delete batch by batch."""
        batch = settings.PRUNE_BATCH if options["batch"] is None else options["batch"]
        if batch < 1:
            msg = f"Expected --batch of 1 or more, got {batch}."
            raise CommandError(msg)
        total = 0
        while count := retention.sweep(batch):
            total += count
        self.stdout.write(f"Deleted {total} runs, events and keys.")
