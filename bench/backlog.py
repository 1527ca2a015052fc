"""Fill long queues and explain the frequent queries on them."""

from __future__ import annotations

import cProfile
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext

from durable_jobs import clock, ids
from durable_jobs.definitions.events import CALLED, NewEvent
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.runtime import runtime
from durable_jobs.flow_control import keys
from durable_jobs.lifecycle import admission
from durable_jobs.lifecycle.run_event import build_event_meta
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.models import Backlog, Event, Limit, RateLimitHit, Run, Slot
from durable_jobs.store import backlogs, leases
from durable_jobs.store.postgres import claim

BATCH = 5000
#: Rows that each explained query requests.
FEW = 8
#: Tenants with one run each, next to the hot tenant.
SMALL = 100


def fill(
    function_id: str, count: int, tenant: str | None = None, *, arrived: bool = True
) -> None:
    """Queue ``count`` runs of one tenant, or of a hundred tenants, and analyze.

    With ``arrived``, the runs are in backlogs, as after an admission. Otherwise the
    runs are as their sender wrote them: new, or ready if the function has no limits.
    """
    function = registry.get(function_id)
    now = clock.now()
    made: dict[str, Backlog] = {}
    for first in range(0, count, BATCH):
        rows = []
        for number in range(first, min(first + BATCH, count)):
            name = tenant or f"tenant {number % 100}"
            due = now - timedelta(milliseconds=count - number)
            start = NewRun(
                function=function,
                data=json.dumps({"tenant": name, "n": number}),
                event_meta=build_event_meta(CALLED, now),
                due_at=due,
                id=ids.new_id(),
            )
            run = start.with_flow_control().build_row()
            rows.append(run)
            if not arrived:
                continue
            if name not in made:
                row = keys.build_backlog(run, starting=True, moment=due)
                row.active = True
                made[name] = backlogs.ensure([row])[row.name]
                Backlog.objects.filter(pk=made[name].pk).update(active=True)
            run.backlog = made[name].pk
        Run.objects.bulk_create(rows, batch_size=1000)
    with connection.cursor() as cursor:
        for model in (Run, Backlog):
            cursor.execute(f"ANALYZE {model._meta.db_table}")


def drain(profile: cProfile.Profile | None = None) -> int:
    """Admit, claim and end runs until none is claimed. Return the number of rounds."""
    count = 0
    while True:
        if profile is not None:
            profile.enable()
        admission.admit("default", FEW)
        if profile is not None:
            profile.disable()
        if not end_claimed():
            return count
        count += 1


def end_claimed() -> int:
    """Claim a few runs, end them at once, and return their number."""
    claimed = [run.pk for run in leases.claim("default", FEW, "bench")]
    now = clock.now()
    Run.objects.filter(pk__in=claimed).update(
        status="completed", ended_at=now, lease_token=None
    )
    Slot.objects.filter(run__in=claimed).update(released_at=now)
    return len(claimed)


def until_started(
    function_id: str, event: str, hot: int, *, arrived: bool = True
) -> dict[str, Any]:
    """Return the cost until all small tenants have started next to a hot tenant.

    A few runs are claimed at a time and end before the next claim. Without
    ``arrived``, the runs of the hot tenant are still new to the first admission.
    """
    fill(function_id, hot, tenant="hot", arrived=arrived)
    runtime().send([NewEvent(event, {"tenant": f"small {n}"}) for n in range(SMALL)])
    function = Run.objects.filter(function=function_id, started_at__isnull=True)
    admissions = others = 0
    began = time.monotonic()
    with CaptureQueriesContext(connection) as queries:
        while function.exclude(data__tenant="hot").exists():
            admission.admit("default", FEW)
            others += end_claimed()
            admissions += 1
            assert admissions < 10 * SMALL, "the small tenants starve"
    return {
        "admissions": admissions,
        "started": others,
        "statements": len(queries),
        "seconds": round(time.monotonic() - began, 2),
    }


@contextmanager
def emptied() -> Iterator[None]:
    """Delete all runs, events and backlogs after the block."""
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            names = ", ".join(
                model._meta.db_table
                for model in (Run, Backlog, Slot, Limit, RateLimitHit, Event)
            )
            cursor.execute(f"TRUNCATE {names} CASCADE")


@dataclass
class Plan:
    """The execution plan of a query, with its actual figures."""

    name: str
    expected: set[str]
    tree: dict[str, Any]
    indexes: set[str] = field(default_factory=set)
    scans: list[str] = field(default_factory=list)
    rows: int = 0

    @property
    def buffers(self) -> int:
        """The number of pages that the query read, from memory or from disk."""
        node = self.tree
        return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])

    @property
    def milliseconds(self) -> float:
        """The execution time."""
        return float(self.tree["Actual Total Time"])


def plans() -> Iterator[Plan]:
    """Explain the queries of a claim, of screening and of promotion."""
    now = clock.now()
    backlog = Backlog.objects.order_by("pk").first()
    assert backlog is not None
    yield _plan("claim", {"durable_run_ready"}, *_claim(claim._CLAIM))
    one_per_function = _claim(claim._CLAIM_ONE_PER_FUNCTION, times=3)
    yield _plan(
        "claim of one run per function",
        {"durable_run_ready_function"},
        *one_per_function,
    )
    new_runs = backlogs.awaiting_admission(registry.ids(), now)[:FEW]
    yield _plan("runs awaiting admission", {"durable_run_arrived"}, *_sql(new_runs))
    active = Backlog.objects.filter(queue="default", active=True, eligible_at__lte=now)
    active = active.order_by("eligible_at", "promoted_count", "id")
    index = {"durable_backlog_active"}
    yield _plan("eligible backlogs", index, *_sql(active[:FEW]))
    first_runs = backlogs.waiting(backlog.pk).only(
        "id", "function", "flow", "backlog", "run_order"
    )
    yield _plan(
        "first runs of a backlog", {"durable_run_backlog"}, *_sql(first_runs[:FEW])
    )


def _claim(statement: str, times: int = 1) -> tuple[str, list[Any]]:
    """Return the ``SELECT`` of a claim statement and its values.

    ``times`` is the number of leading parameters that are the queue.
    """
    now = clock.now()
    values = [now, now + timedelta(seconds=600), "default", FEW]
    values = ["default"] * times + values
    head, _, _ = statement.partition("\nUPDATE")
    return f"{head} SELECT * FROM chosen", values  # noqa: S608  # our own statement


def _sql(rows: QuerySet[Any]) -> tuple[str, Any]:
    return rows.query.sql_with_params()


def _plan(name: str, expected: set[str], statement: str, values: Any) -> Plan:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values)
        found = cursor.fetchone()[0]
    root = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    plan = Plan(name, expected, root)
    for node in _nodes(root):
        plan.rows = max(plan.rows, _touched(node))
        if "Index Name" in node:
            plan.indexes.add(node["Index Name"])
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in _LONG:
            plan.scans.append(node["Relation Name"])
    return plan


_LONG = {Run._meta.db_table}


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _touched(node: dict[str, Any]) -> int:
    removed = node.get("Rows Removed by Filter", 0)
    return int((node["Actual Rows"] + removed) * node["Actual Loops"])
