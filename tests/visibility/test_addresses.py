"""No address of the app shows one tenant data of another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client, override_settings

from durable_jobs.admin.runs.model_admin import RunAdmin
from durable_jobs.control.actor import Actor
from durable_jobs.models import Run
from tests.visibility.addresses import (
    API,
    NOT_FOR_VIEWERS,
    is_of_a_tenant,
    names,
    places,
    reversed_,
)
from tests.visibility.conftest import Worlds
from tests.visibility.rules import RULE, of_tenant
from tests.visibility.worlds import World

pytestmark = pytest.mark.django_db

DURABLE_JOBS = {"VISIBLE_RUNS": RULE}
#: Queries that could reveal what the page itself does not show.
QUERIES = {
    "admin:durable_jobs_run_changelist": (
        "q={0}-key",
        "key={0}-key",
        "event={0}-event",
    ),
    "admin:durable_jobs_search": ("q={0}", "q={0}-key", "q={0}-event"),
    "admin:durable_jobs_export": ("format=csv", "format=json"),
    "admin:durable_jobs_event_changelist": ("q={0}-event", "name=tests/placed"),
    "admin:durable_jobs_event_send": ("event={0}-event",),
    "admin:durable_jobs_queues": ("key={0}", "function=tests.limited&key={0}"),
    "admin:durable_jobs_schedule_changelist": ("function=tests.works",),
    "admin:durable_jobs_functions": ("q=tests",),
    f"{API}list_runs": ("key={0}-key", "limit=200", "where=data.secret={0}"),
    f"{API}list_schedules": ("function=tests.works",),
}
#: Pages on which a tenant must find its own data; else the walk proves nothing.
SHOWN = {
    "admin:durable_jobs_approval",
    "admin:durable_jobs_approvals",
    "admin:durable_jobs_event_change",
    "admin:durable_jobs_event_changelist",
    "admin:durable_jobs_export",
    "admin:durable_jobs_function",
    "admin:durable_jobs_limit_change",
    "admin:durable_jobs_limit_changelist",
    "admin:durable_jobs_overview",
    "admin:durable_jobs_run_change",
    "admin:durable_jobs_run_changelist",
    "admin:durable_jobs_run_document",
    "admin:durable_jobs_schedule_change",
    "admin:durable_jobs_schedule_changelist",
    "admin:durable_jobs_search",
    "admin:durable_jobs_step_change",
    "admin:durable_jobs_step_changelist",
    "admin:durable_jobs_sweeperror_change",
    "admin:durable_jobs_sweeperror_changelist",
    "admin:durable_jobs_queues",
    "admin:shop_order_change",
    f"{API}get_run",
    f"{API}get_step",
    f"{API}get_trace",
    f"{API}list_runs",
    f"{API}list_schedules",
}
#: These respond to a missing object as to one that another user has just ended.
AS_GONE = {"admin:durable_jobs_resume"}
BODIES: dict[str, Any] = {
    "act_on_runs": {"action": "cancel", "filter": {"status": "skipped"}},
    "send_events": {"name": "tests/nothing", "data": {}},
    "answer_run": {"step": "x"},
}


def client_of(world: World) -> Client:
    """Return the browser of a tenant's user."""
    found = Client()
    found.force_login(world.fresh())
    return found


def text_of(response: Any) -> str:
    """Return the whole response as text."""
    raw = (
        b"".join(response.streaming_content) if response.streaming else response.content
    )
    return raw.decode(errors="replace") + str(response.get("Location", ""))


def asked(
    client: Client, name: str, parts: set[str], world: World, **headers: str
) -> Iterator[tuple[str, int, str]]:
    """Request an address in all ways; yield the request, the status and the text."""
    for place in places(name, parts, world):
        address = reversed_(name, place)
        queries = [text.format(world.secret) for text in QUERIES.get(name, ())]
        for query in ["", *queries]:
            response = client.get(f"{address}?{query}", headers=headers)
            yield f"GET {address}?{query}", response.status_code, text_of(response)
        body = BODIES.get(name.removeprefix(API), {})
        raw = json.dumps(body) if name.startswith(API) else None
        response = (
            client.post(address, {})
            if raw is None
            else client.post(
                address, raw, content_type="application/json", headers=headers
            )
        )
        yield f"POST {address}", response.status_code, text_of(response)


def walk(client: Client, ours: World, theirs: World, **headers: str) -> set[str]:
    """Request everything; return the names of the addresses that show our own data."""
    shown, found = set(), {}
    chosen = {
        name: parts
        for name, parts in names().items()
        if name not in NOT_FOR_VIEWERS and (not headers or name.startswith(API))
    }
    for name, parts in chosen.items():
        own = is_of_a_tenant(name, parts) and name not in AS_GONE
        for what, status, text in asked(client, name, parts, theirs, **headers):
            if status >= 500 or (own and status not in (403, 404, 405)):
                found[what] = f"{status}"
            traces = [one for one in theirs.traces() if one in text]
            if traces and not _is_echo(what, traces, theirs):
                found[what] = f"{status} {traces}"
    assert found == {}
    for name, parts in chosen.items():
        if name in SHOWN:
            for what, _status, text in asked(client, name, parts, ours, **headers):
                if what.startswith("GET") and any(one in text for one in ours.traces()):
                    shown.add(name)
    return shown


def _is_echo(what: str, traces: list[str], theirs: World) -> bool:
    """Return whether a page shows only the secret word of the request itself."""
    return traces == [theirs.secret] and theirs.secret in what.partition("?")[2]


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_admin_and_api_show_a_session_nothing_of_another_tenant(worlds: Worlds) -> None:
    ours, theirs = worlds
    assert walk(client_of(ours), ours, theirs) == SHOWN
    assert Run.objects.filter(pk__in=[run.pk for run in theirs.runs.values()]).exclude(
        status="cancelled"
    ).count() == len(theirs.runs)


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_api_shows_a_key_nothing_of_another_tenant(worlds: Worlds) -> None:
    ours, theirs = worlds
    shown = walk(Client(), ours, theirs, Authorization=f"Bearer {ours.key_text}")
    assert shown == {name for name in SHOWN if name.startswith(API)}


def test_admin_shows_nothing_that_a_restricted_run_admin_hides(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = worlds
    whole = RunAdmin.get_queryset

    def narrowed(self: Any, request: Any) -> Any:
        who = Actor(request.user)
        return of_tenant(who, whole(self, request))

    monkeypatch.setattr(RunAdmin, "get_queryset", narrowed)
    every = names()
    own = {name: parts for name, parts in every.items() if name.startswith("admin:")}
    monkeypatch.setattr("tests.visibility.test_addresses.names", lambda: own)
    expected = {name for name in SHOWN if not name.startswith(API)}
    assert walk(client_of(ours), ours, theirs) == expected


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_viewer_with_all_permissions_sees_both(worlds: Worlds, root: Actor) -> None:
    client = Client()
    client.force_login(root.user)
    for world in worlds:
        for name, parts in names().items():
            if name not in SHOWN:
                continue
            texts = [text for _what, _s, text in asked(client, name, parts, world)]
            found = any(one in text for one in world.traces() for text in texts)
            assert found, name
