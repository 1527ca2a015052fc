"""``manage.py durable_runs``: list, look at and steer runs."""

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
    """One command with an action; without one it lists."""

    help = "List runs, the newest first; show one; cancel, pause, resume, rerun them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the actions and their options."""
        parser.add_argument("--function", metavar="ID", help="only of this function")
        parser.add_argument(
            "--status", choices=RunStatus.values, help="only in this status"
        )
        parser.add_argument(
            "--limit", type=int, default=_LIMIT, help="how many (%(default)s)"
        )
        parser.add_argument("--format", choices=_FORMATS, default="text")
        verbs = parser.add_subparsers(dest="verb", metavar="VERB")
        for name, what in _VERBS.items():
            verb = verbs.add_parser(name, help=what)
            verb.add_argument("run", metavar="ID", help="the run's id")
            verb.add_argument("--format", choices=_FORMATS, default=argparse.SUPPRESS)
            if name == "rerun":
                verb.add_argument(
                    "--from-step", metavar="STEP", help="keep what is before"
                )
            if name in ("cancel", "pause"):
                verb.add_argument(
                    "--reason", default="", help="why, for others to read"
                )

    def handle(self, **options: Any) -> None:
        """Do what the action says."""
        verb = options["verb"]
        if verb is None:
            self._list(options)
        elif verb == "show":
            self._show(_find(options["run"]), options)
        elif verb == "rerun":
            self._rerun(_find(options["run"]), options)
        else:
            self._steer(verb, _find(options["run"]), options)

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
        new = _answer(lambda: run.rerun(from_step=options["from_step"]))
        if options["format"] == "json":
            self._json(as_json(new))
            return
        self.stdout.write(f"Run {new.pk} of {new.function} is {new.status}.")

    def _steer(self, verb: str, run: Run, options: dict[str, Any]) -> None:
        method = getattr(run, verb)
        reason = options.get("reason")
        done = _answer(method if reason is None else lambda: method(reason=reason))
        if options["format"] == "json":
            self._json({**as_json(run), "done": done})
            return
        state = "is" if done else "was left as it is:"
        self.stdout.write(f"Run {run.pk} of {run.function} {state} {run.status}.")

    def _json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2))


_VERBS = {
    "show": "print a run's timeline",
    "cancel": "end a run",
    "pause": "begin no further step of a run",
    "resume": "let a paused run go on",
    "rerun": "start a run again, as a new one",
    "redrive": "let a failed or cancelled run go on from where it ended",
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


def _answer(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except DurableError as error:
        raise CommandError(error.message) from None
