"""``manage.py durable_runs``: list, show and control runs."""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser

from durable_jobs.exceptions import DurableError
from durable_jobs.management.database_command import DatabaseCommand
from durable_jobs.models import Run
from durable_jobs.queries.run_rows import as_json, described, recent
from durable_jobs.queries.timeline import render_text
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db

_LIMIT = 20
_FORMATS = ["text", "json"]


class Command(DatabaseCommand):
    """A command with actions. Without an action, it lists runs."""

    help = "List runs, newest first. Show, cancel, pause, resume, rerun or redrive one."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the actions and their options."""
        parser.add_argument(
            "--function", metavar="ID", help="only runs of this function"
        )
        parser.add_argument(
            "--status", choices=RunStatus.values, help="only runs in this status"
        )
        parser.add_argument(
            "--limit",
            type=int,
            default=_LIMIT,
            help="the most runs to list (%(default)s)",
        )
        parser.add_argument("--format", choices=_FORMATS, default="text")
        actions = parser.add_subparsers(dest="action", metavar="ACTION")
        for name, what in _ACTIONS.items():
            action = actions.add_parser(name, help=what)
            action.add_argument("run", metavar="ID", help="the run's id")
            action.add_argument("--format", choices=_FORMATS, default=argparse.SUPPRESS)
            if name == "rerun":
                action.add_argument(
                    "--from-step",
                    metavar="STEP",
                    help="keep the steps before this step",
                )
            if name in ("cancel", "pause"):
                action.add_argument(
                    "--reason", default="", help="the reason, for other users"
                )

    def handle(self, **options: Any) -> None:
        """Run the action."""
        action = options["action"]
        if action is None:
            self._list(options)
        elif action == "show":
            self._show(_find(options["run"]), options)
        elif action == "rerun":
            self._rerun(_find(options["run"]), options)
        else:
            self._control(action, _find(options["run"]), options)

    def _list(self, options: dict[str, Any]) -> None:
        if options["limit"] < 1:
            msg = f"Expected --limit of 1 or more, got {options['limit']}."
            raise CommandError(msg)
        runs = recent(
            function=options["function"],
            status=options["status"],
            limit=options["limit"],
        )
        if options["format"] == "json":
            self._json([as_json(run) for run in runs])
            return
        for run in runs:
            began = run.queued_at.strftime("%Y-%m-%d %H:%M:%S")
            reason = f" ({run.reason})" if run.reason else ""
            self.stdout.write(
                f"{run.pk}  {began}  {run.status:<9}  {run.function}{reason}"
            )
        if not runs:
            self.stdout.write("No runs.")

    def _show(self, run: Run, options: dict[str, Any]) -> None:
        if options["format"] == "json":
            self._json(described(run))
            return
        self.stdout.write(render_text(run))

    def _rerun(self, run: Run, options: dict[str, Any]) -> None:
        new = _checked(lambda: run.rerun(from_step=options["from_step"]))
        if options["format"] == "json":
            self._json(as_json(new))
            return
        self.stdout.write(f"Run {new.pk} of {new.function} is {new.status}.")

    def _control(self, action: str, run: Run, options: dict[str, Any]) -> None:
        method = getattr(run, action)
        reason = options.get("reason")
        done = _checked(method if reason is None else lambda: method(reason=reason))
        if options["format"] == "json":
            self._json({**as_json(run), "done": done})
            return
        state = "is" if done else "is unchanged:"
        self.stdout.write(f"Run {run.pk} of {run.function} {state} {run.status}.")

    def _json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2))


_ACTIONS = {
    "show": "print a run's timeline",
    "cancel": "cancel a run",
    "pause": "pause a run before its next step",
    "resume": "resume a paused run",
    "rerun": "start a new run with the same data",
    "redrive": "continue a failed or cancelled run where it ended",
}


def _find(text: str) -> Run:
    try:
        run_id = uuid.UUID(text)
    except ValueError:
        msg = f"Expected the id of a run, a UUID, got {text!r:.80}."
        raise CommandError(msg) from None
    run = db.rows(Run).filter(pk=run_id).first()
    if run is None:
        msg = f"There is no run {run_id}."
        raise CommandError(msg)
    return run


def _checked(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except DurableError as error:
        raise CommandError(error.message) from None
