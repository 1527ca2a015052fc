"""The admin pages that ``bench.screens`` measures, and the ids in their addresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

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
ACROSS = {
    "action": "cancel_runs",
    "index": "0",
    "select_across": "1",
    "_selected_action": "00000000-0000-0000-0000-000000000000",
}


class _Fields(dict[str, str]):
    def __init__(self, known: Known) -> None:
        super().__init__({name: getattr(known, name) for name in known.__slots__})


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
