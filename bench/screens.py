"""``python -m bench.screens``: the cost of the admin pages with many runs.

Fills a separate database and requests each page of ``PAGES`` and ``CONFIRMED`` with
Django's test client, in this process, without a network and a browser.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.server import Database, Server

NAME = "bench_screens"
CALLS, WARM = 20, 3
#: The markers around the table in a Markdown file.
BEGIN, END = "<!-- pages -->", "<!-- end of pages -->"
#: Milliseconds for the 95th percentile. Slower pages are bold in the table.
BUDGET = 200

Address = Callable[["Known"], str]


@dataclass(frozen=True, slots=True)
class Known:
    """Ids of the data set that the addresses contain."""

    completed: str
    failed: str
    large: str
    child: str
    parent: str
    old: str
    month_ago: str
    event: str

    @classmethod
    def read(cls) -> Known:
        """Find the ids in the data set."""
        from bench.screens_data import one
        from durable_jobs import clock

        child = one("parent_id IS NOT NULL AND status = 'completed'")
        return cls(
            completed=str(one("status = 'completed'")),
            failed=str(one("status = 'failed' AND started_at IS NOT NULL")),
            large=str(_run_of_most_steps()),
            child=str(child),
            parent=str(_value("parent_id", child)),
            old=str(one("queued_at < now() - interval '20 days'")),
            month_ago=(clock.now() - timedelta(days=29)).isoformat(),
            event=str(_value("event_id", child)),
        )


def _runs(**query: str) -> Address:
    def address(known: Known) -> str:
        from urllib.parse import urlencode

        fields = _Fields(known)
        values = {name: value.format_map(fields) for name, value in query.items()}
        return f"{_reverse('run_changelist')}?{urlencode(values)}"

    return address


def _run(name: str, query: str = "") -> Address:
    return lambda known: _reverse("run_change", getattr(known, name)) + query


def _search(term: str) -> Address:
    def address(known: Known) -> str:
        from urllib.parse import urlencode

        query = urlencode({"q": term.format_map(_Fields(known))})
        return f"{_reverse('search')}?{query}"

    return address


def _page(name: str) -> Address:
    return lambda known: _reverse(name)


#: The address of each page, by its name in the table.
PAGES: dict[str, Address] = {
    "runs": _runs(),
    "runs, page 20": _runs(p="20"),
    "runs, older by 20 days": _runs(before="{old}"),
    **{
        f"status {status}": _runs(status=status)
        for status in (
            "queued",
            "running",
            "waiting",
            "paused",
            "completed",
            "failed",
            "cancelled",
            "skipped",
        )
    },
    "past hour": _runs(period="hour"),
    "past 30 days": _runs(period="month"),
    "a hot function": _runs(function="shop.function_0"),
    "a rare function": _runs(function="shop.function_29"),
    "a function, failed": _runs(function="shop.function_7", status="failed"),
    "a function, past week, failed": _runs(
        function="shop.function_7", status="failed", period="week"
    ),
    "a function, queued": _runs(function="shop.function_7", status="queued"),
    "a function, waiting": _runs(function="shop.function_7", status="waiting"),
    "a function, failed or cancelled": lambda known: (
        _runs(function="shop.function_7")(known) + "&status=failed&status=cancelled"
    ),
    "unknown function": _runs(function="shop.nothing"),
    "subject": _runs(subject="shop.order:40"),
    "key": _runs(key="order-40"),
    "event": _runs(event="{event}"),
    "parent": _runs(parent="{parent}"),
    "search for a key": _runs(q="order-40"),
    "queued, an hour a month ago": _runs(until="{month_ago}"),
    "ended, the first day of the month": _runs(time="ended", until="{month_ago}"),
    "ended, past hour": _runs(time="ended", period="hour"),
    "started, past hour": _runs(time="started", period="hour"),
    "trigger": _runs(trigger="shop/event.3"),
    "trigger, waiting": _runs(trigger="shop/event.3", status="waiting"),
    "unknown trigger": _runs(trigger="shop/nothing"),
    "old version": _runs(version="v4"),
    "queue": _runs(queue="slow"),
    "worker": _runs(worker="host:3"),
    "payload": _runs(where="data.order.id=40"),
    "payload without matches": _runs(where="data.order.id=-1"),
    "payload, of a function, failed": _runs(
        where="error.type=KeyError", function="shop.function_7", status="failed"
    ),
    "run of 5 steps": _run("completed"),
    "run that failed": _run("failed"),
    "run of 1,000 steps": _run("large"),
    "run of 1,000 steps, by name": _run("large", "?name=1"),
    "run of 1,000 steps, the slowest": _run("large", "?steps=slowest"),
    "run of 1,000 steps, page 5": _run("large", "?inside=all&page=5"),
    "run with a parent": _run("child"),
    "steps": _page("step_changelist"),
    "events": _page("event_changelist"),
    "schedules": _page("schedule_changelist"),
    "overview": _page("overview"),
    "functions": _page("functions"),
    "queues and limits": _page("queues"),
    "approvals": _page("approvals"),
    "search, an event with its runs": _search("{event}"),
    "search, an unknown object": _search("shop.order:41"),
    "search, an unknown key": _search("order-0"),
    "search, an unknown short id": _search("00000000"),
}
#: Confirmation pages of an action on all runs of a list. The page counts the runs.
CONFIRMED: dict[str, Address] = {
    "confirm, all waiting": _runs(status="waiting"),
    "confirm, all failed": _runs(status="failed"),
    "confirm, failed, cancelled or paused": lambda known: (
        _runs(status="failed")(known) + "&status=cancelled&status=paused"
    ),
    "confirm, a function, failed": _runs(function="shop.function_0", status="failed"),
    "confirm, trigger, waiting": _runs(trigger="shop/event.3", status="waiting"),
}
#: The form data of an action on all runs of a list.
_ACROSS = {
    "action": "cancel_runs",
    "index": "0",
    "select_across": "1",
    "_selected_action": "00000000-0000-0000-0000-000000000000",
}


class _Fields(dict[str, str]):
    def __init__(self, known: Known) -> None:
        super().__init__({name: getattr(known, name) for name in known.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The cost of one page."""

    name: str
    status: int
    queries: int
    cpu: float
    p50: float
    p95: float
    slowest: float
    buffers: int
    plan: str

    @property
    def row(self) -> str:
        """Return the row of the table."""
        late = f"**{self.p95:.0f}**" if self.p95 > BUDGET else f"{self.p95:.0f}"
        name = self.name if self.status == 200 else f"{self.name} ({self.status})"
        return (
            f"| {name} | {self.queries} | {self.cpu:.0f} | {self.p50:.0f} | {late} | "
            f"{self.slowest:.1f} | {self.buffers:,} | {self.plan} |"
        )


