"""``manage.py durable_send``: send an event from the command line."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser

from durable_jobs import durable
from durable_jobs.conf import settings
from durable_jobs.exceptions import DurableError, LimitExceeded, PayloadError
from durable_jobs.http_input import read_json
from durable_jobs.management.database_command import DatabaseCommand
from durable_jobs.models import Run
from durable_jobs.store import db


class Command(DatabaseCommand):
    """Sends one event and prints the runs that it started."""

    help = "Send an event."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("name", help="the event's name, such as shop/order.placed")
        parser.add_argument(
            "--data", default="{}", metavar="JSON", help='an object; "-" reads stdin'
        )
        parser.add_argument(
            "--id", help="an id; a second event with the same id is ignored"
        )
        parser.add_argument(
            "--ts",
            metavar="TIME",
            help="when the event takes effect: ISO 8601 with an offset",
        )

    def handle(self, **options: Any) -> None:
        """Send the event."""
        data = _data(options["data"])
        try:
            event_id = durable.send(
                options["name"], data, id=options["id"], ts=_moment(options["ts"])
            )
        except DurableError as error:
            raise CommandError(error.message) from None
        self.stdout.write(f"Sent {options['name']} {event_id}")
        runs = db.rows(Run).filter(event_id=event_id).order_by("pk")
        for run in runs:
            self.stdout.write(f"{run.status} {run.function} {run.pk}")
        if not runs:
            self.stdout.write("No function has a trigger for this event.")


def _data(text: str) -> dict[str, Any]:
    raw = sys.stdin.read() if text == "-" else text
    try:
        data = read_json(
            raw.encode(errors="surrogateescape"),
            what="--data",
            most=settings.MAX_EVENT_BYTES,
        )
    except (LimitExceeded, PayloadError) as error:
        msg = f"Expected --data to be JSON: {error.message}"
        raise CommandError(msg) from None
    if not isinstance(data, dict):
        msg = f"Expected --data to be a JSON object, got {text!r:.80}."
        raise CommandError(msg)
    return data


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"Expected --ts such as 2030-01-31T09:00:00+01:00: {error}."
        raise CommandError(msg) from None
