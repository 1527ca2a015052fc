"""``manage.py durable_doctor``: check the installation, and repair it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError

from durable_jobs.durations import format_duration, parse_duration
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.maintenance import doctor
from durable_jobs.maintenance.doctor import Finding, Report
from durable_jobs.management.database_command import UNUSABLE, problem_of


class Command(BaseCommand):
    """Exits with 0 without problems, 1 with problems, and 2 without a database."""

    help = (
        "Check for invalid states and for work that is not executed. Exits with 1 if "
        "there is a problem, and with 2 if the database or its tables are missing, so "
        "it can be used as a probe."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--format", choices=["text", "json"], default="text")
        parser.add_argument("--fix", action="store_true", help="repair the problems")
        parser.add_argument(
            "--deep",
            action="store_true",
            help="also check the whole history, which may take long",
        )
        parser.add_argument(
            "--oldest",
            default=format_duration(doctor.OLDEST),
            metavar="DURATION",
            help="how long a run may be ready before it starts (%(default)s)",
        )

    def handle(self, **options: Any) -> None:
        """Repair with ``--fix``, then check and print the report."""
        try:
            oldest = parse_duration(options["oldest"], what="option --oldest")
        except ConfigurationError as error:
            raise CommandError(error.message) from None
        as_json = options["format"] == "json"
        try:
            mended = doctor.repair(deep=options["deep"]) if options["fix"] else {}
            report = doctor.examine(deep=options["deep"], oldest=oldest)
        except DatabaseError as error:
            self._unusable(error, as_json=as_json)
        if as_json:
            self.stdout.write(json.dumps(_as_json(report, mended), indent=2))
        else:
            self.stdout.write("\n".join(_as_text(report, mended)))
        if not report.healthy:
            sys.exit(1)

    def _unusable(self, error: Exception, *, as_json: bool) -> NoReturn:
        """Print in one line that the database is unusable, and exit with 2."""
        what, message = problem_of(error)
        if as_json:
            finding = {"check": what, "message": message, "problem": True}
            self.stdout.write(json.dumps({"healthy": False, "findings": [finding]}))
        else:
            self.stdout.write(f"PROBLEM {what}: {message}")
        sys.exit(UNUSABLE)


def _as_json(report: Report, mended: dict[str, int]) -> dict[str, Any]:
    return {
        "healthy": report.healthy,
        "at": report.at.isoformat(),
        "figures": dict(report.figures),
        "findings": [asdict(found) for found in report.findings],
        "mended": mended,
    }


def _as_text(report: Report, mended: dict[str, int]) -> list[str]:
    figures = report.figures
    runs = figures["runs"]
    live = ", ".join(f"{count} {status}" for status, count in sorted(runs.items()))
    lines = [
        f"last tick        {_ago(figures['last_tick_seconds'], 'never')}",
        f"live runs        {live or 'none'}",
        f"oldest ready     {_ago(figures['oldest_ready_seconds'], 'none')}",
        f"expired leases   {figures['expired_leases']}",
        f"waits            {figures['waits']}",
        f"pending events   {figures['pending_events']}",
        f"functions        {figures['functions']}",
        f"living workers   {figures['workers']}",
        "",
    ]
    lines += [f"mended: {count} x {check}" for check, count in mended.items()]
    lines += [_line(found) for found in report.findings]
    problems = sum(found.problem for found in report.findings)
    plural = "" if problems == 1 else "s"
    lines.append(f"{problems} problem{plural}." if problems else "All is well.")
    return lines


def _line(found: Finding) -> str:
    level = "PROBLEM" if found.problem else "notice"
    count = f"{found.count} " if found.examples or found.count > 1 else ""
    examples = f" ({', '.join(found.examples)})" if found.examples else ""
    return f"{level} {found.check}: {count}{found.message}{examples}"


def _ago(seconds: float | None, without: str) -> str:
    return without if seconds is None else f"{seconds:.1f} s ago"