HEAD = (
    "| page | queries | process CPU, ms | p50, ms | p95, ms | slowest query, ms | "
    "its pages | its indexes |\n"
    "|---|--:|--:|--:|--:|--:|--:|---|"
)


def questions(client: Any, known: Known) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name of each page and a callable that requests the page."""
    for name, address in PAGES.items():
        yield name, functools.partial(client.get, address(known))
    for name, address in CONFIRMED.items():
        yield name, functools.partial(client.post, address(known), _ACROSS)


def measure(name: str, ask: Callable[[], Any]) -> Measured:
    """Request a page ``CALLS`` times and explain its slowest query."""
    from django.db import connection

    seen: list[tuple[float, str, Any]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            seen.append((time.perf_counter() - began, sql, params))

    for _ in range(WARM):
        response = ask()
    times, busy = [], []
    for _ in range(CALLS):
        began, worked = time.perf_counter(), time.process_time()
        response = ask()
        times.append((time.perf_counter() - began) * 1000)
        busy.append((time.process_time() - worked) * 1000)
    with connection.execute_wrapper(note):
        ask()
    ours = [one for one in seen if "durable_jobs_" in one[1]]
    slowest = max(ours, key=lambda one: one[0], default=(0.0, "", None))
    plan = _explained(slowest[1], slowest[2])
    return Measured(
        name=name,
        status=response.status_code,
        queries=len(seen),
        cpu=statistics.median(busy),
        p50=statistics.median(times),
        p95=sorted(times)[-2],
        slowest=slowest[0] * 1000,
        buffers=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] if plan else 0,
        plan=", ".join(dict.fromkeys(_scans(plan))) if plan else "",
    )


def _explained(sql: str, params: Any) -> dict[str, Any] | None:
    from django.db import connection

    if not sql.startswith("SELECT"):
        return None
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params)
        found = cursor.fetchone()[0]
    parsed = json.loads(found) if isinstance(found, str) else found
    plan: dict[str, Any] = parsed[0]["Plan"]
    return plan


def _scans(node: dict[str, Any]) -> Iterator[str]:
    if "Index Name" in node:
        yield node["Index Name"].removeprefix("durable_")
    elif node["Node Type"] == "Seq Scan":
        yield f"sequential scan of {node['Relation Name']}"
    for child in node.get("Plans", ()):
        yield from _scans(child)


def main(arguments: list[str]) -> int:
    """Print the table. Return 0, or 2 if ``DATABASE_URL`` is missing."""
    options = _options(arguments)
    if not os.environ.get("DATABASE_URL"):
        print("Set DATABASE_URL, or run this module under python -m tests.services --.")
        return 2
    server = Server(os.environ["DATABASE_URL"])
    if options.keep and server.value(
        "SELECT count(*) FROM pg_database WHERE datname = %s", NAME
    ):
        text = _table(Database(server, NAME), options)
    elif options.keep:
        server.monitor.execute(f"CREATE DATABASE {NAME}")
        text = _table(Database(server, NAME), options)
    else:
        with server.database(NAME) as database:
            text = _table(database, options)
    print(text)
    if options.page:
        _write(Path(options.page), text)
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.screens")
    parser.add_argument(
        "--runs", type=int, default=1_000_000, help="runs in the data set"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=[""],
        help="measure only pages whose name contains one of these",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the database, and use a kept database"
    )
    parser.add_argument("--page", help="write the table to this Markdown file")
    return parser.parse_args(arguments)


def _table(database: Database, options: argparse.Namespace) -> str:
    os.environ["DATABASE_URL"] = database.address
    os.environ["DJANGO_SETTINGS_MODULE"] = (
        "bench.settings"  # these settings read DATABASE_URL
    )
    client = _client(options.runs)
    known = Known.read()
    settings = ", ".join(f"{k} {v}" for k, v in database.server.settings().items())
    lines = [f"{_count():,} runs, cores {os.cpu_count()}, {settings}", "", HEAD]
    for name, ask in questions(client, known):
        if any(part in name for part in options.only):
            row = measure(name, ask).row
            print(row, file=sys.stderr, flush=True)
            lines.append(row)
    _close()
    return "\n".join(lines)


def _client(runs: int) -> Any:
    """Set up Django, fill the database if it is empty, and return a staff client."""
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.test import Client
    from django.test.utils import setup_test_environment

    from bench.screens_data import fill

    setup_test_environment(debug=False)
    call_command("migrate", verbosity=0)
    if not _count():
        fill(runs)
    users = get_user_model()._default_manager
    user, _made = users.get_or_create(
        username="bench", is_staff=True, is_superuser=True
    )
    client = Client()
    client.force_login(user)
    return client


def _count() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM durable_jobs_run")
        return int(cursor.fetchone()[0])


def _value(column: str, key: Any) -> Any:
    from durable_jobs.models import Run

    return Run.objects.values_list(column, flat=True).get(pk=key)


def _run_of_most_steps() -> Any:
    from durable_jobs.models import Step

    rows = Step.objects.filter(position=999)
    return rows.values_list("run_id", flat=True).first()


def _reverse(name: str, *args: str) -> str:
    from django.urls import reverse

    return reverse(f"admin:durable_jobs_{name}", args=args)


def _close() -> None:
    from django.db import connections

    connections.close_all()


def _write(page: Path, text: str) -> None:
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"Expected {BEGIN} followed by {END} in {page}.")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
