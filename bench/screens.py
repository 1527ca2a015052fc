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
from pathlib import Path
from typing import Any

from bench.screens_pages import ACROSS, CONFIRMED, PAGES, Known
from bench.server import Database, Server

NAME = "bench_screens"
CALLS, WARM = 20, 3
#: The markers around the table in a Markdown file.
BEGIN, END = "<!-- pages -->", "<!-- end of pages -->"
#: Milliseconds for the 95th percentile. Slower pages are bold in the table.
BUDGET = 200


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
        yield name, functools.partial(client.post, address(known), ACROSS)


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
